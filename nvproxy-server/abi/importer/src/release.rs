//! One release: everything that is known of it, put together.
//!
//! The parts that are text are read first. They say which constants and types are needed; the compiler is then asked
//! for all of them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_catalogue::{Class, Control, Copy, Count, Ioctl, Release};

use crate::classes::{ListedClass, listed_classes};
use crate::compiler::{Compiler, enumerator, is_interface_header};
use crate::copies::{Case, CaseCopy, cases};
use crate::error::Error;
use crate::exports::{Export, exports};
use crate::layout::Layout;
use crate::names::command_names;
use crate::source::Tree;

const CONTROL_FLAGS: &str = "src/nvidia/inc/kernel/rmapi/control.h";
const CONTROL_FLAG: &str = "RMCTRL_FLAGS_";

/// Commands whose nested buffers a function of its own copies. They need a reviewed rule; see [`crate::copies`].
const REVIEWED: [&str; 1] = ["NV402C_CTRL_CMD_I2C_TRANSACTION"];

/// A release, and what a person should look at.
#[derive(Debug)]
pub struct Imported {
    pub release: Release,
    /// Commands that `embeddedParamCopyIn` knows without any buffer that was found.
    pub cases_without_copies: Vec<String>,
    /// Commands that `embeddedParamCopyIn` knows but that the driver does not export, so that no request reaches them.
    pub cases_not_exported: Vec<String>,
}

/// Derives a release from its source.
pub fn import(tree: &Tree, version: DriverVersion) -> Result<Imported, Error> {
    let compiler = Compiler::new(tree)?;
    let text = Text {
        exports: exports(tree)?,
        names: command_names(tree)?,
        classes: listed_classes(&compiler)?,
        cases: cases(&compiler)?,
        flags: compiler.macros_of_file(CONTROL_FLAGS)?,
        requests: compiler.macros()?,
    };
    let expressions = text.expressions();
    let debug_information = compiler.debug_information(&text.flag_definitions(), &expressions)?;
    let assembly = Assembly {
        layout: Layout::read(&debug_information)?,
        expressions: expressions.into_iter().zip(0..).collect(),
    };
    let controls = assembly.controls(&text)?;
    let classes = assembly.classes(&text.classes)?;
    let parameters = controls
        .iter()
        .filter_map(|control| control.structure.as_deref())
        .chain(
            classes
                .iter()
                .filter_map(|class| class.structure.as_deref()),
        );
    let mut imported = Imported {
        release: Release {
            version,
            frontend: assembly.ioctls(text.frontend())?,
            uvm: assembly.ioctls(text.uvm())?,
            structures: assembly
                .layout
                .structures(parameters, is_interface_header)?,
            controls: Vec::new(),
            classes,
        },
        cases_without_copies: Vec::new(),
        cases_not_exported: Vec::new(),
    };
    let mut controls = controls
        .into_iter()
        .map(|control| (control.id, control))
        .collect();
    assembly.copies(&mut controls, &text.cases, &mut imported)?;
    imported.release.controls = controls.into_values().map(Rc::new).collect();
    Ok(imported)
}

/// What was read as text.
struct Text {
    exports: BTreeMap<u32, Export>,
    names: BTreeMap<u32, String>,
    classes: Vec<ListedClass>,
    cases: Vec<Case>,
    /// The macros of `control.h`, with their text.
    flags: BTreeMap<String, String>,
    /// The macros of the headers, with their text.
    requests: BTreeMap<String, String>,
}

impl Text {
    /// The escapes.
    fn frontend(&self) -> impl Iterator<Item = &str> {
        let names = self.requests.keys().map(String::as_str);
        names.filter(|name| name.starts_with("NV_ESC_"))
    }

    /// The requests of UVM: those made by `UVM_IOCTL_BASE`, and the two of `uvm_linux_ioctl.h`, which are apart from
    /// them so as to be the same on every system.
    fn uvm(&self) -> impl Iterator<Item = &str> {
        let requests = self.requests.iter().filter(|(name, text)| {
            name.starts_with("UVM_")
                && (text.starts_with("UVM_IOCTL_BASE(") || text.starts_with("0x3000000"))
        });
        requests.map(|(name, _)| name.as_str())
    }

    fn flags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.flags
            .iter()
            .filter(|(name, _)| name.starts_with(CONTROL_FLAG))
            .map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The flags' macros, for the compiler to know them.
    fn flag_definitions(&self) -> String {
        self.flags()
            .fold(String::new(), |definitions, (name, text)| {
                definitions + &format!("#define {name} {text}\n")
            })
    }

    /// Every expression whose value the compiler is to tell.
    fn expressions(&self) -> BTreeSet<String> {
        let mut expressions: BTreeSet<String> = BTreeSet::new();
        expressions.extend(self.frontend().chain(self.uvm()).map(str::to_owned));
        expressions.extend(self.flags().map(|(name, _)| name.to_owned()));
        for export in self.exports.values() {
            expressions.extend(export.parameters.as_deref().map(size_of));
            expressions.extend(self.names.get(&export.id).cloned());
        }
        for class in &self.classes {
            expressions.insert(class.name.clone());
            expressions.extend(class.parameters.as_ref().map(|(name, _)| size_of(name)));
        }
        for case in &self.cases {
            expressions.extend(case.commands.iter().cloned());
            expressions.extend(case.copies.iter().map(|copy| copy.element.clone()));
        }
        expressions
    }
}

fn size_of(type_name: &str) -> String {
    format!("sizeof({type_name})")
}

/// The text together with what the compiler said.
struct Assembly {
    layout: Layout,
    /// The place of each expression among those asked for.
    expressions: BTreeMap<String, usize>,
}

impl Assembly {
    fn value(&self, expression: &str) -> Result<u32, Error> {
        let index = self.expressions.get(expression);
        index
            .and_then(|index| self.layout.enumerator(&enumerator(*index)))
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| Error::new(format!("{expression} has no value of 32 bits")))
    }

    fn ioctls<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<Rc<Ioctl>>, Error> {
        let mut ioctls = names
            .map(|name| {
                Ok(Rc::new(Ioctl {
                    number: self.value(name)?,
                    name: name.into(),
                }))
            })
            .collect::<Result<Vec<Rc<Ioctl>>, Error>>()?;
        ioctls.sort();
        Ok(ioctls)
    }

    fn controls(&self, text: &Text) -> Result<Vec<Control>, Error> {
        let flags = text
            .flags()
            .map(|(name, _)| Ok((self.value(name)?, &name[CONTROL_FLAG.len()..])))
            .collect::<Result<Vec<(u32, &str)>, Error>>()?;
        let exports = text.exports.values();
        exports
            .map(|export| self.control(export, text, &flags))
            .collect()
    }

    fn control(
        &self,
        export: &Export,
        text: &Text,
        flags: &[(u32, &str)],
    ) -> Result<Control, Error> {
        let name = text.names.get(&export.id);
        if let Some(name) = name
            && self.value(name)? != export.id
        {
            return Err(Error::new(format!(
                "the headers' text has {name} as {:#x}, but to the compiler it is {:#x}",
                export.id,
                self.value(name)?
            )));
        }
        let size = match &export.parameters {
            Some(parameters) => self.value(&size_of(parameters))?,
            None => 0,
        };
        Ok(Control {
            id: export.id,
            name: name.map(|name| name.as_str().into()),
            method: export.method.as_str().into(),
            structure: export.parameters.as_deref().map(Rc::from),
            size,
            flags: flag_names(export.flags, flags),
            access_rights: export.access_rights,
            copies: Vec::new(),
        })
    }

    fn classes(&self, listed: &[ListedClass]) -> Result<Vec<Rc<Class>>, Error> {
        let mut classes: BTreeMap<u32, Rc<Class>> = BTreeMap::new();
        for class in listed {
            let id = self.value(&class.name)?;
            let parameters = class.parameters.as_ref();
            let class = Class {
                id,
                name: class.name.as_str().into(),
                internal: class.internal.as_str().into(),
                structure: parameters.map(|(name, _)| name.as_str().into()),
                size: match parameters {
                    Some((name, _)) => self.value(&size_of(name))?,
                    None => 0,
                },
                required: parameters.is_some_and(|(_, required)| *required),
                flags: class
                    .flags
                    .iter()
                    .map(|flag| flag.as_str().into())
                    .collect(),
                access: class.access.as_str().into(),
            };
            if let Some(other) = classes.insert(id, Rc::new(class)) {
                return Err(Error::new(format!(
                    "two classes of resource_list.h have the number {id:#x}; one is {}",
                    other.name
                )));
            }
        }
        Ok(classes.into_values().collect())
    }

    /// Gives the commands the nested buffers that the switch has for them.
    fn copies(
        &self,
        controls: &mut BTreeMap<u32, Control>,
        cases: &[Case],
        imported: &mut Imported,
    ) -> Result<(), Error> {
        for case in cases {
            for command in &case.commands {
                if case.copies.is_empty() && !REVIEWED.contains(&command.as_str()) {
                    imported.cases_without_copies.push(command.clone());
                }
                let Some(control) = controls.get_mut(&self.value(command)?) else {
                    imported.cases_not_exported.push(command.clone());
                    continue;
                };
                let copies = case.copies.iter();
                control.copies = copies
                    .map(|copy| self.copy(copy, control, &imported.release))
                    .collect::<Result<Vec<Copy>, Error>>()
                    .map_err(|error| error.within(command))?;
            }
        }
        Ok(())
    }

    fn copy(&self, copy: &CaseCopy, control: &Control, release: &Release) -> Result<Copy, Error> {
        let structure = control.structure.as_deref().unwrap_or_default();
        if release.locate(structure, &copy.pointer).is_none() {
            return Err(Error::new(format!(
                "{structure} has no member {}, which embeddedParamCopyIn follows",
                copy.pointer
            )));
        }
        let count = match integer(&copy.count) {
            Some(count) => Count::Constant(count),
            None if release.locate(structure, &copy.count).is_some() => {
                Count::Field(copy.count.as_str().into())
            }
            None => Count::Other(copy.count.as_str().into()),
        };
        Ok(Copy {
            pointer: copy.pointer.as_str().into(),
            count,
            element: self.value(&copy.element)?,
            copied_in: copy.copied_in,
            copied_out: copy.copied_out,
        })
    }
}

/// The names of the bits that are set, sorted. A bit without a name is told by its value.
fn flag_names(bits: u32, flags: &[(u32, &str)]) -> Vec<Rc<str>> {
    let mut names: Vec<Rc<str>> = Vec::new();
    for bit in (0..u32::BITS).map(|shift| 1 << shift) {
        if bits & bit == 0 {
            continue;
        }
        let named = flags.iter().filter(|(value, _)| *value == bit);
        let before = names.len();
        names.extend(named.map(|(_, name)| Rc::from(*name)));
        if names.len() == before {
            names.push(format!("{bit:#x}").into());
        }
    }
    names.sort();
    names
}

fn integer(text: &str) -> Option<u32> {
    let text = text.trim_end_matches(['u', 'U']);
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named() {
        let flags = [(0, "NONE"), (1, "A"), (2, "C"), (2, "B"), (3, "A_AND_B")];
        let names = |bits| flag_names(bits, &flags).join(" ");
        assert_eq!(names(0), "");
        assert_eq!(names(3), "A B C");
        assert_eq!(names(0x8000_0001), "0x80000000 A");
    }

    #[test]
    fn integers_are_told_from_fields() {
        assert_eq!(integer("1"), Some(1));
        assert_eq!(integer("0x10U"), Some(16));
        assert_eq!(integer("count"), None);
        assert_eq!(integer("1*2"), None);
    }
}
