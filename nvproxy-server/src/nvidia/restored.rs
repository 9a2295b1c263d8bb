//! A real driver that another process has handed over, taken up: the other half of `saved.rs`.

use std::sync::{Arc, Weak};

use nvproxy_abi::node::Node;
use ringfence_ipc::Socket;
use ringfence_ipc::locks::IgnorePoison;
use serde_json::Value;

use super::kept::{Keeping, KeptFile};
use super::marks::Marks;
use super::saved::{SavedCommand, SavedDriver, SavedFile};
use super::{CommandFile, Commands, Driver, Error, Presence};
use crate::backend::handover::Enclosures;
use crate::backend::{self, DeviceFile};

pub(super) fn restore(
    mut driver: Driver,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<Driver, backend::Error> {
    let SavedDriver {
        presences,
        server,
        keepers,
        marks,
    } = serde_json::from_value(saved).map_err(Error::Damaged)?;
    driver.identities.reach();
    driver.marks = Arc::new(Marks::of_uvm(marks));
    driver.commands = Arc::new(Commands {
        server: server.saturating_add(1),
        ..Commands::default()
    });
    let known = driver.presences.get_mut().ignore_poison();
    let held = driver.handed_over.get_mut().ignore_poison();
    for (gpu, number) in presences {
        if !driver.gpus.contains(&gpu) {
            return Err(Error::NotGiven(Node::Gpu(gpu)).into());
        }
        let presence = Arc::new(Presence(enclosures.take(number)?));
        known.insert(gpu, Arc::downgrade(&presence));
        held.presences.push(presence);
    }
    let known = driver.keepers.get_mut().ignore_poison();
    for (server, number) in keepers {
        let control = Socket::from(enclosures.take(number)?);
        let keeper = Arc::new(Keeping::new(control));
        known.insert(server, Arc::downgrade(&keeper));
        held.keepers.push(keeper);
    }
    Ok(driver)
}

pub(super) fn restore_file(
    driver: &Driver,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<Arc<dyn DeviceFile>, backend::Error> {
    let SavedFile { node, command } = serde_json::from_value(saved).map_err(Error::Damaged)?;
    let presence = match node {
        Node::Control => None,
        Node::Gpu(gpu) => Some(driver.presence(gpu).ok_or(Error::NoPresence(node))?),
        Node::Uvm | Node::OpenOnly(_) => return Err(Error::NotKept(node).into()),
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
    let keeper = keeper.ok_or(Error::NoKeeper {
        server: opened_by,
        node,
    })?;
    Ok(Arc::new(KeptFile::new(
        (node, presence),
        (opened_by, file),
        enclosures.take(descriptor)?,
        keeper,
        (&driver.register, driver.issue),
    )))
}
