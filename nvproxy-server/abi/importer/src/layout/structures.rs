//! From the compiler's types to structures of the catalogue.
//!
//! A member that is a structure without a name is replaced by that structure's members, since nothing else can name
//! them. A member that is an array of such a structure cannot be: the structure gets a name made of where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nvproxy_abi_catalogue::{BitField, Field, Structure};

use super::{Aggregate, Layout, Member, Type, TypeId};
use crate::error::Error;

/// What was found about a member's type, arrays and qualifiers taken off.
struct Element {
    type_id: TypeId,
    /// `None` if it is no array.
    elements: Option<u64>,
}

impl Layout {
    /// The named structures, those of these names and those declared in files that `wanted` accepts, and every
    /// structure that one of them has as a member.
    ///
    /// # Errors
    /// There is no type of such a name, or a layout that the model cannot hold. Names of types that are no structures
    /// are passed over.
    pub fn structures<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<Rc<str>, Rc<Structure>>, Error> {
        let mut open = self.declared(wanted);
        let by_name = self.by_name();
        for name in names {
            let type_id = by_name
                .get(name)
                .ok_or_else(|| Error::new(format!("the headers have no type {name}")))?;
            if let Some(aggregate) = self.aggregate(*type_id) {
                open.push((name.to_owned(), aggregate));
            }
        }
        let mut structures = BTreeMap::new();
        while let Some((name, aggregate)) = open.pop() {
            if structures.contains_key(name.as_str()) {
                continue;
            }
            let mut description = Description {
                layout: self,
                owner: &name,
                fields: Vec::new(),
                members: Vec::new(),
            };
            description.aggregate(aggregate, "", 0)?;
            let structure = Structure {
                size: small(aggregate.size)?,
                fields: description.fields,
            };
            open.append(&mut description.members);
            structures.insert(Rc::from(name.as_str()), Rc::new(structure));
        }
        Ok(structures)
    }

    /// The structures that are declared in such files: by typedef, or by tag if no typedef names them.
    fn declared(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, &Aggregate)> {
        let mut declared = Vec::new();
        let mut has_typedef = BTreeSet::new();
        for found in self.types.values() {
            if let Type::Typedef { name, target, file } = found {
                let Some(target) = target.and_then(|target| self.resolve(target)) else {
                    continue;
                };
                if let Some(Type::Aggregate(aggregate)) = self.types.get(&target) {
                    has_typedef.insert(target);
                    if wanted(file) {
                        declared.push((name.clone(), aggregate));
                    }
                }
            }
        }
        for (type_id, found) in &self.types {
            if let Type::Aggregate(aggregate) = found
                && let Some(tag) = &aggregate.tag
                && wanted(&aggregate.file)
                && !has_typedef.contains(type_id)
            {
                declared.push((format!("{} {tag}", aggregate.keyword), aggregate));
            }
        }
        declared
    }

    fn by_name(&self) -> BTreeMap<&str, TypeId> {
        let named = self
            .types
            .iter()
            .filter_map(|(type_id, found)| match found {
                Type::Typedef { name, .. } | Type::Base { name, .. } => {
                    Some((name.as_str(), *type_id))
                }
                _ => None,
            });
        named.collect()
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut type_id: TypeId) -> Option<TypeId> {
        while let Some(Type::Typedef { target, .. } | Type::Qualified { target }) =
            self.types.get(&type_id)
        {
            type_id = (*target)?;
        }
        Some(type_id)
    }

    fn aggregate(&self, type_id: TypeId) -> Option<&Aggregate> {
        match self.types.get(&self.resolve(type_id)?)? {
            Type::Aggregate(aggregate) => Some(aggregate),
            _ => None,
        }
    }

    fn size_of(&self, type_id: TypeId) -> Option<u64> {
        Some(match self.types.get(&self.resolve(type_id)?)? {
            Type::Base { size, .. }
            | Type::Enumeration { size, .. }
            | Type::Pointer { size, .. } => *size,
            Type::Aggregate(aggregate) => aggregate.size,
            Type::Array { element, elements } => {
                self.size_of((*element)?)?.checked_mul(*elements)?
            }
            _ => return None,
        })
    }

    /// Takes arrays, typedefs of arrays and qualifiers off.
    fn element(&self, mut type_id: TypeId) -> Option<Element> {
        let mut elements = None;
        loop {
            match self.types.get(&type_id)? {
                Type::Qualified { target } => type_id = (*target)?,
                Type::Array {
                    element,
                    elements: dimension,
                } => {
                    elements = Some(elements.unwrap_or(1u64).checked_mul(*dimension)?);
                    type_id = (*element)?;
                }
                Type::Typedef { target, .. } => {
                    let behind = self.resolve((*target)?)?;
                    if !matches!(self.types.get(&behind)?, Type::Array { .. }) {
                        break;
                    }
                    type_id = behind;
                }
                _ => break,
            }
        }
        Some(Element { type_id, elements })
    }

    /// The type as one would declare it.
    fn name_of(&self, type_id: TypeId) -> Option<String> {
        Some(match self.types.get(&type_id)? {
            Type::Typedef { name, .. } | Type::Base { name, .. } => name.clone(),
            Type::Enumeration { name, .. } => match name {
                Some(name) => format!("enum {name}"),
                None => "enum".to_owned(),
            },
            Type::Aggregate(aggregate) => {
                format!("{} {}", aggregate.keyword, aggregate.tag.as_deref()?)
            }
            Type::Pointer { target: None, .. } => "void *".to_owned(),
            Type::Pointer {
                target: Some(target),
                ..
            } => match self.name_of(*target)? {
                // A pointer to a pointer, whose name ends in a star already.
                name if name.ends_with('*') => format!("{name}*"),
                name => format!("{name} *"),
            },
            Type::Qualified { target: None } => "void".to_owned(),
            Type::Qualified {
                target: Some(target),
            } => self.name_of(*target)?,
            Type::Function => "function".to_owned(),
            Type::Array { .. } => return None,
        })
    }
}

/// A structure under description.
struct Description<'a, 'n> {
    layout: &'a Layout,
    owner: &'n str,
    fields: Vec<Field>,
    /// The structures that were found as members.
    members: Vec<(String, &'a Aggregate)>,
}

impl<'a> Description<'a, '_> {
    fn aggregate(
        &mut self,
        aggregate: &'a Aggregate,
        prefix: &str,
        base: u64,
    ) -> Result<(), Error> {
        for member in &aggregate.members {
            self.member(member, prefix, base)?;
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, prefix: &str, base: u64) -> Result<(), Error> {
        let owner = self.owner;
        let path = format!("{prefix}{}", member.name.as_deref().unwrap_or_default());
        let unknown = || Error::new(format!("cannot tell the type of {owner}, member {path}"));
        let element = self.layout.element(member.type_id).ok_or_else(unknown)?;
        let offset = base + member.offset;

        let mut type_name = self.layout.name_of(element.type_id);
        if let Some(Type::Aggregate(inner)) = self.layout.types.get(&element.type_id)
            && inner.tag.is_none()
        {
            if element.elements.is_none() {
                let prefix = match member.name {
                    Some(_) => format!("{path}."),
                    None => prefix.to_owned(),
                };
                return self.aggregate(inner, &prefix, offset);
            }
            type_name = Some(format!("{owner}::{path}"));
        }
        let type_name = type_name.ok_or_else(unknown)?;
        if let Some(inner) = self.layout.aggregate(element.type_id) {
            self.members.push((type_name.clone(), inner));
        }

        let element_size = self.layout.size_of(element.type_id).ok_or_else(unknown)?;
        let elements = element.elements.unwrap_or(1);
        let (offset, bit_field) = match member.bits {
            None => (offset, None),
            Some((first, bits)) => {
                // Bits are counted from the unit of the declared type that the first one is in.
                let unit = element_size * 8;
                let bit_field = BitField {
                    first: small(first % unit)?,
                    bits: small(bits)?,
                };
                (base + first / unit * element_size, Some(bit_field))
            }
        };
        self.fields.push(Field {
            path: path.as_str().into(),
            offset: small(offset)?,
            size: small(element_size * elements)?,
            type_name: type_name.into(),
            elements: small(elements)?,
            bit_field,
        });
        Ok(())
    }
}

fn small(number: u64) -> Result<u32, Error> {
    u32::try_from(number)
        .map_err(|_| Error::new(format!("a structure has {number} bytes, which is too many")))
}
