//! What the rules say of clients and objects: where their handles lie in each release's parameters.
//!
//! Where a release's structure lacks a field that a rule names, the request does not do there what the rule says. A field
//! of another size than a rule takes it to have is an error.

use crate::parameters::Parameters;
use crate::rows::{Amount, ClientField, Effect, Extent, MemoryList, Objects, Place};
use crate::rules::{
    AmountRule, ClientRule, EffectRule, MapRule, MemoryListRule, ObjectsRule, UnmapRule,
};

/// Bytes of a handle.
const HANDLE: u32 = 4;
/// Bytes of a GPU's UUID.
const UUID: u32 = 16;

/// The handles of clients that `rule` speaks of.
pub(crate) fn client(
    parameters: Parameters<'_>,
    rule: &ClientRule,
) -> Result<Option<ClientField>, String> {
    let Some((place, size)) = parameters.place(&rule.field) else {
        return Ok(None);
    };
    let extent = match (&rule.count, size) {
        (None, HANDLE) => Extent::One,
        (None, 8) => Extent::Behind,
        (Some(count), size) if size % HANDLE == 0 => Extent::Array {
            most: short(size / HANDLE)?,
            count: sized(parameters, count, 4)?,
        },
        _ => {
            let path = &rule.field;
            return Err(format!(
                "has {path}, of {size} bytes, which a rule calls a client"
            ));
        }
    };
    let absent = rule.absent.clone();
    Ok(Some(ClientField {
        place,
        extent,
        absent,
        itself: rule.itself,
    }))
}

/// What `rule` says becomes of objects; nothing, if this release's parameters lack a field of it.
pub(crate) fn effect(
    parameters: Parameters<'_>,
    rule: &EffectRule,
) -> Result<Option<Effect>, String> {
    let handle = |path: &str| sized(parameters, path, HANDLE);
    if rule
        .fields()
        .iter()
        .any(|path| parameters.place(path).is_none())
    {
        return Ok(None);
    }
    Ok(Some(match rule {
        EffectRule::Allocate { parent, object } => Effect::Allocate {
            parent: handle(parent)?,
            object: handle(object)?,
        },
        EffectRule::Free { object } => Effect::Free {
            object: handle(object)?,
        },
        EffectRule::Duplicate {
            parent,
            object,
            source,
        } => Effect::Duplicate {
            parent: handle(parent)?,
            object: handle(object)?,
            source: handle(source)?,
        },
        EffectRule::Register => Effect::Register,
        EffectRule::Attach => Effect::Attach,
        EffectRule::OsEvent { key } => Effect::OsEvent { key: handle(key)? },
        EffectRule::EndOsEvent { key } => Effect::EndOsEvent { key: handle(key)? },
        EffectRule::Share { object, kind } => Effect::Share {
            object: handle(object)?,
            kind: sized(parameters, kind, 2)?,
        },
        EffectRule::Show { memory } => Effect::Show {
            memory: handle(memory)?,
        },
        EffectRule::Control { object } => Effect::Control {
            object: handle(object)?,
        },
        EffectRule::Export(rule) => Effect::Export(objects(parameters, rule)?),
        EffectRule::Import {
            parent,
            objects: rule,
        } => Effect::Import {
            parent: handle(parent)?,
            objects: objects(parameters, rule)?,
        },
        EffectRule::Hold(rule) => Effect::Hold(objects(parameters, rule)?),
        EffectRule::Client => Effect::Client,
        EffectRule::Device { instance } => Effect::Device {
            instance: sized(parameters, instance, 4)?,
        },
        EffectRule::GpuMemory(rule) => Effect::GpuMemory(amount(parameters, rule)?),
        EffectRule::HostMemory(rule) => Effect::HostMemory(amount(parameters, rule)?),
        EffectRule::HostMemoryUpTo { limit, flags } => Effect::HostMemoryUpTo {
            limit: sized(parameters, limit, 8)?,
            flags: sized(parameters, flags, 4)?,
        },
        EffectRule::Pinned { limit } => Effect::Pinned {
            limit: sized(parameters, limit, 8)?,
        },
        EffectRule::Range {
            base,
            length,
            backed,
        } => Effect::Range {
            base: sized(parameters, base, 8)?,
            length: sized(parameters, length, 8)?,
            backed: *backed,
        },
        EffectRule::EndRange { base } => Effect::EndRange {
            base: sized(parameters, base, 8)?,
        },
        EffectRule::AddressSpace => Effect::AddressSpace,
        EffectRule::RangeGroup => Effect::RangeGroup,
        EffectRule::EndRangeGroup => Effect::EndRangeGroup,
        EffectRule::Map(rule) => map(parameters, rule)?,
        EffectRule::Unmap(rule) => unmap(parameters, rule)?,
    }))
}

fn amount(parameters: Parameters<'_>, rule: &AmountRule) -> Result<Amount, String> {
    Ok(Amount {
        size: sized(parameters, &rule.size, 8)?,
        alignment: sized(parameters, &rule.alignment, 8)?,
        flags: sized(parameters, &rule.flags, 4)?,
        attr: sized(parameters, &rule.attr, 4)?,
        attr2: sized(parameters, &rule.attr2, 4)?,
    })
}

fn map(parameters: Parameters<'_>, rule: &MapRule) -> Result<Effect, String> {
    let Objects {
        place,
        stride,
        most,
        ..
    } = array(parameters, &rule.gpus, UUID)?;
    Ok(Effect::Map {
        base: sized(parameters, &rule.base, 8)?,
        length: sized(parameters, &rule.length, 8)?,
        memory: sized(parameters, &rule.memory, HANDLE)?,
        gpus: place,
        stride,
        most,
        count: sized(parameters, &rule.count, 8)?,
    })
}

fn unmap(parameters: Parameters<'_>, rule: &UnmapRule) -> Result<Effect, String> {
    let optional = |path: &Option<String>, bytes| {
        let place = path.as_ref().map(|path| sized(parameters, path, bytes));
        place.transpose()
    };
    Ok(Effect::Unmap {
        base: optional(&rule.base, 8)?,
        length: optional(&rule.length, 8)?,
        gpu: optional(&rule.gpu, UUID)?,
    })
}

/// The list that `rule` speaks of.
pub(crate) fn memory_list(
    parameters: Parameters<'_>,
    rule: &MemoryListRule,
) -> Result<Option<MemoryList>, String> {
    let Some((place, _)) = parameters.place(&rule.field) else {
        return Ok(None);
    };
    Ok(Some(MemoryList {
        behind: parameters.references().contains(&place.path),
        place,
        count: sized(parameters, &rule.count, 4)?,
    }))
}

fn objects(parameters: Parameters<'_>, rule: &ObjectsRule) -> Result<Objects, String> {
    let optional = |path: &Option<String>| {
        let place = path.as_ref().map(|path| sized(parameters, path, 2));
        place.transpose()
    };
    Ok(Objects {
        count: optional(&rule.count)?,
        first: optional(&rule.first)?,
        places: optional(&rule.places)?,
        ..array(parameters, &rule.field, HANDLE)?
    })
}

/// The array at `path`, of elements or of structures that begin with one, of as many bytes.
fn array(parameters: Parameters<'_>, path: &str, bytes: u32) -> Result<Objects, String> {
    let located = parameters.release.locate(parameters.structure, path);
    let element = located.map(|field| {
        let structure = parameters.release.structures.get(&field.type_name);
        let stride = structure.map_or(bytes, |structure| structure.size);
        (field.size, stride)
    });
    let (place, element) = parameters
        .place(path)
        .map(|(place, _)| place)
        .zip(element)
        .ok_or_else(|| format!("lacks {path}"))?;
    let (size, stride) = element;
    if stride < bytes || size % stride != 0 {
        return Err(format!(
            "has {path}, of {size} bytes, which a rule calls an array"
        ));
    }
    Ok(Objects {
        place,
        stride: short(stride)?,
        most: short(size / stride)?,
        count: None,
        first: None,
        places: None,
    })
}

/// The field at `path`, which has as many bytes.
pub(crate) fn sized(parameters: Parameters<'_>, path: &str, bytes: u32) -> Result<Place, String> {
    match parameters.place(path) {
        Some((place, size)) if size == bytes => Ok(place),
        Some((_, size)) => Err(format!("has {path}, of {size} bytes instead of {bytes}")),
        None => Err(format!("lacks {path}")),
    }
}

pub(crate) fn short(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("has an array of {number}"))
}
