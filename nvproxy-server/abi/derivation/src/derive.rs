//! The derivation itself.
//!
//! Requests are found by name in each release. A name that a release does not have is no error, since releases come and
//! go; a name that no release has is one. Errors are collected, so that whoever edits a list sees all of them at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_catalogue::{Catalogue, Class, Control, Privilege, Release};

use crate::effects;
use crate::families::ByFamily;
use crate::parameters::Parameters;
use crate::policy::{Allowed, Capability, List};
use crate::rows::{ReleaseTables, Reserved, Row, Size, Tables, Words};
use crate::rules::{Blocking, Rule, Rules};
use crate::tenants;
use crate::unlisted;
use crate::words::words;

/// Makes the tables, or says everything that is wrong.
pub fn derive(
    catalogue: &Catalogue,
    rules: &Rules,
    policies: &[List],
) -> Result<Tables, Vec<String>> {
    let mut derivation = Derivation {
        rules: ByFamily {
            frontend: by_name(&rules.frontend),
            control: by_name(&rules.control),
            class: by_name(&rules.class),
            uvm: by_name(&rules.uvm),
        },
        blocking: &rules.blocking,
        used: HashSet::new(),
        placed: HashSet::new(),
        errors: BTreeMap::new(),
        pool: Pool::default(),
    };
    let allowed = Allowed::new(policies);
    let mut found = HashSet::new();
    let releases = catalogue
        .releases
        .iter()
        .map(|release| derivation.release(release, &allowed, &mut found))
        .collect();
    for name in allowed.names() {
        if !found.contains(name) {
            let error = format!("the policy names {name}, which no release knows");
            derivation.errors.insert(error, Vec::new());
        }
    }
    for rule in [&rules.frontend, &rules.control, &rules.class, &rules.uvm]
        .into_iter()
        .flatten()
    {
        if !derivation.used.contains(rule.name.as_str()) {
            let error = format!("the rule for {} is used by no release", rule.name);
            derivation.errors.insert(error, Vec::new());
        }
        for (name, field) in rule.fields() {
            if !derivation.placed.contains(&(name, field)) {
                let error = format!("the rule for {name} is about {field}, which no release has");
                derivation.errors.insert(error, Vec::new());
            }
        }
    }
    let words = words(catalogue, rules).unwrap_or_else(|errors| {
        let errors = errors.into_iter().map(|error| (error, Vec::new()));
        derivation.errors.extend(errors);
        Words::default()
    });
    if !derivation.errors.is_empty() {
        return Err(derivation.errors.into_iter().map(describe).collect());
    }
    Ok(Tables {
        words,
        names: names(catalogue, &derivation.pool.rows),
        published: unlisted::published(catalogue),
        rows: derivation.pool.rows,
        releases,
    })
}

/// An error in a sentence.
fn describe((error, releases): (String, Vec<DriverVersion>)) -> String {
    match releases.as_slice() {
        [] => error,
        [only] => format!("{error} (driver {only})"),
        [first, .., last] => {
            let count = releases.len();
            format!("{error} ({count} drivers from {first} to {last})")
        }
    }
}

fn by_name(rules: &[Rule]) -> HashMap<&str, &Rule> {
    rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule))
        .collect()
}

/// Every distinct row, once.
#[derive(Default)]
struct Pool {
    rows: Vec<Row>,
    index: HashMap<Row, u16>,
}

impl Pool {
    fn add(&mut self, row: Row) -> u16 {
        if let Some(index) = self.index.get(&row) {
            return *index;
        }
        let index = u16::try_from(self.rows.len()).expect("fewer than 65,536 distinct rows");
        self.rows.push(row.clone());
        self.index.insert(row, index);
        index
    }
}

pub(crate) struct Derivation<'a> {
    rules: ByFamily<HashMap<&'a str, &'a Rule>>,
    /// Requests that can take long.
    blocking: &'a Blocking,
    /// Names of the rules that were applied.
    used: HashSet<&'a str>,
    /// Names of rules, each with a field of theirs that some release has.
    pub(crate) placed: HashSet<(&'a str, &'a str)>,
    /// What is wrong, and in which releases; in none, if it is so in general.
    errors: BTreeMap<String, Vec<DriverVersion>>,
    pool: Pool,
}

impl<'a> Derivation<'a> {
    /// The rows of one release. Names that it knows are added to `found`.
    fn release<'b>(
        &mut self,
        release: &Release,
        allowed: &Allowed<'b>,
        found: &mut HashSet<&'b str>,
    ) -> ReleaseTables {
        let mut rows: ByFamily<Vec<Row>> = ByFamily::default();
        for (name, capabilities) in &allowed.names.frontend {
            let derived = self.frontend(release, name);
            note(name, capabilities, derived, &mut rows.frontend, found);
        }
        let controls = Controls::new(release);
        for (name, capabilities) in &allowed.names.control {
            let derived = self.control(release, &controls, name);
            note(name, capabilities, derived, &mut rows.control, found);
        }
        for (command, (recorded, capabilities)) in &allowed.unlisted {
            // Where the release has an entry after all, that has to be allowed by its name.
            if controls.by_id.contains_key(command) {
                continue;
            }
            rows.control.push(Row {
                capabilities: capabilities.clone(),
                ..unlisted::row(release, *command, recorded)
            });
        }
        for (name, capabilities) in &allowed.names.class {
            let derived = self.class(release, name);
            note(name, capabilities, derived, &mut rows.class, found);
        }
        for (name, capabilities) in &allowed.names.uvm {
            let derived = self.uvm(release, name);
            note(name, capabilities, derived, &mut rows.uvm, found);
        }
        ReleaseTables {
            version: release.version,
            rows: ByFamily {
                frontend: self.finish(release, rows.frontend),
                control: self.finish(release, rows.control),
                class: self.finish(release, rows.class),
                uvm: self.finish(release, rows.uvm),
            },
        }
    }

    /// Sorts the rows of a family and puts them into the pool.
    fn finish(&mut self, release: &Release, mut rows: Vec<Row>) -> Vec<u16> {
        rows.sort_by_key(|row| (row.id, row.size));
        for pair in rows.windows(2) {
            if let [first, second] = pair
                && (first.id, first.size) == (second.id, second.size)
            {
                let message = format!("has the number of {} too", second.name);
                self.error(release, &first.name, &message);
            }
        }
        rows.into_iter().map(|row| self.pool.add(row)).collect()
    }

    fn frontend(&mut self, release: &Release, name: &str) -> Vec<Row> {
        let Some(ioctl) = release.frontend.iter().find(|ioctl| &*ioctl.name == name) else {
            return Vec::new();
        };
        let Some(rule) = self.rules.frontend.get(name).copied() else {
            self.error(
                release,
                name,
                "needs a rule that says which structure it takes",
            );
            return Vec::new();
        };
        self.used.insert(rule.name.as_str());
        let base = Row {
            id: ioctl.number,
            name: name.to_owned(),
            may_block: contains(&self.blocking.frontend, name),
            ..Row::default()
        };
        if rule.structures.is_empty() {
            return vec![self.without_structure(release, base, rule)];
        }
        let mut rows = Vec::new();
        for structure in &rule.structures {
            let parameters = Parameters { release, structure };
            if let Some(size) = parameters.size() {
                let mut row = base.clone();
                row.size = match rule.any_size {
                    true => Size::Any,
                    false => Size::Exactly(size),
                };
                row.status = parameters.status().filter(|_| !rule.without_status);
                self.fill(&mut row, parameters, Some(rule), &[]);
                rows.push(row);
            }
        }
        rows
    }

    fn control(&mut self, release: &Release, controls: &Controls<'_>, name: &str) -> Vec<Row> {
        let rule = self.rules.control.get(name).copied();
        let entry = controls.by_name.get(name).copied();
        let base = Row {
            name: name.to_owned(),
            may_block: contains(&self.blocking.control, name),
            ..Row::default()
        };
        if let Some(entry) = entry {
            let mut row = Row {
                id: entry.id,
                reserved: reserved_control(entry),
                ..base
            };
            row.size = Size::Exactly(entry.size);
            if let Some(structure) = &entry.structure {
                let parameters = Parameters { release, structure };
                self.fill(&mut row, parameters, rule, &entry.copies);
            } else {
                self.fill_without_structure(&mut row, release, rule);
            }
            self.mark_used(rule);
            return vec![row];
        }
        // A command that the driver answers without having an entry for it.
        let Some(rule) = rule else { return Vec::new() };
        let Some(command) = rule.command else {
            return Vec::new();
        };
        if controls.by_id.contains_key(&command) {
            self.error(
                release,
                name,
                "has a rule with a number that this release's tables give to another command",
            );
        }
        let mut row = Row {
            id: command,
            ..base
        };
        match rule.structures.first() {
            None => vec![self.without_structure(release, row, rule)],
            Some(structure) => {
                let parameters = Parameters { release, structure };
                let Some(size) = parameters.size() else {
                    return Vec::new();
                };
                row.size = Size::Exactly(size);
                self.fill(&mut row, parameters, Some(rule), &[]);
                self.mark_used(Some(rule));
                vec![row]
            }
        }
    }

    fn class(&mut self, release: &Release, name: &str) -> Vec<Row> {
        let Some(class) = release.classes.iter().find(|class| &*class.name == name) else {
            return Vec::new();
        };
        let rule = self.rules.class.get(name).copied();
        let mut row = Row {
            id: class.id,
            name: name.to_owned(),
            size: Size::Exactly(class.size),
            may_block: contains(&self.blocking.class, name),
            reserved: reserved_class(class),
            ..Row::default()
        };
        match &class.structure {
            Some(structure) => self.fill(&mut row, Parameters { release, structure }, rule, &[]),
            None => self.fill_without_structure(&mut row, release, rule),
        }
        self.mark_used(rule);
        vec![row]
    }

    fn uvm(&mut self, release: &Release, name: &str) -> Vec<Row> {
        let Some(ioctl) = release.uvm.iter().find(|ioctl| &*ioctl.name == name) else {
            return Vec::new();
        };
        let rule = self.rules.uvm.get(name).copied();
        let structure = format!("{name}_PARAMS");
        let parameters = Parameters {
            release,
            structure: &structure,
        };
        let mut row = Row {
            id: ioctl.number,
            name: name.to_owned(),
            may_block: contains(&self.blocking.uvm, name),
            ..Row::default()
        };
        match parameters.size() {
            Some(size) => {
                row.size = Size::Exactly(size);
                row.status = parameters.status();
                self.fill(&mut row, parameters, rule, &[]);
                self.mark_used(rule);
            }
            None if rule.is_some_and(|rule| rule.structures.is_empty()) => {
                row.size = Size::Exactly(0);
                self.fill_without_structure(&mut row, release, rule);
                self.mark_used(rule);
            }
            None => self.error(
                release,
                name,
                "has no structure of its name, and no rule says that it takes none",
            ),
        }
        vec![row]
    }

    /// A row for a request whose parameters nothing is looked for in.
    fn without_structure(&mut self, release: &Release, mut row: Row, rule: &'a Rule) -> Row {
        if !rule.any_size {
            self.error(
                release,
                &row.name,
                "has a rule with neither a structure nor any_size",
            );
        }
        self.fill_without_structure(&mut row, release, Some(rule));
        let size = |structure: &str| Some(release.structures.get(structure)?.size);
        let id = |structure: &str, field: &str| Some(release.locate(structure, field)?.offset);
        match tenants::whole(size, id, rule) {
            Ok((gpus, lists)) => (row.gpus, row.gpu_lists) = (gpus, lists),
            Err(problem) => self.error(release, &row.name, &problem),
        }
        self.mark_used(Some(rule));
        row.size = Size::Any;
        row
    }

    /// What a rule says becomes of objects, of a request whose parameters have no structure.
    fn fill_without_structure(&mut self, row: &mut Row, release: &Release, rule: Option<&'a Rule>) {
        let effect = rule.and_then(|rule| rule.effect.as_ref());
        row.answered |= rule.is_some_and(|rule| rule.answered);
        match effect.map(effects::without_structure).transpose() {
            Ok(effect) => row.effect = effect,
            Err(problem) => self.error(release, &row.name, &problem),
        }
    }

    fn mark_used(&mut self, rule: Option<&'a Rule>) {
        if let Some(rule) = rule {
            self.used.insert(rule.name.as_str());
        }
    }

    pub(crate) fn error(&mut self, release: &Release, name: &str, problem: &str) {
        let releases = self.errors.entry(format!("{name}: {problem}")).or_default();
        if releases.last() != Some(&release.version) {
            releases.push(release.version);
        }
    }
}

/// Adds the rows of one name, and notes that a release knows it.
fn note<'b>(
    name: &'b str,
    capabilities: &[Capability],
    derived: Vec<Row>,
    rows: &mut Vec<Row>,
    found: &mut HashSet<&'b str>,
) {
    if !derived.is_empty() {
        found.insert(name);
    }
    rows.extend(derived.into_iter().map(|row| Row {
        capabilities: capabilities.to_vec(),
        ..row
    }));
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|listed| listed == name)
}

/// A release's control commands, by number and by name. One that no header names goes by the name of its function.
struct Controls<'a> {
    by_id: HashMap<u32, &'a Rc<Control>>,
    by_name: HashMap<&'a str, &'a Rc<Control>>,
}

impl<'a> Controls<'a> {
    fn new(release: &'a Release) -> Controls<'a> {
        let controls = &release.controls;
        Controls {
            by_id: controls
                .iter()
                .map(|control| (control.id, control))
                .collect(),
            by_name: controls
                .iter()
                .map(|control| (control.name.as_deref().unwrap_or(&control.method), control))
                .collect(),
        }
    }
}

/// For whom the driver reserves a control command (`rmControlValidateClientPrivilegeAccess` and
/// `serverControl_ValidateCookie`, src/nvidia/src/kernel/rmapi/control.c, 580.142).
fn reserved_control(control: &Control) -> Option<Reserved> {
    if control.is_internal() {
        return Some(Reserved::Internal);
    }
    match control.privilege() {
        Privilege::NonPrivileged => None,
        Privilege::Privileged | Privilege::Kernel => Some(Reserved::Privileged),
    }
}

/// For whom the driver reserves a class (`_serverAllocValidatePrivilege`, src/nvidia/src/kernel/rmapi/alloc_free.c,
/// 580.142). Releases before that check exists mark no class.
fn reserved_class(class: &Class) -> Option<Reserved> {
    let reserved = ["ALLOC_PRIVILEGED", "ALLOC_KERNEL_PRIVILEGED"];
    class
        .flags
        .iter()
        .any(|flag| reserved.contains(&&**flag))
        .then_some(Reserved::Privileged)
}

/// What the latest release that has it calls each request.
fn names(catalogue: &Catalogue, rows: &[Row]) -> ByFamily<Vec<(u32, String)>> {
    let mut named: ByFamily<BTreeMap<u32, &str>> = ByFamily::default();
    for release in &catalogue.releases {
        named.frontend.extend(
            release
                .frontend
                .iter()
                .map(|ioctl| (ioctl.number, &*ioctl.name)),
        );
        named
            .uvm
            .extend(release.uvm.iter().map(|ioctl| (ioctl.number, &*ioctl.name)));
        named
            .class
            .extend(release.classes.iter().map(|class| (class.id, &*class.name)));
        let controls = release.controls.iter();
        named
            .control
            .extend(controls.filter_map(|control| Some((control.id, control.name.as_deref()?))));
    }
    let in_rows: HashSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let listed = |names: BTreeMap<u32, &str>| {
        let unnamed = names
            .into_iter()
            .filter(|(_, name)| !in_rows.contains(name));
        unnamed.map(|(id, name)| (id, name.to_owned())).collect()
    };
    ByFamily {
        frontend: listed(named.frontend),
        control: listed(named.control),
        class: listed(named.class),
        uvm: listed(named.uvm),
    }
}
