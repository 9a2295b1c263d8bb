//! Types and constants as the compiler laid them out, read from its debug information (DWARF 5).

mod structures;

use std::collections::BTreeMap;
use std::path::Path;

use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, EntriesTreeNode, LittleEndian,
    Unit, UnitOffset,
};
use object::{Object, ObjectSection};

use crate::error::Error;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// A type's place in the debug information, by which types refer to each other.
pub type TypeId = usize;

#[derive(Clone, Debug)]
enum Type {
    Base {
        name: String,
        size: u64,
    },
    Enumeration {
        name: Option<String>,
        size: u64,
    },
    Typedef {
        name: String,
        target: Option<TypeId>,
        file: String,
    },
    Aggregate(Aggregate),
    /// The elements of every dimension; a dimension whose length is left open has 0.
    Array {
        element: Option<TypeId>,
        elements: u64,
    },
    Pointer {
        target: Option<TypeId>,
        size: u64,
    },
    /// `const` or `volatile`.
    Qualified {
        target: Option<TypeId>,
    },
    Function,
}

/// A structure or a union.
#[derive(Clone, Debug)]
struct Aggregate {
    keyword: &'static str,
    tag: Option<String>,
    size: u64,
    members: Vec<Member>,
    file: String,
}

#[derive(Clone, Debug)]
struct Member {
    name: Option<String>,
    type_id: TypeId,
    /// Bytes; of a bit field, the byte that its first bit is in.
    offset: u64,
    /// First bit and number of bits, counted from the start of the structure.
    bits: Option<(u64, u64)>,
}

/// Everything that one program declares.
#[derive(Debug, Default)]
pub struct Layout {
    types: BTreeMap<TypeId, Type>,
    enumerators: BTreeMap<String, u64>,
}

impl Layout {
    /// Reads the debug information of a file.
    pub fn read(path: &Path) -> Result<Layout, Error> {
        let failed = |reason: String| {
            Error::new(format!(
                "cannot read the debug information that cc wrote to {}: {reason}",
                path.display()
            ))
        };
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        Layout::parse(&bytes).map_err(failed)
    }

    fn parse(bytes: &[u8]) -> Result<Layout, String> {
        let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
        let load = |section: gimli::SectionId| -> Result<Bytes<'_>, gimli::Error> {
            let data = file
                .section_by_name(section.name())
                .and_then(|section| section.data().ok());
            Ok(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
        };
        let dwarf = Dwarf::load(load).map_err(|error| error.to_string())?;
        let mut layout = Layout::default();
        layout.units(&dwarf).map_err(|error| error.to_string())?;
        Ok(layout)
    }

    fn units(&mut self, dwarf: &Dwarf<Bytes<'_>>) -> Result<(), gimli::Error> {
        let mut headers = dwarf.units();
        // There is one unit, since one file is compiled.
        if let Some(header) = headers.next()? {
            let unit = dwarf.unit(header)?;
            let reader = UnitReader { dwarf, unit: &unit };
            let mut tree = unit.entries_tree(None)?;
            let mut children = tree.root()?.children();
            while let Some(child) = children.next()? {
                reader.declaration(child, self)?;
            }
        }
        Ok(())
    }

    /// The value of an enumerator.
    pub fn enumerator(&self, name: &str) -> Option<u64> {
        self.enumerators.get(name).copied()
    }
}

struct UnitReader<'a> {
    dwarf: &'a Dwarf<Bytes<'a>>,
    unit: &'a Unit<Bytes<'a>>,
}

type Node<'a, 'b, 'c> = EntriesTreeNode<'a, 'b, 'c, Bytes<'a>>;
type Entry<'a, 'b> = DebuggingInformationEntry<'a, 'b, Bytes<'a>>;

impl<'a> UnitReader<'a> {
    /// One type, with those that are declared inside it.
    fn declaration(&self, node: Node<'a, '_, '_>, layout: &mut Layout) -> Result<(), gimli::Error> {
        let entry = node.entry().clone();
        let name = self.string(&entry, gimli::DW_AT_name)?;
        let size = number(&entry, gimli::DW_AT_byte_size)?.unwrap_or(0);
        let target = target(&entry)?;
        let found = match entry.tag() {
            gimli::DW_TAG_base_type => Type::Base {
                name: name.unwrap_or_default(),
                size,
            },
            gimli::DW_TAG_typedef => Type::Typedef {
                name: name.unwrap_or_default(),
                target,
                file: self.file(&entry)?,
            },
            gimli::DW_TAG_pointer_type => Type::Pointer { target, size },
            gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => Type::Qualified { target },
            gimli::DW_TAG_subroutine_type => Type::Function,
            gimli::DW_TAG_enumeration_type => {
                self.enumerators(node, layout)?;
                Type::Enumeration { name, size }
            }
            gimli::DW_TAG_array_type => Type::Array {
                element: target,
                elements: self.elements(node)?,
            },
            gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                let is_union = entry.tag() == gimli::DW_TAG_union_type;
                Type::Aggregate(Aggregate {
                    keyword: if is_union { "union" } else { "struct" },
                    tag: name,
                    size,
                    file: self.file(&entry)?,
                    members: self.members(node, layout)?,
                })
            }
            _ => return Ok(()),
        };
        layout.types.insert(entry.offset().0, found);
        Ok(())
    }

    fn members(
        &self,
        node: Node<'a, '_, '_>,
        layout: &mut Layout,
    ) -> Result<Vec<Member>, gimli::Error> {
        let mut members = Vec::new();
        let mut children = node.children();
        while let Some(child) = children.next()? {
            let entry = child.entry().clone();
            if entry.tag() != gimli::DW_TAG_member {
                self.declaration(child, layout)?;
                continue;
            }
            let Some(type_id) = target(&entry)? else {
                continue;
            };
            let bits = match number(&entry, gimli::DW_AT_bit_size)? {
                Some(size) => Some((
                    number(&entry, gimli::DW_AT_data_bit_offset)?.unwrap_or(0),
                    size,
                )),
                None => None,
            };
            members.push(Member {
                name: self.string(&entry, gimli::DW_AT_name)?,
                type_id,
                offset: number(&entry, gimli::DW_AT_data_member_location)?.unwrap_or(0),
                bits,
            });
        }
        Ok(members)
    }

    fn enumerators(&self, node: Node<'a, '_, '_>, layout: &mut Layout) -> Result<(), gimli::Error> {
        let mut children = node.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let name = self.string(entry, gimli::DW_AT_name)?;
            let value = number(entry, gimli::DW_AT_const_value)?;
            if let (Some(name), Some(value)) = (name, value) {
                layout.enumerators.insert(name, value);
            }
        }
        Ok(())
    }

    fn elements(&self, node: Node<'a, '_, '_>) -> Result<u64, gimli::Error> {
        let mut elements = 1u64;
        let mut children = node.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let dimension = match number(entry, gimli::DW_AT_count)? {
                Some(count) => count,
                // The bound is that of the last element; without one the length is left open.
                None => {
                    number(entry, gimli::DW_AT_upper_bound)?.map_or(0, |last| last.wrapping_add(1))
                }
            };
            elements = elements.saturating_mul(dimension);
        }
        Ok(elements)
    }

    fn string(
        &self,
        entry: &Entry<'a, '_>,
        name: gimli::DwAt,
    ) -> Result<Option<String>, gimli::Error> {
        let Some(value) = entry.attr_value(name)? else {
            return Ok(None);
        };
        let string = self.dwarf.attr_string(self.unit, value)?;
        Ok(Some(string.to_string_lossy().into_owned()))
    }

    /// The name, without directories, of the file that has the declaration.
    fn file(&self, entry: &Entry<'a, '_>) -> Result<String, gimli::Error> {
        let index = match entry.attr_value(gimli::DW_AT_decl_file)? {
            Some(AttributeValue::FileIndex(index)) => index,
            Some(value) => value.udata_value().unwrap_or(0),
            None => return Ok(String::new()),
        };
        let Some(program) = &self.unit.line_program else {
            return Ok(String::new());
        };
        let Some(file) = program.header().file(index) else {
            return Ok(String::new());
        };
        let path = self.dwarf.attr_string(self.unit, file.path_name())?;
        let path = path.to_string_lossy().into_owned();
        Ok(path.rsplit('/').next().unwrap_or_default().to_owned())
    }
}

fn number(entry: &Entry<'_, '_>, name: gimli::DwAt) -> Result<Option<u64>, gimli::Error> {
    let value = entry.attr_value(name)?;
    Ok(value.and_then(|value| {
        value
            .udata_value()
            .or(value.sdata_value().map(|value| value as u64))
    }))
}

fn target(entry: &Entry<'_, '_>) -> Result<Option<TypeId>, gimli::Error> {
    Ok(match entry.attr_value(gimli::DW_AT_type)? {
        Some(AttributeValue::UnitRef(UnitOffset(offset))) => Some(offset),
        _ => None,
    })
}
