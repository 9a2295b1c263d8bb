//! How those parts of the state are written that are not plain data: descriptors, and what several parts refer to.
//!
//! A descriptor is written as its number among the [`Enclosures`]. What is behind an [`Arc`] is written as its index in a
//! table, which is saved beside the state, so that it is there once and is shared again when it is restored. Derived
//! implementations of serde take no argument through which they could reach the enclosures and the tables. So the
//! thread that saves or restores keeps them in a variable of its own, for as long as [`Context::enter`] runs. Outside of
//! it the tables are empty, every index is out of range, and nothing panics.
//!
//! The modules are for `#[serde(with = "...")]`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use nvproxy_abi::Abi;

use super::super::backing::Backing;
use super::super::memory::{Memory, VideoMemory};
use nvproxy_server::handover::Enclosures;

/// What is at hand while a state is saved or restored.
#[derive(Default)]
pub(in super::super) struct Context {
    pub abi: Option<&'static Abi>,
    pub enclosures: Enclosures,
    /// The memory of each GPU, by instance.
    pub gpus: Table<VideoMemory>,
    pub memories: Table<Memory>,
    pub backings: Table<Backing>,
}

thread_local! {
    static CURRENT: RefCell<Context> = RefCell::default();
}

impl Context {
    /// Runs `work` with this as the thread's context.
    pub fn enter<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let outer = CURRENT.replace(std::mem::take(self));
        let result = work();
        *self = CURRENT.replace(outer);
        result
    }
}

/// Things that are shared, each once, by index.
pub(in super::super) struct Table<T> {
    entries: Vec<Arc<T>>,
    indices: HashMap<*const T, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            entries: Vec::new(),
            indices: HashMap::new(),
        }
    }
}

impl<T> Table<T> {
    /// The index of `entry`, which is added if it is not there yet.
    fn index_of(&mut self, entry: &Arc<T>) -> usize {
        let next = self.entries.len();
        let index = *self.indices.entry(Arc::as_ptr(entry)).or_insert(next);
        if index == next {
            self.entries.push(Arc::clone(entry));
        }
        index
    }
}

impl<T> FromIterator<Arc<T>> for Table<T> {
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(entries: I) -> Table<T> {
        let mut table = Table::default();
        for entry in entries {
            table.index_of(&entry);
        }
        table
    }
}

/// Things of which the context has a table.
pub(in super::super) trait Tabled: Sized + 'static {
    /// What several of them are called.
    const NAME: &str;

    fn table(context: &mut Context) -> &mut Table<Self>;
}

macro_rules! tabled {
    ($($name:ident: $field:ident;)*) => {
        $(impl Tabled for $name {
            const NAME: &str = stringify!($field);

            fn table(context: &mut Context) -> &mut Table<$name> {
                &mut context.$field
            }
        })*
    };
}

tabled! {
    VideoMemory: gpus;
    Memory: memories;
    Backing: backings;
}

/// What is in a table of the thread's context by now.
pub(super) fn entries<T: Tabled>() -> Vec<Arc<T>> {
    CURRENT.with_borrow_mut(|context| T::table(context).entries.clone())
}

/// Fills a table of the thread's context.
pub(super) fn fill<T: Tabled>(entries: impl IntoIterator<Item = Arc<T>>) {
    let table = entries.into_iter().collect();
    CURRENT.with_borrow_mut(|context| *T::table(context) = table);
}

/// What is shared, as its index in the table.
pub(in super::super) mod shared {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    pub fn serialize<T: Tabled, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let index = CURRENT.with_borrow_mut(|context| T::table(context).index_of(value));
        serializer.serialize_u64(index as u64)
    }

    pub fn deserialize<'de, T: Tabled, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        let index = usize::deserialize(deserializer)?;
        CURRENT.with_borrow_mut(|context| {
            let entries = &T::table(context).entries;
            let (count, name) = (entries.len(), T::NAME);
            let found = entries.get(index).cloned();
            found.ok_or_else(|| D::Error::custom(format!("there are {count} {name}, not {index}")))
        })
    }
}

/// A descriptor, as its number among the enclosures.
pub(in super::super) mod descriptor {
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
pub(in super::super) mod tables {
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
pub(in super::super) mod array {
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
