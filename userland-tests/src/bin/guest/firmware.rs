//! The commands that the GPU's firmware answers, of which no header tells.
//!
//! The simulated firmware knows those of the lists. Like the driver, it answers what it does not know as it answers what is not
//! supported, and so does Ringfence in their place. So commands are asked of an object that does not exist: the driver notices
//! that first, and says so.

use nvproxy_abi::number::{NV_ESC_RM_CONTROL, NV2081_BINAPI};
use nvproxy_sim::structs::frontend::NVOS54_PARAMETERS;
use ringfence::guest::{Nothing, Result, check, frontend};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{Gpu, SUBDEVICE, word};

/// Handles: of an object that does not exist, and of one whose commands the firmware answers.
const MISSING: u32 = 0x77;
const BINAPI: u32 = 0x78;

/// The firmware answers it to every CUDA program; it has one byte.
const LISTED: u32 = 0x2080_8162;
/// Nsight Compute asks this one, and no list has it.
const OF_NO_LIST: u32 = 0x2080_a06d;
/// The most bytes that are passed with such a one.
const MOST: usize = 256 << 10;

/// What becomes of commands of each kind.
pub fn run(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.client
        .allocate(SUBDEVICE, BINAPI, NV2081_BINAPI, &mut Nothing {})?;
    let ask = |what: &str, object, command, size| {
        let outcome = ask(&gpu, object, command, &mut vec![0; size]);
        println!("{what}: {}", word(outcome));
    };
    ask("listed", SUBDEVICE, LISTED, 1);
    ask("listed, larger", MISSING, LISTED, 2);
    ask("of no list", SUBDEVICE, OF_NO_LIST, 64);
    ask("of no list, of nothing", MISSING, OF_NO_LIST, 64);
    ask("of no list, without parameters", MISSING, OF_NO_LIST, 0);
    ask("of no list, as large as can be", MISSING, OF_NO_LIST, MOST);
    ask("of no list, larger", MISSING, OF_NO_LIST, MOST + 1);
    println!("of no list, nowhere: {}", word(ask_nowhere(&gpu)));
    ask("of the other class", BINAPI, 0x2081_0107, 64);
    ask("of the other class, of nothing", MISSING, 0x2081_0107, 64);
    ask("for administrators", MISSING, 0x2080_e06d, 64);
    ask(
        "of the other class, for administrators",
        MISSING,
        0x2081_c107,
        64,
    );
    // NV2080_CTRL_CMD_INTERNAL_GCX_ENTRY_PREREQUISITE: the driver's tables leave it to the driver itself.
    ask("with an entry", MISSING, 0x2080_a7d7, 2);
    ask("of another class", MISSING, 0x2082_a06d, 64);
    Ok(())
}

fn ask(gpu: &Gpu, object: u32, command: u32, parameters: &mut [u8]) -> Result<()> {
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject, request.cmd) = (gpu.client.root, object, command);
    request.paramsSize = parameters.len() as u32;
    if !parameters.is_empty() {
        request.params = parameters.as_mut_ptr() as u64;
    }
    frontend(&gpu.client.control, NV_ESC_RM_CONTROL, &mut request)?;
    check(request.status)
}

/// For the parameters of this request the driver would set 4 GiB of the kernel's memory aside.
fn ask_nowhere(gpu: &Gpu) -> Result<()> {
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject, request.cmd) = (gpu.client.root, MISSING, OF_NO_LIST);
    request.paramsSize = u32::MAX;
    frontend(&gpu.client.control, NV_ESC_RM_CONTROL, &mut request)?;
    check(request.status)
}

/// How many of the instructions that the driver takes at once, and of one more, are passed to it
/// (NV2080_CTRL_CMD_THERMAL_SYSTEM_EXECUTE_V2, and the firmware's command of the same parameters).
pub fn instructions(_: &[String]) -> Outcome {
    const PARAMETERS: usize = 1432;
    const LIST_SIZE_AT: usize = 20;
    let gpu = Gpu::open()?;
    for command in [0x2080_0513, 0x2080_8513] {
        let outcomes = [32u32, 33, u32::MAX].map(|count| {
            let mut parameters = [0; PARAMETERS];
            parameters[LIST_SIZE_AT..][..4].copy_from_slice(&count.to_ne_bytes());
            word(ask(&gpu, MISSING, command, &mut parameters))
        });
        println!("{command:#x}: {}", outcomes.join(" "));
    }
    Ok(())
}
