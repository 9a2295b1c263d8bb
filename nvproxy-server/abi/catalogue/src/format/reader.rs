//! Reading the body of a file: numbers, strings and lists.
//!
//! Nothing that is read is believed: a list is no longer than the bytes that are left, since each of its entries takes
//! at least one, so that memory is reserved only for what can be there.

use std::rc::Rc;

use super::DecodeError;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    strings: Vec<Rc<str>>,
}

const ENDS_EARLY: DecodeError = DecodeError::Malformed("the body ends early");

impl<'a> Reader<'a> {
    /// Reads the table of strings; the rest follows.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
        let mut reader = Reader {
            bytes,
            strings: Vec::new(),
        };
        reader.strings = reader.list(|reader| {
            let length = reader.length()?;
            let (string, rest) = reader.bytes.split_at_checked(length).ok_or(ENDS_EARLY)?;
            reader.bytes = rest;
            let string = std::str::from_utf8(string)
                .map_err(|_| DecodeError::Malformed("a string is not UTF-8"))?;
            Ok(Rc::from(string))
        })?;
        Ok(reader)
    }

    pub(super) fn number(&mut self) -> Result<u32, DecodeError> {
        let mut number = 0u32;
        for shift in (0..u32::BITS).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or(ENDS_EARLY)?;
            self.bytes = rest;
            let bits = u32::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed("a number has more than 32 bits"))
    }

    /// The length of a list.
    pub(super) fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.number()? as usize;
        if length > self.bytes.len() {
            return Err(ENDS_EARLY);
        }
        Ok(length)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed("a truth value is neither 0 nor 1")),
        }
    }

    pub(super) fn string(&mut self) -> Result<Rc<str>, DecodeError> {
        let index = self.number()? as usize;
        let string = self.strings.get(index).cloned();
        string.ok_or(DecodeError::Malformed("a string is not in the table"))
    }

    pub(super) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let length = self.length()?;
        (0..length).map(|_| read(self)).collect()
    }

    /// A list in ascending order, nothing twice.
    pub(super) fn pool<T: Ord>(
        &mut self,
        read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let pool = self.list(read)?;
        if pool.is_sorted_by(|one, next| one < next) {
            Ok(pool)
        } else {
            Err(DecodeError::Malformed("a pool is out of order"))
        }
    }

    /// Applies what `Writer::changes` wrote to the list that it was computed from.
    pub(super) fn changes(&mut self, set: &mut Vec<u32>) -> Result<(), DecodeError> {
        let mut least = 0u32;
        let changed = self.list(|reader| {
            let index = least.checked_add(reader.number()?);
            let index = index.filter(|index| *index < u32::MAX);
            let index = index.ok_or(DecodeError::Malformed("an entry's place is too large"))?;
            least = index + 1;
            Ok(index)
        })?;
        if changed.is_empty() {
            return Ok(());
        }
        // Two ascending lists are merged; what is in both goes.
        let mut merged = Vec::with_capacity(set.len() + changed.len());
        let mut old = set.iter().copied().peekable();
        for index in changed {
            while let Some(before) = old.next_if(|old| *old < index) {
                merged.push(before);
            }
            if old.next_if_eq(&index).is_none() {
                merged.push(index);
            }
        }
        merged.extend(old);
        *set = merged;
        Ok(())
    }

    /// Checks that nothing is left.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed(
                "the body is longer than its contents",
            ))
        }
    }
}
