//! Jobs that the leader does not do itself, counted, so that a server can tell when none is under way.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Server;

/// The server, for one such job: while any of these lives, there is a job under way.
pub struct Away(Arc<Server>);

impl Server {
    /// Notes that a job is under way until the returned value is dropped.
    pub(super) fn away(self: &Arc<Self>) -> Away {
        self.away.fetch_add(1, Ordering::SeqCst);
        Away(Arc::clone(self))
    }
}

impl Deref for Away {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.away.fetch_sub(1, Ordering::SeqCst);
    }
}
