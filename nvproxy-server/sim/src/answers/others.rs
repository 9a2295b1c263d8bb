//! What control commands answer about GPUs by their ids, and what they tell of other tenants of the machine: GPUs that the
//! sandbox was not given, and a process of somebody else's, with the numbers that the real driver tells of one.

use nvproxy_abi::status::*;

use super::super::command::Command;
use super::super::names::Outcome;

/// Another tenant's process: its number on the host, and where the kernel keeps it.
const PROCESS: u32 = 4242;
const KERNEL_ADDRESS: u64 = 0xffff_8881_0234_5600;
/// What it is called.
const NAME: &str = "another tenant's";

/// Where the engines' parts of the first sample are in NV2080_CTRL_PERF_GET_GPUMON_PERFMON_UTIL_SAMPLES_V2_PARAMS, how long
/// each is, and where in one the number, the number in a guest, its name and the address are (ctrl2080perf.h, 580.142).
const FIRST_ENGINE: usize = 24;
const ENGINE: usize = 128;
const ENGINES: usize = 6;
const PROCESS_AT: usize = 8;
const GUEST_PROCESS_AT: usize = 12;
const NAME_AT: usize = 16;
const ADDRESS_AT: usize = 120;

impl Command<'_, '_> {
    fn word_at(&self, at: usize) -> Outcome<u32> {
        let field = self.parameters.field(at, 4);
        let word = field.and_then(|field| self.buffers.get(field));
        word.ok_or(NV_ERR_INVALID_ARGUMENT)
    }

    fn put_at<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, at: usize, value: &T) {
        if let Some(field) = self.parameters.field(at, size_of::<T>()) {
            self.buffers.put(field, value);
        }
    }

    /// Whether the id at `at` is of some GPU of the machine; if not, the command is answered with `absent`.
    fn known(&self, at: usize, absent: u32) -> Outcome {
        let id = self.word_at(at)?;
        self.state.gpu_by_id(id).map(drop).ok_or(absent)
    }

    /// The same of as many ids from `at` on as the field at `count_at` says, which has to be one at least.
    fn all_known(&self, at: usize, count_at: usize, most: u32) -> Outcome {
        let count = self.word_at(count_at)?;
        if count == 0 || count > most {
            return Err(NV_ERR_INVALID_ARGUMENT);
        }
        (0..count as usize)
            .try_for_each(|index| self.known(at + 4 * index, NV_ERR_INVALID_ARGUMENT))
    }
}

pub(in super::super) fn attach_one(command: &mut Command<'_, '_>) -> Outcome {
    command.known(0, NV_ERR_INVALID_ARGUMENT)
}

pub(in super::super) fn detach(command: &mut Command<'_, '_>) -> Outcome {
    /// NV0000_CTRL_GPU_DETACH_ALL_ATTACHED_IDS and NV0000_CTRL_GPU_INVALID_ID.
    const ALL: u32 = 0xffff;
    const NONE: u32 = u32::MAX;
    for at in (0..128).step_by(4) {
        match command.word_at(at)? {
            NONE => break,
            ALL if at == 0 => break,
            _ => command.known(at, NV_ERR_INVALID_ARGUMENT)?,
        }
    }
    Ok(())
}

pub(in super::super) fn drain_state(command: &mut Command<'_, '_>) -> Outcome {
    command.known(0, NV_ERR_OBJECT_NOT_FOUND)?;
    command.put_at(4, &[0u32; 2]);
    Ok(())
}

/// NV0000_CTRL_GPU_ACCOUNTING_STATE_DISABLED.
pub(in super::super) fn accounting_state(command: &mut Command<'_, '_>) -> Outcome {
    command.known(0, NV_ERR_INVALID_ARGUMENT)?;
    command.put_at(8, &1u32);
    Ok(())
}

pub(in super::super) fn p2p_caps(command: &mut Command<'_, '_>) -> Outcome {
    command.all_known(0, 128, 32)
}

pub(in super::super) fn p2p_caps_matrix(command: &mut Command<'_, '_>) -> Outcome {
    command.all_known(8, 0, 8)?;
    match command.word_at(4)? {
        0 => Ok(()),
        _ => command.all_known(40, 4, 8),
    }
}

/// The UUID of a GPU: 16 bytes, or text with a terminating zero.
pub(in super::super) fn uuid_of_gpu(command: &mut Command<'_, '_>) -> Outcome {
    /// NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID_FLAGS_FORMAT_BINARY.
    const BINARY: u32 = 2;
    let id = command.word_at(0)?;
    let (_, gpu) = command.state.gpu_by_id(id).ok_or(NV_ERR_OBJECT_NOT_FOUND)?;
    let (binary, text) = (gpu.uuid, gpu.uuid_text() + "\0");
    let is_binary = command.word_at(4)? & 3 == BINARY;
    let identity: &[u8] = if is_binary { &binary } else { text.as_bytes() };
    for (at, byte) in (8..).zip(identity) {
        command.put_at(at, byte);
    }
    command.put_at(264, &(identity.len() as u32));
    Ok(())
}

/// An administrator has made one group, of all GPUs.
pub(in super::super) fn boost_groups(command: &mut Command<'_, '_>) -> Outcome {
    let ids: Vec<u32> = command.state.gpus.iter().map(|gpu| gpu.id).collect();
    command.put_at(0, &1u32);
    command.put_at(4, &(ids.len() as u32));
    for (index, id) in ids.iter().enumerate() {
        command.put_at(8 + 4 * index, id);
    }
    Ok(())
}

/// Another tenant's process was on every engine when the first sample was taken.
pub(in super::super) fn utilization(command: &mut Command<'_, '_>) -> Outcome {
    for engine in 0..ENGINES {
        let at = FIRST_ENGINE + engine * ENGINE;
        // Half of the time, in hundredths of a percent.
        command.put_at(at, &5000u32);
        command.put_at(at + PROCESS_AT, &PROCESS);
        command.put_at(at + GUEST_PROCESS_AT, &PROCESS);
        for (at, byte) in (at + NAME_AT..).zip(NAME.bytes()) {
            command.put_at(at, &byte);
        }
        command.put_at(at + ADDRESS_AT, &KERNEL_ADDRESS);
    }
    Ok(())
}
