//! The tables as Rust source, for `nvproxy-abi` to include. Lists that are equal are written once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_effects::{Array, Effect, Number, Offsets, Rewrite};

use crate::families::ByFamily;
use crate::rows::{
    ArrayPlace, Cleared, ClientField, Contents, Descriptor, Extent, GpuField, GpuList, Length,
    Naming, Otherwise, Passed, Place, Places, Pointer, Reserved, Role, Row, Size, Tables, Values,
    Words,
};

/// Rust source that defines `ROWS`, `RELEASES`, `NAMES`, `PUBLISHED` and the lists of words. It expects the names of `nvproxy_abi::table`,
/// `Capabilities`, `status`, `Release` and `Names` to be in scope.
pub fn render(tables: &Tables) -> String {
    let mut source =
        String::from("// Written by the build script; see the crate nvproxy-abi-derivation.\n");
    let mut lists: HashMap<&[u16], String> = HashMap::new();
    for release in &tables.releases {
        for list in families(&release.rows) {
            if !lists.contains_key(list.as_slice()) {
                let name = format!("LIST_{}", lists.len());
                line(&mut source, &format!("static {name}: &[u16] = &{list:?};"));
                lists.insert(list, name);
            }
        }
    }
    line(&mut source, "pub(crate) static RELEASES: &[Release] = &[");
    for release in &tables.releases {
        let [frontend, control, class, uvm] =
            families(&release.rows).map(|list| &lists[list.as_slice()]);
        let version = version(&release.version);
        line(
            &mut source,
            &format!(
                "    Release {{ version: {version}, frontend: {frontend}, control: {control}, class: {class}, uvm: {uvm} }},"
            ),
        );
    }
    line(&mut source, "];");
    line(&mut source, "pub(crate) static ROWS: &[Request] = &[");
    for row in &tables.rows {
        line(&mut source, &format!("    {},", request(row)));
    }
    line(&mut source, "];");
    line(&mut source, "pub(crate) static NAMES: Names = Names {");
    let ByFamily {
        frontend,
        control,
        class,
        uvm,
    } = &tables.names;
    for (family, names) in [
        ("frontend", frontend),
        ("control", control),
        ("class", class),
        ("uvm", uvm),
    ] {
        line(&mut source, &format!("    {family}: &{names:?},"));
    }
    line(&mut source, "};");
    let published: Vec<u32> = tables.published.iter().copied().collect();
    line(
        &mut source,
        &format!("pub(crate) static PUBLISHED: &[u32] = &{published:?};"),
    );
    let Words {
        sized,
        any_size,
        uvm,
    } = &tables.words;
    for (name, words) in [("SIZED", sized), ("ANY_SIZE", any_size), ("UVM", uvm)] {
        let words: Vec<u32> = words.iter().copied().collect();
        line(
            &mut source,
            &format!("pub(crate) static {name}_WORDS: &[u32] = &{words:?};"),
        );
    }
    source
}

/// Rust source that defines the names of `Capabilities`, by their bits, and a constant for each.
pub fn capabilities(names: &[&str], adds_to: &[u8]) -> String {
    let mut source = format!(
        "const NAMES: [&str; {count}] = {names:?};\nconst ADDS_TO: [u8; {count}] = {adds_to:?};\nimpl Capabilities {{\n",
        count = names.len()
    );
    for (bit, name) in names.iter().enumerate() {
        let constant = name.to_uppercase().replace('-', "_");
        line(&mut source, &format!("    /// `{name}`"));
        let value = format!("Capabilities(1 << {bit})");
        line(
            &mut source,
            &format!("    pub const {constant}: Capabilities = {value};"),
        );
    }
    line(&mut source, "}");
    source
}

fn line(source: &mut String, text: &str) {
    source.push_str(text);
    source.push('\n');
}

fn families<T>(families: &ByFamily<T>) -> [&T; 4] {
    [
        &families.frontend,
        &families.control,
        &families.class,
        &families.uvm,
    ]
}

fn version(version: &DriverVersion) -> String {
    let patch = version
        .patch()
        .map_or("None".to_owned(), |patch| format!("Some({patch})"));
    format!(
        "DriverVersion::new({}, {}, {patch})",
        version.branch(),
        version.minor()
    )
}

fn request(row: &Row) -> String {
    let mut text = format!("Request {{ id: {:#x}, name: {:?}, ", row.id, row.name);
    let size = match row.size {
        Size::Exactly(size) => size.to_string(),
        Size::Bounded => "Request::BOUNDED".to_owned(),
        Size::Any => "Request::ANY".to_owned(),
    };
    let pointers: Vec<String> = row.pointers.iter().map(pointer).collect();
    let descriptors: Vec<String> = row.descriptors.iter().map(descriptor).collect();
    let status = optional(row.status.as_ref().map(|place| place.at.to_string()));
    let forced_bits = row.forced_bits.as_ref();
    let forced_bits = optional(forced_bits.map(|(place, bits)| {
        let (at, set, cleared) = (place.at, bits.set, bits.cleared);
        format!("({at}, ForcedBits {{ set: {set:#x}, cleared: {cleared:#x} }})")
    }));
    let variants = optional(row.variants.as_ref().map(|(place, rows)| {
        let rows: Vec<String> = rows.iter().map(request).collect();
        format!(
            "Variants {{ at: {}, rows: &[{}] }}",
            place.at,
            rows.join(", ")
        )
    }));
    let refused = optional(row.refused_flags.as_ref().map(|flags| {
        let (at, bits, status) = (flags.place.at, flags.bits, &flags.status);
        format!("RefusedFlags {{ at: {at}, bits: {bits:#x}, status: status::{status} }}")
    }));
    let structure = optional(row.structure.as_ref().map(|name| format!("{name:?}")));
    let reserved = optional(row.reserved.map(|reserved| {
        let reserved = match reserved {
            Reserved::Privileged => "Privileged",
            Reserved::Internal => "Internal",
        };
        format!("Reserved::{reserved}")
    }));
    let clients: Vec<String> = row.clients.iter().map(client).collect();
    let effect = optional(row.effect.as_ref().map(effect));
    let memory_list = optional(row.memory_list.as_ref().map(|list| {
        let (at, behind, count) = (list.place.at, list.behind, list.count.at);
        format!("MemoryList {{ at: {at}, behind: {behind}, count_at: {count} }}")
    }));
    let capabilities: u8 = row
        .capabilities
        .iter()
        .map(|capability| 1 << capability.0)
        .sum();
    let (may_block, pins, makes_event) = (row.may_block, row.pins, row.makes_event);
    let answered = row.answered;
    let gpus: Vec<String> = row.gpus.iter().map(gpu).collect();
    let passed: Vec<String> = row.passed.iter().map(passed).collect();
    let gpu_lists: Vec<String> = row.gpu_lists.iter().map(gpu_list).collect();
    let cleared: Vec<String> = row.cleared.iter().map(cleared).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "structure: {structure}, size: {size}, pointers: &[{}], descriptors: &[{}], status_at: {status}, \
         traits: Traits {{ may_block: {may_block}, pins: {pins}, makes_event: {makes_event}, forced_bits: {forced_bits}, answered: {answered} }}, \
         variants: {variants}, refused_flags: {refused}, capabilities: Capabilities::from_bits({capabilities:#b}), \
         reserved: {reserved}, clients: &[{}], effect: {effect}, memory_list: {memory_list}, \
         gpus: &[{}], passed: &[{}], gpu_lists: &[{}], cleared: &[{}] }}",
        pointers.join(", "),
        descriptors.join(", "),
        clients.join(", "),
        gpus.join(", "),
        passed.join(", "),
        gpu_lists.join(", "),
        cleared.join(", "),
    );
    text
}

fn optional(value: Option<String>) -> String {
    value.map_or("None".to_owned(), |value| format!("Some({value})"))
}

fn pointer(pointer: &Pointer) -> String {
    let length = match &pointer.length {
        Length::Fixed(bytes) => format!("Length::Fixed({bytes})"),
        Length::Field { count, scale } => {
            format!("Length::Field {{ at: {}, scale: {scale} }}", count.at)
        }
        Length::Square { side, scale } => {
            format!("Length::Square {{ at: {}, scale: {scale} }}", side.at)
        }
        Length::OfContents => "Length::OfContents".to_owned(),
    };
    let contents = match &pointer.contents {
        Contents::Bytes => "Contents::Bytes".to_owned(),
        Contents::Control { command } => {
            format!("Contents::Control {{ command_at: {} }}", command.at)
        }
        Contents::Class { class } => format!("Contents::Class {{ class_at: {} }}", class.at),
    };
    format!(
        "Pointer {{ at: {}, length: {length}, contents: {contents} }}",
        pointer.place.at
    )
}

fn descriptor(descriptor: &Descriptor) -> String {
    let role = match descriptor.role {
        Role::Command => "Command",
        Role::Held => "Held",
        Role::Result => "Result",
    };
    format!(
        "Descriptor {{ at: {}, role: Role::{role} }}",
        descriptor.place.at
    )
}

fn gpu(gpu: &GpuField) -> String {
    let naming = match &gpu.naming {
        Naming::Id => "Id".to_owned(),
        Naming::Uuid => "Uuid".to_owned(),
        Naming::Counted { most, count } => {
            format!("Counted {{ most: {most}, count_at: {} }}", count.at)
        }
        Naming::Until { most, end, unused } => {
            format!("Until {{ most: {most}, end: {end:#x}, unused: {unused:?} }}")
        }
        Naming::Rest { unused } => format!("Rest {{ unused: {unused:#x} }}"),
    };
    let absent = optional(gpu.absent.as_ref().map(|name| format!("status::{name}")));
    let at = gpu.place.at;
    format!("GpuField {{ at: {at}, naming: Naming::{naming}, absent: {absent} }}")
}

fn passed(passed: &Passed) -> String {
    let Passed {
        place: Place { path, at },
        width,
        of_clients,
        values,
        otherwise,
    } = passed;
    let values = match values {
        Values::OneOf(values) => format!("OneOf(&{values:?})"),
        Values::AtLeast(least) => format!("AtLeast({least})"),
        Values::AtMost(most) => format!("AtMost({most})"),
    };
    let otherwise = match otherwise {
        Otherwise::Refused(status) => format!("Refused(status::{status})"),
        Otherwise::Instead(value) => format!("Instead({value})"),
    };
    format!(
        "Passed {{ field: {path:?}, at: {at}, width: {width}, of_clients: {of_clients}, values: Values::{values}, otherwise: Otherwise::{otherwise} }}"
    )
}

fn gpu_list(list: &GpuList) -> String {
    let most = list
        .most
        .map_or("GpuList::REST".to_owned(), |most| most.to_string());
    let count = list.count.as_ref().map(|place| place.at);
    format!(
        "GpuList {{ at: {}, stride: {}, most: {most}, id_at: {}, fill: {}, count_at: {count:?} }}",
        list.place.at, list.stride, list.id, list.fill
    )
}

fn cleared(cleared: &Cleared) -> String {
    let Cleared {
        place,
        length,
        stride,
        count,
        fill,
    } = cleared;
    format!(
        "Cleared {{ at: {}, length: {length}, stride: {stride}, count: {count}, fill: {fill} }}",
        place.at
    )
}

fn client(client: &ClientField) -> String {
    let extent = match &client.extent {
        Extent::One => "Extent::One".to_owned(),
        Extent::Array { most, count } => {
            format!("Extent::Array {{ most: {most}, count_at: {} }}", count.at)
        }
        Extent::Behind => "Extent::Behind".to_owned(),
    };
    let (at, absent) = (client.place.at, &client.absent);
    let (whose, is_filled_in) = (client.whose, client.is_filled_in);
    format!(
        "ClientField {{ at: {at}, extent: {extent}, absent: status::{absent}, whose: Whose::{whose:?}, is_filled_in: {is_filled_in} }}"
    )
}

/// What is derived for an effect is written in Rust as it is shown to programmers.
fn effect(effect: &Effect<Places>) -> String {
    let Ok(effect) = effect.rewrite(&mut ToOffsets);
    format!("Effect::{effect:?}")
}

struct ToOffsets;

impl Rewrite<'_, Places, Offsets> for ToOffsets {
    type Error = Infallible;

    fn field<T: Number>(&mut self, place: &Place) -> Result<u16, Infallible> {
        Ok(place.at)
    }

    fn array<T: Number>(&mut self, array: &ArrayPlace) -> Result<Array, Infallible> {
        Ok(Array {
            at: array.place.at,
            stride: array.stride,
            most: array.most,
        })
    }
}
