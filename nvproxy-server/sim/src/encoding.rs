//! How those parts of the state are written that are not plain data: descriptors, and what several parts refer to.
//!
//! A descriptor is written as its number among the [`Enclosures`]. What is behind an [`Arc`] is written as its index in a
//! table, which is saved beside the state, so that it is there once and is shared again when it is restored. Derived
//! implementations of serde take no argument through which they could reach the enclosures and the tables. So the
//! thread that saves or restores keeps them in a variable of its own, for as long as [`Context::enter`] runs. Outside of
//! it the tables are empty, every index is out of range, and nothing panics.
//!
//! This module does not know what is shared: a type says of itself that it has a table ([`Tabled`]). The modules are for
//! `#[serde(with = "...")]`.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use nvproxy_abi::Abi;

use nvproxy_server::backend::handover::Enclosures;

/// What is at hand while a state is saved or restored.
#[derive(Default)]
pub(super) struct Context {
    abi: Option<&'static Abi>,
    pub enclosures: Enclosures,
    /// By the type of what they hold.
    tables: HashMap<TypeId, Table>,
}

thread_local! {
    static CURRENT: RefCell<Context> = RefCell::default();
}

impl Context {
    /// Restoring takes the request tables too.
    pub fn new(abi: Option<&'static Abi>, enclosures: Enclosures) -> Context {
        Context {
            abi,
            enclosures,
            tables: HashMap::new(),
        }
    }

    fn table_of<T: Tabled>(&mut self) -> &mut Table {
        self.tables.entry(TypeId::of::<T>()).or_default()
    }

    /// Runs `work` with this as the thread's context.
    pub fn enter<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let outer = CURRENT.replace(std::mem::take(self));
        let result = work();
        *self = CURRENT.replace(outer);
        result
    }
}

/// Things that are shared, each once, by index. All are of the type by which the context has the table.
#[derive(Default)]
struct Table {
    entries: Vec<Arc<dyn Any + Send + Sync>>,
    indices: HashMap<*const (), usize>,
}

impl Table {
    /// The index of `entry`, which is added if it is not there yet.
    fn index_of<T: Tabled>(&mut self, entry: &Arc<T>) -> usize {
        let next = self.entries.len();
        let address = Arc::as_ptr(entry).cast();
        let index = *self.indices.entry(address).or_insert(next);
        if index == next {
            self.entries.push(Arc::clone(entry) as _);
        }
        index
    }
}

/// Things of which the context has a table.
pub(super) trait Tabled: Any + Send + Sync {
    /// What several of them are called.
    const NAME: &str;
}

/// What is in a table of the thread's context by now.
pub(super) fn entries<T: Tabled>() -> Vec<Arc<T>> {
    let entries = CURRENT.with_borrow_mut(|context| context.table_of::<T>().entries.clone());
    let entries = entries.into_iter().map(Arc::downcast);
    entries.filter_map(Result::ok).collect()
}

/// Fills a table of the thread's context.
pub(super) fn fill<T: Tabled>(entries: impl IntoIterator<Item = Arc<T>>) {
    let mut table = Table::default();
    for entry in entries {
        table.index_of(&entry);
    }
    CURRENT.with_borrow_mut(|context| *context.table_of::<T>() = table);
}

/// What is shared, as its index in the table.
pub(super) mod shared {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    pub fn serialize<T: Tabled, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let index = CURRENT.with_borrow_mut(|context| context.table_of::<T>().index_of(value));
        serializer.serialize_u64(index as u64)
    }

    pub fn deserialize<'de, T: Tabled, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        let index = usize::deserialize(deserializer)?;
        CURRENT.with_borrow_mut(|context| {
            let entries = &context.table_of::<T>().entries;
            let (count, name) = (entries.len(), T::NAME);
            let found = entries.get(index).cloned();
            let found = found.and_then(|entry| entry.downcast().ok());
            found.ok_or_else(|| D::Error::custom(format!("there are {count} {name}, not {index}")))
        })
    }
}

/// A descriptor, as its number among the enclosures.
pub(super) mod descriptor {
    use std::os::fd::{AsFd, OwnedFd};

    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    pub fn serialize<T: AsFd, S: Serializer>(
        descriptor: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let copy = descriptor.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|error| {
            S::Error::custom(format!("a descriptor cannot be duplicated: {error}"))
        })?;
        serializer.serialize_u32(CURRENT.with_borrow_mut(|context| context.enclosures.put(copy)))
    }

    pub fn deserialize<'de, T: From<OwnedFd>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let number = u32::deserialize(deserializer)?;
        CURRENT
            .with_borrow_mut(|context| context.enclosures.take(number))
            .map(T::from)
            .map_err(D::Error::custom)
    }
}

/// The request tables, as the release that they are of. Those of the process that restores have to be the same.
pub(super) mod tables {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    pub fn serialize<S: Serializer>(abi: &&'static Abi, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&abi.version())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<&'static Abi, D::Error> {
        let saved = String::deserialize(deserializer)?;
        CURRENT
            .with_borrow(|context| context.abi)
            .filter(|abi| abi.version().to_string() == saved)
            .ok_or_else(|| D::Error::custom(format!("it goes by the tables of driver {saved:.40}")))
    }
}

/// An array of bytes of any length.
pub(super) mod array {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map_err(|_| D::Error::custom(format!("{length} bytes instead of {N}")))
    }
}
