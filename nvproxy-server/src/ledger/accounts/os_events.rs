//! The driver's records of events of the operating system (NV_ESC_ALLOC_OS_EVENT), which belong to a client and a key, and end
//! with the client or with the description that they were made on.

use super::{Handle, Ledger};

impl Ledger {
    /// Whether there may be one more record of an event of the operating system.
    pub fn has_room_for_os_event(&self) -> bool {
        self.os_events.len() < self.limits.os_events
    }

    /// There is a record of an event under `client` and `key` from now on, until `description` or the client is gone.
    pub fn add_os_event(&mut self, description: u64, client: Handle, key: u32) {
        self.descriptions.entry(description).or_default();
        let event = event(client, key);
        if self.os_events.insert(event, description).is_none() {
            self.objects = self.objects.saturating_add(1);
        }
    }

    /// That record is gone.
    pub fn end_os_event(&mut self, client: Handle, key: u32) {
        let gone = event(client, key);
        self.end_os_events(|event, _| event == gone);
    }

    pub(super) fn end_os_events(&mut self, is_gone: impl Fn(u64, u64) -> bool) {
        let before = self.os_events.len();
        self.os_events
            .retain(|event, description| !is_gone(*event, *description));
        let gone = before - self.os_events.len();
        self.objects = self.objects.saturating_sub(gone);
    }
}

/// Under what the ledger keeps a record of an event.
fn event(client: Handle, key: u32) -> u64 {
    u64::from(client) << 32 | u64::from(key)
}
