//! Processes that want everything, and one that wants its part.
//!
//! `unsafe` is here for a counter in memory that processes share.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Pid;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::concurrency::{address_space, register_gpu, work};
use crate::gpu::{Gpu, MEMORY};

/// What the processes share.
#[derive(Default)]
struct Board {
    /// Long requests of the greedy ones that came to their end.
    done: AtomicU32,
    over: AtomicU32,
}

/// A board in memory that children share.
fn board() -> nix::Result<&'static Board> {
    let length = std::num::NonZeroUsize::MIN.saturating_add(size_of::<Board>());
    let protection = nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let memory = unsafe {
        nix::sys::mman::mmap_anonymous(
            None,
            length,
            protection,
            nix::sys::mman::MapFlags::MAP_SHARED,
        )
    }?;
    // SAFETY: the mapping is never unmapped, is large enough, and zeros are a board.
    Ok(unsafe { memory.cast::<Board>().as_ref() })
}

/// A process whose `threads` make one long request after the other.
fn greedy(board: &'static Board, threads: usize) -> nix::Result<Pid> {
    child(move || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while board.over.load(Ordering::SeqCst) == 0 {
                        let uvm = address_space().expect("an address space");
                        register_gpu(&uvm).expect("registered");
                        board.done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(())
    })
}

/// The least long requests of others that come to their end while `mine` does, of five times: where processors are busy,
/// this process waits for one at times, and the others' requests go on meanwhile.
fn least_during(
    board: &Board,
    mut mine: impl FnMut() -> Outcome,
) -> Result<u32, Box<dyn std::error::Error>> {
    let mut least = u32::MAX;
    for _ in 0..5 {
        let before = board.done.load(Ordering::SeqCst);
        mine()?;
        least = least.min(board.done.load(Ordering::SeqCst) - before);
    }
    Ok(least)
}

/// The arguments say how many processes are greedy, with how many threads each. While this process makes one long
/// request, or a few short ones, they get no more done than a few times their part.
pub fn greed(arguments: &[String]) -> Outcome {
    let number = |index: usize| {
        arguments
            .get(index)
            .map_or(Ok(1), |text| text.parse::<usize>())
    };
    let (processes, threads) = (number(0)?, number(1)?);
    let board = board()?;
    let children: nix::Result<Vec<Pid>> = (0..processes).map(|_| greedy(board, threads)).collect();
    let children = children?;
    while board.done.load(Ordering::SeqCst) < processes as u32 {
        std::thread::yield_now();
    }
    let long = least_during(board, || {
        let uvm = address_space()?;
        Ok(register_gpu(&uvm)?)
    })?;
    let short = least_during(board, || Ok(work(&Gpu::open()?, MEMORY, 1)?))?;
    board.over.store(1, Ordering::SeqCst);
    children.into_iter().try_for_each(expect_success)?;
    // What the sentry lets them have in progress: they get that done about once while mine takes as long.
    let part = 48.min(16 * processes as u32);
    assert!(long <= 2 * part, "{long} others during a long request");
    assert!(short <= 2 * part, "{short} others during short requests");
    println!("had its part");
    Ok(())
}
