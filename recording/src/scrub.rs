//! Replacing what identifies a machine, so that a recording can be given away.
//!
//! An identifier is learned where [`identifiers`](crate::identifiers) says that one stands, and then replaced by a
//! stand-in of the same length: UUIDs, serial numbers and PCI addresses in text wherever their bytes occur, since they
//! are long enough not to occur by chance; ids of GPUs and parts of PCI addresses, which are small numbers, at those
//! places only; and the numbers burnt into a chip, which nothing refers to, by zeros. The same identifier always has the same stand-in, so that a replay still fits together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nvproxy_abi::Abi;

use crate::identifiers::{Kind, Place, places, text_in, uuid_in, uuid_text};
use crate::layout::{Layout, put};
use crate::{Event, Recording, Request, changes};

/// What a UUID is replaced by, but for its last two bytes, which count.
const STAND_IN_UUID: [u8; 16] = *b"recorded UUID\0\0\0";
/// What comes before the number that the first bus is replaced by.
const STAND_IN_BUS: u8 = 0xa0;
/// Ids that are none: an unused entry, NV0000_CTRL_GPU_INVALID_ID, NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS.
const NO_IDS: [u32; 3] = [0, u32::MAX, 0xffff];
/// Text shorter than this could occur by chance, and is replaced in its place only.
const SHORTEST: usize = 6;

/// Numbers and what they are replaced by, from 1, in the order in which they were seen. 0 stays 0: it is also what unused
/// entries of lists hold.
#[derive(Default)]
struct Numbers(BTreeMap<u32, u32>);

impl Numbers {
    fn ordinal(&mut self, number: u32) -> u32 {
        if number == 0 {
            return 0;
        }
        let next = self.0.len() as u32 + 1;
        *self.0.entry(number).or_insert(next)
    }
}

/// Everything that was learned.
#[derive(Default)]
struct Scrubber {
    domains: Numbers,
    buses: Numbers,
    slots: Numbers,
    /// Bytes and what they are replaced by, wherever they occur.
    everywhere: BTreeMap<Vec<u8>, Vec<u8>>,
    uuids: BTreeMap<[u8; 16], [u8; 16]>,
    serials: u32,
}

impl Recording {
    /// Replaces the machine's identifiers.
    pub fn scrub(&mut self, abi: &'static Abi) {
        let nodes = self.nodes();
        let mut scrubber = Scrubber::default();
        let layout = |request: &Request| {
            let node = nodes.get(request.description as usize).copied();
            node.map(|node| Layout::of(abi, node, request.command, &request.before))
        };
        for event in &self.events {
            if let Event::Request(request) = event
                && let Some(layout) = layout(request)
            {
                scrubber.learn(&layout, &request.before);
                scrubber.learn(&layout, &request.after());
            }
        }
        for event in &mut self.events {
            if let Event::Request(request) = event
                && let Some(layout) = layout(request)
            {
                let mut after = request.after();
                scrubber.replace(&layout, &mut request.before);
                scrubber.replace(&layout, &mut after);
                request.changes = changes(&request.before, &after);
            }
        }
        for word in &mut self.header.command {
            scrubber.replace_everywhere(word);
        }
        self.header.scrubbed = true;
    }
}

impl Scrubber {
    fn learn(&mut self, layout: &Layout, payload: &[u8]) {
        for place in places(layout, payload) {
            let bytes = &payload[place.at..place.at + place.length];
            match place.kind {
                Kind::Uuid => {
                    if let Some(uuid) = uuid_in(bytes) {
                        self.learn_uuid(uuid);
                    }
                }
                Kind::Serial => self.learn_serial(text_in(bytes)),
                Kind::GpuId => {
                    if let Some(id) = id_in(bytes) {
                        self.stand_in_for_id(id);
                        self.learn_address(id);
                    }
                }
                // It is replaced where it stands, by nothing.
                Kind::Chip => {}
                Kind::Domain | Kind::Bus | Kind::Slot => {
                    let number = number_in(bytes);
                    self.stand_in_for_part(place.kind, number);
                }
            }
        }
    }

    fn learn_uuid(&mut self, uuid: [u8; 16]) {
        if self.uuids.contains_key(&uuid) {
            return;
        }
        let mut stand_in = STAND_IN_UUID;
        let ordinal = self.uuids.len() as u16;
        stand_in[14..].copy_from_slice(&ordinal.to_be_bytes());
        self.uuids.insert(uuid, stand_in);
        self.everywhere.insert(uuid.to_vec(), stand_in.to_vec());
        let (text, by) = (uuid_text(uuid), uuid_text(stand_in));
        self.everywhere
            .insert(text.to_uppercase().into(), by.to_uppercase().into());
        self.everywhere.insert(text.into(), by.into());
    }

    fn learn_serial(&mut self, serial: &[u8]) {
        if serial.len() < SHORTEST || self.everywhere.contains_key(serial) {
            return;
        }
        self.serials += 1;
        let stand_in = format!("{:0>width$}", self.serials, width = serial.len());
        self.everywhere.insert(serial.to_vec(), stand_in.into());
    }

    /// The PCI address that an id is made of, as text.
    fn learn_address(&mut self, id: u32) {
        let stand_in = self.stand_in_for_id(id);
        for wide in [true, false] {
            let (text, by) = (address_text(id, wide), address_text(stand_in, wide));
            self.everywhere
                .insert(text.to_uppercase().into(), by.to_uppercase().into());
            self.everywhere.insert(text.into(), by.into());
        }
    }

    fn stand_in_for_part(&mut self, kind: Kind, number: u32) -> u32 {
        match kind {
            Kind::Domain => self.domains.ordinal(number),
            Kind::Bus if number == 0 => 0,
            Kind::Bus => (u32::from(STAND_IN_BUS) + self.buses.ordinal(number)) & 0xff,
            _ => self.slots.ordinal(number),
        }
    }

    fn stand_in_for_id(&mut self, id: u32) -> u32 {
        let domain = self.stand_in_for_part(Kind::Domain, id >> 16);
        let bus = self.stand_in_for_part(Kind::Bus, id >> 8 & 0xff);
        let slot = self.stand_in_for_part(Kind::Slot, id & 0xff);
        domain << 16 | bus << 8 | slot
    }

    fn replace(&mut self, layout: &Layout, payload: &mut [u8]) {
        let places = places(layout, payload);
        self.replace_everywhere(payload);
        for Place { at, length, kind } in places {
            let bytes = &payload[at..at + length];
            let stand_in: Cow<'_, [u8]> = match kind {
                Kind::Uuid => continue,
                // What was long enough was replaced already.
                Kind::Serial if text_in(bytes).len() < SHORTEST => vec![0; length].into(),
                Kind::Serial => continue,
                Kind::Chip => vec![0; length].into(),
                Kind::GpuId => match id_in(bytes) {
                    Some(id) => self.stand_in_for_id(id).to_le_bytes().to_vec().into(),
                    None => continue,
                },
                Kind::Domain | Kind::Bus | Kind::Slot => {
                    let stand_in = self.stand_in_for_part(kind, number_in(bytes));
                    stand_in.to_le_bytes()[..length.min(4)].to_vec().into()
                }
            };
            put(payload, at, &stand_in);
        }
    }

    fn replace_everywhere(&self, bytes: &mut [u8]) {
        let mut begins = [false; 256];
        for pattern in self.everywhere.keys() {
            if let Some(first) = pattern.first() {
                begins[usize::from(*first)] = true;
            }
        }
        let mut at = 0;
        while let Some(first) = bytes.get(at) {
            let found = begins[usize::from(*first)]
                .then(|| {
                    self.everywhere
                        .iter()
                        .find(|(pattern, _)| bytes[at..].starts_with(pattern))
                })
                .flatten();
            match found {
                Some((pattern, stand_in)) => {
                    bytes[at..at + pattern.len()].copy_from_slice(stand_in);
                    at += pattern.len();
                }
                None => at += 1,
            }
        }
    }
}

/// A number of up to 4 bytes.
fn number_in(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn id_in(bytes: &[u8]) -> Option<u32> {
    let id = number_in(bytes);
    (!NO_IDS.contains(&id)).then_some(id)
}

/// A PCI address as in "0000:1b:00", or with a wide domain "00000000:1b:00".
fn address_text(id: u32, wide: bool) -> String {
    let (domain, bus, slot) = (id >> 16, id >> 8 & 0xff, id & 0xff);
    if wide {
        format!("{domain:08x}:{bus:02x}:{slot:02x}")
    } else {
        format!("{domain:04x}:{bus:02x}:{slot:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] = [0x5a, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

    #[test]
    fn a_uuid_is_found_in_either_form() {
        let text = uuid_text(UUID);
        assert_eq!(text, "5a3e0102-0304-0506-0708-090a0b0c0d0e");
        assert_eq!(uuid_in(format!("GPU-{text}\0\0").as_bytes()), Some(UUID));
        assert_eq!(uuid_in(text.as_bytes()), Some(UUID));
        assert_eq!(uuid_in(&[&UUID[..], &[0; 240]].concat()), Some(UUID));
        assert_eq!(uuid_in(&[0; 256]), None);
        assert_eq!(uuid_in(&[0xff; 16]), None);
    }

    #[test]
    fn what_was_learned_is_replaced_everywhere_by_the_same() {
        let mut scrubber = Scrubber::default();
        scrubber.learn_uuid(UUID);
        scrubber.learn_serial(b"1654823012345");
        scrubber.learn_serial(b"12");
        scrubber.learn_address(0x1b00);
        let text = uuid_text(UUID);
        let line = format!(
            "x{text} GPU-{} 1654823012345 12 0000:1B:00.0 00000000:1b:00",
            text.to_uppercase()
        );
        let mut bytes = [line.as_bytes(), &[0], &UUID].concat();
        scrubber.replace_everywhere(&mut bytes);
        let by = uuid_text(STAND_IN_UUID);
        let line = format!(
            "x{by} GPU-{} 0000000000001 12 0000:A1:00.0 00000000:a1:00",
            by.to_uppercase()
        );
        assert_eq!(bytes, [line.as_bytes(), &[0], &STAND_IN_UUID].concat());
    }

    #[test]
    fn an_id_fits_the_address_that_it_is_made_of() {
        let mut scrubber = Scrubber::default();
        let first = scrubber.stand_in_for_id(0x0001_1b03);
        let second = scrubber.stand_in_for_id(0x0001_4f03);
        assert_eq!((first, second), (0x1_a101, 0x1_a201));
        assert_eq!(scrubber.stand_in_for_part(Kind::Bus, 0x4f), 0xa2);
        assert_eq!(scrubber.stand_in_for_part(Kind::Domain, 1), 1);
        assert_eq!(scrubber.stand_in_for_part(Kind::Slot, 3), 1);
        assert_eq!(scrubber.stand_in_for_id(0x1b00), 0xa100);
        assert_eq!(scrubber.stand_in_for_id(0x0001_1b03), first);
    }
}
