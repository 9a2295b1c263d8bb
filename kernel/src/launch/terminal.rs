//! The caller's terminal, and the program's in its place.
//!
//! Whoever has a terminal for its controlling one can put the caller's shell into the background and read what is typed
//! there; whoever has it open without that is stopped by nobody when it reads in the background. So a program has the
//! caller's terminal in neither way. Where its caller has one, init makes another for the program's session, and the
//! launcher copies what is typed and what is shown. Nothing that a task does to its terminal changes the caller's.
//!
//! The launcher takes what is typed only while the program *has the terminal*: the caller's does nothing to keys then,
//! the program's does all.
//!
//! A program whose standard input and output are the terminal has it from its start, as with ssh(1): it is in the
//! foreground of its own before it executes, and finds what it would find without a sandbox.
//!
//! Any other is part of a pipeline, and somebody else there may be who reads keys: `ringfence run train | less`. It has the
//! terminal from the moment at which it first wants it. Until then it is in the background of its own terminal, so that the
//! kernel stops it when it reads or changes settings (SIGTTIN, SIGTTOU). Init tells the launcher, which gives it the
//! terminal if the caller's shell has given it to the launcher, and else is stopped itself, as any background job that wants
//! the terminal. So a program that never reads takes no key from others, and what interrupts these interrupts it.
//!
//! Whoever puts another group into the foreground, as a shell does when a script has ended that left a sandbox behind, tells
//! nobody of it. So as long as the program has the terminal the launcher looks from time to time, and puts the settings
//! back if the terminal is given to others. A shell can have taken them for the terminal's own by then, and return to them:
//! the launcher puts them back whenever it finds them as it made them itself, and never touches any others.
//!
//! The terminal is also that of other programs of the same job, which change its settings for a moment, as to ask for a
//! password, and change them back: while the launcher looks what there is to find, or later. So what others of the job have
//! changed since stays as they left it, mode by mode; only what is as the launcher made it becomes what was found again.
//!
//! Stopped programs stop the launcher, and what continues the launcher continues the program.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use ringfence_faults::{Act, Point};
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize, tcgetattr,
    tcgetpgrp, tcgetsid, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// The calling process's controlling terminal (tty(4)).
const CONTROLLING: &str = "/dev/tty";
/// How much is copied at once, in bytes. A terminal keeps no more, and no longer line (termios(3)).
const PIECE: usize = 4096;
/// How often it is looked who has the caller's terminal while the program does.
const LOOK: Duration = Duration::from_millis(200);
/// The keys that send a signal to the group in the foreground, and which.
const SENDING: [(SpecialCodeIndex, Signal); 3] = [
    (SpecialCodeIndex::VINTR, Signal::SIGINT),
    (SpecialCodeIndex::VQUIT, Signal::SIGQUIT),
    (SpecialCodeIndex::VSUSP, Signal::SIGTSTP),
];

/// What the program's terminal is made after.
pub struct Likeness {
    pub settings: Termios,
    pub size: Winsize,
    /// The inherited descriptors that are of the caller's terminal, and are to be of the program's.
    pub descriptors: Vec<RawFd>,
    /// Whether the program is to have the terminal from its start.
    pub is_given: bool,
}

/// Settings of the caller's terminal that the launcher has replaced.
struct Replaced {
    found: Termios,
    /// By these, as the kernel has taken them.
    made: Termios,
}

impl Replaced {
    /// What to put back where the settings are such `now`.
    fn to_put_back(&self, now: &Termios) -> Termios {
        let Replaced { found, made } = self;
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Settings) == Some(Act::Drop) {
            return found.clone();
        }
        let mut settings = now.clone();
        macro_rules! put_back {
            ($($modes:ident)*) => { $(
                let changed = made.$modes ^ now.$modes;
                settings.$modes = (found.$modes - changed) | (now.$modes & changed);
            )* };
        }
        put_back!(input_modes output_modes control_modes local_modes);
        for code in [SpecialCodeIndex::VMIN, SpecialCodeIndex::VTIME] {
            if now.special_codes[code] == made.special_codes[code] {
                settings.special_codes[code] = found.special_codes[code];
            }
        }
        settings
    }
}

/// Both terminals, as the launcher has them.
pub struct Terminal {
    /// The caller's, opened anew: whether a description waits concerns all who share it.
    caller: File,
    /// The user's end of the program's, once there is one; `None` as well when it was hung up.
    program: Option<OwnedFd>,
    /// The settings to restore when the program has the terminal no more.
    replaced: Option<Replaced>,
    /// Those that somebody else has changed before they could be restored, and may return to.
    left: Option<Replaced>,
    /// The settings of the program's as it got them.
    made: Termios,
    /// Whether the program is to have the terminal when it is continued.
    wanted: bool,
    /// Whether the program has the terminal whenever the caller's shell gives it.
    is_direct: bool,
    typed: Vec<u8>,
    shown: Vec<u8>,
    /// When the caller's has taken something last.
    taken: Instant,
    /// When the program had ended.
    ended: Option<Instant>,
}

/// Opens the caller's terminal, if it has one. Those of `inherited` that are of it are looked for.
pub fn open(inherited: &[BorrowedFd<'_>]) -> Option<(Terminal, Likeness)> {
    let caller = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(CONTROLLING)
        .ok()?;
    // The kernel answers for the controlling terminal alone.
    let of_it = inherited
        .iter()
        .filter(|descriptor| tcgetsid(descriptor).is_ok());
    let descriptors: Vec<_> = of_it.map(AsRawFd::as_raw_fd).collect();
    let is_direct = [libc::STDIN_FILENO, libc::STDOUT_FILENO]
        .iter()
        .all(|stream| descriptors.contains(stream));
    let likeness = Likeness {
        settings: tcgetattr(&caller).ok()?,
        size: tcgetwinsize(&caller).ok()?,
        descriptors,
        is_given: is_direct && is_foreground(&caller),
    };
    let terminal = Terminal {
        caller,
        program: None,
        replaced: None,
        left: None,
        made: likeness.settings.clone(),
        wanted: is_direct,
        is_direct,
        typed: Vec::new(),
        shown: Vec::new(),
        taken: Instant::now(),
        ended: None,
    };
    Some((terminal, likeness))
}

impl Terminal {
    /// Takes the user's end of the program's terminal, and says whether the program has the terminal from its start.
    pub fn adopt(&mut self, program: OwnedFd) -> bool {
        if fcntl(&program, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
            self.program = Some(program);
            self.resize();
        }
        self.is_direct && self.give()
    }

    /// Whether the program has the terminal.
    pub fn is_given(&self) -> bool {
        self.replaced.is_some()
    }

    /// When to look next whether it still has it, or settings are to be put back.
    pub fn next_look(&self) -> Option<Duration> {
        (self.replaced.is_some() || self.left.is_some()).then_some(LOOK)
    }

    /// Takes the terminal from the program if it was given to another group, of which nobody tells, and says whether that is
    /// so. Puts settings back that were left.
    pub fn look(&mut self) -> bool {
        let is_lost = self.is_given() && !self.is_foreground();
        if is_lost {
            self.restore();
        }
        self.put_back();
        is_lost
    }

    /// Whether the program is to have it when it is continued.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the program's terminal has other settings than it was made with. That is so as well if they were set from
    /// another session, as tmux does: whom the kernel does not stop for it.
    pub fn is_set_up(&self) -> bool {
        let settings = self.program.as_ref().map(tcgetattr);
        settings.is_some_and(|settings| {
            settings.is_ok_and(|settings| {
                settings.local_modes != self.made.local_modes
                    || settings.input_modes != self.made.input_modes
                    || settings.output_modes != self.made.output_modes
            })
        })
    }

    /// Gives the program the terminal, if the caller's shell has given it to the launcher's group, and the program has not
    /// ended.
    pub fn give(&mut self) -> bool {
        let is_over = self.program.is_none() || self.ended.is_some();
        if is_over || !self.is_foreground() {
            return false;
        }
        self.put_back();
        let found = match &self.replaced {
            Some(replaced) => tcgetattr(&self.caller)
                .ok()
                .map(|now| replaced.to_put_back(&now)),
            None => self.settings_to_keep(),
        };
        if let Some(found) = found {
            if self.replaced.is_none() {
                self.take_lines(&found);
            }
            let mut raw = found.clone();
            raw.make_raw();
            let _ = tcsetattr(&self.caller, OptionalActions::Now, &raw);
            let made = tcgetattr(&self.caller).unwrap_or(raw);
            self.replaced = Some(Replaced { found, made });
            self.left = None;
        }
        self.resize();
        self.is_given()
    }

    /// Takes the lines that were typed before the program had the terminal, which these `settings` had. A terminal keeps an
    /// end of input as a byte of zero, and gives it as one once it keeps no lines.
    fn take_lines(&mut self, settings: &Termios) {
        // A test leaves this out, to show that it would notice.
        if !settings.local_modes.contains(LocalModes::ICANON)
            || ringfence_faults::at(Point::Typed) == Some(Act::Drop)
        {
            return;
        }
        let mut line = [0; PIECE];
        // No more than a terminal keeps: somebody could write to it without end.
        while self.typed.len() < PIECE
            && let Ok(length) = nix::unistd::read(&self.caller, &mut line)
        {
            let line = line.get(..length).unwrap_or_default();
            self.typed.extend(line);
            if line.last() != Some(&b'\n') {
                self.typed
                    .push(settings.special_codes[SpecialCodeIndex::VEOF]);
            }
            if tcgetattr(&self.caller).is_err() {
                // It was hung up: each read would find an end.
                return;
            }
        }
    }

    /// The settings that the caller's terminal has before it is given, with which the program's begins.
    fn settings_to_keep(&mut self) -> Option<Termios> {
        let found = tcgetattr(&self.caller).ok()?;
        if let (Some(program), false) = (&self.program, self.is_set_up()) {
            // A shell that starts something in the background has set its terminal up for itself by then.
            let _ = tcsetattr(program, OptionalActions::Now, &found);
            self.made.clone_from(&found);
        }
        Some(found)
    }

    /// Takes the terminal from the program, which was stopped by `signal`.
    pub fn take_back(&mut self, signal: i32) {
        self.carry(false);
        self.wanted = self.is_direct || self.is_given() || wants_terminal(signal);
        self.restore();
    }

    /// The program's terminal is as large as the caller's; says whether that is new to it.
    pub fn resize(&self) -> bool {
        let (Some(program), Ok(size)) = (&self.program, tcgetwinsize(&self.caller)) else {
            return false;
        };
        let former = tcgetwinsize(program);
        // The kernel tells the group in the foreground there, if the size differs.
        tcsetwinsize(program, size).is_ok() && former.is_ok_and(|former| former != size)
    }

    /// Hangs up, as the caller's terminal did, or because nobody could ever give it to the program.
    pub fn hang_up(&mut self) {
        self.restore();
        self.program = None;
    }

    /// What to wait for; for what is typed only if the program `takes_keys`.
    pub fn awaited(&self, takes_keys: bool) -> impl Iterator<Item = PollFd<'_>> {
        let events = |input: bool, output: bool| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, input);
            events.set(PollFlags::POLLOUT, output);
            events
        };
        let program = self.program.as_ref();
        let of_program = program.map(|program| {
            let events = events(self.shown.is_empty(), !self.typed.is_empty());
            PollFd::new(program.as_fd(), events)
        });
        let of_caller = program.map(|_| {
            let input = takes_keys && self.is_given() && self.typed.is_empty();
            let events = events(input, !self.shown.is_empty());
            PollFd::new(self.caller.as_fd(), events)
        });
        // What is waited for without an event ends the wait by a hang-up: of the caller's once, since that hangs up the
        // program's, and of the program's again and again.
        let of_program = of_program.filter(|polled| !polled.events().is_empty());
        [of_program, of_caller].into_iter().flatten()
    }

    /// Copies what there is to copy without waiting; what is typed only if the program `takes_keys`.
    pub fn carry(&mut self, takes_keys: bool) {
        if tcgetattr(&self.caller).is_err() {
            self.hang_up();
        }
        loop {
            let Some(program) = &self.program else {
                return;
            };
            let mut is_over = false;
            let mut moved = false;
            if self.shown.is_empty() {
                match take(program, &mut self.shown) {
                    Ok(any) => {
                        moved |= any;
                        if self.replaced.is_none()
                            && end_lines([program.as_fd(), self.caller.as_fd()])
                        {
                            undo_line_ends(&mut self.shown);
                        }
                    }
                    Err(()) => {
                        // Init has it open as long as it lives. Of the program nothing is left.
                        self.hang_up();
                        return;
                    }
                }
            }
            if put(&self.caller, &mut self.shown, &mut is_over) {
                self.taken = Instant::now();
                moved = true;
            }
            if takes_keys && self.is_given() && self.typed.is_empty() {
                match take(&self.caller, &mut self.typed) {
                    Ok(any) => {
                        moved |= any;
                        self.tell_the_group();
                    }
                    Err(()) => is_over = true,
                }
            }
            let mut is_gone = false;
            moved |= put(program, &mut self.typed, &mut is_gone);
            if is_over {
                // Hung up, which the next look finds, or given to somebody else without the launcher's having been
                // stopped.
                self.restore();
                return;
            }
            if !moved {
                return;
            }
        }
    }

    /// Shows what the program had written when it ended, as far as the caller's terminal takes it. If that is not all, keys
    /// are the caller's again: one that interrupts ends the wait.
    pub fn show_rest(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
        self.carry(false);
        if !self.is_all_shown() {
            self.restore();
        }
    }

    /// Whether nothing is left to be shown at present.
    pub fn is_all_shown(&self) -> bool {
        self.program.is_none() || self.shown.is_empty()
    }

    /// For how long the caller's terminal has taken nothing since the program has ended.
    pub fn untaken(&self) -> Duration {
        let since = self.ended.map(|ended| ended.max(self.taken));
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A key that the caller's terminal would have made a signal of for all of the launcher's group, and of which the
    /// program's terminal makes one for the program, is one for the others of that group, too: of its pipeline, or the
    /// script that started it. Whatever the program makes of its terminal, no other key is.
    fn tell_the_group(&self) {
        let (Some(Replaced { found, .. }), Some(program)) = (&self.replaced, &self.program) else {
            return;
        };
        let Ok(of_program) = tcgetattr(program) else {
            return;
        };
        let sends = |settings: &Termios| settings.local_modes.contains(LocalModes::ISIG);
        for (key, signal) in SENDING {
            let code = found.special_codes[key];
            if code != 0
                && sends(found)
                && sends(&of_program)
                && code == of_program.special_codes[key]
                && self.typed.contains(&code)
            {
                // The launcher gets it as well, and knows its own.
                let _ = killpg(nix::unistd::getpgrp(), signal);
            }
        }
    }

    /// Whether the launcher's group is in the foreground of the caller's terminal.
    fn is_foreground(&self) -> bool {
        is_foreground(&self.caller)
    }

    /// Restores the settings of the caller's terminal, or keeps in mind what to restore where that is others' by now.
    fn restore(&mut self) {
        let Some(replaced) = self.replaced.take() else {
            return;
        };
        if self.is_foreground() {
            if let Ok(now) = tcgetattr(&self.caller) {
                // Not after what was written: a terminal that is held would hold the launcher.
                let settings = replaced.to_put_back(&now);
                let _ = tcsetattr(&self.caller, OptionalActions::Now, &settings);
            }
        } else if ringfence_faults::at(Point::Left) != Some(Act::Drop) {
            self.left = Some(replaced);
            self.put_back();
        }
    }

    /// Restores settings that were left, if the terminal is as the launcher made it. The kernel lets it, though it may be in the
    /// background, since it has SIGTTOU blocked.
    fn put_back(&mut self) {
        let is_as_made = |left: &Replaced| {
            tcgetattr(&self.caller).is_ok_and(|now| are_same_modes(&now, &left.made))
        };
        if let Some(left) = self.left.take_if(|left| is_as_made(left)) {
            let _ = tcsetattr(&self.caller, OptionalActions::Now, &left.found);
        }
    }
}

/// Whether the calling process's group is in the foreground of this terminal.
fn is_foreground(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

fn are_same_modes(one: &Termios, other: &Termios) -> bool {
    one.input_modes == other.input_modes
        && one.output_modes == other.output_modes
        && one.control_modes == other.control_modes
        && one.local_modes == other.local_modes
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
        self.put_back();
    }
}

/// Whether a signal of this number stops a process that wants the terminal.
pub fn wants_terminal(signal: i32) -> bool {
    signal == libc::SIGTTIN || signal == libc::SIGTTOU
}

/// Whether both of these terminals return at the end of each line.
fn end_lines(terminals: [BorrowedFd<'_>; 2]) -> bool {
    let both = OutputModes::OPOST | OutputModes::ONLCR;
    let end_lines = |settings: Termios| settings.output_modes.contains(both);
    terminals
        .iter()
        .all(|terminal| tcgetattr(terminal).is_ok_and(end_lines))
}

/// Leaves it to the caller's terminal to end lines, as it does as long as the program does not have it. The program's own has
/// done so already.
fn undo_line_ends(shown: &mut Vec<u8>) {
    let next = shown.iter().skip(1).map(Some).chain([None]);
    let pairs = shown.iter().zip(next);
    let kept = pairs.filter(|pair| *pair != (&b'\r', Some(&b'\n')));
    *shown = kept.map(|(byte, _)| *byte).collect();
}

/// Reads what is there to the end of `into`, and says whether that is anything. Fails if nothing can come any more.
fn take(from: impl AsFd, into: &mut Vec<u8>) -> Result<bool, ()> {
    let mut piece = [0; PIECE];
    match nix::unistd::read(from, &mut piece) {
        Ok(0) => Err(()),
        Ok(length) => {
            into.extend(piece.iter().take(length));
            Ok(true)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
        Err(_) => Err(()),
    }
}

/// Writes what there is and can be written, and says whether that is anything. If nothing can be any more, `is_over`.
fn put(to: impl AsFd, from: &mut Vec<u8>, is_over: &mut bool) -> bool {
    if from.is_empty() {
        return false;
    }
    match nix::unistd::write(to, from) {
        Ok(length) => {
            from.drain(..length);
            length > 0
        }
        Err(Errno::EAGAIN | Errno::EINTR) => false,
        Err(_) => {
            *is_over = true;
            false
        }
    }
}
