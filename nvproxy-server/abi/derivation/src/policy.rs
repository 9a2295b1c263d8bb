//! What each capability allows: one file each, in `nvproxy-server/abi/policy/`, that names requests by symbol.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::families::ByFamily;

/// What a sandbox can be given, as `NVIDIA_DRIVER_CAPABILITIES` names it, by the number in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(transparent)]
pub struct Capability(pub u8);

/// How many there can be: a set of them has a bit for each.
pub const MAXIMUM_CAPABILITIES: usize = 8;

/// One capability's list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Its place in the order in which capabilities are named.
    pub number: Capability,
    /// The capabilities of which a sandbox needs one besides. If there are none, this one is enough alone.
    pub adds_to: Vec<String>,
    /// NV_ESC_*
    pub frontend: Vec<String>,
    /// The header's names of control commands.
    pub control: Vec<String>,
    /// The header's names of classes.
    pub class: Vec<String>,
    /// UVM_*
    pub uvm: Vec<String>,
    pub unlisted: Vec<Unlisted>,
}

/// A control command for which the driver's public source has no entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlisted {
    pub command: u32,
    /// Bytes of its parameters, as recorded. What the driver hands to the GPU's firmware may have any size, so that it need
    /// not be known of that.
    pub size: Option<u32>,
    /// The workload for which it is on the list.
    pub needed_by: String,
}

/// Reads one capability's file.
pub fn parse(text: &str) -> Result<List, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

/// The capabilities' names in their order.
pub fn in_order(lists: &BTreeMap<String, List>) -> Result<Vec<&str>, String> {
    let mut numbered: Vec<(Capability, &str)> = lists
        .iter()
        .map(|(name, list)| (list.number, name.as_str()))
        .collect();
    numbered.sort_unstable();
    let numbers = numbered.iter().map(|(Capability(number), _)| *number);
    if numbered.len() <= MAXIMUM_CAPABILITIES && numbers.eq(0..numbered.len() as u8) {
        return Ok(numbered.into_iter().map(|(_, name)| name).collect());
    }
    let each = numbered
        .iter()
        .map(|(Capability(number), name)| format!("{name} = {number}"));
    let each: Vec<String> = each.collect();
    Err(format!(
        "the numbers are not those from 0 on, each once, below {MAXIMUM_CAPABILITIES}: {}",
        each.join(", ")
    ))
}

/// What each capability, in their order, adds to: a bit for each of these.
pub fn foundations(lists: &BTreeMap<String, List>, names: &[&str]) -> Result<Vec<u8>, String> {
    let bit = |wanted: &String| {
        let place = names.iter().position(|name| name == wanted);
        // Otherwise it would be asked for what does not suffice either.
        let is_enough = lists
            .get(wanted)
            .is_some_and(|list| list.adds_to.is_empty());
        let place = place.filter(|_| is_enough);
        place.ok_or_else(|| {
            format!("adds_to names '{wanted}', which is no capability that is enough alone")
        })
    };
    let of = |name: &&str| {
        let mut needed = lists.get(*name).into_iter().flat_map(|list| &list.adds_to);
        needed.try_fold(0, |bits, wanted| Ok(bits | 1 << bit(wanted)?))
    };
    names.iter().map(of).collect()
}

/// What the policy allows: each request with the capabilities that allow it.
pub(crate) struct Allowed<'a> {
    pub(crate) names: ByFamily<BTreeMap<&'a str, Vec<Capability>>>,
    /// By command: the size of its parameters, as recorded.
    pub(crate) unlisted: BTreeMap<u32, (Option<u32>, Vec<Capability>)>,
}

impl<'a> Allowed<'a> {
    pub(crate) fn new(policies: &'a [List]) -> Allowed<'a> {
        let mut names: ByFamily<BTreeMap<&str, Vec<Capability>>> = ByFamily::default();
        let mut unlisted: BTreeMap<u32, (Option<u32>, Vec<Capability>)> = BTreeMap::new();
        let mut sorted: Vec<_> = policies.iter().collect();
        sorted.sort_by_key(|list| list.number);
        for list in sorted {
            let capability = list.number;
            for (family, listed) in [
                (&mut names.frontend, &list.frontend),
                (&mut names.control, &list.control),
                (&mut names.class, &list.class),
                (&mut names.uvm, &list.uvm),
            ] {
                for name in listed {
                    let capabilities = family.entry(name.as_str()).or_default();
                    if !capabilities.contains(&capability) {
                        capabilities.push(capability);
                    }
                }
            }
            for command in &list.unlisted {
                let entry = unlisted
                    .entry(command.command)
                    .or_insert((command.size, Vec::new()));
                entry.1.push(capability);
            }
        }
        Allowed { names, unlisted }
    }

    /// Every name in the lists.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        let ByFamily {
            frontend,
            control,
            class,
            uvm,
        } = &self.names;
        [frontend, control, class, uvm]
            .into_iter()
            .flat_map(|family| family.keys().copied())
    }
}
