//! Pins that were begun and of which it has not been heard what came of them.
//!
//! A task issues a pin itself, and what the driver then keeps counts from the moment at which the task may. So the charge is
//! made, and room for the object, before the descriptor is lent; it ends with what the sentry says, or with client and description.

use ringfence_faults::{Act, Point, at};
use serde::{Deserialize, Serialize};

use super::{Content, Full, Handle, Key, Ledger, Pool};

/// What stands for the description of a pin when that was closed.
const CLOSED: u64 = u64::MAX;

/// Which pin it is: the description that it is issued on, the client and the parent of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    pub description: u64,
    pub client: Handle,
    pub parent: Handle,
}

/// A pin that the task is issuing. Room is made for its object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    pin: Pin,
    content: Content,
}

impl Ledger {
    /// A task is about to issue a pin, for which the driver takes as many bytes of the host's memory. They are charged, and
    /// room for the object is made, until it is finished, or description and client are gone.
    pub fn begin_pin(&mut self, pin: Pin, bytes: u64) -> Result<(), Full> {
        self.expect_objects(1)?;
        match self.charge(Pool::Host, bytes) {
            Ok(key) => {
                self.pinned.begin(key);
                let content = Content {
                    gpu: self.gpu_of(pin.client, pin.parent),
                    memory: vec![key],
                };
                self.pins.push(Begun { pin, content });
                Ok(())
            }
            Err(Full) => {
                self.expected_objects(1);
                Err(Full)
            }
        }
    }

    /// What was charged for pins that have been begun and are not over.
    pub(in crate::ledger) fn pins_under_way(&self) -> impl Iterator<Item = Key> {
        let keys = self.pins.iter().flat_map(|begun| &begun.content.memory);
        keys.copied()
    }

    /// A pin is over that was begun: what its object has, or would have. The room that was made for it stays made. `None` if
    /// there is none like it.
    pub fn finish_pin(&mut self, pin: Pin) -> Option<Content> {
        let at = self.pins.iter().position(|begun| begun.pin == pin)?;
        Some(self.pins.remove(at).content)
    }

    /// A pin that was begun has not come to be issued.
    pub fn give_up_pin(&mut self, pin: Pin) {
        if let Some(content) = self.finish_pin(pin) {
            self.expected_objects(1);
            self.release(content);
        }
    }

    /// A description was closed that pins were issued on. What came of them will not be heard any more. Their objects belong
    /// to their clients, which may have been made through other descriptions.
    pub(super) fn close_begun(&mut self, description: u64) {
        let clients = &self.clients;
        // A test has it forgotten that they do.
        let are_kept = at(Point::Copied) != Some(Act::Drop);
        for Begun { pin, .. } in &mut self.pins {
            if pin.description == description && clients.contains_key(&pin.client) && are_kept {
                pin.description = CLOSED;
            }
        }
        self.forget_begun(|begun| begun.pin.description == description);
    }

    /// Nothing is left of some pins that were begun.
    fn forget_begun(&mut self, is_gone: impl FnMut(&mut Begun) -> bool) {
        for begun in self.pins.extract_if(.., is_gone).collect::<Vec<_>>() {
            self.expected_objects(1);
            self.release(begun.content);
        }
    }

    /// A client is gone, and with it what came of pins of which nothing will be heard any more.
    pub(super) fn end_begun_of(&mut self, client: Handle) {
        self.forget_begun(|begun| begun.pin.client == client && begun.pin.description == CLOSED);
    }

    /// What the objects of all pins of a client have of which nothing has been heard since they were begun.
    pub(super) fn begun_of(&self, client: Handle) -> Option<Content> {
        // A test has it forgotten that there are such objects.
        if at(Point::Copied) == Some(Act::Drop) {
            return None;
        }
        let mut begun = self
            .pins
            .iter()
            .filter(|begun| begun.pin.client == client)
            .peekable();
        let gpu = begun.peek()?.content.gpu;
        let memory = begun.flat_map(|begun| begun.content.memory.iter().copied());
        Some(Content {
            gpu,
            memory: memory.collect(),
        })
    }
}
