//! A program of several threads that pins memory of its own, one piece at a time.

use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use ringfence::guest::{Client, Error};

use super::{Outcome, answer};

/// Handles of objects; any numbers do.
const DEVICE: u32 = 0x1000;
const SUBDEVICE: u32 = 0x1001;
const MEMORY: u32 = 0x1002;

const LENGTH: usize = 16 << 20;
const PAGE: usize = 4096;

/// Answers the question how long N pins take each, in a program of so many threads.
pub fn serve(threads: &str) -> Outcome {
    let (client, node) = Client::of_first_gpu(DEVICE, SUBDEVICE)?;
    for _ in 1..threads.parse::<usize>()? {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    // The driver pins what begins at a page.
    let memory = vec![0u8; LENGTH + PAGE];
    let start = memory
        .as_ptr()
        .wrapping_add(memory.as_ptr().align_offset(PAGE));
    let pin = || client.pin(&node, DEVICE, MEMORY, start, LENGTH);
    answer(|question| match question {
        [count] => {
            let mut times = Vec::with_capacity(*count);
            for _ in 0..*count {
                let started = Instant::now();
                let mut outcome = pin();
                while matches!(outcome, Err(Error::Errno(Errno::EAGAIN))) {
                    outcome = pin();
                }
                outcome?;
                times.push(started.elapsed().as_nanos() as u64);
                client.free(DEVICE, MEMORY)?;
            }
            Ok(times)
        }
        _ => Err("a question is one number".into()),
    })
}
