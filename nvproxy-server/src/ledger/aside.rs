//! What is set aside for a request before the driver is asked, so that requests under way cannot together take more than
//! there is.

use nvproxy_abi::status::{
    NV_ERR_INSUFFICIENT_RESOURCES, NV_ERR_INVALID_ARGUMENT, NV_ERR_INVALID_OBJECT_PARENT,
    NV_ERR_NO_MEMORY, NV_ERR_NOT_SUPPORTED, NV_ERR_OBJECT_NOT_FOUND,
};

use super::Admission;
use super::accounts::{Ledger, Pool};
use super::content::Content;
use super::deed::{Deed, What};
use super::limits::Full;

/// The status for a request for which there is no room, or of which it cannot be told how much it needs.
pub(super) struct NoRoom(pub u32);

impl NoRoom {
    const OBJECTS: NoRoom = NoRoom(NV_ERR_INSUFFICIENT_RESOURCES);
    const MEMORY: NoRoom = NoRoom(NV_ERR_NO_MEMORY);
}

impl From<Full> for NoRoom {
    fn from(Full: Full) -> NoRoom {
        NoRoom::MEMORY
    }
}

/// Sets aside what a request may need, so that requests under way cannot together take more than there is. Nothing is set
/// aside if there is no room.
pub(super) fn set_aside(ledger: &mut Ledger, admission: &mut Admission<'_>) -> Result<(), NoRoom> {
    let no_objects = |_: Full| NoRoom::OBJECTS;
    let deed = &admission.passage.deed;
    let objects = match deed {
        Deed::Unmap { space, at, gpu } => ledger.parted_by(*space, at, gpu.as_ref()),
        _ => deed.objects(),
    };
    ledger.expect_objects(objects).map_err(no_objects)?;
    match deed {
        Deed::Client { .. } => {
            ledger.expect_client().map_err(no_objects)?;
            admission.client = true;
        }
        Deed::Object {
            client,
            parent,
            what,
            ..
        } => match new_content(ledger, *client, *parent, what) {
            Ok(content) => admission.contents.push(Some(content)),
            Err(refusal) => {
                ledger.expected_objects(objects);
                return Err(refusal);
            }
        },
        Deed::Range { backing, .. } | Deed::Space { backing, .. } if *backing > 0 => {
            match ledger.charge(Pool::Host, *backing) {
                Ok(key) => admission.contents.push(Some(Content {
                    gpu: None,
                    memory: vec![key],
                })),
                Err(Full) => {
                    ledger.expected_objects(objects);
                    return Err(NoRoom::MEMORY);
                }
            }
        }
        Deed::Copy { source, .. } => {
            let copy = ledger.copy_of(source.0, source.1);
            admission.contents.push(copy);
        }
        Deed::Attach { bytes } => {
            let list = ledger.charge(Pool::Host, *bytes)?;
            admission.contents.push(Some(Content::of(list)));
        }
        Deed::Export {
            client,
            objects: exported,
            to,
            places,
            ..
        } => {
            let bytes = if ledger.has_places(*to) { 0 } else { *places };
            match ledger.charge(Pool::Host, bytes) {
                Ok(key) => admission.contents.push(Some(Content::of(key))),
                Err(Full) => {
                    ledger.expected_objects(objects);
                    return Err(NoRoom::MEMORY);
                }
            }
            let copies = exported
                .iter()
                .map(|object| ledger.copy_of(*client, *object));
            admission.contents.extend(copies);
        }
        Deed::Import {
            from,
            first,
            objects,
            ..
        } => {
            let places = (0..objects.count).map(|index| first.saturating_add(index));
            let copies = places.map(|place| ledger.copy_of_exported((*from)?, place));
            admission.contents.extend(copies);
        }
        Deed::Hold { client, memory, .. } => {
            let held = memory.iter().map(|memory| ledger.copy_of(*client, *memory));
            admission.contents.extend(held);
        }
        Deed::DmaBuf {
            client,
            memory,
            backing,
        } => {
            let records = ledger.charge(Pool::Host, *backing)?;
            admission.contents.push(Some(Content::of(records)));
            let copies = memory.iter().map(|memory| ledger.copy_of(*client, *memory));
            admission.contents.extend(copies);
        }
        Deed::Show { client, memory } => {
            let shown = ledger.host_memory_of(*client, *memory);
            admission.contents.push(shown);
        }
        Deed::Map { client, memory, .. } => {
            let mapped = ledger.copy_of(*client, *memory);
            admission.contents.push(mapped);
        }
        Deed::Nothing
        | Deed::Free { .. }
        | Deed::Share { .. }
        | Deed::OsEvent { .. }
        | Deed::EndOsEvent { .. }
        | Deed::Register { .. }
        | Deed::Space { .. }
        | Deed::Group { .. }
        | Deed::EndGroup { .. }
        | Deed::Range { .. }
        | Deed::EndRange { .. }
        | Deed::Unmap { .. } => {}
    }
    admission.objects = objects;
    Ok(())
}

/// What a new object will have.
fn new_content(
    ledger: &mut Ledger,
    client: u32,
    parent: u32,
    what: &What,
) -> Result<Content, NoRoom> {
    let gpu = ledger.gpu_of(client, parent);
    Ok(match what {
        What::Device { gpu, .. } => Content {
            gpu: Some(*gpu),
            memory: Vec::new(),
        },
        // The driver refuses these as well: what cannot be accounted for must not depend on it.
        What::Unsaid => return Err(NoRoom(NV_ERR_INVALID_ARGUMENT)),
        What::Uncounted => return Err(NoRoom(NV_ERR_NOT_SUPPORTED)),
        What::GpuMemory { bytes, .. } => {
            let Some(number) = gpu else {
                let exists = client == parent || ledger.has_object(client, parent);
                return Err(NoRoom(match exists {
                    true => NV_ERR_INVALID_OBJECT_PARENT,
                    false => NV_ERR_OBJECT_NOT_FOUND,
                }));
            };
            let memory = vec![ledger.charge(Pool::Gpu(number), *bytes)?];
            Content { gpu, memory }
        }
        What::HostMemory { bytes } => Content {
            gpu,
            memory: vec![ledger.charge(Pool::Host, *bytes)?],
        },
        What::Holder(memory) => {
            let held = memory
                .iter()
                .filter_map(|memory| ledger.copy_of(client, *memory));
            Content {
                gpu,
                memory: held.flat_map(|content| content.memory).collect(),
            }
        }
        What::MemorySize { .. } | What::Other => Content {
            gpu,
            memory: Vec::new(),
        },
    })
}
