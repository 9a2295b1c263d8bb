//! Threads for what the event loop cannot or need not do itself.
//!
//! A [`Pool`] grows when a job finds no thread idle and never beyond its limit; jobs past that queue up. New threads are
//! started by the pool's own, never by the thread that submits: a Landlock domain is inherited by the threads that a
//! thread starts, and the event loop lives in one that the workers must not share.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use ringfence_faults::{Point, at};
use ringfence_ipc::locks::IgnorePoison;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the pool; the threads end with the process.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    limit: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    /// A thread could not be started.
    is_short: bool,
}

impl Pool {
    /// A pool of up to `limit` threads. What the calling thread has done to itself by now holds for them all.
    pub fn start(name: &'static str, limit: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            name,
            limit,
            state: Mutex::default(),
            work: Condvar::new(),
        });
        shared.lock().threads = 1;
        let first = Arc::clone(&shared);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || first.run())?;
        Ok(Pool { shared })
    }

    /// Runs `job` on one of the threads, in the order of submission as threads come free.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().jobs.push_back(Box::new(job));
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn run(self: Arc<Self>) {
        loop {
            let job = self.next_job();
            at(Point::Work);
            job();
        }
    }

    fn next_job(self: &Arc<Self>) -> Job {
        let mut state = self.lock();
        state.idle += 1;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.idle -= 1;
                if state.idle == 0 && state.threads < self.limit {
                    self.grow(&mut state);
                }
                return job;
            }
            state = self.work.wait(state).ignore_poison();
        }
    }

    /// Starts another thread, so that one is waiting while this one works. A machine that has no thread to give makes
    /// the next job wait, nothing worse.
    fn grow(self: &Arc<Self>, state: &mut State) {
        let shared = Arc::clone(self);
        match thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || shared.run())
        {
            Ok(_) => state.threads += 1,
            // Reported once: the threads that there are go on, and are not to fill the log.
            Err(error) if !std::mem::replace(&mut state.is_short, true) => {
                tracing::warn!(
                    "no further thread ({}) can be started, so requests wait for each other: {error}",
                    self.name
                );
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc;

    #[test]
    fn jobs_that_wait_for_one_another_all_run() {
        let pool = Pool::start("test", 8).unwrap();
        let together = Arc::new(Barrier::new(8));
        let (done, finished) = mpsc::channel();
        for number in 0..8 {
            let (together, done) = (Arc::clone(&together), done.clone());
            pool.submit(move || {
                together.wait();
                done.send(number).unwrap();
            });
        }
        let mut numbers: Vec<i32> = finished.iter().take(8).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    }
}
