//! The real driver handed over to another process: only descriptors move, since the state is the driver's own.
//!
//! The driver knows a client by the open file description through which it was made, but also the process that made it. So
//! a duplicate of each command descriptor moves, and the process stays as its [`super::keeper`]. Presences move too, because
//! the driver looks for a GPU's node among the descriptors of the process that issues a request.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use nvproxy_abi::node::Node;
use ringfence_ipc::Socket;
use ringfence_ipc::locks::IgnorePoison;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CommandFile, Driver, Error};
use crate::backend::handover::{Enclosures, node_name};

/// A [`Driver`], but for what the launcher says of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedDriver {
    /// Numbers of enclosed descriptors, by the minor number of the GPU.
    pub(super) presences: BTreeMap<u8, u32>,
    /// How many servers there were before the saved one.
    pub(super) server: u64,
    /// Numbers of the enclosed sockets to the keepers, by the number of the server that becomes or has become one.
    pub(super) keepers: BTreeMap<u64, u32>,
    /// Which of the tasks' descriptions of UVM are known.
    pub(super) marks: BTreeSet<u64>,
}

/// A [`CommandFile`] or a [`KeptFile`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedFile {
    #[serde(with = "node_name")]
    pub(super) node: Node,
    /// What became of the command descriptor, if it was opened.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) command: Option<SavedCommand>,
}

/// A command description.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedCommand {
    /// The number of the enclosed descriptor.
    pub(super) descriptor: u32,
    /// The server that opened and keeps it.
    pub(super) opened_by: u64,
    /// Its number there.
    pub(super) file: u64,
}

fn enclose(descriptor: &OwnedFd, node: Node, enclosures: &mut Enclosures) -> Result<u32, Error> {
    let copy = descriptor
        .try_clone()
        .map_err(|source| Error::Duplicate { node, source })?;
    Ok(enclosures.put(copy))
}

pub(super) fn save(driver: &Driver, enclosures: &mut Enclosures) -> Result<Value, Error> {
    let mut presences = BTreeMap::new();
    for (gpu, presence) in driver.presences.lock().ignore_poison().iter() {
        if let Some(presence) = presence.upgrade() {
            let number = enclose(&presence.0, Node::Gpu(*gpu), enclosures)?;
            presences.insert(*gpu, number);
        }
    }
    let saved = SavedDriver {
        presences,
        server: driver.commands.server,
        keepers: save_keepers(driver, enclosures)?,
        marks: driver.marks.marked(),
    };
    serde_json::to_value(saved).map_err(Error::Damaged)
}

/// The ways to the keepers that there are, and to this process, which becomes one if it has opened anything.
fn save_keepers(driver: &Driver, enclosures: &mut Enclosures) -> Result<BTreeMap<u64, u32>, Error> {
    let mut keepers = BTreeMap::new();
    for (server, keeper) in driver.keepers().iter() {
        if let Some(keeper) = keeper.upgrade() {
            let control = keeper.duplicate();
            let control = control.map_err(Error::KeeperDuplicate)?;
            keepers.insert(*server, enclosures.put(control));
        }
    }
    let control = if driver.commands.opened().is_empty() {
        None
    } else {
        let pair = Socket::pair().map_err(Error::KeeperSocket)?;
        keepers.insert(driver.commands.server, enclosures.put(pair.1.into()));
        Some(pair.0)
    };
    // One that is left of a handover that came to nothing is closed.
    *driver.control.lock().ignore_poison() = control;
    Ok(keepers)
}

pub(super) fn save_file(file: &CommandFile, enclosures: &mut Enclosures) -> Result<Value, Error> {
    let origin = (file.commands.server, file.file);
    save_command(file.node, file.command.get(), origin, enclosures)
}

/// What is saved of a file whose command descriptor, if it has one, was opened by this server under this number.
pub(super) fn save_command(
    node: Node,
    command: Option<&OwnedFd>,
    (opened_by, file): (u64, u64),
    enclosures: &mut Enclosures,
) -> Result<Value, Error> {
    let descriptor = command
        .map(|command| enclose(command, node, enclosures))
        .transpose()?;
    let command = descriptor.map(|descriptor| SavedCommand {
        descriptor,
        opened_by,
        file,
    });
    serde_json::to_value(SavedFile { node, command }).map_err(Error::Damaged)
}
