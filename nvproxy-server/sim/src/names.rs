//! What requests name things by, and what they are answered.

use serde::{Deserialize, Serialize};

/// A handle of a client or of an object.
pub(super) type Handle = u32;

/// The number by which requests name a description. It is not a descriptor of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct FileNumber(pub i32);

/// What the driver answers: nothing or something, or the NV_STATUS with which it refuses.
pub(super) type Outcome<T = ()> = Result<T, u32>;
