//! Locks whose poison is ignored.
//!
//! A lock is poisoned when a thread panics that holds it. Poison may be ignored here because nobody meets it where Ringfence
//! is used: there a panic ends the process (`panic = "abort"` in the workspace's `Cargo.toml`). Only tests and fuzzers go on,
//! and they have to be told of the first panic. A second one, of whoever finds the lock poisoned, would hide that.

use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// What a lock gives, be it poisoned or not.
pub trait IgnorePoison {
    /// The guard, or what else the lock gives; an `Option` of it where one may not want to wait.
    type Given;

    /// Takes it. `None` if it would take waiting.
    fn ignore_poison(self) -> Self::Given;
}

/// Of [`Mutex::lock`](std::sync::Mutex::lock), [`Condvar::wait`](std::sync::Condvar::wait),
/// [`RwLock::read`](std::sync::RwLock::read) and their like.
impl<G> IgnorePoison for LockResult<G> {
    type Given = G;

    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of [`Mutex::try_lock`](std::sync::Mutex::try_lock) and its like.
impl<G> IgnorePoison for TryLockResult<G> {
    type Given = Option<G>;

    fn ignore_poison(self) -> Option<G> {
        match self {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_lock_whose_holder_panicked_is_given_all_the_same() {
        let lock = Arc::new(Mutex::new(1));
        let poisoned = Arc::clone(&lock);
        let panicked = std::thread::spawn(move || {
            let _held = poisoned.lock().ignore_poison();
            panic!("as a test wants it");
        });
        assert!(panicked.join().is_err() && lock.is_poisoned());
        *lock.lock().ignore_poison() += 1;
        let held = lock.try_lock().ignore_poison().expect("nobody holds it");
        assert_eq!(*held, 2);
        assert!(lock.try_lock().ignore_poison().is_none());
    }
}
