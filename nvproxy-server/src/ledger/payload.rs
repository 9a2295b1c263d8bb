//! The bytes of a payload, and effects as they are written there.
//!
//! The bytes are those that the driver is given, or has answered; every field is bounds-checked, and one that lies
//! outside them reads as 0.

use std::convert::Infallible;
use std::marker::PhantomData;

use nvproxy_abi::plan::Plan;
use nvproxy_abi::table::effects::{Effect, Form, Number, Objects, Rewrite};
use nvproxy_abi::table::{self, Array, ClientField, Extent, Offsets};
use smallvec::SmallVec;

use super::accounts::Handle;

/// Handles of objects in a request.
pub(super) type Handles = SmallVec<[Handle; 4]>;

/// The form of a request that was made: a field is what the program wrote there, and where that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Values;

impl Form for Values {
    type Field<T: Number> = Value<T>;
    type Array<T: Number> = Elements<T>;
}

/// What a field of a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Value<T> {
    /// Its offset in the payload: where the driver's answer will be.
    pub at: u32,
    pub value: T,
}

/// Numbers in a payload, each `stride` bytes behind the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Elements<T> {
    at: u32,
    stride: u32,
    pub count: u32,
    number: PhantomData<T>,
}

impl<T> Elements<T> {
    /// No more of them than `count`.
    pub fn first(self, count: u64) -> Elements<T> {
        let count = count.min(self.count.into()) as u32;
        Elements { count, ..self }
    }
}

/// What a request says of objects.
pub(super) trait Named {
    /// Those that it names.
    fn named(&self) -> Elements<Handle>;
    /// Which place in a description is that of the first.
    fn first(&self) -> u32;
    /// How many places a description is to have.
    fn places(&self) -> u64;
}

impl Named for Objects<Values> {
    fn named(&self) -> Elements<Handle> {
        let count = self.count.map_or(u64::MAX, |count| count.value.into());
        self.field.first(count)
    }

    fn first(&self) -> u32 {
        self.first.map_or(0, |first| first.value.into())
    }

    fn places(&self) -> u64 {
        self.places.map_or(0, |places| places.value.into())
    }
}

/// The bytes of a payload.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    fn read<T: Number>(self, at: u32) -> T {
        let rest = self.0.get(at as usize..);
        rest.and_then(T::first_of).unwrap_or_default()
    }

    /// The 4 bytes at `at`.
    pub fn word(self, at: u32) -> u32 {
        self.read(at)
    }

    /// The 8 bytes at `at`.
    pub fn long_at(self, at: u32) -> u64 {
        self.read(at)
    }

    /// What parameters that begin at `base` say of an effect.
    pub fn effect(self, base: u32, effect: &table::Effect) -> Effect<Values> {
        let Ok(effect) = effect.rewrite(&mut Reader { bytes: self, base });
        effect
    }

    /// What is in an array.
    pub fn elements<T: Number>(self, elements: &Elements<T>) -> impl Iterator<Item = T> {
        let Elements {
            at, stride, count, ..
        } = *elements;
        (0..count).map(move |index| self.read(at + index * stride))
    }

    /// The clients that a field names.
    pub fn clients(self, plan: &Plan, base: u32, field: &ClientField) -> Handles {
        let at = base + u32::from(field.at);
        let (from, count) = match field.extent {
            Extent::One => (at, 1),
            Extent::Array { most, count_at } => {
                let count = self.word(base + u32::from(count_at));
                (at, count.min(most.into()))
            }
            Extent::Behind => plan
                .segment_behind(at)
                .map_or((0, 0), |segment| (segment.offset, segment.length / 4)),
        };
        (0..count)
            .map(|index| self.word(from + 4 * index))
            .collect()
    }
}

/// Reads the fields of parameters that begin at `base`.
struct Reader<'a> {
    bytes: Bytes<'a>,
    base: u32,
}

impl Rewrite<'_, Offsets, Values> for Reader<'_> {
    type Error = Infallible;

    fn field<T: Number>(&mut self, at: &u16) -> Result<Value<T>, Infallible> {
        let at = self.base + u32::from(*at);
        let value = self.bytes.read(at);
        Ok(Value { at, value })
    }

    fn array<T: Number>(&mut self, array: &Array) -> Result<Elements<T>, Infallible> {
        Ok(Elements {
            at: self.base + u32::from(array.at),
            stride: array.stride.into(),
            count: array.most.into(),
            number: PhantomData,
        })
    }
}
