//! What the rules say of clients and objects: where their handles lie in each release's parameters.
//!
//! A release that lacks a field of an effect is an error: the server would let the request happen there and note nothing of
//! it. So is a field of another size than a rule takes it to have. Of clients, [`crate::rules`] says what holds.

use nvproxy_abi_effects::{Effect, Number, Rewrite};

use crate::parameters::Parameters;
use crate::rows::{ArrayPlace, ClientField, Extent, MemoryList, Place, Places};
use crate::rules::{ClientRule, MemoryListRule, Names};

/// Bytes of a handle.
const HANDLE: u32 = 4;

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
        whose: rule.whose,
        is_filled_in: rule.is_filled_in,
    }))
}

/// What `rule` says becomes of objects.
pub(crate) fn effect(
    parameters: Parameters<'_>,
    rule: &Effect<Names>,
) -> Result<Effect<Places>, String> {
    rule.rewrite(&mut InStructure(parameters))
}

/// The same, of parameters that have no structure: an effect that names no field.
pub(crate) fn without_structure(rule: &Effect<Names>) -> Result<Effect<Places>, String> {
    rule.rewrite(&mut InNoStructure)
}

/// Finds where fields lie.
struct InStructure<'a>(Parameters<'a>);

impl Rewrite<'_, Names, Places> for InStructure<'_> {
    type Error = String;

    fn field<T: Number>(&mut self, path: &String) -> Result<Place, String> {
        sized(self.0, path, T::BYTES)
    }

    fn array<T: Number>(&mut self, path: &String) -> Result<ArrayPlace, String> {
        array(self.0, path, T::BYTES)
    }
}

/// Finds nothing.
struct InNoStructure;

fn nowhere<T>(path: &str) -> Result<T, String> {
    Err(format!(
        "has no structure with {path}, which its rule is about"
    ))
}

impl Rewrite<'_, Names, Places> for InNoStructure {
    type Error = String;

    fn field<T: Number>(&mut self, path: &String) -> Result<Place, String> {
        nowhere(path)
    }

    fn array<T: Number>(&mut self, path: &String) -> Result<ArrayPlace, String> {
        nowhere(path)
    }
}

/// The list that `rule` speaks of.
pub(crate) fn memory_list(
    parameters: Parameters<'_>,
    rule: &MemoryListRule,
) -> Result<MemoryList, String> {
    let (place, _) = parameters.required(&rule.field)?;
    Ok(MemoryList {
        behind: parameters.references().contains(&place.path),
        place,
        count: sized(parameters, &rule.count, 4)?,
    })
}

/// The array at `path`, of elements or of structures that begin with one, of as many bytes.
fn array(parameters: Parameters<'_>, path: &str, bytes: u32) -> Result<ArrayPlace, String> {
    let (place, size) = parameters.required(path)?;
    let located = parameters.release.locate(parameters.structure, path);
    let structure = located.and_then(|field| parameters.release.structures.get(&field.type_name));
    let stride = structure.map_or(bytes, |structure| structure.size);
    if stride < bytes || size % stride != 0 {
        return Err(format!(
            "has {path}, of {size} bytes, which a rule calls an array"
        ));
    }
    Ok(ArrayPlace {
        place,
        stride: short(stride)?,
        most: short(size / stride)?,
    })
}

/// The field at `path`, which has as many bytes.
pub(crate) fn sized(parameters: Parameters<'_>, path: &str, bytes: u32) -> Result<Place, String> {
    match parameters.required(path)? {
        (place, size) if size == bytes => Ok(place),
        (_, size) => Err(format!("has {path}, of {size} bytes instead of {bytes}")),
    }
}

pub(crate) fn short(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("has an array of {number}"))
}
