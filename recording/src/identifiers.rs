//! Where the driver tells, or is told, what identifies a machine: UUIDs, serial numbers, numbers burnt into a chip,
//! PCI addresses, and the ids of GPUs, which are made from these.
//!
//! The rows are data. Offsets and sizes are those of release 580.142's headers (src/common/sdk/nvidia/inc/ctrl, for
//! NV_ESC_CARD_INFO src/nvidia/arch/nvalloc/unix/include/nv-ioctl.h, for UVM kernel-open/nvidia-uvm/uvm_ioctl.h), and tests
//! compare them with every other release's. Commands that only the GPU's firmware knows, which no header describes, have
//! none.

use crate::layout::{Layout, field};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 16 bytes, or text as in "GPU-5a3e0000-…": which of them, its content tells.
    Uuid,
    /// Text, filled up with zeros.
    Serial,
    /// A GPU's id: 16 bits of the PCI domain, 8 of the bus, 8 of the slot (gpuGenerate32BitId, gpu.c).
    GpuId,
    /// Parts of a PCI address.
    Domain,
    Bus,
    Slot,
    /// 4 bytes of a number that is burnt into one chip.
    Chip,
}

/// A field of a request's parameters, or several at equal distances.
struct Field {
    /// NVIDIA's name for the request.
    request: &'static str,
    /// Which part of the payload: 0 for the ioctl's argument, 1 for parameters that it points to, 2 for what these do.
    part: usize,
    at: usize,
    length: usize,
    kind: Kind,
    /// How many there are at most, and how far each is from the one before.
    times: usize,
    apart: usize,
}

/// A list of pairs of a number that says what follows, and the value, of 4 bytes each.
struct Pairs {
    request: &'static str,
    part: usize,
    at: usize,
    /// The numbers that announce an identifier.
    indices: &'static [(u32, Kind)],
}

/// NV2080_CTRL_GPU_INFO_INDEX_ECID_{LO32,HI32,EXTENDED} (ctrl2080gpu.h), and two without a public name, which
/// nvidia-smi -q asks for where it prints the GPU's PDI.
const GPU_INFORMATION: [(u32, Kind); 5] = [
    (0x01, Kind::Chip),
    (0x02, Kind::Chip),
    (0x1b, Kind::Chip),
    (0x23, Kind::Chip),
    (0x24, Kind::Chip),
];

/// NV2080_CTRL_BUS_INFO_INDEX_{BUS,DEVICE,DOMAIN}_NUMBER (ctrl2080bus.h).
const BUS_INFORMATION: [(u32, Kind); 3] =
    [(0x0f, Kind::Bus), (0x10, Kind::Slot), (0x2c, Kind::Domain)];

const fn argument(request: &'static str, at: usize, length: usize, kind: Kind) -> Field {
    Field {
        request,
        part: 0,
        at,
        length,
        kind,
        times: 1,
        apart: 0,
    }
}

const fn parameter(request: &'static str, at: usize, length: usize, kind: Kind) -> Field {
    Field {
        part: 1,
        ..argument(request, at, length, kind)
    }
}

impl Field {
    const fn each(mut self, times: usize, apart: usize) -> Field {
        self.times = times;
        self.apart = apart;
        self
    }
}

/// How many entries an argument of any size has at most.
const MANY: usize = 256;
static FIELDS: &[Field] = &[
    argument("NV_ESC_CARD_INFO", 4, 4, Kind::Domain).each(MANY, 72),
    argument("NV_ESC_CARD_INFO", 8, 1, Kind::Bus).each(MANY, 72),
    argument("NV_ESC_CARD_INFO", 9, 1, Kind::Slot).each(MANY, 72),
    argument("NV_ESC_CARD_INFO", 16, 4, Kind::GpuId).each(MANY, 72),
    argument("NV_ESC_ATTACH_GPUS_TO_FD", 0, 4, Kind::GpuId).each(MANY, 4),
    parameter("NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS", 0, 4, Kind::GpuId).each(32, 4),
    parameter("NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_V2", 0, 4, Kind::GpuId).each(32, 4),
    // Two lists of 8.
    parameter(
        "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_MATRIX",
        8,
        4,
        Kind::GpuId,
    )
    .each(16, 4),
    parameter("NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS", 0, 4, Kind::GpuId).each(32, 4),
    parameter("NV0000_CTRL_CMD_GPU_GET_ID_INFO", 0, 4, Kind::GpuId),
    // boardId: the id of the GPU or of the bridge before it (gpu_mgr.c).
    parameter("NV0000_CTRL_CMD_GPU_GET_ID_INFO", 28, 4, Kind::GpuId),
    parameter("NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2", 0, 4, Kind::GpuId),
    parameter("NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2", 20, 4, Kind::GpuId),
    // Those that were found, and those that were left out.
    parameter("NV0000_CTRL_CMD_GPU_GET_PROBED_IDS", 0, 4, Kind::GpuId).each(64, 4),
    // The last is failedId.
    parameter("NV0000_CTRL_CMD_GPU_ATTACH_IDS", 0, 4, Kind::GpuId).each(33, 4),
    parameter("NV0000_CTRL_CMD_GPU_DETACH_IDS", 0, 4, Kind::GpuId).each(32, 4),
    parameter("NV0000_CTRL_CMD_GPU_GET_PCI_INFO", 0, 4, Kind::GpuId),
    parameter("NV0000_CTRL_CMD_GPU_GET_PCI_INFO", 4, 4, Kind::Domain),
    parameter("NV0000_CTRL_CMD_GPU_GET_PCI_INFO", 8, 2, Kind::Bus),
    parameter("NV0000_CTRL_CMD_GPU_GET_PCI_INFO", 10, 2, Kind::Slot),
    parameter("NV0000_CTRL_CMD_GPU_GET_UUID_INFO", 0, 256, Kind::Uuid),
    parameter("NV0000_CTRL_CMD_GPU_GET_UUID_INFO", 260, 4, Kind::GpuId),
    parameter(
        "NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID",
        0,
        4,
        Kind::GpuId,
    ),
    parameter(
        "NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID",
        8,
        256,
        Kind::Uuid,
    ),
    parameter("NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE", 0, 4, Kind::GpuId),
    parameter(
        "NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS",
        4,
        4,
        Kind::GpuId,
    )
    .each(256, 12),
    parameter("NV0000_CTRL_CMD_GPU_ASYNC_ATTACH_ID", 0, 4, Kind::GpuId),
    parameter("NV0000_CTRL_CMD_GPU_WAIT_ATTACH_ID", 0, 4, Kind::GpuId),
    parameter(
        "NV0000_CTRL_CMD_GPUACCT_GET_ACCOUNTING_STATE",
        0,
        4,
        Kind::GpuId,
    ),
    parameter(
        "NV2080_CTRL_CMD_GPU_GET_OEM_BOARD_INFO",
        28,
        16,
        Kind::Serial,
    ),
    parameter("NV2080_CTRL_CMD_GPU_GET_ID", 0, 4, Kind::GpuId),
    parameter("NV2080_CTRL_CMD_GPU_GET_GID_INFO", 12, 256, Kind::Uuid),
    parameter(
        "NV2080_CTRL_CMD_GET_GPU_FABRIC_PROBE_INFO",
        8,
        16,
        Kind::Uuid,
    ),
    // ibGuid and rackGuid.
    parameter(
        "NV2080_CTRL_CMD_NVLINK_GET_PLATFORM_INFO",
        0,
        16,
        Kind::Uuid,
    )
    .each(2, 16),
    // A GPU has to be registered before any other of UVM's requests can name it.
    argument("UVM_REGISTER_GPU", 0, 16, Kind::Uuid),
    argument("UVM_UNREGISTER_GPU", 0, 16, Kind::Uuid),
];

static PAIRS: &[Pairs] = &[
    Pairs {
        request: "NV2080_CTRL_CMD_BUS_GET_INFO",
        part: 2,
        at: 0,
        indices: &BUS_INFORMATION,
    },
    Pairs {
        request: "NV2080_CTRL_CMD_BUS_GET_INFO_V2",
        part: 1,
        at: 4,
        indices: &BUS_INFORMATION,
    },
    Pairs {
        request: "NV2080_CTRL_CMD_GPU_GET_INFO_V2",
        part: 1,
        at: 4,
        indices: &GPU_INFORMATION,
    },
];

/// What NV2080_CTRL_CMD_NVLINK_GET_NVLINK_STATUS tells of the devices at either end of each link. Its layout has
/// changed several times, and each time its size.
struct Links {
    /// Bytes of the parameters.
    size: usize,
    /// Where the first link is, and how many bytes each has.
    first: usize,
    apart: usize,
    /// Where the far and the near end's device is, within a link.
    ends: [usize; 2],
}

const NVLINK_STATUS: &str = "NV2080_CTRL_CMD_NVLINK_GET_NVLINK_STATUS";

/// From 515, 555, 570, 580 and 590 on.
static LINKS: &[Links] = &[
    links(5896, 8, 184, [88, 136]),
    links(6152, 8, 192, [96, 144]),
    links(13320, 8, 208, [96, 152]),
    links(13344, 32, 208, [96, 152]),
    links(13864, 32, 216, [96, 152]),
];

const fn links(size: usize, first: usize, apart: usize, ends: [usize; 2]) -> Links {
    Links {
        size,
        first,
        apart,
        ends,
    }
}

/// Offset and length of fields of NV2080_CTRL_NVLINK_DEVICE_INFO.
const DEVICE: [(usize, usize, Kind); 4] = [
    (4, 4, Kind::Domain),
    (8, 2, Kind::Bus),
    (10, 2, Kind::Slot),
    (32, 16, Kind::Uuid),
];

impl Links {
    /// The places in parameters that start at `start`.
    fn places(&'static self, start: usize) -> impl Iterator<Item = Place> {
        let count = (self.size - self.first) / self.apart;
        let links = (0..count).map(move |link| self.first + link * self.apart);
        let devices = links.flat_map(move |link| self.ends.map(|end| start + link + end));
        devices.flat_map(|device| {
            DEVICE.map(|(at, length, kind)| Place {
                at: device + at,
                length,
                kind,
            })
        })
    }
}

/// A field of a payload that holds an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: usize,
    pub length: usize,
    pub kind: Kind,
}

/// The fields of a payload that hold identifiers, all of them inside it.
pub fn places(layout: &Layout, payload: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let part = |part: usize| {
        let segment = layout.segments.get(part)?;
        let start = segment.offset as usize;
        let end = start + segment.length as usize;
        (end <= payload.len()).then_some((start, end))
    };
    for row in FIELDS.iter().filter(|row| row.request == layout.name) {
        let Some((start, end)) = part(row.part) else {
            continue;
        };
        let starts = (0..row.times).map(|time| start + row.at + time * row.apart);
        let inside = starts.take_while(|at| at + row.length <= end);
        places.extend(inside.map(|at| Place {
            at,
            length: row.length,
            kind: row.kind,
        }));
    }
    if layout.name == NVLINK_STATUS
        && let Some((start, end)) = part(1)
        && let Some(links) = LINKS.iter().find(|links| links.size == end - start)
    {
        places.extend(links.places(start));
    }
    for row in PAIRS.iter().filter(|row| row.request == layout.name) {
        let Some((start, end)) = part(row.part) else {
            continue;
        };
        for at in (start + row.at..end.saturating_sub(7)).step_by(8) {
            let what = field(payload, at).map(u32::from_le_bytes);
            let known = row.indices.iter().find(|(index, _)| Some(*index) == what);
            places.extend(known.map(|(_, kind)| Place {
                at: at + 4,
                length: 4,
                kind: *kind,
            }));
        }
    }
    places
}

/// The text before the first zero.
pub(crate) fn text_in(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A UUID as 16 bytes or as text, with or without what comes before its first digit. None is of one byte only.
pub fn uuid_in(bytes: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(text_in(bytes)).unwrap_or_default();
    let digits = text.strip_prefix("GPU-").unwrap_or(text);
    if digits.len() == 36
        && digits
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    {
        let digits: String = digits.split('-').collect();
        let value = u128::from_str_radix(&digits, 16).ok()?;
        return Some(value.to_be_bytes());
    }
    let uuid: [u8; 16] = *bytes.first_chunk()?;
    let [first, ..] = uuid;
    (!uuid.iter().all(|byte| *byte == first)).then_some(uuid)
}

/// A UUID's digits, as in "5a3e0000-0000-0000-0000-000000000000".
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    let group = |from: usize, to: usize| &digits[from..to];
    [
        group(0, 8),
        group(8, 12),
        group(12, 16),
        group(16, 20),
        group(20, 32),
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvproxy_abi::Abi;
    use nvproxy_abi::policy::Capabilities;
    use nvproxy_abi_catalogue::{Catalogue, Release};

    /// A name that the tables do not know would be a rule that never applies.
    #[test]
    fn every_row_is_of_a_request_that_the_tables_know() {
        let version = "580.142".parse().unwrap();
        let abi = Abi::of_release(&version, Capabilities::ALL).unwrap();
        use nvproxy_abi::table::Family;
        let families = [
            Family::Frontend,
            Family::Control,
            Family::Alloc,
            Family::Uvm,
        ];
        // A command without a row is refused, and known by its number alone.
        let refused = ["NV0000_CTRL_CMD_GPU_GET_UUID_INFO"];
        let is_known = |name: &str| {
            refused.contains(&name)
                || families
                    .iter()
                    .any(|family| abi.rows(*family).any(|row| row.name == name))
        };
        let names = FIELDS
            .iter()
            .map(|row| row.request)
            .chain(PAIRS.iter().map(|row| row.request))
            .chain([NVLINK_STATUS]);
        let unknown: Vec<&str> = names.filter(|name| !is_known(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }

    /// What lies at `offset` of a structure, as in `linkInfo[1].remoteDeviceInfo.domain`.
    fn path_at(release: &Release, structure: &str, offset: usize) -> Option<String> {
        let structure = release.structures.get(structure)?;
        structure.fields.iter().find_map(|field| {
            let within = offset.checked_sub(field.offset as usize)?;
            if within >= field.size as usize {
                return None;
            }
            let size = field.size as usize / (field.elements.max(1) as usize);
            let (index, within) = (within / size, within % size);
            let name = match field.elements {
                1 => field.path.to_string(),
                _ => format!("{}[{index}]", field.path),
            };
            match path_at(release, &field.type_name, within) {
                Some(inner) => Some(format!("{name}.{inner}")),
                None => (within == 0).then_some(name),
            }
        })
    }

    /// The structure that a request's field lies in.
    fn structure_of(release: &Release, request: &str) -> Option<String> {
        let mut controls = release.controls.iter();
        let control = controls.find(|control| control.name.as_deref() == Some(request));
        match control {
            Some(control) => control.structure.as_deref().map(str::to_owned),
            None if request == "NV_ESC_CARD_INFO" => Some("nv_ioctl_card_info_t".to_owned()),
            None => Some(format!("{request}_PARAMS")),
        }
    }

    /// The offsets are those of 580.142. Wherever another release has the structure, the same field lies there.
    #[test]
    fn offsets_hold_for_every_release() {
        let catalogue = Catalogue::decode(nvproxy_abi::CATALOGUE).unwrap();
        let version = "580.142".parse().unwrap();
        let reference = catalogue.release(&version).unwrap();
        let mut compared = 0;
        for row in FIELDS.iter().filter(|row| row.part < 2) {
            let path =
                |release: &Release, at| path_at(release, &structure_of(release, row.request)?, at);
            let is_array = row.times > 1 && !row.request.starts_with("NV_ESC_");
            let ats = std::iter::once(row.at).chain(is_array.then_some(row.at + row.apart));
            for at in ats {
                let Some(expected) = path(reference, at) else {
                    // NV_ESC_ATTACH_GPUS_TO_FD takes a bare list.
                    assert_eq!(row.request, "NV_ESC_ATTACH_GPUS_TO_FD");
                    continue;
                };
                for release in &catalogue.releases {
                    if let Some(found) = path(release, at) {
                        assert_eq!(found, expected, "{} of {}", row.request, release.version);
                        compared += 1;
                    }
                }
            }
        }
        let releases = catalogue.releases.len();
        assert!(compared > releases * FIELDS.len() / 2, "{compared}");
    }

    #[test]
    fn links_are_those_of_every_release() {
        let catalogue = Catalogue::decode(nvproxy_abi::CATALOGUE).unwrap();
        let names = [
            (Kind::Domain, "domain"),
            (Kind::Bus, "bus"),
            (Kind::Slot, "device"),
            (Kind::Uuid, "deviceUUID[0]"),
        ];
        let mut compared = 0;
        for release in &catalogue.releases {
            let Some(structure) = structure_of(release, NVLINK_STATUS) else {
                continue;
            };
            let size = release.structures[structure.as_str()].size as usize;
            let found = LINKS.iter().find(|links| links.size == size);
            let links = found.unwrap_or_else(|| panic!("{}: {size} bytes", release.version));
            for (index, place) in links.places(0).enumerate() {
                let (_, name) = names[index % 4];
                let end = ["remote", "local"][index / 4 % 2];
                let expected = format!("linkInfo[{}].{end}DeviceInfo.{name}", index / 8);
                let path = path_at(release, &structure, place.at);
                assert_eq!(path.as_deref(), Some(expected.as_str()));
                compared += 1;
            }
        }
        let releases = catalogue.releases.len();
        assert!(compared > releases * 32 * 8, "{compared}");
    }

    #[test]
    fn numbers_of_a_chip_are_where_they_are_announced() {
        let layout = Layout {
            name: "NV2080_CTRL_CMD_GPU_GET_INFO_V2".into(),
            segments: [(0, 32), (32, 564)]
                .map(|(offset, length)| nvproxy_abi::plan::Segment {
                    offset,
                    length,
                    pointer_at: None,
                })
                .into(),
            descriptors: Vec::new(),
            forced_bits: None,
            filled_in: Vec::new(),
            cleared: Vec::new(),
        };
        let mut payload = [0; 600];
        // Whether the board has two GPUs, and half of the PDI.
        (payload[36], payload[44]) = (0x22, 0x23);
        let place = Place {
            at: 48,
            length: 4,
            kind: Kind::Chip,
        };
        assert_eq!(places(&layout, &payload), [place]);
    }

    #[test]
    fn fields_lie_in_their_part() {
        let layout = Layout {
            name: "NV2080_CTRL_CMD_GPU_GET_OEM_BOARD_INFO".into(),
            segments: vec![
                nvproxy_abi::plan::Segment {
                    offset: 0,
                    length: 32,
                    pointer_at: None,
                },
                nvproxy_abi::plan::Segment {
                    offset: 32,
                    length: 136,
                    pointer_at: Some(16),
                },
            ],
            descriptors: Vec::new(),
            forced_bits: None,
            filled_in: Vec::new(),
            cleared: Vec::new(),
        };
        let place = Place {
            at: 60,
            length: 16,
            kind: Kind::Serial,
        };
        assert_eq!(places(&layout, &[0; 168]), [place]);
        assert_eq!(places(&layout, &[0; 32]), []);
    }
}
