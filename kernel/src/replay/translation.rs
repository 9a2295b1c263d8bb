//! What the simulated driver calls otherwise than the recorded one did.
//!
//! A driver hands out names: handles of clients and objects, ids and UUIDs of GPUs, addresses of mappings. A program uses
//! what it was given in its later requests, so a replay against another driver has to use what that one gave. Such pairs
//! are learned from the answers in which they differ, and kept in the progress file, where every task finds them. To the
//! comparison they are the same.
//!
//! A name is replaced only where it is one. Handles, which the driver takes from ranges of their own, and UUIDs are
//! recognized by their bytes; ids and addresses by where they stand.

use std::io;

use nvproxy_abi::number::{
    NV_ESC_RM_ALLOC, NV_ESC_RM_MAP_MEMORY, NV_ESC_RM_UNMAP_MEMORY,
    NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO, NV_IOCTL_MAGIC, parts,
};
use nvproxy_sim::structs::frontend::{
    NVOS21_PARAMETERS, NVOS33_PARAMETERS, NVOS34_PARAMETERS, NVOS56_PARAMETERS,
};
use ringfence_recording::identifiers::{Kind, places, uuid_in, uuid_text};
use ringfence_recording::layout::Layout;
use ringfence_recording::report::{Pair, Progress, Stands};

/// Where the driver writes the handle that it chose: in the argument of NV_ESC_RM_ALLOC, which has 0 there before. (Both
/// forms of the argument begin alike.)
const HANDLE_AT: usize = std::mem::offset_of!(NVOS21_PARAMETERS, hObjectNew);
/// Where it writes the address of a mapping, which has 0 there before.
const ADDRESS_AT: usize = std::mem::offset_of!(NVOS33_PARAMETERS, pLinearAddress);
/// Where the addresses of mappings stand in the arguments of ioctls: the ioctl's number and the offset.
const ADDRESSES: [(u32, usize); 3] = [
    (NV_ESC_RM_MAP_MEMORY, ADDRESS_AT),
    (
        NV_ESC_RM_UNMAP_MEMORY,
        std::mem::offset_of!(NVOS34_PARAMETERS, pLinearAddress),
    ),
    (
        NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO,
        std::mem::offset_of!(NVOS56_PARAMETERS, pOldCpuAddress),
    ),
];
/// UUIDs as text have their digits at any multiple of this, as handles do.
const ALIGNMENT: usize = 4;

/// The pairs that are known, for one request.
pub struct Translation<'a> {
    progress: &'a Progress,
    layout: &'a Layout,
    /// The number of its ioctl, if it is one of nvidiactl or of a GPU.
    number: Option<u32>,
    /// The latest first.
    pairs: Vec<Pair>,
}

impl<'a> Translation<'a> {
    /// What has been learned so far.
    pub fn known(progress: &'a Progress, command: u32, layout: &'a Layout) -> Translation<'a> {
        let (magic, number, _) = parts(command);
        Translation {
            progress,
            layout,
            number: (magic == NV_IOCTL_MAGIC).then_some(number),
            pairs: progress.pairs(),
        }
    }

    /// From what the recorded driver handed out to what the replaying one did.
    pub fn to_actual(&self, payload: &mut [u8]) {
        self.replace(payload, |pair| (&pair.recorded, &pair.actual));
    }

    /// And back.
    pub fn to_recorded(&self, payload: &mut [u8]) {
        self.replace(payload, |pair| (&pair.actual, &pair.recorded));
    }

    /// Learns from an answer, the recorded one and the actual one, which are equally long.
    pub fn learn(&mut self, [before, recorded, actual]: [&[u8]; 3]) -> io::Result<()> {
        for place in places(self.layout, recorded) {
            let name = |payload: &[u8]| {
                let bytes = payload.get(place.at..place.at + place.length)?;
                match place.kind {
                    Kind::Uuid => uuid_in(bytes).map(|uuid| (uuid.to_vec(), Stands::Anywhere)),
                    Kind::GpuId => Some((bytes.to_vec(), Stands::AsGpuId)),
                    _ => None,
                }
            };
            self.add(name(recorded), name(actual))?;
        }
        let handed_out = match self.number {
            Some(NV_ESC_RM_ALLOC) => Some((HANDLE_AT, 4, Stands::Anywhere)),
            Some(NV_ESC_RM_MAP_MEMORY) => Some((ADDRESS_AT, 8, Stands::AsAddress)),
            _ => None,
        };
        if let Some((at, length, stands)) = handed_out {
            let name = |payload: &[u8]| Some((payload.get(at..at + length)?.to_vec(), stands));
            if name(before).is_some_and(|(name, _)| is_zero(&name)) {
                self.add(name(recorded), name(actual))?;
            }
        }
        Ok(())
    }

    /// Adds a pair of names, if both are some, unless it is known.
    fn add(
        &mut self,
        recorded: Option<(Vec<u8>, Stands)>,
        actual: Option<(Vec<u8>, Stands)>,
    ) -> io::Result<()> {
        let (Some((recorded, stands)), Some((actual, _))) = (recorded, actual) else {
            return Ok(());
        };
        let is_none = |name: &[u8]| is_zero(name) || name.iter().all(|byte| *byte == 0xff);
        if is_none(&recorded) || is_none(&actual) {
            return Ok(());
        }
        let known = self
            .pairs
            .iter()
            .find(|pair| pair.stands == stands && pair.recorded == recorded);
        // A name that is the same to both needs no pair, unless it was another before.
        if known.map_or(&recorded, |pair| &pair.actual) != &actual {
            let pair = Pair {
                recorded,
                actual,
                stands,
            };
            self.progress.add_pair(&pair)?;
            self.pairs.insert(0, pair);
        }
        Ok(())
    }

    /// Replaces every name, by the latest pair that has it.
    fn replace<'b>(
        &'b self,
        payload: &mut [u8],
        direction: impl Fn(&'b Pair) -> (&'b Vec<u8>, &'b Vec<u8>),
    ) {
        let ids: Vec<usize> = places(self.layout, payload)
            .into_iter()
            .filter(|place| place.kind == Kind::GpuId)
            .map(|place| place.at)
            .collect();
        let addresses = ADDRESSES.iter().filter(|(of, _)| self.number == Some(*of));
        let addresses: Vec<usize> = addresses.map(|(_, at)| *at).collect();
        let names: Vec<(Stands, Vec<u8>, Vec<u8>)> = self
            .pairs
            .iter()
            .flat_map(|pair| {
                let (from, to) = direction(pair);
                let text = |name: &[u8]| {
                    let uuid = name.try_into().ok()?;
                    Some(uuid_text(uuid).into_bytes())
                };
                let texts = text(from).zip(text(to));
                let texts = texts.map(|(from, to)| (pair.stands, from, to));
                std::iter::once((pair.stands, from.clone(), to.clone())).chain(texts)
            })
            .collect();
        let mut at = 0;
        while at < payload.len() {
            let name = names.iter().find(|(stands, from, _)| {
                let may_stand = match stands {
                    Stands::Anywhere => true,
                    Stands::AsGpuId => ids.contains(&at),
                    Stands::AsAddress => addresses.contains(&at),
                };
                may_stand && payload.get(at..).is_some_and(|rest| rest.starts_with(from))
            });
            at += match name {
                Some((_, from, to)) => {
                    if let Some(part) = payload.get_mut(at..at + to.len()) {
                        part.copy_from_slice(to);
                    }
                    from.len().next_multiple_of(ALIGNMENT)
                }
                None => ALIGNMENT,
            };
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nvproxy_abi::Abi;
    use nvproxy_abi::node::Node;
    use nvproxy_abi::number::ioctl_word;
    use nvproxy_abi::policy::Capabilities;

    use super::*;

    /// Bytes of nv_ioctl_nvos33_parameters_with_fd and of NVOS21_PARAMETERS.
    const MAPPING: usize = 56;
    const ALLOCATION: usize = 32;

    fn progress() -> Progress {
        let file = memfd_create("progress", MFdFlags::empty()).expect("a file");
        Progress::new(file.into())
    }

    fn layout(command: u32, payload: &[u8]) -> Layout {
        let version = "580.142".parse().expect("a release");
        let abi = Abi::of_release(&version, Capabilities::ALL).expect("tables");
        Layout::of(abi, Node::Control, command, payload)
    }

    fn with<const N: usize>(at: usize, bytes: &[u8]) -> [u8; N] {
        let mut payload = [0; N];
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        payload
    }

    #[test]
    fn an_address_is_replaced_where_addresses_stand() {
        let (progress, command) = (progress(), ioctl_word(NV_ESC_RM_MAP_MEMORY, MAPPING));
        let (recorded, actual) = (0x1020_02bb_0000u64, 1u64 << 32);
        let [before, expected, got] = [0, recorded, actual]
            .map(|address| with::<MAPPING>(ADDRESS_AT, &address.to_ne_bytes()));
        let layout = layout(command, &before);
        let mut translation = Translation::known(&progress, command, &layout);
        translation.learn([&before, &expected, &got]).unwrap();
        let mut payload = got;
        translation.to_recorded(&mut payload);
        assert_eq!(payload, expected);
        // As the offset into the memory it is a number like any other.
        let offset = with::<MAPPING>(16, &actual.to_ne_bytes());
        let mut payload = offset;
        translation.to_recorded(&mut payload);
        assert_eq!(payload, offset);
        // So it is in another ioctl, unless that takes addresses.
        let control = Translation::known(&progress, ioctl_word(0x2a, 32), &layout);
        let mut payload = got;
        control.to_recorded(&mut payload);
        assert_eq!(payload, got);
        let at = std::mem::offset_of!(NVOS34_PARAMETERS, pLinearAddress);
        let unmap = ioctl_word(NV_ESC_RM_UNMAP_MEMORY, size_of::<NVOS34_PARAMETERS>());
        let unmap = Translation::known(&progress, unmap, &layout);
        let mut payload = with::<MAPPING>(at, &recorded.to_ne_bytes());
        unmap.to_actual(&mut payload);
        assert_eq!(payload, with::<MAPPING>(at, &actual.to_ne_bytes()));
    }

    #[test]
    fn handles_that_change_places_are_replaced_once() {
        let (progress, command) = (progress(), ioctl_word(NV_ESC_RM_ALLOC, ALLOCATION));
        let handle = |handle: u32| with::<ALLOCATION>(HANDLE_AT, &handle.to_ne_bytes());
        let before = handle(0);
        let layout = layout(command, &before);
        let (one, other) = (0xc1d0_0000, 0xc1d0_0001);
        let mut translation = Translation::known(&progress, command, &layout);
        for (recorded, actual) in [(one, other), (other, one)] {
            let answers = [handle(recorded), handle(actual)];
            translation
                .learn([&before, &answers[0], &answers[1]])
                .unwrap();
        }
        // Another request finds what was learned.
        let mut translation = Translation::known(&progress, command, &layout);
        let mut payload = handle(one);
        translation.to_actual(&mut payload);
        assert_eq!(payload, handle(other));
        // A handle that is handed out again is what it is called last.
        translation
            .learn([&before, &handle(one), &handle(one)])
            .unwrap();
        let mut payload = handle(one);
        translation.to_actual(&mut payload);
        assert_eq!(payload, handle(one));
    }
}
