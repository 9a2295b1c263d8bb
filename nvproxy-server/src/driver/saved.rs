//! The real driver handed over to another process: only descriptors move, since the state is the driver's own.
//!
//! The driver knows a client by the open file description through which it was made, but also the process that made it. So
//! a duplicate of each command descriptor moves, and the process stays as its [`super::keeper`]. Presences move too, because
//! the driver looks for a GPU's node among the descriptors of the process that issues a request.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};

use nvproxy_abi::node::Node;
use ringfence_ipc::Socket;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kept::{Keeping, KeptFile};
use super::marks::Marks;
use super::{CommandFile, Commands, Driver, Presence};
use crate::handover::{Enclosures, node_name};
use crate::host::DeviceFile;

/// A [`Driver`], but for what the launcher says of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDriver {
    /// Numbers of enclosed descriptors, by the minor number of the GPU.
    presences: BTreeMap<u8, u32>,
    /// How many servers there were before the saved one.
    server: u64,
    /// Numbers of the enclosed sockets to the keepers, by the number of the server that becomes or has become one.
    keepers: BTreeMap<u64, u32>,
    /// Which of the tasks' descriptions of UVM are known.
    marks: BTreeSet<u64>,
}

/// A [`CommandFile`] or a [`KeptFile`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFile {
    #[serde(with = "node_name")]
    node: Node,
    /// What became of the command descriptor, if it was opened.
    #[serde(deserialize_with = "Option::deserialize")]
    command: Option<SavedCommand>,
}

/// A command description.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedCommand {
    /// The number of the enclosed descriptor.
    descriptor: u32,
    /// The server that opened and keeps it.
    opened_by: u64,
    /// Its number there.
    file: u64,
}

fn damaged(error: serde_json::Error) -> String {
    format!("what was saved of the driver: {error}")
}

fn enclose(descriptor: &OwnedFd, node: Node, enclosures: &mut Enclosures) -> Result<u32, String> {
    let copy = descriptor
        .try_clone()
        .map_err(|error| format!("a duplicate of {}: {error}", node.file_name()))?;
    Ok(enclosures.put(copy))
}

pub(super) fn save(driver: &Driver, enclosures: &mut Enclosures) -> Result<Value, String> {
    let mut presences = BTreeMap::new();
    for (gpu, presence) in driver
        .presences
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
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
    serde_json::to_value(saved).map_err(damaged)
}

/// The ways to the keepers that there are, and to this process, which becomes one if it has opened anything.
fn save_keepers(
    driver: &Driver,
    enclosures: &mut Enclosures,
) -> Result<BTreeMap<u64, u32>, String> {
    let mut keepers = BTreeMap::new();
    for (server, keeper) in driver.keepers().iter() {
        if let Some(keeper) = keeper.upgrade() {
            let control = keeper.duplicate();
            let control = control.map_err(|errno| format!("a keeper's socket: {errno}"))?;
            keepers.insert(*server, enclosures.put(control));
        }
    }
    let control = if driver.commands.opened().is_empty() {
        None
    } else {
        let pair = Socket::pair().map_err(|error| format!("a keeper's socket: {error}"))?;
        keepers.insert(driver.commands.server, enclosures.put(pair.1.into()));
        Some(pair.0)
    };
    // One that is left of a handover that came to nothing is closed.
    *driver
        .control
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = control;
    Ok(keepers)
}

pub(super) fn restore(
    mut driver: Driver,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<Driver, String> {
    let SavedDriver {
        presences,
        server,
        keepers,
        marks,
    } = serde_json::from_value(saved).map_err(damaged)?;
    driver.identities.reach();
    driver.marks = Arc::new(Marks::of_uvm(marks));
    driver.commands = Arc::new(Commands {
        server: server.saturating_add(1),
        ..Commands::default()
    });
    let known = driver
        .presences
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    let held = driver
        .handed_over
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    for (gpu, number) in presences {
        if !driver.gpus.contains(&gpu) {
            let node = Node::Gpu(gpu).file_name();
            return Err(format!(
                "a descriptor of {node} was handed over, which the sandbox was not given"
            ));
        }
        let presence = Arc::new(Presence(enclosures.take(number)?));
        known.insert(gpu, Arc::downgrade(&presence));
        held.presences.push(presence);
    }
    let known = driver
        .keepers
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    for (server, number) in keepers {
        let control = Socket::from(enclosures.take(number)?);
        let keeper = Arc::new(Keeping::new(control));
        known.insert(server, Arc::downgrade(&keeper));
        held.keepers.push(keeper);
    }
    Ok(driver)
}

pub(super) fn save_file(file: &CommandFile, enclosures: &mut Enclosures) -> Result<Value, String> {
    let origin = (file.commands.server, file.file);
    save_command(file.node, file.command.get(), origin, enclosures)
}

pub(super) fn save_kept(file: &KeptFile, enclosures: &mut Enclosures) -> Result<Value, String> {
    let origin = (file.opened_by, file.file);
    save_command(file.node, Some(&file.command), origin, enclosures)
}

fn save_command(
    node: Node,
    command: Option<&OwnedFd>,
    (opened_by, file): (u64, u64),
    enclosures: &mut Enclosures,
) -> Result<Value, String> {
    let descriptor = command
        .map(|command| enclose(command, node, enclosures))
        .transpose()?;
    let command = descriptor.map(|descriptor| SavedCommand {
        descriptor,
        opened_by,
        file,
    });
    serde_json::to_value(SavedFile { node, command }).map_err(damaged)
}

pub(super) fn restore_file(
    driver: &Driver,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<Arc<dyn DeviceFile>, String> {
    let SavedFile { node, command } = serde_json::from_value(saved).map_err(damaged)?;
    let presence = match node {
        Node::Control => None,
        Node::Gpu(gpu) => {
            let absent = || format!("no descriptor of {} was handed over", node.file_name());
            Some(driver.presence(gpu).ok_or_else(absent)?)
        }
        Node::Uvm | Node::OpenOnly(_) => {
            let name = node.file_name();
            return Err(format!("a server keeps no description of {name}"));
        }
    };
    let Some(SavedCommand {
        descriptor,
        opened_by,
        file,
    }) = command
    else {
        return Ok(Arc::new(CommandFile::new(driver, node, presence)));
    };
    let keeper = driver.keepers().get(&opened_by).and_then(Weak::upgrade);
    let keeper = keeper.ok_or_else(|| {
        format!(
            "nobody keeps what server {opened_by} opened of {}",
            node.file_name()
        )
    })?;
    Ok(Arc::new(KeptFile::new(
        (node, presence),
        (opened_by, file),
        enclosures.take(descriptor)?,
        keeper,
        &driver.register,
    )))
}
