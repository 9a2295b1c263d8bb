//! What came of a request, by the driver's answer, and how that is entered. What was set aside for it, and is not needed, is
//! given back.

use nix::errno::Errno;
use nvproxy_abi::status::NV_OK;
use ringfence_faults::{Act, Point, at};

use super::accounts::Ledger;
use super::content::Content;
use super::deed::{Deed, What};
use super::payload::Bytes;
use super::{Admission, Passage};
use crate::request::{Action, Executed, Prepared};

/// Whether what a request asks for came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    About,
    /// The driver leaves memory of the host that it has allocated, and answers EINVAL, if that cannot be made ready to be
    /// mapped (`RmIoctl`, NV_ESC_RM_ALLOC_MEMORY, src/nvidia/arch/nvalloc/unix/src/escape.c). By the answer it cannot be
    /// told from a request that was not looked at, whose status is the program's own.
    Perhaps,
    ToNothing,
}

impl Came {
    pub fn of(executed: &Executed, deed: &Deed) -> Came {
        let (prepared, outcome) = (&executed.prepared, executed.outcome);
        let status = prepared.status();
        if status.is_some_and(|status| status != NV_OK) {
            return Came::ToNothing;
        }
        let may_be_left = prepared.action == Action::Issue
            && deed.host_memory().is_some()
            && at(Point::Counted) != Some(Act::Drop);
        match outcome {
            Ok(_) => Came::About,
            Err(Errno::EINVAL) if may_be_left => Came::Perhaps,
            Err(_) => Came::ToNothing,
        }
    }
}

/// Enters what came of a request, or gives back what was set aside for it.
pub(super) fn enter(
    ledger: &mut Ledger,
    admission: Admission<'_>,
    prepared: &Prepared,
    came: Came,
) {
    let Admission {
        passage: Passage { deed, _gates },
        contents,
        objects,
        client,
    } = admission;
    if client {
        ledger.expected_client();
    }
    ledger.expected_objects(objects);
    let mut contents = contents.into_iter();
    if let (Deed::Free { client, object }, Came::ToNothing) = (&deed, came)
        && client == object
    {
        ledger.doubt(*client);
    }
    if came != Came::ToNothing {
        let answer = Bytes(prepared.buffer.bytes());
        enter_success(ledger, &deed, &mut contents, (prepared, came), answer);
    }
    for content in contents.flatten() {
        ledger.release(content);
    }
}

fn enter_success(
    ledger: &mut Ledger,
    deed: &Deed,
    contents: &mut impl Iterator<Item = Option<Content>>,
    (prepared, came): (&Prepared, Came),
    answer: Bytes<'_>,
) {
    let mut next = || contents.next().flatten().unwrap_or_default();
    match deed {
        // What is shown was entered before.
        Deed::Nothing | Deed::Show { .. } => {}
        Deed::DmaBuf { memory, .. } => {
            ledger.keep_for_good(next());
            for _ in memory {
                ledger.keep_in_dma_buf(next());
            }
        }
        Deed::Share { client, object } => ledger.share(*client, *object),
        Deed::OsEvent { client, key } => ledger.add_os_event(prepared.handle, *client, *key),
        Deed::EndOsEvent { client, key } => ledger.end_os_event(*client, *key),
        Deed::Client { answer: at } => {
            ledger.add_client(answer.word(*at), prepared.handle, prepared.issuer);
        }
        Deed::Object {
            client,
            parent,
            answer: at,
            what,
        } => {
            let (content, object) = (next(), answer.word(*at));
            if let (What::GpuMemory { answer: at, .. }, Some(key)) = (what, content.memory.first())
            {
                let size = answer.long_at(*at);
                if ledger.raise(*key, size) {
                    tracing::warn!(
                        "the driver took {size} bytes for an object of which it was taken to need less"
                    );
                }
            }
            let is_pinned = prepared.action != Action::Issue;
            let displaces = !is_pinned && came == Came::About;
            let is_there = ledger.has_object(*client, object);
            if displaces || (object != 0 && !is_there) {
                ledger.add_object(*client, object, *parent, content);
                if let What::Device { shares, .. } = what {
                    ledger.name(*client, object, *shares);
                }
            } else if is_pinned && is_there {
                // One of the two is gone, and it is not known which.
                ledger.hold(*client, object, content);
            } else {
                ledger.release(content);
            }
        }
        Deed::Free { client, object } => ledger.free(*client, *object),
        Deed::Copy {
            client,
            parent,
            answer: at,
            ..
        } => ledger.add_object(*client, answer.word(*at), *parent, next()),
        Deed::Register { with } => ledger.register(prepared.handle, *with),
        Deed::Attach { .. } => ledger.keep_with(prepared.handle, next()),
        Deed::Export {
            to, first, objects, ..
        } => {
            let places = next();
            match ledger.has_places(*to) {
                true => ledger.release(places),
                false => ledger.add_places(*to, places),
            }
            for (index, object) in (0..).zip(objects) {
                let content = next();
                if *object == 0 {
                    ledger.release(content);
                } else {
                    ledger.add_exported(*to, first.saturating_add(index), content);
                }
            }
        }
        Deed::Import {
            client,
            parent,
            objects,
            ..
        } => {
            for object in answer.elements(objects) {
                let content = next();
                if object == 0 {
                    ledger.release(content);
                } else {
                    ledger.add_object(*client, object, *parent, content);
                }
            }
        }
        Deed::Hold {
            client,
            object,
            memory,
        } => {
            for _ in memory {
                ledger.hold(*client, *object, next());
            }
        }
        Deed::Map {
            space, at, gpus, ..
        } => ledger.map(*space, at, gpus, next()),
        Deed::Space { space, .. } => ledger.add_space(*space, next()),
        Deed::Group { space } => ledger.add_group(*space),
        Deed::EndGroup { space } => ledger.end_group(*space),
        Deed::Range { space, range, .. } => ledger.add_range(*space, range, next()),
        Deed::EndRange { space, start } => ledger.end_range(*space, *start),
        Deed::Unmap { space, at, gpu } => ledger.unmap(*space, at, gpu.as_ref()),
    }
}
