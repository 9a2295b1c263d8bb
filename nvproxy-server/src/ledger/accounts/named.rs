//! Which clients are named by the devices of others.
//!
//! A device may use the address space that another client has on its GPU (NV0080_ALLOC_PARAMETERS.hClientShare), as OpenGL and
//! Vulkan have it. The driver keeps that client's number, and looks it up when the address space is first needed
//! (`deviceInitClientShare`, src/nvidia/src/kernel/gpu/device_share.c, 580.142; the GPU's firmware, which has devices of its own, may
//! do so later still). A number that was given back could be another sandbox's then. So the client that is named has to
//! be there as long as the device is:
//!
//! - Both are made through one open file description, and end with it: by default at once. Where the module's parameter
//!   RMClientListDeferredFree is set they end one after the other, when nobody has the description any more to issue a request on.
//! - The client that is named cannot be freed before. Programs free their devices first.
//!
//! The driver goes from client to client while each names a further one, as deep as there are any, and round and round where
//! they form a circle. So a client that is named names no other.

use super::{Handle, Ledger};

impl Ledger {
    /// Whether two clients were made through the same description.
    pub fn are_together(&self, one: Handle, other: Handle) -> bool {
        let description = |client| self.clients.get(&client).map(|client| client.description);
        description(one).is_some() && description(one) == description(other)
    }

    /// Whether a device of another client names this one.
    pub fn is_named(&self, client: Handle) -> bool {
        let description = self.description_of(client);
        let description = description.and_then(|number| self.descriptions.get(&number));
        let together = description.into_iter().flat_map(|found| &found.clients);
        let mut together = together.filter_map(|other| self.clients.get(other));
        together.any(|other| other.naming.values().any(|named| *named == client))
    }

    /// Whether a device of `client` may name `named`, as far as it depends on who else names whom.
    pub fn may_name(&self, client: Handle, named: Handle) -> bool {
        let may_be_named = |named| {
            let named = self.clients.get(&named);
            named.is_none_or(|named| named.naming.is_empty() && !named.is_doubtful)
        };
        is_itself(client, named) || !self.is_named(client) && may_be_named(named)
    }

    /// Whether the driver may have freed a client without having said so.
    pub fn is_doubtful(&self, client: Handle) -> bool {
        let client = self.clients.get(&client);
        client.is_some_and(|client| client.is_doubtful)
    }

    /// Enters that the driver was to free a client, and said that it has not.
    pub fn doubt(&mut self, client: Handle) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.is_doubtful = true;
        }
    }

    /// Enters that a device names a client.
    pub fn name(&mut self, client: Handle, device: Handle, named: Handle) {
        if let Some(owner) = self.clients.get_mut(&client)
            && !is_itself(client, named)
        {
            owner.naming.insert(device, named);
        }
    }
}

/// Whether it is the client itself that its device names. Of 0 the server makes it.
fn is_itself(client: Handle, named: Handle) -> bool {
    [0, client].contains(&named)
}
