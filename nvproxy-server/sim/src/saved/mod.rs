//! The simulated driver handed over to another process. The real one's state is the kernel's; this one's is in the
//! server's memory and moves with it.
//!
//! The types of the state derive how they are written, so that what is added to them is saved too; [`super::encoding`] has
//! the rest. Memory files and eventfds move as descriptors, so that what tasks hold and map stays what it is. A saved state
//! is checked ([`check`]) before anything acts on it.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, from_value, to_value};

use super::Simulator;
use super::backing::Backing;
use super::encoding::{Context, entries, fill};
use super::error::Error;
use super::memory::Memory;
use super::names::FileNumber;
use super::state::{Description, Shared, State};
use nvproxy_server::backend::handover::Enclosures;

/// A [`Simulator`], but for its [`super::Configuration`], which each server has from the launcher.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// A [`State`].
    state: Value,
    /// Which description of `nvidiactl` another has been registered with.
    registered: BTreeMap<FileNumber, FileNumber>,
    /// A [`Memory`] each, to which the state refers by index.
    memories: Vec<Value>,
    /// A [`Backing`] each, to which the state and the memories refer by index.
    backings: Vec<Value>,
}

/// Saves everything but which files the server holds.
pub(super) fn save(shared: &Shared, enclosures: &mut Enclosures) -> Result<Value, Error> {
    let state = shared.state();
    let mut context = Context::new(None, std::mem::take(enclosures));
    let saved = context.enter(|| {
        fill(state.gpus.iter().map(|gpu| Arc::clone(&gpu.memory)));
        to_saved(&state)
    });
    *enclosures = context.enclosures;
    saved.and_then(to_value).map_err(Error::Damaged)
}

/// Writes the state, then the memory that this has turned out to refer to, then the files that both refer to.
fn to_saved(state: &State) -> Result<Saved, serde_json::Error> {
    let registered = state.files.iter().filter_map(|(number, file)| {
        let control = file.registered.as_ref()?;
        Some((*number, control.number))
    });
    Ok(Saved {
        registered: registered.collect(),
        state: to_value(state)?,
        memories: entries::<Memory>()
            .iter()
            .map(|memory| to_value(&**memory))
            .collect::<Result<_, _>>()?,
        backings: entries::<Backing>()
            .iter()
            .map(|backing| to_value(&**backing))
            .collect::<Result<_, _>>()?,
    })
}

/// `simulator`, with the state that was saved, and all its descriptions.
pub(super) fn restore(
    simulator: Simulator,
    saved: Value,
    enclosures: &mut Enclosures,
) -> Result<Simulator, Error> {
    let saved: Saved = from_value(saved).map_err(Error::Damaged)?;
    let registered = saved.registered.clone();
    let abi = simulator.shared.configuration.abi;
    let mut context = Context::new(Some(abi), std::mem::take(enclosures));
    let state = context.enter(|| from_saved(saved, &simulator.shared));
    *enclosures = context.enclosures;
    let state = state?;
    check::state(&state, &registered)?;
    Ok(install(simulator, state, &registered))
}

/// Reads in the opposite order, so that every index is of something that is there already.
fn from_saved(saved: Saved, shared: &Shared) -> Result<State, Error> {
    let gpus = std::mem::take(&mut shared.state().gpus);
    fill(gpus.iter().map(|gpu| Arc::clone(&gpu.memory)));
    let mut backings = Vec::new();
    for backing in saved.backings {
        let backing: Backing = from_value(backing).map_err(Error::Damaged)?;
        check::backing(&backing)?;
        backings.push(Arc::new(backing));
    }
    fill(backings);
    let mut memories = Vec::new();
    for memory in saved.memories {
        let memory: Memory = from_value(memory).map_err(Error::Damaged)?;
        memory.settle()?;
        memories.push(Arc::new(memory));
    }
    fill(memories);
    let mut state: State = from_value(saved.state).map_err(Error::Damaged)?;
    state.version = shared.configuration.version.to_string();
    state.gpus = gpus;
    Ok(state)
}

/// Makes the state, which has been checked, the driver's.
fn install(
    simulator: Simulator,
    mut state: State,
    registered: &BTreeMap<FileNumber, FileNumber>,
) -> Simulator {
    let mut descriptions = BTreeMap::new();
    for (number, file) in &mut state.files {
        let description = Description::of(&simulator.shared, *number, file.node);
        file.description = Arc::downgrade(&description);
        descriptions.insert(*number, description);
    }
    for (number, control) in registered {
        if let Some(file) = state.files.get_mut(number) {
            file.registered = descriptions.get(control).cloned();
        }
    }
    *simulator.shared.state() = state;
    *simulator.unclaimed() = descriptions;
    simulator
}
