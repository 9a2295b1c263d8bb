//! What control commands answer about memory, channels and notifications, and how objects are exported and imported.

use crate::structs::control::*;
use nvproxy_abi::status::*;

use super::super::command::Command;
use super::super::export::{self, Party};
use super::super::memory::Place;
use super::super::names::Outcome;
use super::super::notifications;
use super::super::objects::Detail;
use super::super::parameters::*;

/// NV0080_CTRL_FIFO_GET_CHANNELLIST_INVALID_CHANNEL.
const INVALID_CHANNEL: u32 = u32::MAX;

/// NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE_*.
fn address_space(place: &Place) -> u32 {
    match place {
        Place::System | Place::Pinned => 1,
        Place::Video(_)
        | Place::Registers {
            through_memory: true,
        } => 2,
        Place::Registers {
            through_memory: false,
        } => 3,
    }
}

pub(in super::super) fn address_space_type(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_CLIENT_GET_ADDR_SPACE_TYPE_PARAMS, command| {
            let client = command.state.clients.existing(command.client)?;
            let object = client.object(parameters.hObject)?;
            parameters.addrSpaceType = match &object.detail {
                Detail::Memory(memory) => address_space(memory.place()),
                Detail::Virtual(_) => return Err(NV_ERR_INVALID_ARGUMENT),
                _ => return Err(NV_ERR_INVALID_OBJECT),
            };
            Ok(())
        },
    )
}

impl Command<'_, '_> {
    /// Who exports or imports.
    fn party(&self) -> Party {
        Party {
            caller: self.caller,
            client: self.client,
        }
    }
}

pub(in super::super) fn export_one(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::export_one(command.state, party, parameters))
}

pub(in super::super) fn import_one(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::import_one(command.state, party, parameters))
}

pub(in super::super) fn export_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters, command| export::info(command.state, parameters))
}

pub(in super::super) fn export_many(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::export_many(command.state, party, parameters))
}

pub(in super::super) fn import_many(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::import_many(command.state, party, parameters))
}

/// NV0041_CTRL_SURFACE_INFO_INDEX_*: the size in two halves, and where the memory is.
pub(in super::super) fn surface_info(command: &mut Command<'_, '_>) -> Outcome {
    let client = command.state.clients.existing(command.client)?;
    let memory = client
        .object(command.object)?
        .memory()
        .ok_or(NV_ERR_NOT_SUPPORTED)?;
    let (length, space) = (memory.length(), address_space(memory.place()));
    let field = std::mem::offset_of!(NV0041_CTRL_GET_SURFACE_INFO_PARAMS, surfaceInfoList);
    command.answer_list(field, |index| match index {
        0x2 => length as u32,
        0x3 => (length >> 32) as u32,
        0x9 => space,
        _ => 0,
    });
    Ok(())
}

/// deviceCtrlCmdFifoGetChannelList_IMPL: the channel behind each handle.
pub(in super::super) fn channel_list(command: &mut Command<'_, '_>) -> Outcome {
    type Parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS;
    let handles = command.buffers.pointed_to(
        command.parameters,
        std::mem::offset_of!(Parameters, pChannelHandleList),
    );
    let channels = command.buffers.pointed_to(
        command.parameters,
        std::mem::offset_of!(Parameters, pChannelList),
    );
    let (Some(handles), Some(channels)) = (handles, channels) else {
        return Err(NV_ERR_INVALID_ARGUMENT);
    };
    if handles.length() == 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let client = command.state.clients.existing(command.client)?;
    for at in (0..handles.length()).step_by(4) {
        let (Some(handle), Some(channel)) = (handles.field(at, 4), channels.field(at, 4)) else {
            break;
        };
        let handle: Option<u32> = command.buffers.get(handle);
        let id = match handle
            .and_then(|handle| client.object(handle).ok())
            .map(|object| &object.detail)
        {
            Some(Detail::Channel { id }) => *id,
            _ => INVALID_CHANNEL,
        };
        command.buffers.put(channel, &id);
    }
    Ok(())
}

pub(in super::super) fn set_notification(command: &mut Command<'_, '_>) -> Outcome {
    let (client, object) = (command.client, command.object);
    command.with(|parameters, command| {
        notifications::set_notification(&mut command.state.clients, client, object, parameters)
    })
}

pub(in super::super) fn set_trigger(command: &mut Command<'_, '_>) -> Outcome {
    let (instance, _) = command.gpu()?;
    notifications::trigger(command.state, instance);
    Ok(())
}

/// The timeslice of the channel group that a command is for.
fn timeslice_of<'a>(command: &'a mut Command<'_, '_>) -> Outcome<&'a mut u64> {
    let clients = &mut command.state.clients;
    let client = clients.usable(command.client, command.caller, NV_ERR_INVALID_CLIENT)?;
    match &mut client.object_mut(command.object)?.detail {
        Detail::ChannelGroup { timeslice } => Ok(timeslice),
        _ => Err(NV_ERR_NOT_SUPPORTED),
    }
}

pub(in super::super) fn set_timeslice(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|wanted: &mut u64, command| {
        *timeslice_of(command)? = *wanted;
        Ok(())
    })
}

pub(in super::super) fn timeslice(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|told: &mut u64, command| {
        *told = *timeslice_of(command)?;
        Ok(())
    })
}

/// What a program writes to the doorbell to name the channel.
pub(in super::super) fn work_submit_token(command: &mut Command<'_, '_>) -> Outcome {
    let client = command.state.clients.existing(command.client)?;
    let Detail::Channel { id } = client.object(command.object)?.detail else {
        return Err(NV_ERR_NOT_SUPPORTED);
    };
    command.buffers.put(
        command.parameters,
        &NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS {
            workSubmitToken: id,
        },
    );
    Ok(())
}
