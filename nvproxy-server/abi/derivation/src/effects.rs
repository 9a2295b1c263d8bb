//! What the rules say of clients and objects: where their handles lie in each release's parameters.
//!
//! Where a release's structure lacks a field that a rule names, the request does not do there what the rule says. A field
//! of another size than a rule takes it to have is an error.

use nvproxy_abi_effects::{Effect, Number, Rewrite};

use crate::parameters::Parameters;
use crate::rows::{ArrayPlace, ClientField, Extent, MemoryList, Place, Places};
use crate::rules::{ClientRule, MemoryListRule, Names, Rule, fields};

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
        itself: rule.itself,
    }))
}

/// What `rule` says becomes of objects; nothing, if this release's parameters lack a field of it.
pub(crate) fn effect(
    parameters: Parameters<'_>,
    rule: &Effect<Names>,
) -> Result<Option<Effect<Places>>, String> {
    let mut fields = fields(rule).into_iter();
    if fields.any(|path| parameters.place(path).is_none()) {
        return Ok(None);
    }
    rule.rewrite(&mut InStructure(parameters)).map(Some)
}

/// The same, of parameters that have no structure: an effect that names no field.
pub(crate) fn without_structure(rule: &Rule) -> Option<Effect<Places>> {
    rule.effect.as_ref()?.rewrite(&mut InNoStructure).ok()
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

impl Rewrite<'_, Names, Places> for InNoStructure {
    type Error = ();

    fn field<T: Number>(&mut self, _: &String) -> Result<Place, ()> {
        Err(())
    }

    fn array<T: Number>(&mut self, _: &String) -> Result<ArrayPlace, ()> {
        Err(())
    }
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

/// The array at `path`, of elements or of structures that begin with one, of as many bytes.
fn array(parameters: Parameters<'_>, path: &str, bytes: u32) -> Result<ArrayPlace, String> {
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
    Ok(ArrayPlace {
        place,
        stride: short(stride)?,
        most: short(size / stride)?,
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
