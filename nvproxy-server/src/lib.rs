//! The server of one sandbox: it holds the driver's descriptors and issues the requests that the tables allow.
//!
//! It believes nothing that the sentry says. A request is copied out of shared memory once; that copy is planned with
//! the same tables that the sentry used, its handles are looked up with their generations, and only then does a
//! [`backend::Backend`] issue it.

pub mod backend;
pub mod confinement;
pub mod faults;
pub mod handles;
pub mod ledger;
mod load;
pub mod locks;
pub mod nvidia;
pub mod process;
pub mod reactor;
pub mod request;
mod roles;
pub mod server;
mod tenants;
pub mod version_check;
pub mod workers;
