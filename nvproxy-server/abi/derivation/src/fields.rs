//! What is to be known of the fields of a request's parameters: by the driver's own list of nested buffers, and by the
//! rules. Whatever looks as if it referred to something outside the parameters has to be in one of the two.

use std::collections::HashSet;

use nvproxy_abi_catalogue::{Copy, Count};

use crate::derive::Derivation;
use crate::effects;
use crate::parameters::Parameters;
use crate::rows::{Contents, Descriptor, ForcedBits, Length, Place, Pointer, RefusedFlags, Row};
use crate::rules::{PointerRule, Rule};
use crate::tenants;

impl<'a> Derivation<'a> {
    /// Adds to `row` what is to be known of the fields of its parameters.
    pub(crate) fn fill(
        &mut self,
        row: &mut Row,
        parameters: Parameters<'_>,
        rule: Option<&'a Rule>,
        copies: &[Copy],
    ) {
        row.structure = Some(parameters.structure.to_owned());
        let release = parameters.release;
        let mut accounted: HashSet<String> = HashSet::new();
        if let Some(rule) = rule {
            accounted.extend(rule.inert.iter().cloned());
            self.apply(row, parameters, rule, &mut accounted);
        }
        for copy in copies {
            if accounted.insert(copy.pointer.to_string()) {
                match followed(parameters, copy) {
                    Ok(pointer) => row.pointers.push(pointer),
                    Err(problem) => self.error(release, &row.name, &problem),
                }
            }
        }
        row.pointers.sort_by_key(|pointer| pointer.place.at);
        // What the driver's own list of buffers leaves out it does not follow, but somebody has to have made sure.
        if row.reserved.is_none() {
            for path in parameters.references() {
                if !accounted.contains(&path) {
                    self.error(release, &row.name, &format!("has {path}, which looks like a pointer, a descriptor, a client, a GPU or a process: no rule says what it is"));
                }
            }
        }
    }

    /// Applies what `rule` says of fields that this release's structure has.
    fn apply(
        &mut self,
        row: &mut Row,
        parameters: Parameters<'_>,
        rule: &'a Rule,
        accounted: &mut HashSet<String>,
    ) {
        let fields = rule.fields().into_iter();
        self.placed
            .extend(fields.filter(|(_, field)| parameters.has(field)));
        row.pins |= rule.pins;
        row.makes_event |= rule.makes_event;
        accounted.extend(rule.pointers.iter().map(|pointer| pointer.field.clone()));
        let pointers = rule.pointers.iter();
        let pointers = pointers.map(|rule| ruled(parameters, rule));
        row.pointers.extend(self.sound(row, parameters, pointers));
        for descriptor in &rule.descriptors {
            accounted.insert(descriptor.field.clone());
            if let Some((place, _)) = parameters.place(&descriptor.field) {
                row.descriptors.push(Descriptor {
                    place,
                    role: descriptor.role,
                });
            }
        }
        if let Some(rule) = &rule.refused_flags
            && let Some((place, _)) = parameters.place(&rule.field)
        {
            let (bits, status) = (rule.bits, rule.status.clone());
            row.refused_flags = Some(RefusedFlags {
                place,
                bits,
                status,
            });
        }
        accounted.extend(rule.clients.iter().map(|client| {
            let index = if client.count.is_some() { "[]" } else { "" };
            format!("{}{index}", client.field)
        }));
        let clients = rule.clients.iter();
        let clients = clients.map(|rule| effects::client(parameters, rule));
        row.clients.extend(self.sound(row, parameters, clients));
        self.apply_required(row, parameters, rule, accounted);
        self.apply_to_tenants(row, parameters, rule, accounted);
    }

    /// The same, of fields that every release has to have: nothing else would miss them, and the request would be let
    /// through as if there were no rule.
    fn apply_required(
        &mut self,
        row: &mut Row,
        parameters: Parameters<'_>,
        rule: &'a Rule,
        accounted: &mut HashSet<String>,
    ) {
        let set = rule.set_bits.iter().map(|rule| (rule, rule.bits, 0));
        let cleared = rule.cleared_bits.iter().map(|rule| (rule, 0, rule.bits));
        let bits = set.chain(cleared).map(|(rule, set, cleared)| {
            let (place, _) = parameters.required(&rule.field)?;
            Ok(Some((place, ForcedBits { set, cleared })))
        });
        row.forced_bits = self.sound(row, parameters, bits).pop();
        let effect = rule.effect.iter();
        let effect = effect.map(|rule| effects::effect(parameters, rule).map(Some));
        row.effect = self.sound(row, parameters, effect).pop();
        let lists = rule.memory_list.iter();
        let lists = lists.map(|rule| effects::memory_list(parameters, rule).map(Some));
        row.memory_list = self.sound(row, parameters, lists).pop();
        if let Some(rule) = &rule.variants {
            let variants = rule.classes.iter();
            let variants = variants
                .filter_map(|variant| self.variant(row, parameters, variant, accounted))
                .collect();
            match parameters.required(&rule.field) {
                Ok((place, _)) => row.variants = Some((place, variants)),
                Err(problem) => self.error(parameters.release, &row.name, &problem),
            }
        }
    }

    /// The same, of what concerns other tenants.
    fn apply_to_tenants(
        &mut self,
        row: &mut Row,
        parameters: Parameters<'_>,
        rule: &'a Rule,
        accounted: &mut HashSet<String>,
    ) {
        row.answered |= rule.answered;
        let told = rule.gpu_lists.iter().filter_map(|list| {
            let field = list.field.as_ref()?;
            let id = list.id.as_ref();
            Some(id.map_or_else(|| format!("{field}[]"), |id| format!("{field}[].{id}")))
        });
        accounted.extend(told);
        let named = rule.gpus.iter().filter_map(|gpu| gpu.field.as_ref());
        let cleared = rule.cleared.iter().map(|cleared| &cleared.field);
        for field in named.chain(cleared) {
            accounted.extend([field.clone(), format!("{field}[]")]);
        }
        let gpus = rule.gpus.iter().map(|rule| tenants::gpu(parameters, rule));
        row.gpus.extend(self.sound(row, parameters, gpus));
        let passed = rule.passed.iter();
        let passed = passed.map(|rule| tenants::passed(parameters, rule));
        row.passed.extend(self.sound(row, parameters, passed));
        let replaced = row.passed.iter().filter(|passed| passed.is_replaced());
        if replaced.count() + usize::from(row.forced_bits.is_some()) > 1 {
            let problem = "has more than one field that the driver is told otherwise";
            self.error(parameters.release, &row.name, problem);
        }
        let lists = rule.gpu_lists.iter();
        let lists = lists.map(|rule| tenants::list(parameters, rule));
        row.gpu_lists.extend(self.sound(row, parameters, lists));
        let cleared = rule.cleared.iter();
        let cleared = cleared.map(|rule| tenants::cleared(parameters, rule));
        row.cleared.extend(self.sound(row, parameters, cleared));
    }

    /// Those that this release has; what is wrong with the others is an error.
    fn sound<T>(
        &mut self,
        row: &Row,
        parameters: Parameters<'_>,
        found: impl Iterator<Item = Result<Option<T>, String>>,
    ) -> Vec<T> {
        let mut sound = Vec::new();
        for found in found {
            match found {
                Ok(found) => sound.extend(found),
                Err(problem) => self.error(parameters.release, &row.name, &problem),
            }
        }
        sound
    }

    /// The row that holds besides `row` if its parameters name the class of `rule`.
    fn variant(
        &mut self,
        row: &Row,
        parameters: Parameters<'_>,
        rule: &'a Rule,
        accounted: &mut HashSet<String>,
    ) -> Option<Row> {
        let release = parameters.release;
        let class = release
            .classes
            .iter()
            .find(|class| *class.name == *rule.name)?;
        let mut variant = Row {
            id: class.id,
            name: rule.name.clone(),
            size: row.size,
            structure: Some(parameters.structure.to_owned()),
            may_block: rule.pins,
            ..Row::default()
        };
        accounted.extend(rule.inert.iter().cloned());
        self.apply(&mut variant, parameters, rule, accounted);
        Some(variant)
    }
}

/// A 4-byte field that counts something.
fn counter(parameters: Parameters<'_>, path: &str) -> Result<Place, String> {
    match parameters.place(path) {
        Some((place, 4)) => Ok(place),
        Some((_, size)) => Err(format!(
            "is counted by {path}, which has {size} bytes instead of 4"
        )),
        None => Err(format!("is counted by {path}, which its structure lacks")),
    }
}

/// A buffer that the driver's own list says it follows.
fn followed(parameters: Parameters<'_>, copy: &Copy) -> Result<Pointer, String> {
    let pointer = &*copy.pointer;
    let Some((place, 8)) = parameters.place(pointer) else {
        return Err(format!(
            "follows {pointer}, which is no 8-byte field of its structure"
        ));
    };
    let scale = copy.element;
    let length = match &copy.count {
        Count::Constant(count) => Length::Fixed(count.saturating_mul(scale)),
        Count::Field(path) => Length::Field {
            count: counter(parameters, path)?,
            scale,
        },
        Count::Other(text) => {
            return Err(format!(
                "follows {pointer}, counted by `{text}`: a rule has to say how long that is"
            ));
        }
    };
    Ok(Pointer {
        place,
        length,
        contents: Contents::Bytes,
    })
}

/// A buffer that a rule speaks of; `None` if this release's structure has no such pointer.
fn ruled(parameters: Parameters<'_>, rule: &PointerRule) -> Result<Option<Pointer>, String> {
    let Some((place, size)) = parameters.place(&rule.field) else {
        return Ok(None);
    };
    if size != 8 {
        return Err(format!(
            "has {}, of {size} bytes, which a rule calls a pointer",
            rule.field
        ));
    }
    let scale = rule.element.unwrap_or(1);
    let length = match (rule.bytes, &rule.count, &rule.side, &rule.class) {
        (Some(bytes), None, None, None) => Length::Fixed(bytes),
        (None, Some(count), None, None) => Length::Field {
            count: counter(parameters, count)?,
            scale,
        },
        (None, None, Some(side), None) => Length::Square {
            side: counter(parameters, side)?,
            scale,
        },
        (None, None, None, Some(_)) => Length::OfContents,
        _ => {
            return Err(format!(
                "has a rule for {} that says its length twice, or not at all",
                rule.field
            ));
        }
    };
    let contents = match (&rule.control, &rule.class) {
        (Some(command), None) => Contents::Control {
            command: counter(parameters, command)?,
        },
        (None, Some(class)) => Contents::Class {
            class: counter(parameters, class)?,
        },
        _ => Contents::Bytes,
    };
    Ok(Some(Pointer {
        place,
        length,
        contents,
    }))
}
