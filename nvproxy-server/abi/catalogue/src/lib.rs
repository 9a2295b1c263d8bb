//! What the request ABI of every release of the NVIDIA driver looks like, as data.
//!
//! The importer derives a [`Catalogue`] from the driver's published source and writes it to a file; whoever needs the
//! tables of a release reads that file. This crate is what both agree on: the model and the file format. It knows
//! nothing about C, about the driver's source tree, or about what is done with a request.

#![forbid(unsafe_code)]

pub mod firmware;
mod format;
mod model;
pub mod version;

pub use format::DecodeError;
pub use model::{
    BitField, Catalogue, Class, Control, Copy, Count, Field, Ioctl, Located, Privilege, Release,
    Structure,
};
