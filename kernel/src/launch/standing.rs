//! How the launcher stands in for the program as a job: what it makes of the signals that its caller, the caller's shell
//! and terminal send, and of the program's being stopped.
//!
//! A signal for the launcher is passed on to the program; one for all of the launcher's group, as a terminal sends it, to
//! all of the program's. When the program is stopped the launcher stops as well, by the same signal, so that a shell
//! that waits for it sees what it would see of the program; and continues it when it is continued itself. If somebody in the
//! sandbox continues or ends the program, the launcher is continued as well (`jobs.rs`). Where there is
//! no terminal only a stop that the launcher was asked for stops it: nobody there waits for one, and who stops and
//! continues the program by itself need not know of the launcher.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringfence_sentry::signals::{self, Received};

use super::jobs::{Event, Order, signal_of};
use super::supervision::Launcher;
use super::terminal::wants_terminal;

/// How often it is looked at least whether the rest was shown.
const LOOK: Duration = Duration::from_secs(1);

impl Launcher<'_> {
    /// Does with a signal what it was sent for.
    pub(super) fn heed(&mut self, received: Received) {
        let Received { signal, by_kernel } = received;
        self.hurry(signal);
        match signal {
            Signal::SIGCONT => self.resume(),
            Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => {
                self.is_to_stop = true;
                self.job.order(Order::Signal(signal as i32));
            }
            Signal::SIGHUP if by_kernel => {
                // The program's terminal is hung up likewise, and so tells it.
                if let Some(terminal) = &mut self.terminal {
                    terminal.hang_up();
                }
            }
            // The program's terminal tells it if it has become another size.
            Signal::SIGWINCH
                if self
                    .terminal
                    .as_ref()
                    .is_some_and(|terminal| terminal.resize()) => {}
            Signal::SIGWINCH if by_kernel => {}
            _ if by_kernel => self.job.order(Order::Signal(signal as i32)),
            _ => self.pass_on(received),
        }
    }

    /// Copies between the terminals. Whoever has set the program's up wants the caller's.
    pub(super) fn carry(&mut self) {
        let takes_keys = self.takes_keys();
        if let Some(terminal) = &mut self.terminal {
            if terminal.look() {
                self.job.order(Order::Foreground(false));
            }
            terminal.carry(takes_keys);
            if !terminal.is_given() && terminal.is_set_up() && terminal.give() {
                self.job.order(Order::Foreground(true));
            }
        }
    }

    /// Whether keys are taken for the program. A key may be a signal for it, which is lost, or another's, until init has
    /// put its group into the foreground and continued it.
    pub(super) fn takes_keys(&self) -> bool {
        self.job.is_obeyed()
    }

    /// Does what the program's state asks for.
    pub(super) fn attend_to_program(&mut self, event: Event) {
        match event {
            Event::Terminal(user) => {
                if let Some(terminal) = &mut self.terminal {
                    let is_given = terminal.adopt(user);
                    self.job.order(Order::Foreground(is_given));
                }
            }
            Event::Started(process) => {
                self.sentry.adopt(process.as_fd());
                self.program.adopt(process);
            }
            Event::Stopped(signal) => self.stop_with_program(signal),
            Event::Ended(signal) => {
                self.fatal = signal_of(signal);
                self.owe_rest(self.fatal);
            }
            Event::Obeyed => {}
        }
    }

    /// The program has ended, by the signal of this number if by any, and what it has written to its terminal is still to
    /// be shown.
    pub(super) fn owe_rest(&mut self, signal: Option<Signal>) {
        if signal.is_some_and(|signal| signals::is_to_end(signal) || signal == Signal::SIGKILL) {
            self.pace.hurry();
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.show_rest();
        }
        self.is_rest_owed = true;
    }

    /// Lets init end once what the program has written was shown, or is given up, since its end was asked for and nothing is
    /// taken. Else returns how long to wait until the next look.
    pub(super) fn settle_rest(&mut self) -> Option<Duration> {
        if !self.is_rest_owed {
            return None;
        }
        let terminal = self.terminal.as_ref().filter(|it| !it.is_all_shown());
        let patience = self.pace.patience().filter(|_| self.pace.is_hurried());
        let left = terminal.map(|terminal| match patience {
            Some(patience) => patience.saturating_sub(terminal.untaken()),
            None => LOOK,
        });
        let left = left.filter(|left| !left.is_zero());
        if left.is_none() {
            self.is_rest_owed = false;
            self.job.order(Order::Shown);
        }
        left
    }

    /// The program was stopped by the signal of this number.
    fn stop_with_program(&mut self, number: i32) {
        let asked = std::mem::take(&mut self.is_to_stop);
        if self.job.is_running() {
            // Somebody in the sandbox has continued it since.
            return;
        }
        match &mut self.terminal {
            Some(terminal) => {
                if wants_terminal(number) && !asked && !terminal.is_given() && terminal.give() {
                    self.job.order(Order::Foreground(true));
                    self.job.order(Order::Continue);
                    return;
                }
                terminal.take_back(number);
                self.job.order(Order::Foreground(false));
            }
            None if !asked => return,
            None => {}
        }
        let signal = Signal::try_from(number).unwrap_or(Signal::SIGSTOP);
        let watch = self.job.watch();
        let is_continued = self.signals.stop_by(signal);
        drop(watch);
        if !is_continued
            && let Some(terminal) = &mut self.terminal
            && wants_terminal(number)
        {
            // Nobody is left who could give it to the program, which would ask again and again.
            terminal.hang_up();
        }
        self.resume();
    }

    /// Continues the program, since the launcher was continued: with the terminal if it had it and may have it.
    fn resume(&mut self) {
        self.is_to_stop = false;
        if let Some(terminal) = &mut self.terminal {
            let is_wanted = terminal.is_given() || terminal.is_wanted() || terminal.is_set_up();
            let is_given = is_wanted && terminal.give();
            self.job.order(Order::Foreground(is_given));
        }
        self.job.order(Order::Continue);
    }
}
