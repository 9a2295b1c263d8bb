//! The program that the demonstration runs in the sandbox.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS;
use ringfence_sentry::failure::Failure;
use std::os::fd::AsFd;
use zerocopy::FromZeros;

use crate::endings;
use crate::guest::{Client, Error, Nothing, Result, open};

/// Handles of the program's objects; any numbers do.
const DEVICE: u32 = 0x1000;
const SUBDEVICE: u32 = 0x1001;
const SYSTEM_MEMORY: u32 = 0x1002;
const VIDEO_MEMORY: u32 = 0x1003;
const EVENT: u32 = 0x1004;
/// The notification that software triggers (NV2080_NOTIFIERS_SW, cl2080_notification.h).
const SOFTWARE_NOTIFICATION: u32 = 0;

const SYSTEM_BYTES: usize = 64 << 10;
const VIDEO_BYTES: u64 = 64 << 20;

/// Runs the steps one after the other and prints them. Returns the exit status: 1 if one failed. Fails if they cannot be
/// printed.
pub fn run() -> std::result::Result<u8, Failure> {
    let mut steps = Steps {
        total: Duration::ZERO,
        printed: endings::print(&format!("{:<46} {:>10}  result\n", "step", "took")),
    };
    let outcome = walk(&mut steps);
    steps.printed?;
    match outcome {
        Ok(()) => {
            let total = format_duration(steps.total);
            endings::print(&format!("{:<46} {total:>10}\n", "in all")).map(|()| 0)
        }
        Err(error) => endings::print(&format!("failed: {error}\n")).map(|()| 1),
    }
}

struct Steps {
    total: Duration,
    /// Whether all could be printed.
    printed: std::result::Result<(), Failure>,
}

impl Steps {
    /// Times one step and prints it with what `describe` makes of its result.
    fn step<T>(
        &mut self,
        name: &str,
        run: impl FnOnce() -> Result<T>,
        describe: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = run();
        let took = started.elapsed();
        self.total += took;
        let text = match &outcome {
            Ok(value) => describe(value),
            Err(error) => format!("FAILED: {error}"),
        };
        if self.printed.is_ok() {
            let took = format_duration(took);
            self.printed = endings::print(&format!("{name:<46} {took:>10}  {text}\n"));
        }
        outcome
    }
}

fn format_duration(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

fn walk(steps: &mut Steps) -> Result<()> {
    let done = |_: &()| "ok".to_owned();
    let client = steps.step(
        "open /dev/nvidiactl, allocate a client",
        Client::new,
        |client| format!("client {:#x}", client.root),
    )?;
    let gpus = steps.step(
        "enumerate GPUs",
        || client.probed_gpus(),
        |gpus| {
            let ids: Vec<String> = gpus.iter().map(|id| format!("{id:#x}")).collect();
            format!("{} found: {}", gpus.len(), ids.join(", "))
        },
    )?;
    let gpu = *gpus.first().ok_or(Error::Errno(Errno::ENODEV))?;
    let _open_while_in_use = steps.step(
        "open the GPU's node, register it",
        || first_gpu_node(&client),
        |node| format!("/dev/{}", node.0.file_name()),
    )?;
    steps.step(
        "allocate device and subdevice",
        || {
            let instance = client.attach(gpu)?;
            client.device(instance, DEVICE, SUBDEVICE)
        },
        done,
    )?;
    steps.step("ask for the GPU's name", || name(&client), String::clone)?;

    steps.step(
        "allocate 64 MiB of GPU memory",
        || client.memory(DEVICE, VIDEO_MEMORY, NV01_MEMORY_LOCAL_USER, VIDEO_BYTES),
        done,
    )?;
    steps.step(
        "allocate 64 KiB of system memory",
        || {
            client.memory(
                DEVICE,
                SYSTEM_MEMORY,
                NV01_MEMORY_SYSTEM,
                SYSTEM_BYTES as u64,
            )
        },
        done,
    )?;
    let mut mapping = steps.step(
        "map it",
        || client.map(DEVICE, SYSTEM_MEMORY, SYSTEM_BYTES, Node::Control),
        |_| "ok".to_owned(),
    )?;
    let pattern: Vec<u8> = (0..SYSTEM_BYTES)
        .map(|index| (index * 7 + index / 256) as u8)
        .collect();
    steps.step(
        "write 64 KiB and read them back",
        || {
            mapping.write(0, &pattern);
            if mapping.read(0, SYSTEM_BYTES) == pattern {
                Ok(())
            } else {
                Err(Error::Errno(Errno::EIO))
            }
        },
        |()| "identical, without a single request to the driver".to_owned(),
    )?;
    drop(mapping);

    wait_for_an_event(steps, &client)?;
    steps.step("free everything", || client.free(client.root, DEVICE), done)
}

/// The node of the first GPU that the sandbox has, open and tied to the client.
fn first_gpu_node(client: &Client) -> Result<(Node, std::fs::File)> {
    let mut last = Error::Errno(Errno::ENODEV);
    for node in (0..=u8::MAX - 1).map(Node::Gpu) {
        match open(node) {
            Ok(file) => {
                client.register(&file)?;
                return Ok((node, file));
            }
            Err(Error::Errno(Errno::ENOENT)) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn name(client: &Client) -> Result<String> {
    let mut parameters = NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS::new_zeroed();
    client.control(
        SUBDEVICE,
        NV2080_CTRL_CMD_GPU_GET_NAME_STRING,
        &mut parameters,
    )?;
    let bytes = parameters.gpuNameString;
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Registers for an event, lets software trigger it, and waits for it.
fn wait_for_an_event(steps: &mut Steps, client: &Client) -> Result<()> {
    let done = |_: &()| "ok".to_owned();
    let events = steps.step(
        "register a descriptor for events",
        || {
            let events = open(Node::Control)?;
            client.register_event_descriptor(&events)?;
            client.event(SUBDEVICE, EVENT, SOFTWARE_NOTIFICATION, &events)?;
            client.enable_notification(SUBDEVICE, SOFTWARE_NOTIFICATION)?;
            Ok(events)
        },
        |_| "ok".to_owned(),
    )?;
    steps.step(
        "trigger the event",
        || {
            client.control(
                SUBDEVICE,
                NV2080_CTRL_CMD_EVENT_SET_TRIGGER,
                &mut Nothing {},
            )
        },
        done,
    )?;
    steps.step(
        "wait for it with poll",
        || {
            let mut polled = [PollFd::new(
                events.as_fd(),
                PollFlags::POLLIN | PollFlags::POLLPRI,
            )];
            match poll(&mut polled, PollTimeout::from(2000u16))? {
                0 => Err(Error::Errno(Errno::ETIMEDOUT)),
                _ => Ok(()),
            }
        },
        done,
    )
}
