//! Whether a restored state is one that the simulated driver can have been in, as far as it relies on that.

use std::collections::{BTreeMap, BTreeSet};

use nvproxy_abi::node::Node;

use super::super::backing::Backing;
use super::super::error::Impossible;
use super::super::names::FileNumber;
use super::super::objects::{Client, Detail, Object};
use super::super::state::{FileState, State};

/// The descriptor has to be of the file that was meant.
pub(super) fn backing(backing: &Backing) -> Result<(), Impossible> {
    if backing.is_itself() {
        Ok(())
    } else {
        Err(Impossible::OtherFile)
    }
}

/// Everything that is referred to has to be there.
pub(super) fn state(
    state: &State,
    registered: &BTreeMap<FileNumber, FileNumber>,
) -> Result<(), Impossible> {
    let mut inodes = BTreeSet::new();
    for (number, file) in &state.files {
        let named = |wrong| Impossible::Description(number.0, Box::new(wrong));
        if !state.has_given_out(*number) {
            return Err(named(Impossible::NumberNotGiven));
        }
        if !inodes.insert(file.backing.inode()) {
            return Err(named(Impossible::OthersFile));
        }
        contents(file, state.gpus.len()).map_err(named)?;
    }
    for (number, control) in registered {
        registration(state, registered, *number, *control)
            .map_err(|wrong| Impossible::Description(number.0, Box::new(wrong)))?;
    }
    for file in state.os_events.files() {
        if !state.files.contains_key(&file) {
            return Err(Impossible::Event(file.0));
        }
    }
    for (handle, owned) in state.clients.by_handle() {
        client(handle, owned, state)
            .map_err(|wrong| Impossible::Client(handle, Box::new(wrong)))?;
    }
    Ok(())
}

fn contents(file: &FileState, gpus: usize) -> Result<(), Impossible> {
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
) -> Result<(), Impossible> {
    let node = |number| state.files.get(&number).map(|file| file.node);
    if node(number).is_none() {
        return Err(Impossible::Registered);
    }
    if node(control) != Some(Node::Control) || registered.contains_key(&control) {
        return Err(Impossible::RegisteredWith(control.0));
    }
    Ok(())
}

fn client(handle: u32, client: &Client, state: &State) -> Result<(), Impossible> {
    if client.handle != handle {
        return Err(Impossible::OtherHandle(client.handle));
    }
    if !state.files.contains_key(&client.owner) {
        return Err(Impossible::NoDescription(client.owner.0));
    }
    if !client.objects.contains_key(&handle) {
        return Err(Impossible::NoObject);
    }
    for (handle, owned) in &client.objects {
        let named = |wrong| Impossible::Object(*handle, Box::new(wrong));
        if !client.objects.contains_key(&owned.parent) {
            return Err(named(Impossible::NoParent(owned.parent)));
        }
        object(owned, state.gpus.len()).map_err(named)?;
    }
    Ok(())
}

fn object(object: &Object, gpus: usize) -> Result<(), Impossible> {
    if let Some(gpu) = object.gpu.filter(|gpu| *gpu >= gpus) {
        return Err(Impossible::NoGpu(gpu));
    }
    match &object.detail {
        Detail::Virtual(range) => range.check(),
        _ => Ok(()),
    }
}
