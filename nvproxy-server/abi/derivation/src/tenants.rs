//! What the rules say of other tenants of a machine: where a request names a GPU, with which values a field is passed, and
//! what an answer is not to tell.
//!
//! As for clients, where a release's structure lacks a field that a rule names, the rule says nothing about that release.

use crate::effects::{short, sized};
use crate::parameters::Parameters;
use crate::rows::{Cleared, GpuField, GpuList, Naming, Otherwise, Passed, Place, Values};
use crate::rules::{ClearedRule, GpuListRule, GpuRule, PassedRule, Rule};

/// Bytes of a GPU's id, and of its UUID.
const ID: u32 = 4;
const UUID: u32 = 16;

/// The start of a request's parameters.
fn start() -> Place {
    Place {
        path: String::new(),
        at: 0,
    }
}

/// The names of GPUs that `rule` speaks of.
pub(crate) fn gpu(parameters: Parameters<'_>, rule: &GpuRule) -> Result<Option<GpuField>, String> {
    let Some(path) = &rule.field else {
        return Ok(None);
    };
    let Some((place, size)) = parameters.place(path) else {
        return Ok(None);
    };
    let naming = match (&rule.count, rule.end, size) {
        (None, None, ID) => Naming::Id,
        (None, None, UUID) => Naming::Uuid,
        (Some(count), None, size) if size % ID == 0 => Naming::Counted {
            most: short(size / ID)?,
            count: sized(parameters, count, 4)?,
        },
        (None, Some(end), size) if size % ID == 0 => Naming::Until {
            most: short(size / ID)?,
            end,
            unused: rule.unused,
        },
        _ => {
            return Err(format!(
                "has {path}, of {size} bytes, which a rule calls a GPU"
            ));
        }
    };
    let absent = rule.absent.clone();
    Ok(Some(GpuField {
        place,
        naming,
        absent,
    }))
}

/// What `rule` says of a request whose whole argument is a list: the names of GPUs, and the lists.
pub(crate) fn whole(
    parameters: impl Fn(&str) -> Option<u32>,
    id: impl Fn(&str, &str) -> Option<u32>,
    rule: &Rule,
) -> Result<(Vec<GpuField>, Vec<GpuList>), String> {
    let gpus = rule.gpus.iter().map(|gpu| GpuField {
        place: start(),
        naming: Naming::Rest {
            unused: gpu.unused.unwrap_or_default(),
        },
        absent: gpu.absent.clone(),
    });
    let lists = rule.gpu_lists.iter().map(|list| {
        let element = list
            .element
            .as_deref()
            .ok_or("has a list of no structure")?;
        let stride = parameters(element).ok_or_else(|| format!("lacks {element}"))?;
        let field = list.id.as_deref().unwrap_or_default();
        let at = id(element, field).ok_or_else(|| format!("lacks {element}.{field}"))?;
        Ok(GpuList {
            place: start(),
            stride: short(stride)?,
            most: None,
            id: short(at)?,
            fill: list.fill,
            count: None,
        })
    });
    Ok((gpus.collect(), lists.collect::<Result<_, String>>()?))
}

/// The field that `rule` speaks of, with the values that are passed.
pub(crate) fn passed(
    parameters: Parameters<'_>,
    rule: &PassedRule,
) -> Result<Option<Passed>, String> {
    let path = &rule.field;
    let Some((place, size)) = parameters.place(path) else {
        return Ok(None);
    };
    let (1 | 2 | 4 | 8) = size else {
        return Err(format!("has {path}, of {size} bytes, which is no number"));
    };
    let values = match (&rule.values, rule.least, rule.most) {
        (Some(values), None, None) => Values::OneOf(values.clone()),
        (None, Some(least), None) => Values::AtLeast(least),
        (None, None, Some(most)) => Values::AtMost(most),
        _ => {
            return Err(format!(
                "has a rule for {path} that says its values twice, or not at all"
            ));
        }
    };
    let otherwise = match (&rule.status, rule.instead) {
        (Some(status), None) => Otherwise::Refused(status.clone()),
        (None, Some(instead)) if size == 8 || instead >> (8 * size) == 0 => {
            Otherwise::Instead(instead)
        }
        _ => {
            return Err(format!(
                "has a rule for {path} that says neither a status nor one value that it can have instead"
            ));
        }
    };
    Ok(Some(Passed {
        place,
        width: size as u8,
        of_clients: rule.of_clients,
        values,
        otherwise,
    }))
}

/// The list that `rule` speaks of.
pub(crate) fn list(
    parameters: Parameters<'_>,
    rule: &GpuListRule,
) -> Result<Option<GpuList>, String> {
    let Some(path) = &rule.field else {
        return Ok(None);
    };
    let element = rule
        .id
        .as_ref()
        .map_or_else(|| path.clone(), |id| format!("{path}[].{id}"));
    let (Some((place, size)), Some(elements)) =
        (parameters.place(path), parameters.elements(&element))
    else {
        return Ok(None);
    };
    let (id, stride) = match &rule.id {
        Some(_) => (elements.at - u32::from(place.at), elements.stride),
        None => (0, ID),
    };
    let count = rule.count.as_ref();
    let count = count.map(|count| sized(parameters, count, 4));
    Ok(Some(GpuList {
        place,
        stride: short(stride)?,
        most: Some(short(size / stride)?),
        id: short(id)?,
        fill: rule.fill,
        count: count.transpose()?,
    }))
}

/// What `rule` says is not told.
pub(crate) fn cleared(
    parameters: Parameters<'_>,
    rule: &ClearedRule,
) -> Result<Option<Cleared>, String> {
    let path = &rule.field;
    let Some(elements) = parameters.elements(path) else {
        return Ok(None);
    };
    Ok(Some(Cleared {
        place: Place {
            path: path.clone(),
            at: short(elements.at)?,
        },
        length: short(elements.size)?,
        stride: short(elements.stride)?,
        count: short(elements.count)?,
        fill: rule.fill,
    }))
}
