//! The real driver handed over to another process: only descriptors move, since the state is the driver's own.
//!
//! The driver knows a client by the open file description through which it was made and by the user, not by the process,
//! so a command descriptor goes on working in another one. Presences move too, because the driver looks for a GPU's node among the
//! descriptors of the process that issues a request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use nvproxy_abi::node::Node;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CommandFile, Driver, Presence};
use crate::handover::{Enclosures, node_name};

/// A [`Driver`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDriver {
    devices: PathBuf,
    gpus: Vec<u8>,
    /// Numbers of enclosed descriptors, by the minor number of the GPU.
    presences: BTreeMap<u8, u32>,
}

/// A [`CommandFile`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFile {
    #[serde(with = "node_name")]
    node: Node,
    /// The number of the enclosed command descriptor, if it was opened.
    #[serde(deserialize_with = "Option::deserialize")]
    command: Option<u32>,
}

fn damaged(error: serde_json::Error) -> String {
    format!("what was saved of the driver: {error}")
}

fn enclose(
    descriptor: &std::os::fd::OwnedFd,
    node: Node,
    enclosures: &mut Enclosures,
) -> Result<u32, String> {
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
        devices: driver.devices.clone(),
        gpus: driver.gpus.clone(),
        presences,
    };
    serde_json::to_value(saved).map_err(damaged)
}

pub(super) fn restore(saved: Value, enclosures: &mut Enclosures) -> Result<Driver, String> {
    let SavedDriver {
        devices,
        gpus,
        presences,
    } = serde_json::from_value(saved).map_err(damaged)?;
    let mut driver = Driver::new(&devices, &gpus);
    let known = driver
        .presences
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    let held = driver
        .handed_over
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    for (gpu, number) in presences {
        let presence = Arc::new(Presence(enclosures.take(number)?));
        known.insert(gpu, Arc::downgrade(&presence));
        held.push(presence);
    }
    Ok(driver)
}

pub(super) fn save_file(file: &CommandFile, enclosures: &mut Enclosures) -> Result<Value, String> {
    let command = file
        .command
        .get()
        .map(|command| enclose(command, file.node, enclosures))
        .transpose()?;
    let saved = SavedFile {
        node: file.node,
        command,
    };
    serde_json::to_value(saved).map_err(damaged)
}

pub(super) fn restore_file(
    driver: &Driver,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<CommandFile, String> {
    let SavedFile { node, command } = serde_json::from_value(saved).map_err(damaged)?;
    let presence = match node {
        Node::Control => None,
        Node::Gpu(gpu) => {
            let absent = || format!("no descriptor of {} was handed over", node.file_name());
            Some(driver.presence(gpu).ok_or_else(absent)?)
        }
        Node::Uvm => return Err("a server keeps no description of nvidia-uvm".to_owned()),
    };
    let command = match command {
        Some(number) => OnceLock::from(enclosures.take(number)?),
        None => OnceLock::new(),
    };
    Ok(CommandFile {
        node,
        path: driver.path(node),
        command,
        _presence: presence,
    })
}
