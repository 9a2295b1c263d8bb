//! What changed from one release to another: requests that came, went or changed, and structures whose layout did.

use std::collections::BTreeMap;
use std::fmt::Write;

use nvproxy_abi_catalogue::{Class, Control, Field, Ioctl, Release, Structure};
use serde::Serialize;

use super::show::type_text;

/// Everything that differs.
#[derive(Serialize)]
pub struct Differences {
    from: String,
    to: String,
    requests: Vec<Change>,
    structures: Vec<Change>,
}

/// One thing that differs.
#[derive(Serialize)]
struct Change {
    /// "ioctl", "control command", "class", "UVM ioctl" or "structure".
    kind: &'static str,
    name: String,
    /// "added", "removed" or "changed".
    change: &'static str,
    /// What about it changed, a line each.
    details: Vec<String>,
}

/// Compares two releases.
pub fn between(from: &Release, to: &Release) -> Differences {
    let mut requests = Vec::new();
    compare(
        "ioctl",
        ioctls(&from.frontend),
        ioctls(&to.frontend),
        of_ioctl,
        &mut requests,
    );
    compare(
        "control command",
        controls(from),
        controls(to),
        of_control,
        &mut requests,
    );
    compare("class", classes(from), classes(to), of_class, &mut requests);
    compare(
        "UVM ioctl",
        ioctls(&from.uvm),
        ioctls(&to.uvm),
        of_ioctl,
        &mut requests,
    );
    let mut structures = Vec::new();
    compare(
        "structure",
        layouts(from),
        layouts(to),
        of_structure,
        &mut structures,
    );
    Differences {
        from: from.version.to_string(),
        to: to.version.to_string(),
        requests,
        structures,
    }
}

type ByName<'a, T> = BTreeMap<String, &'a T>;

fn ioctls(ioctls: &[std::rc::Rc<Ioctl>]) -> ByName<'_, Ioctl> {
    ioctls
        .iter()
        .map(|ioctl| (ioctl.name.to_string(), &**ioctl))
        .collect()
}

fn controls(release: &Release) -> ByName<'_, Control> {
    let name = |control: &Control| match &control.name {
        Some(name) => name.to_string(),
        None => format!("{:#010x} ({})", control.id, control.method),
    };
    release
        .controls
        .iter()
        .map(|control| (name(control), &**control))
        .collect()
}

fn classes(release: &Release) -> ByName<'_, Class> {
    release
        .classes
        .iter()
        .map(|class| (class.name.to_string(), &**class))
        .collect()
}

fn layouts(release: &Release) -> ByName<'_, Structure> {
    let structures = release.structures.iter();
    structures
        .map(|(name, structure)| (name.to_string(), &**structure))
        .collect()
}

fn compare<T: PartialEq>(
    kind: &'static str,
    from: ByName<'_, T>,
    to: ByName<'_, T>,
    details: fn(&T, &T) -> Vec<String>,
    changes: &mut Vec<Change>,
) {
    let mut note = |name: &str, change, details| {
        let name = name.to_owned();
        changes.push(Change {
            kind,
            name,
            change,
            details,
        });
    };
    for (name, old) in &from {
        match to.get(name) {
            None => note(name, "removed", Vec::new()),
            Some(new) if new != old => note(name, "changed", details(old, new)),
            Some(_) => {}
        }
    }
    for name in to.keys().filter(|name| !from.contains_key(*name)) {
        note(name, "added", Vec::new());
    }
}

/// A line for one property, if it changed.
fn property<T: PartialEq + std::fmt::Display>(what: &str, old: &T, new: &T) -> Option<String> {
    (old != new).then(|| format!("{what}: {old} -> {new}"))
}

fn hexadecimal(what: &str, old: u32, new: u32) -> Option<String> {
    property(what, &format!("{old:#x}"), &format!("{new:#x}"))
}

fn flags(old: &[std::rc::Rc<str>], new: &[std::rc::Rc<str>]) -> Option<String> {
    let gone = old
        .iter()
        .filter(|flag| !new.contains(flag))
        .map(|flag| format!("-{flag}"));
    let come = new
        .iter()
        .filter(|flag| !old.contains(flag))
        .map(|flag| format!("+{flag}"));
    let changed: Vec<String> = gone.chain(come).collect();
    (!changed.is_empty()).then(|| format!("flags: {}", changed.join(" ")))
}

fn name(structure: &Option<std::rc::Rc<str>>) -> String {
    structure.as_deref().unwrap_or("none").to_owned()
}

fn of_ioctl(old: &Ioctl, new: &Ioctl) -> Vec<String> {
    hexadecimal("number", old.number, new.number)
        .into_iter()
        .collect()
}

fn of_control(old: &Control, new: &Control) -> Vec<String> {
    let copies = (old.copies != new.copies).then(|| "other nested buffers".to_owned());
    [
        hexadecimal("number", old.id, new.id),
        property("parameters", &name(&old.structure), &name(&new.structure)),
        property("bytes", &old.size, &new.size),
        flags(&old.flags, &new.flags),
        hexadecimal("access rights", old.access_rights, new.access_rights),
        property("implemented by", &old.method, &new.method),
        copies,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_class(old: &Class, new: &Class) -> Vec<String> {
    [
        hexadecimal("number", old.id, new.id),
        property("parameters", &name(&old.structure), &name(&new.structure)),
        property("bytes", &old.size, &new.size),
        property("parameters required", &old.required, &new.required),
        flags(&old.flags, &new.flags),
        property("access", &old.access, &new.access),
        property("implemented by", &old.internal, &new.internal),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_structure(old: &Structure, new: &Structure) -> Vec<String> {
    let mut lines: Vec<String> = property("bytes", &old.size, &new.size)
        .into_iter()
        .collect();
    let place = |field: &Field| {
        format!(
            "at {}, {} bytes, {}",
            field.offset,
            field.size,
            type_text(field)
        )
    };
    for field in &old.fields {
        match new.field(&field.path) {
            None => lines.push(format!("- {} ({})", field.path, place(field))),
            Some(now) if now != field => {
                lines.push(format!(
                    "~ {} ({} -> {})",
                    field.path,
                    place(field),
                    place(now)
                ));
            }
            Some(_) => {}
        }
    }
    for field in new
        .fields
        .iter()
        .filter(|field| old.field(&field.path).is_none())
    {
        lines.push(format!("+ {} ({})", field.path, place(field)));
    }
    if lines.is_empty() {
        lines.push("the order of its fields".to_owned());
    }
    lines
}

/// The differences as text.
pub fn text(differences: &Differences) -> String {
    let Differences {
        from,
        to,
        requests,
        structures,
    } = differences;
    let mut text = format!("{from} -> {to}\n");
    for (title, changes) in [("requests", requests), ("structures", structures)] {
        let _ = writeln!(text, "\n{title}: {}", count(changes));
        for Change {
            kind,
            name,
            change,
            details,
        } in changes
        {
            let mark = match *change {
                "added" => '+',
                "removed" => '-',
                _ => '~',
            };
            let _ = writeln!(text, "  {mark} {kind} {name}");
            for detail in details {
                let _ = writeln!(text, "      {detail}");
            }
        }
    }
    text
}

fn count(changes: &[Change]) -> String {
    let of = |change| {
        changes
            .iter()
            .filter(|candidate| candidate.change == change)
            .count()
    };
    format!(
        "{} added, {} removed, {} changed",
        of("added"),
        of("removed"),
        of("changed")
    )
}
