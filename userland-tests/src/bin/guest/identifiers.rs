//! What tells one machine from another.

use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::nv_ioctl_card_info_t;
use ringfence::guest::frontend;
use zerocopy::FromZeros;

use crate::Outcome;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{Gpu, SUBDEVICE};

/// NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT_BINARY (ctrl2080gpu.h); text is 0.
const BINARY: u32 = 2;

/// Asks for every identifier of the first GPU in every form, and prints them.
pub fn ask(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let mut cards = [nv_ioctl_card_info_t::new_zeroed(); 4];
    frontend(&gpu.client.control, NV_ESC_CARD_INFO, &mut cards)?;
    let [card, ..] = cards;
    println!("card: bus {} id {:#x}", card.pci_info.bus, card.gpu_id);
    // NV0000_CTRL_GPU_GET_PCI_INFO_PARAMS (ctrl0000gpu.h): the id, the domain, bus and slot in 16 bits each.
    let mut address = [card.gpu_id, 0, 0];
    let client = &gpu.client;
    client.control(client.root, NV0000_CTRL_CMD_GPU_GET_PCI_INFO, &mut address)?;
    let [_, domain, rest] = address;
    println!("address: {domain}:{}:{}", rest & 0xffff, rest >> 16);
    for flags in [0, BINARY] {
        let mut uuid = NV2080_CTRL_GPU_GET_GID_INFO_PARAMS::new_zeroed();
        uuid.flags = flags;
        client.control(SUBDEVICE, NV2080_CTRL_CMD_GPU_GET_GID_INFO, &mut uuid)?;
        let bytes = uuid.data.get(..uuid.length as usize).unwrap_or_default();
        println!("UUID: {}", String::from_utf8_lossy(bytes).escape_debug());
    }
    register_gpu(&address_space()?)?;
    Ok(())
}
