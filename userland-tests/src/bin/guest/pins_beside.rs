//! Pins, while other processes of the sandbox do what makes them hard to hold.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::unistd::gettid;

use crate::Outcome;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{Gpu, MEMORY};
use crate::pins::{Pages, pin};
use crate::refusals::word;

/// Pins and frees again and again until a process that executes this program with `arguments` has ended; says what
/// came of the pins, and of the process.
fn pin_beside(arguments: &[&str]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let mut other = Command::new("/proc/self/exe").args(arguments).spawn()?;
    let mut outcomes = BTreeSet::new();
    let ended = loop {
        outcomes.insert(word(pin(&gpu, MEMORY, &pages)));
        // It is not there if the pin failed.
        let _ = gpu.free(MEMORY);
        if let Some(status) = other.try_wait()? {
            break status;
        }
    };
    let outcomes: Vec<String> = outcomes.into_iter().collect();
    println!("pins: {}", outcomes.join(", "));
    println!("beside: {ended}");
    println!("then: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// Pins beside a process that executes itself again and again, as [`execute`] says.
pub fn executions(arguments: &[String]) -> Outcome {
    let arguments = arguments.iter().map(String::as_str);
    let arguments: Vec<&str> = std::iter::once("execute").chain(arguments).collect();
    pin_beside(&arguments)
}

/// Executes itself so many times, each time from another thread than the first, "among threads", many of them, or "behind a
/// request", for whose answer the first one waits.
pub fn execute(arguments: &[String]) -> Outcome {
    const OTHERS: usize = 40;
    let [times, how] = arguments else {
        return Err("how often, and how?".into());
    };
    let times: u32 = times.parse()?;
    if times == 0 {
        return Ok(());
    }
    let again = [(times - 1).to_string(), how.clone()];
    let is_behind_a_request = how == "behind a request";
    let uvm = address_space()?;
    if !is_behind_a_request {
        for _ in 0..OTHERS {
            std::thread::spawn(|| {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    }
    let first = gettid();
    let executing = std::thread::spawn(move || {
        while is_behind_a_request && !is_in_an_ioctl(first) {
            std::thread::yield_now();
        }
        // Each time at another moment of a pin.
        std::thread::sleep(Duration::from_millis(u64::from(times * 7 % 23)));
        Command::new("/proc/self/exe")
            .arg("execute")
            .args(again)
            .exec()
    });
    if is_behind_a_request {
        register_gpu(&uvm)?;
    }
    Err(executing.join().expect("the other thread").into())
}

/// By proc_pid_syscall(5).
fn is_in_an_ioctl(thread: nix::unistd::Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
    call.is_ok_and(|call| call.starts_with(&format!("{} ", libc::SYS_ioctl)))
}
