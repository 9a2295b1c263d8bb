//! By what command words the driver of some release reads anything: what the tasks' filter must stop.
//!
//! The driver looks at the number and the size in a word (`nvidia_ioctl`, kernel-open/nvidia/nv.c), UVM at the whole of it
//! (`uvm_ioctl`, kernel-open/nvidia-uvm/uvm.c). One filter is for all releases: a word that one release reads is stopped
//! under every other, too.

use std::collections::{BTreeMap, BTreeSet};

use nvproxy_abi_catalogue::{Catalogue, Release};

use crate::rows::Words;
use crate::rules::{Intercepted, Rule, Rules};

/// Where the size lies in a command word (`_IOC_SIZESHIFT`, asm-generic/ioctl.h).
const SIZE_SHIFT: u32 = 16;
/// The largest size that a command word can say (`_IOC_SIZEBITS`).
const MAXIMUM_SIZE: u32 = (1 << 14) - 1;

/// The words of all releases; or everything that is wrong.
pub(crate) fn words(catalogue: &Catalogue, rules: &Rules) -> Result<Words, Vec<String>> {
    let known: BTreeMap<&str, Known<'_>> = rules
        .frontend
        .iter()
        .map(|rule| (rule.name.as_str(), Known::of_rule(rule)))
        .chain(
            rules
                .intercepted
                .iter()
                .map(|entry| (entry.name.as_str(), Known::of_entry(entry))),
        )
        .collect();
    let mut words = Words::default();
    let mut errors = BTreeSet::new();
    for release in &catalogue.releases {
        for ioctl in &release.frontend {
            let Some(known) = known.get(&*ioctl.name) else {
                errors.insert(format!(
                    "nothing says by which sizes the driver reads {}",
                    ioctl.name
                ));
                continue;
            };
            match known {
                Known::Unread => {}
                Known::AnySize => {
                    words.any_size.insert(ioctl.number);
                }
                Known::Structures(structures) => {
                    let sizes = sizes(release, structures);
                    let sized = sizes.map(|size| size << SIZE_SHIFT | ioctl.number);
                    words.sized.extend(sized);
                }
            }
        }
        words
            .uvm
            .extend(release.uvm.iter().map(|ioctl| ioctl.number));
    }
    let names: BTreeSet<&str> = catalogue
        .releases
        .iter()
        .flat_map(|release| release.frontend.iter().map(|ioctl| &*ioctl.name))
        .collect();
    for entry in &rules.intercepted {
        errors.extend(mistake(entry, &names, catalogue));
    }
    words
        .sized
        .retain(|word| !words.any_size.contains(&(word & 0xff)));
    if errors.is_empty() {
        Ok(words)
    } else {
        Err(errors.into_iter().collect())
    }
}

/// What is known of the sizes by which an ioctl is read.
enum Known<'a> {
    Structures(&'a [String]),
    AnySize,
    Unread,
}

impl<'a> Known<'a> {
    fn of_rule(rule: &'a Rule) -> Known<'a> {
        match rule.any_size {
            true => Known::AnySize,
            false => Known::Structures(&rule.structures),
        }
    }

    fn of_entry(entry: &'a Intercepted) -> Known<'a> {
        match entry {
            Intercepted { any_size: true, .. } => Known::AnySize,
            Intercepted { unread: true, .. } => Known::Unread,
            Intercepted { structures, .. } => Known::Structures(structures),
        }
    }
}

/// The sizes that a word can say, of those structures that the release has.
fn sizes<'a>(release: &'a Release, structures: &'a [String]) -> impl Iterator<Item = u32> + 'a {
    structures
        .iter()
        .filter_map(|name| Some(release.structures.get(name.as_str())?.size))
        .filter(|size| *size <= MAXIMUM_SIZE)
}

/// What is wrong with an entry.
fn mistake(entry: &Intercepted, names: &BTreeSet<&str>, catalogue: &Catalogue) -> Option<String> {
    let Intercepted {
        name,
        structures,
        any_size,
        unread,
        ..
    } = entry;
    if !names.contains(name.as_str()) {
        return Some(format!("{name} is intercepted, and no release knows it"));
    }
    let said = [!structures.is_empty(), *any_size, *unread];
    if said.iter().filter(|said| **said).count() != 1 {
        return Some(format!(
            "of {name} exactly one of structures, any_size and unread is to be said"
        ));
    }
    let missing = structures.iter().find(|structure| {
        let mut releases = catalogue.releases.iter();
        !releases.any(|release| release.structures.contains_key(structure.as_str()))
    })?;
    Some(format!("{name} takes {missing}, which no release has"))
}
