//! How each part of a release is written and read, side by side so that the two agree.

use super::DecodeError;
use super::reader::Reader;
use super::writer::Writer;
use crate::model::{BitField, Class, Control, Copy, Count, Field, Ioctl, Structure};
use std::rc::Rc;

const CONSTANT: u32 = 0;
const FIELD: u32 = 1;
const OTHER: u32 = 2;

impl Writer {
    pub(super) fn ioctl(&mut self, ioctl: &Ioctl) {
        self.number(ioctl.number);
        self.string(&ioctl.name);
    }

    pub(super) fn control(&mut self, control: &Control) {
        self.number(control.id);
        self.optional_string(&control.name);
        self.string(&control.method);
        self.optional_string(&control.structure);
        self.number(control.size);
        self.strings(&control.flags);
        self.number(control.access_rights);
        self.length(control.copies.len());
        for copy in &control.copies {
            self.copy(copy);
        }
    }

    fn copy(&mut self, copy: &Copy) {
        self.string(&copy.pointer);
        match &copy.count {
            Count::Constant(count) => {
                self.number(CONSTANT);
                self.number(*count);
            }
            Count::Field(path) => {
                self.number(FIELD);
                self.string(path);
            }
            Count::Other(text) => {
                self.number(OTHER);
                self.string(text);
            }
        }
        self.number(copy.element);
        self.number(copy.copied_in.into());
        self.number(copy.copied_out.into());
    }

    pub(super) fn class(&mut self, class: &Class) {
        self.number(class.id);
        self.string(&class.name);
        self.string(&class.internal);
        self.optional_string(&class.structure);
        self.number(class.size);
        self.number(class.required.into());
        self.strings(&class.flags);
        self.string(&class.access);
    }

    pub(super) fn structure(&mut self, structure: &Structure) {
        self.number(structure.size);
        self.length(structure.fields.len());
        for field in &structure.fields {
            self.field(field);
        }
    }

    fn field(&mut self, field: &Field) {
        self.string(&field.path);
        self.number(field.offset);
        self.number(field.size);
        self.string(&field.type_name);
        self.number(field.elements);
        // No bit field has no bits, so 0 says that it is none.
        match field.bit_field {
            None => self.number(0),
            Some(bit_field) => {
                self.number(bit_field.bits);
                self.number(bit_field.first);
            }
        }
    }

    fn optional_string(&mut self, string: &Option<Rc<str>>) {
        self.number(string.is_some().into());
        if let Some(string) = string {
            self.string(string);
        }
    }

    fn strings(&mut self, strings: &[Rc<str>]) {
        self.length(strings.len());
        for string in strings {
            self.string(string);
        }
    }
}

impl Reader<'_> {
    pub(super) fn ioctl(&mut self) -> Result<Ioctl, DecodeError> {
        Ok(Ioctl {
            number: self.number()?,
            name: self.string()?,
        })
    }

    pub(super) fn control(&mut self) -> Result<Control, DecodeError> {
        Ok(Control {
            id: self.number()?,
            name: self.optional_string()?,
            method: self.string()?,
            structure: self.optional_string()?,
            size: self.number()?,
            flags: self.list(Reader::string)?,
            access_rights: self.number()?,
            copies: self.list(Reader::copy)?,
        })
    }

    fn copy(&mut self) -> Result<Copy, DecodeError> {
        Ok(Copy {
            pointer: self.string()?,
            count: match self.number()? {
                CONSTANT => Count::Constant(self.number()?),
                FIELD => Count::Field(self.string()?),
                OTHER => Count::Other(self.string()?),
                _ => return Err(DecodeError::Malformed("a count is of no known kind")),
            },
            element: self.number()?,
            copied_in: self.boolean()?,
            copied_out: self.boolean()?,
        })
    }

    pub(super) fn class(&mut self) -> Result<Class, DecodeError> {
        Ok(Class {
            id: self.number()?,
            name: self.string()?,
            internal: self.string()?,
            structure: self.optional_string()?,
            size: self.number()?,
            required: self.boolean()?,
            flags: self.list(Reader::string)?,
            access: self.string()?,
        })
    }

    pub(super) fn structure(&mut self) -> Result<Structure, DecodeError> {
        Ok(Structure {
            size: self.number()?,
            fields: self.list(Reader::field)?,
        })
    }

    fn field(&mut self) -> Result<Field, DecodeError> {
        Ok(Field {
            path: self.string()?,
            offset: self.number()?,
            size: self.number()?,
            type_name: self.string()?,
            elements: self.number()?,
            bit_field: match self.number()? {
                0 => None,
                bits => Some(BitField {
                    bits,
                    first: self.number()?,
                }),
            },
        })
    }

    fn optional_string(&mut self) -> Result<Option<Rc<str>>, DecodeError> {
        match self.boolean()? {
            true => self.string().map(Some),
            false => Ok(None),
        }
    }
}
