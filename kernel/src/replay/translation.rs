//! What the simulated driver calls otherwise than the recorded one did.
//!
//! A driver hands out names: handles of clients, ids and UUIDs of GPUs, addresses of mappings. A program uses what it was
//! given in its later requests, so a replay against another driver has to use what that one gave. Such pairs are learned
//! from the first answer in which they differ, and kept in the progress file, where every task finds them. To the
//! comparison they are the same.

use std::io;

use nvproxy_abi::number::{NV_ESC_RM_ALLOC, NV_ESC_RM_MAP_MEMORY, NV_IOCTL_MAGIC, parts};
use nvproxy_abi::structs::frontend::{NVOS21_PARAMETERS, NVOS33_PARAMETERS};
use ringfence_recording::identifiers::{Kind, places, uuid_in, uuid_text};
use ringfence_recording::layout::Layout;
use ringfence_recording::report::{Pair, Progress};

/// A name that the driver hands out in the argument of an ioctl: the ioctl's number, where, and how many bytes. It is
/// zero on the way in where the driver is to choose.
const HANDED_OUT: [(u32, usize, usize); 2] = [
    (
        NV_ESC_RM_ALLOC,
        std::mem::offset_of!(NVOS21_PARAMETERS, hObjectNew),
        4,
    ),
    (
        NV_ESC_RM_MAP_MEMORY,
        std::mem::offset_of!(NVOS33_PARAMETERS, pLinearAddress),
        8,
    ),
];

/// The pairs that are known.
pub struct Translation {
    pairs: Vec<Pair>,
}

impl Translation {
    /// What has been learned so far.
    pub fn known(progress: &Progress) -> Translation {
        Translation {
            pairs: progress.pairs(),
        }
    }

    /// From what the recorded driver handed out to what the replaying one did.
    pub fn to_actual(&self, layout: &Layout, payload: &mut [u8]) {
        for pair in &self.pairs {
            replace(layout, payload, pair, &pair.recorded, &pair.actual);
        }
    }

    /// And back.
    pub fn to_recorded(&self, layout: &Layout, payload: &mut [u8]) {
        for pair in &self.pairs {
            replace(layout, payload, pair, &pair.actual, &pair.recorded);
        }
    }

    /// Learns from an answer, the recorded one and the actual one, which are equally long.
    pub fn learn(
        &mut self,
        progress: &Progress,
        command: u32,
        layout: &Layout,
        [before, recorded, actual]: [&[u8]; 3],
    ) -> io::Result<()> {
        let (magic, number, _) = parts(command);
        let handed_out = HANDED_OUT.iter().filter(|(of, at, length)| {
            let is_chosen = before.get(*at..*at + *length).is_some_and(is_zero);
            (magic, number) == (NV_IOCTL_MAGIC, *of) && is_chosen
        });
        let name = |payload: &[u8], at: usize, length: usize, kind: Option<Kind>| {
            let bytes = payload.get(at..at + length)?;
            match kind {
                Some(Kind::Uuid) => uuid_in(bytes).map(|uuid| uuid.to_vec()),
                _ => Some(bytes.to_vec()),
            }
        };
        let in_places = places(layout, recorded).into_iter();
        let found = in_places
            .filter(|place| matches!(place.kind, Kind::GpuId | Kind::Uuid))
            .map(|place| (place.at, place.length, Some(place.kind)))
            .chain(handed_out.map(|(_, at, length)| (*at, *length, None)));
        for (at, length, kind) in found {
            let at_places_only = kind == Some(Kind::GpuId);
            let names = [recorded, actual].map(|payload| name(payload, at, length, kind));
            let [Some(recorded), Some(actual)] = names else {
                continue;
            };
            let is_none = |name: &[u8]| is_zero(name) || name.iter().all(|byte| *byte == 0xff);
            let is_known = self.pairs.iter().any(|pair| pair.recorded == recorded);
            if recorded != actual && !is_none(&recorded) && !is_none(&actual) && !is_known {
                let pair = Pair {
                    recorded,
                    actual,
                    at_places_only,
                };
                progress.add_pair(&pair)?;
                self.pairs.push(pair);
            }
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Replaces `from` by `to`, which is as long, and, if they are UUIDs, their texts.
fn replace(layout: &Layout, payload: &mut [u8], pair: &Pair, from: &[u8], to: &[u8]) {
    replace_bytes(layout, payload, pair, from, to);
    if let (Ok(from), Ok(to)) = (from.try_into(), to.try_into()) {
        let (from, to) = (uuid_text(from), uuid_text(to));
        replace_bytes(layout, payload, pair, from.as_bytes(), to.as_bytes());
    }
}

/// The same for these bytes: at the places of GPU ids, or wherever a name can be aligned.
fn replace_bytes(layout: &Layout, payload: &mut [u8], pair: &Pair, from: &[u8], to: &[u8]) {
    let length = from.len();
    let step = length.min(4);
    let ats: Vec<usize> = if pair.at_places_only {
        let places = places(layout, payload).into_iter();
        let ids = places.filter(|place| place.kind == Kind::GpuId);
        ids.map(|place| place.at).collect()
    } else {
        (0..payload.len()).step_by(step.max(1)).collect()
    };
    for at in ats {
        if let Some(part) = payload.get_mut(at..at + length)
            && part == from
        {
            part.copy_from_slice(to);
        }
    }
}
