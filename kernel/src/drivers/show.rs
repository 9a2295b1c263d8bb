//! One release, or one request or structure of it.

use std::fmt::Write;

use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::table::{Family, Request};
use nvproxy_abi::{Abi, firmware};
use nvproxy_abi_catalogue::{Class, Control, Count, Field, Ioctl, Privilege, Release, Structure};
use ringfence_sentry::failure::{Attempt, Failure};
use serde::Serialize;

const CONTROL_COMMAND: &str = "control command";
/// What there is to say of a command of the firmware's that a list has, and of one that none has.
const HANDED_ON: &str =
    "the driver's tables do not have it: it hands it to the GPU's firmware as it is";
const BY_RULE: &str = "no list has it: it is passed as one of the firmware's own, but with --firmware-commands listed";

/// How many names an error suggests.
const SUGGESTIONS: usize = 5;

/// A release as a whole.
#[derive(Serialize)]
pub struct Summary {
    version: String,
    structures: usize,
    requests: Vec<Entry>,
}

/// One request of a release.
#[derive(Serialize)]
pub struct Entry {
    /// "ioctl", "control command", "class" or "UVM ioctl".
    kind: &'static str,
    number: u32,
    name: String,
    /// Bytes of its parameters, where they are known.
    size: Option<u32>,
    /// The most that are passed, where they are not and there is a bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<u32>,
    /// The capabilities that allow it; none if nothing does.
    capabilities: Vec<&'static str>,
}

/// What a name means in a release.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    Request {
        #[serde(flatten)]
        entry: Entry,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<Details>,
        /// What there is to say of a request that the driver's own tables do not have.
        #[serde(skip_serializing_if = "Option::is_none")]
        remark: Option<&'static str>,
        parameters: Option<Layout>,
    },
    Structure(Layout),
}

/// What the driver says of a control command or a class.
#[derive(Serialize)]
pub struct Details {
    /// "every program", "administrators" or "the kernel".
    issued_by: Option<&'static str>,
    flags: Vec<String>,
    /// The function or internal class behind it.
    implemented_by: String,
    /// Buffers behind pointers in its parameters, as the driver copies them.
    buffers: Vec<String>,
}

/// A structure.
#[derive(Serialize)]
pub struct Layout {
    name: String,
    size: u32,
    fields: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    name: String,
    offset: u32,
    size: u32,
    #[serde(rename = "type")]
    type_name: String,
}

/// All requests of a release.
pub fn summary(release: &Release) -> Result<Summary, Failure> {
    let lookup = Lookup::new(release)?;
    let ioctls = |kind, family, ioctls: &[std::rc::Rc<Ioctl>]| -> Vec<Entry> {
        let entries = ioctls.iter();
        entries
            .map(|ioctl| lookup.entry(kind, family, ioctl.number, &ioctl.name, None))
            .collect()
    };
    let mut requests = ioctls("ioctl", Family::Frontend, &release.frontend);
    requests.extend(
        release
            .controls
            .iter()
            .map(|control| lookup.control(control)),
    );
    requests.extend(lookup.further(release).map(|row| lookup.further_entry(row)));
    requests.extend(release.classes.iter().map(|class| lookup.class(class)));
    requests.extend(ioctls("UVM ioctl", Family::Uvm, &release.uvm));
    Ok(Summary {
        version: release.version.to_string(),
        structures: release.structures.len(),
        requests,
    })
}

/// What `name` means: a request by name or number, or a structure.
pub fn named(release: &Release, name: &str) -> Result<Named, Failure> {
    let lookup = Lookup::new(release)?;
    let number = number(name);
    let is_meant = |own: Option<&str>, id: u32| own == Some(name) || number == Some(id);
    let controls = release.controls.iter();
    if let Some(control) = controls
        .clone()
        .find(|control| is_meant(control.name.as_deref(), control.id))
    {
        return Ok(Named::Request {
            entry: lookup.control(control),
            details: Some(of_control(control)),
            remark: None,
            parameters: control
                .structure
                .as_deref()
                .and_then(|name| layout(release, name)),
        });
    }
    if let Some(row) = lookup
        .further(release)
        .find(|row| is_meant(Some(row.name), row.id))
    {
        return Ok(Named::Request {
            entry: lookup.further_entry(row),
            details: None,
            remark: Some(match row.structure {
                _ if firmware::is_of_firmware(row.id) => HANDED_ON,
                Some(_) => "the driver's tables do not have it: it converts it to a newer command",
                None => "the driver's published source does not have it",
            }),
            parameters: row.structure.and_then(|name| layout(release, name)),
        });
    }
    if let Some(command) = number
        && let Some(row) = lookup.by_rule(command)
    {
        return Ok(Named::Request {
            entry: Entry {
                kind: CONTROL_COMMAND,
                number: command,
                name: row.name.to_owned(),
                size: None,
                most: Some(Request::MOST),
                capabilities: row.capabilities.names().collect(),
            },
            details: None,
            remark: Some(BY_RULE),
            parameters: None,
        });
    }
    if let Some(class) = release
        .classes
        .iter()
        .find(|class| is_meant(Some(&class.name), class.id))
    {
        return Ok(Named::Request {
            entry: lookup.class(class),
            details: Some(of_class(class)),
            remark: None,
            parameters: class
                .structure
                .as_deref()
                .and_then(|name| layout(release, name)),
        });
    }
    for (kind, family, ioctls) in [
        ("ioctl", Family::Frontend, &release.frontend),
        ("UVM ioctl", Family::Uvm, &release.uvm),
    ] {
        if let Some(ioctl) = ioctls
            .iter()
            .find(|ioctl| is_meant(Some(&ioctl.name), ioctl.number))
        {
            return Ok(Named::Request {
                entry: lookup.entry(kind, family, ioctl.number, &ioctl.name, None),
                details: None,
                remark: None,
                parameters: lookup
                    .row(family, ioctl.number)
                    .and_then(|row| layout(release, row.structure?)),
            });
        }
    }
    layout(release, name)
        .map(Named::Structure)
        .ok_or_else(|| unknown(release, name))
}

/// A release with its tables.
struct Lookup {
    abi: &'static Abi,
}

impl Lookup {
    fn new(release: &Release) -> Result<Lookup, Failure> {
        let granted = Granted {
            capabilities: Capabilities::ALL,
            firmware_commands: FirmwareCommands::All,
        };
        let abi = Abi::of_release(&release.version, granted);
        abi.map(|abi| Lookup { abi }).attempt("the tables")
    }

    /// The row of a request: of an ioctl that takes several structures, the last.
    fn row(&self, family: Family, number: u32) -> Option<&'static Request> {
        self.abi.rows(family).filter(|row| row.id == number).last()
    }

    fn entry(
        &self,
        kind: &'static str,
        family: Family,
        number: u32,
        name: &str,
        size: Option<u32>,
    ) -> Entry {
        let row = self
            .row(family, number)
            .filter(|row| row.reserved.is_none());
        let is_bounded = row.is_some_and(|row| row.size == Request::BOUNDED);
        Entry {
            kind,
            number,
            name: name.to_owned(),
            size: size.or_else(|| row?.only_size()),
            most: is_bounded.then_some(Request::MOST),
            capabilities: row.map_or_else(Vec::new, |row| row.capabilities.names().collect()),
        }
    }

    /// The row of a command that is passed without being in a list.
    fn by_rule(&self, command: u32) -> Option<&'static Request> {
        let row = self.abi.control(command).ok();
        row.filter(|row| firmware::is_by_rule(row))
    }

    /// The control commands that sandboxes are served without an entry in the driver's tables.
    fn further<'a>(
        &self,
        release: &'a Release,
    ) -> impl Iterator<Item = &'static Request> + use<'a> {
        let is_listed =
            |row: &&Request| release.controls.iter().any(|control| control.id == row.id);
        self.abi
            .rows(Family::Control)
            .filter(move |row| !is_listed(row))
    }

    fn further_entry(&self, row: &Request) -> Entry {
        self.entry(CONTROL_COMMAND, Family::Control, row.id, row.name, None)
    }

    fn control(&self, control: &Control) -> Entry {
        let name = control.name.as_deref().unwrap_or(&control.method);
        self.entry(
            CONTROL_COMMAND,
            Family::Control,
            control.id,
            name,
            Some(control.size),
        )
    }

    fn class(&self, class: &Class) -> Entry {
        self.entry(
            "class",
            Family::Alloc,
            class.id,
            &class.name,
            Some(class.size),
        )
    }
}

fn of_control(control: &Control) -> Details {
    let issued_by = match control.privilege() {
        _ if control.is_internal() => "the driver itself",
        Privilege::NonPrivileged => "every program",
        Privilege::Privileged => "administrators",
        Privilege::Kernel => "the kernel",
    };
    let buffers = control.copies.iter().map(|copy| {
        let count = match &copy.count {
            Count::Constant(count) => count.to_string(),
            Count::Field(text) | Count::Other(text) => text.to_string(),
        };
        let direction = match (copy.copied_in, copy.copied_out) {
            (true, false) => "read",
            (false, true) => "written",
            _ => "read and written",
        };
        format!(
            "{}: {count} elements of {} bytes, {direction}",
            copy.pointer, copy.element
        )
    });
    Details {
        issued_by: Some(issued_by),
        flags: control.flags.iter().map(|flag| flag.to_string()).collect(),
        implemented_by: control.method.to_string(),
        buffers: buffers.collect(),
    }
}

fn of_class(class: &Class) -> Details {
    Details {
        issued_by: None,
        flags: class.flags.iter().map(|flag| flag.to_string()).collect(),
        implemented_by: class.internal.to_string(),
        buffers: Vec::new(),
    }
}

fn layout(release: &Release, name: &str) -> Option<Layout> {
    let structure: &Structure = release.structures.get(name)?;
    Some(Layout {
        name: name.to_owned(),
        size: structure.size,
        fields: structure.fields.iter().map(member).collect(),
    })
}

fn member(field: &Field) -> Member {
    Member {
        name: field.path.to_string(),
        offset: field.offset,
        size: field.size,
        type_name: type_text(field),
    }
}

/// A field's type as C would write it.
pub fn type_text(field: &Field) -> String {
    let mut text = field.type_name.to_string();
    if field.elements != 1 {
        let _ = write!(text, "[{}]", field.elements);
    }
    if let Some(bits) = field.bit_field {
        let _ = write!(text, " : {} from bit {}", bits.bits, bits.first);
    }
    text
}

/// A number as headers and logs write it, or in digits alone.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn unknown(release: &Release, name: &str) -> Failure {
    let wanted = name.to_ascii_uppercase();
    let controls = release
        .controls
        .iter()
        .filter_map(|control| control.name.as_deref());
    let classes = release.classes.iter().map(|class| &*class.name);
    let ioctls = release
        .frontend
        .iter()
        .chain(&release.uvm)
        .map(|ioctl| &*ioctl.name);
    let structures = release.structures.keys().map(|name| &**name);
    let known = controls.chain(classes).chain(ioctls).chain(structures);
    let near: Vec<&str> = known
        .filter(|known| !wanted.is_empty() && known.to_ascii_uppercase().contains(&wanted))
        .take(SUGGESTIONS)
        .collect();
    let hint = if number(name).is_some() {
        "a program that asks for it is refused".to_owned()
    } else if near.is_empty() {
        format!(
            "ringfence drivers show {} lists its requests",
            release.version
        )
    } else {
        format!("it has {}", near.join(", "))
    };
    Failure::setup(format!(
        "driver {} has no request or structure '{name:.80}': {hint}",
        release.version
    ))
}

/// The release as text.
pub fn summary_text(summary: &Summary) -> String {
    let allowed = summary
        .requests
        .iter()
        .filter(|entry| !entry.capabilities.is_empty())
        .count();
    let mut text = format!(
        "{}: {} requests, {allowed} of which some capability allows; {} structures\n\n",
        summary.version,
        summary.requests.len(),
        summary.structures
    );
    for entry in &summary.requests {
        let _ = writeln!(text, "{}", entry_text(entry));
    }
    text
}

fn entry_text(entry: &Entry) -> String {
    let size = entry.size.map_or("?".to_owned(), |size| size.to_string());
    let allowed = match entry.capabilities.as_slice() {
        [] => "no capability".to_owned(),
        capabilities => capabilities.join(","),
    };
    format!(
        "{:<15}  {:#010x}  {size:>6}  {}  {allowed}",
        entry.kind, entry.number, entry.name
    )
}

/// A request or a structure as text.
pub fn named_text(named: &Named) -> String {
    match named {
        Named::Structure(layout) => layout_text(layout),
        Named::Request {
            entry,
            details,
            remark,
            parameters,
        } => {
            let size = match (entry.size, entry.most) {
                (Some(size), _) => format!("{size} bytes"),
                (None, Some(most)) => format!("at most {most} bytes"),
                (None, None) => "any size".to_owned(),
            };
            let mut text = format!(
                "{} {:#x} {}: parameters of {size}\n",
                entry.kind, entry.number, entry.name
            );
            let allowed = if entry.capabilities.is_empty() {
                "none".to_owned()
            } else {
                entry.capabilities.join(", ")
            };
            let _ = writeln!(text, "capabilities that allow it: {allowed}");
            if let Some(details) = details {
                if let Some(issued_by) = details.issued_by {
                    let _ = writeln!(text, "the driver leaves it to: {issued_by}");
                }
                let _ = writeln!(text, "flags: {}", details.flags.join(", "));
                let _ = writeln!(text, "implemented by: {}", details.implemented_by);
                for buffer in &details.buffers {
                    let _ = writeln!(text, "buffer behind {buffer}");
                }
            }
            if let Some(remark) = remark {
                let _ = writeln!(text, "{remark}");
            }
            if let Some(layout) = parameters {
                let _ = write!(text, "\n{}", layout_text(layout));
            }
            text
        }
    }
}

fn layout_text(layout: &Layout) -> String {
    let mut text = format!("{}: {} bytes\n", layout.name, layout.size);
    let width = layout
        .fields
        .iter()
        .map(|field| field.name.len())
        .max()
        .unwrap_or(0);
    for Member {
        name,
        offset,
        size,
        type_name,
    } in &layout.fields
    {
        let _ = writeln!(
            text,
            "  {offset:>6}  {size:>6}  {name:<width$}  {type_name}"
        );
    }
    text
}
