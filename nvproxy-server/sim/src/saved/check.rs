//! Whether a restored state is one that the simulated driver can have been in, as far as it relies on that.
//!
//! Every function says what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use nvproxy_abi::node::Node;

use super::super::backing::Backing;
use super::super::objects::{Client, Detail, Object};
use super::super::state::{FileNumber, FileState, State};

/// The descriptor has to be of the file that was meant.
pub(super) fn backing(backing: &Backing) -> Result<(), String> {
    if backing.is_itself() {
        Ok(())
    } else {
        Err("an enclosed descriptor is of another file".to_owned())
    }
}

/// Everything that is referred to has to be there.
pub(super) fn state(
    state: &State,
    registered: &BTreeMap<FileNumber, FileNumber>,
) -> Result<(), String> {
    let mut inodes = BTreeSet::new();
    for (number, file) in &state.files {
        let named = |wrong: String| format!("description {}: {wrong}", number.0);
        if !state.has_given_out(*number) {
            return Err(named("its number is still to be given out".to_owned()));
        }
        if !inodes.insert(file.backing.inode()) {
            return Err(named("its file is another's".to_owned()));
        }
        contents(file, state.gpus.len()).map_err(named)?;
    }
    for (number, control) in registered {
        registration(state, registered, *number, *control)
            .map_err(|wrong| format!("description {}: {wrong}", number.0))?;
    }
    for file in state.os_events.files() {
        if !state.files.contains_key(&file) {
            return Err(format!(
                "an event is for description {}, which is not there",
                file.0
            ));
        }
    }
    for (handle, owned) in state.clients.by_handle() {
        client(handle, owned, state).map_err(|wrong| format!("client {handle:#x}: {wrong}"))?;
    }
    Ok(())
}

fn contents(file: &FileState, gpus: usize) -> Result<(), String> {
    let exported = file.exports.iter().flat_map(|exports| exports.objects());
    exported
        .into_iter()
        .try_for_each(|exported| object(exported, gpus))?;
    file.address_space
        .as_ref()
        .map_or(Ok(()), |space| space.check(gpus))
}

/// NV_ESC_REGISTER_FD.
fn registration(
    state: &State,
    registered: &BTreeMap<FileNumber, FileNumber>,
    number: FileNumber,
    control: FileNumber,
) -> Result<(), String> {
    let node = |number| state.files.get(&number).map(|file| file.node);
    if node(number).is_none() {
        return Err("it is registered and not there".to_owned());
    }
    if node(control) != Some(Node::Control) || registered.contains_key(&control) {
        return Err(format!(
            "it cannot be registered with description {}",
            control.0
        ));
    }
    Ok(())
}

fn client(handle: u32, client: &Client, state: &State) -> Result<(), String> {
    if client.handle != handle {
        return Err(format!("it calls itself {:#x}", client.handle));
    }
    if !state.files.contains_key(&client.owner) {
        return Err(format!("its description {} is not there", client.owner.0));
    }
    if !client.objects.contains_key(&handle) {
        return Err("it has no object of its own".to_owned());
    }
    for (handle, owned) in &client.objects {
        let named = |wrong: String| format!("object {handle:#x}: {wrong}");
        if !client.objects.contains_key(&owned.parent) {
            return Err(named(format!(
                "its parent {:#x} is not there",
                owned.parent
            )));
        }
        object(owned, state.gpus.len()).map_err(named)?;
    }
    Ok(())
}

fn object(object: &Object, gpus: usize) -> Result<(), String> {
    if let Some(gpu) = object.gpu.filter(|gpu| *gpu >= gpus) {
        return Err(format!("there is no GPU {gpu}"));
    }
    match &object.detail {
        Detail::Virtual(range) => range.check(),
        _ => Ok(()),
    }
}
