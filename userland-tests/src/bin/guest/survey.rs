//! Requests on nodes in a directory, whatever answers there: what a survey is to find.

use std::fs::OpenOptions;
use std::path::Path;

use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::{NVOS54_PARAMETERS, nv_ioctl_rm_api_version_t};
use ringfence::guest::{Client, frontend, ioctl};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::child;
use crate::gpu::{DEVICE, MEMORY, SUBDEVICE, word};

/// A control command and a class that no driver has.
const NO_COMMAND: u32 = 0x2080_7fff;
const NO_CLASS: u32 = 0xfff0;
/// NV0000_CTRL_CMD_GSYNC_GET_ATTACHED_IDS, which few sandboxes may ask.
const OF_DISPLAYS: u32 = 0x301;
/// A number beyond UVM's own.
const NO_UVM_NUMBER: u32 = 0x1ff;

/// Asks on the nodes in the directory that is named, and prints what came of it. With a further argument a child asks, which goes on
/// when this process has ended.
pub fn scenario(arguments: &[String]) -> Outcome {
    let directory = arguments.first().ok_or("no directory")?;
    match arguments.len() {
        1 => ask(Path::new(directory)),
        _ => {
            child(|| ask(Path::new(directory)))?;
            Ok(())
        }
    }
}

fn ask(directory: &Path) -> Outcome {
    let open = |name: &str| {
        let path = directory.join(name);
        OpenOptions::new().read(true).write(true).open(path)
    };
    let (control, uvm) = (open("nvidiactl")?, open("nvidia-uvm")?);
    let client = Client { control, root: 1 };
    let mut came_to = Vec::new();
    let mut version = nv_ioctl_rm_api_version_t::new_zeroed();
    came_to.push(word(frontend(
        &client.control,
        NV_ESC_CHECK_VERSION_STR,
        &mut version,
    )));
    came_to.push(word(client.control(SUBDEVICE, NO_COMMAND, &mut [0u64; 2])));
    came_to.push(word(client.control(SUBDEVICE, NO_COMMAND, &mut [0u64; 3])));
    came_to.push(word(client.control(SUBDEVICE, NO_COMMAND, &mut [0u64; 2])));
    let wrong_size = NV0000_CTRL_CMD_GPU_GET_PROBED_IDS;
    came_to.push(word(client.control(client.root, wrong_size, &mut [0u64])));
    came_to.push(word(client.control(
        client.root,
        OF_DISPLAYS,
        &mut [0u32; 4],
    )));
    came_to.push(word(client.allocate(DEVICE, MEMORY, NO_CLASS, &mut [0u64])));
    came_to.push(word(client.allocate(
        DEVICE,
        MEMORY,
        HOPPER_COMPUTE_A,
        &mut [0u64; 2],
    )));
    came_to.push(word(ioctl(&uvm, NO_UVM_NUMBER, &mut [0u64; 4])));
    // Parameters where nothing can be read.
    let mut unreadable = NVOS54_PARAMETERS::new_zeroed();
    unreadable.cmd = NV0000_CTRL_CMD_GPU_GET_PROBED_IDS;
    unreadable.params = 8;
    unreadable.paramsSize = 384;
    came_to.push(word(frontend(
        &client.control,
        NV_ESC_RM_CONTROL,
        &mut unreadable,
    )));
    println!("{}", came_to.join(" "));
    Ok(())
}
