//! The parameters that guests and the simulated driver look into, under NVIDIA's names.
//!
//! Each struct has the driver's layout on 64-bit Linux: same size, every field at the same offset, both proved at
//! compile time against numbers that a C compiler gave for the driver's headers. Padding is spelled out, so that a
//! struct can be read from bytes and written to bytes as it is. Handles are `u32`, booleans (NvBool) are `u8`, pointers
//! (NvP64) are `u64`. Where the driver has a union, the field has the name of the union.

#![allow(non_snake_case, non_camel_case_types)]

pub mod class;
pub mod control;
pub mod frontend;
pub mod uvm;

/// Proves the size of a struct and the offset of each of its fields.
macro_rules! layout {
    ($name:ident, $size:literal, { $($field:ident: $offset:literal),* }) => {
        static_assertions::const_assert_eq!(size_of::<$name>(), $size);
        $(static_assertions::const_assert_eq!(std::mem::offset_of!($name, $field), $offset);)*
    };
}
use layout;
