//! Who leads the event loop, who sleeps at its doorbell, and who stands by.
//!
//! At most one thread *leads*: it consumes submissions. At most one *sleeps* at the doorbell. A leader that takes on a
//! slow request leaves the lead vacant: whoever rings wakes the sleeper, which then leads; if nobody rings before the
//! slow request is done, the thread takes the lead back and nothing had to be woken. A thread with neither role stands
//! by, until a leader leaves and nobody is at the doorbell.
//!
//! This module knows nothing of requests, only of turns; a caller that leaves the lead has announced its sleep to the
//! ring, and one that takes the lead withdraws that.

use std::sync::{Condvar, Mutex, MutexGuard};

use ringfence_ipc::locks::IgnorePoison;

/// Threads in all, and so slow requests at once; further ones wait for these.
const MAXIMUM_THREADS: usize = 64;

/// What a thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Lead,
    Sleep,
}

/// Whether another thread has to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleepers {
    Enough,
    Wanted,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    slept: bool,
    /// A vacant lead is to be taken at once, without waiting for the doorbell.
    urgent: bool,
    standing_by: usize,
    threads: usize,
}

/// The distribution of roles among the threads of one loop.
#[derive(Debug, Default)]
pub struct Roles {
    state: Mutex<State>,
    called: Condvar,
}

impl Roles {
    /// A new thread's first role.
    pub fn begin(&self) -> Role {
        let mut state = self.state();
        if state.threads == 0 {
            state.threads = 1;
            state.led = true;
            return Role::Lead;
        }
        self.stand_by(state)
    }

    /// The leader leaves for a slow request. With `more` there are submissions already that somebody has to take. If
    /// this returns [`Sleepers::Wanted`] the caller starts a thread.
    pub fn leave(&self, more: bool) -> Sleepers {
        let mut state = self.state();
        state.led = false;
        state.urgent = more;
        if state.slept && !more {
            return Sleepers::Enough;
        }
        if state.standing_by > 0 {
            self.called.notify_one();
            return Sleepers::Enough;
        }
        if state.threads >= MAXIMUM_THREADS {
            return Sleepers::Enough;
        }
        state.threads += 1;
        Sleepers::Wanted
    }

    /// A thread that was wanted could not be started.
    pub fn not_started(&self) {
        self.state().threads -= 1;
    }

    /// A thread has finished its slow request.
    pub fn take_back(&self) -> Role {
        let mut state = self.state();
        if state.led {
            return self.stand_by(state);
        }
        state.led = true;
        state.urgent = false;
        Role::Lead
    }

    /// The leader has nothing to do.
    pub fn idle(&self) -> Role {
        let mut state = self.state();
        state.led = false;
        if state.slept {
            return self.stand_by(state);
        }
        state.slept = true;
        Role::Sleep
    }

    /// The sleeper woke.
    pub fn woken(&self) -> Role {
        let mut state = self.state();
        state.slept = false;
        if state.led {
            return self.stand_by(state);
        }
        state.led = true;
        state.urgent = false;
        Role::Lead
    }

    fn stand_by(&self, mut state: MutexGuard<'_, State>) -> Role {
        loop {
            if state.urgent && !state.led {
                state.urgent = false;
                state.led = true;
                return Role::Lead;
            }
            if !state.slept && !state.led {
                state.slept = true;
                return Role::Sleep;
            }
            state.standing_by += 1;
            state = self.called.wait(state).ignore_poison();
            state.standing_by -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn a_slow_request_changes_nobody_s_role_if_nobody_rings() {
        let roles = Arc::new(Roles::default());
        assert_eq!(roles.begin(), Role::Lead);
        assert_eq!(roles.leave(false), Sleepers::Wanted);
        let other = Arc::clone(&roles);
        assert_eq!(
            std::thread::spawn(move || other.begin()).join().unwrap(),
            Role::Sleep
        );
        assert_eq!(roles.take_back(), Role::Lead);
        assert_eq!(
            roles.leave(false),
            Sleepers::Enough,
            "somebody sleeps at the doorbell still"
        );
        assert_eq!(roles.take_back(), Role::Lead);
    }

    #[test]
    fn the_sleeper_leads_when_the_doorbell_rings() {
        let roles = Arc::new(Roles::default());
        roles.begin();
        roles.leave(false);
        assert_eq!(roles.begin(), Role::Sleep);
        assert_eq!(roles.woken(), Role::Lead);
        // The first thread is done while the second leads: it stands by, and is called when the second leaves.
        let (role, given) = mpsc::channel();
        let first = Arc::clone(&roles);
        let thread = std::thread::spawn(move || role.send(first.take_back()).unwrap());
        while roles.state().standing_by == 0 {
            std::thread::yield_now();
        }
        assert_eq!(roles.leave(false), Sleepers::Enough);
        assert_eq!(given.recv(), Ok(Role::Sleep));
        thread.join().unwrap();
    }

    #[test]
    fn submissions_that_are_there_already_are_taken_at_once() {
        let roles = Arc::new(Roles::default());
        roles.begin();
        roles.leave(false);
        assert_eq!(roles.begin(), Role::Sleep);
        assert_eq!(roles.take_back(), Role::Lead);
        assert_eq!(roles.leave(true), Sleepers::Wanted);
        assert_eq!(roles.begin(), Role::Lead);
    }
}
