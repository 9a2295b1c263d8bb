//! What is read of the command line of an OCI runtime.
//!
//! The idea: nothing is decided here that the low-level runtime decides. It gets every word as it was given. Read is
//! only what the front needs to find the specification, the container and the log, and for that it has to know which
//! words are values of options: a table of the options of runc and crun that take one.
//!
//! The two read a line differently, and both ways are understood. runc takes long options with one dash as well, and
//! options after the container; crun takes options cut short, and values that follow a letter at once. What this
//! accepts and the low-level runtime does not, that refuses.
//!
//! The caller is an engine, which is trusted: a line is not made to be misread. An option that neither runtime had when
//! the table was written may take a value all the same. So what is no command's name is not taken for a command after
//! such an option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What of a line is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Root,
    Log,
    LogFormat,
    Bundle,
    Specification,
    Process,
    PreserveFds,
    PidFile,
    ConsoleSocket,
    OfProcess,
}

/// An option that takes a value.
struct Valued {
    /// The commands that have it. None: it stands before the command.
    commands: &'static [&'static str],
    names: &'static [&'static str],
    kept: Option<Kept>,
}

impl Valued {
    fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

const fn row(
    commands: &'static [&'static str],
    names: &'static [&'static str],
    kept: Option<Kept>,
) -> Valued {
    Valued {
        commands,
        names,
        kept,
    }
}

/// Every command of runc 1.5 and crun 1.26.
const COMMANDS: [&str; 20] = [
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "help",
    "kill",
    "list",
    "mounts",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "update",
    "init",
];

const GLOBAL: &[&str] = &[];
const MAKING: &[&str] = &["create", "run", "restore"];
const STARTING: &[&str] = &["create", "run", "restore", "exec"];
/// Options of `exec` that say what its program is to be.
pub const CWD: &str = "cwd";
pub const ENV: &str = "env";
pub const USER: &str = "user";
pub const ADDITIONAL_GIDS: &str = "additional-gids";
pub const PROCESS_LABEL: &str = "process-label";
pub const APPARMOR: &str = "apparmor";
pub const CAP: &str = "cap";
pub const TTY: &str = "tty";
pub const NO_NEW_PRIVS: &str = "no-new-privs";

/// Those of them that take no value, and the letter of one.
const FLAGS_OF_PROCESS: [(&str, Option<u8>); 2] = [(TTY, Some(b't')), (NO_NEW_PRIVS, None)];

const CRIU: &[&str] = &["checkpoint", "restore"];
const LISTING: &[&str] = &["list", "ps"];

/// `runc COMMAND --help` of 1.1 to 1.5, `crun COMMAND --help` of 1.8 to 1.26.
const TABLE: &[Valued] = &[
    row(GLOBAL, &["root"], Some(Kept::Root)),
    row(GLOBAL, &["log"], Some(Kept::Log)),
    row(GLOBAL, &["log-format"], Some(Kept::LogFormat)),
    row(
        GLOBAL,
        &["criu", "rootless", "cgroup-manager", "log-level"],
        None,
    ),
    row(MAKING, &["bundle", "b"], Some(Kept::Bundle)),
    row(&["spec"], &["bundle", "b", "file", "f"], None),
    row(
        &["create", "run"],
        &["config", "f"],
        Some(Kept::Specification),
    ),
    row(STARTING, &["console-socket"], Some(Kept::ConsoleSocket)),
    row(STARTING, &["pid-file"], Some(Kept::PidFile)),
    row(STARTING, &["preserve-fds"], Some(Kept::PreserveFds)),
    row(STARTING, &["pidfd-socket"], None),
    row(&["exec"], &["process", "p"], Some(Kept::Process)),
    row(&["exec"], &[CWD], Some(Kept::OfProcess)),
    row(&["exec"], &[ENV, "e"], Some(Kept::OfProcess)),
    row(&["exec"], &[USER, "u"], Some(Kept::OfProcess)),
    row(&["exec"], &[ADDITIONAL_GIDS, "g"], Some(Kept::OfProcess)),
    row(&["exec"], &[PROCESS_LABEL], Some(Kept::OfProcess)),
    row(&["exec"], &[APPARMOR], Some(Kept::OfProcess)),
    row(&["exec"], &[CAP, "c"], Some(Kept::OfProcess)),
    row(&["exec"], &["cgroup"], None),
    row(LISTING, &["format", "f"], None),
    row(&["events"], &["interval"], None),
    row(
        &["update"],
        &[
            "resources",
            "r",
            "blkio-weight",
            "cpu-period",
            "cpu-quota",
            "cpu-burst",
            "cpu-share",
            "cpu-rt-period",
            "cpu-rt-runtime",
            "cpu-idle",
            "cpuset-cpus",
            "cpuset-mems",
            "kernel-memory",
            "kernel-memory-tcp",
            "memory",
            "memory-reservation",
            "memory-swap",
            "pids-limit",
            "l3-cache-schema",
            "mem-bw-schema",
        ],
        None,
    ),
    row(
        CRIU,
        &[
            "image-path",
            "work-path",
            "parent-path",
            "status-fd",
            "page-server",
            "manage-cgroups-mode",
            "empty-ns",
            "lsm-profile",
            "lsm-mount-context",
            "network-lock",
        ],
        None,
    ),
];

/// Options before the command that take no value. What is in neither table may take one.
const FLAGS: [&str; 7] = [
    "debug",
    "systemd-cgroup",
    "help",
    "h",
    "version",
    "v",
    "no-pivot",
];

/// Options of a letter that take no value, `--detach` and `--tty`. A value can follow them in the same word only after these:
/// `-no-subreaper` is one option.
const FLAG_LETTERS: &[u8] = b"dt";

/// The command of which all that follows the container is a program's.
const WITH_PROGRAM: &str = "exec";

/// What the front knows of its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Every word after the executable's, as it was given.
    pub given: Vec<OsString>,
    /// How many of `given` come before the command: options that every command has.
    pub globals: usize,
    /// The command's name, `create` for one.
    pub command: Option<String>,
    /// The container's name.
    pub container: Option<OsString>,
    /// Help was asked for, before any command.
    pub asks_for_help: bool,
    /// The version was asked for, before any command.
    pub asks_for_version: bool,
    /// `--root`: where the low-level runtime keeps what it knows of containers.
    pub root: Option<OsString>,
    /// `--log`
    pub log: Option<OsString>,
    /// `--log-format`: `text` or `json`.
    pub log_format: Option<OsString>,
    /// `--bundle`
    pub bundle: Option<OsString>,
    /// crun's `--config`: the specification, in the bundle's `config.json` otherwise.
    pub specification: Option<OsString>,
    /// `--process`: what `exec` is to start.
    pub process: Option<OsString>,
    /// `--preserve-fds`: how many descriptors from 3 on the container gets.
    pub preserve_fds: Option<OsString>,
    /// `--pid-file`
    pub pid_file: Option<OsString>,
    /// `--console-socket`
    pub console_socket: Option<OsString>,
    /// How many of `given` come before what is neither an option nor its value: the container, or `--`.
    pub options_end: usize,
    /// What `exec` is told of its program beside `--process`: options by their long names, and their values. Of one that takes none it
    /// is `true` or `false`.
    pub of_process: Vec<(&'static str, OsString)>,
    /// The words that follow the container in `exec`.
    pub program: Vec<OsString>,
}

impl CommandLine {
    /// Reads the words that follow the executable's.
    pub fn read(given: Vec<OsString>) -> CommandLine {
        let mut line = CommandLine::default();
        let mut words = Words {
            given: &given,
            next: 0,
        };
        line.read_globals(&mut words);
        line.read_command(&mut words);
        line.given = given;
        line
    }

    /// The options that come before the command, as they were given.
    pub fn global_options(&self) -> &[OsString] {
        self.given.get(..self.globals).unwrap_or_default()
    }

    /// The container's name, to be shown.
    pub fn shown_container(&self) -> String {
        let name = self.container.as_deref().unwrap_or(OsStr::new("?"));
        name.to_string_lossy().into_owned()
    }

    /// How an option is to be written once more, so that its last value holds: by its letter if the caller has written that, since runc
    /// takes an option in one form only.
    pub fn form_of(&self, long: &str, letter: char) -> OsString {
        let end = self.given.len() - self.program.len();
        let options = self.given.get(self.globals..end);
        let mut options = options.into_iter().flatten();
        let is_by_letter = options.any(|word| {
            let option = Written::read(word);
            option.is_some_and(|option| option.name == [letter as u8])
        });
        match is_by_letter {
            true => format!("-{letter}").into(),
            false => format!("--{long}").into(),
        }
    }

    /// The bundle's directory. That of the caller, if none was given.
    pub fn bundle_directory(&self) -> PathBuf {
        let given = self.bundle.as_deref().filter(|given| !given.is_empty());
        given.unwrap_or(OsStr::new(".")).into()
    }

    /// Where the specification is.
    pub fn specification_path(&self) -> PathBuf {
        let name = self.specification.as_deref();
        self.bundle_directory()
            .join(name.unwrap_or(OsStr::new("config.json")))
    }

    fn read_globals(&mut self, words: &mut Words<'_>) {
        let mut may_be_value = false;
        while let Some(word) = words.take() {
            let Some(option) = Written::read(word) else {
                if may_be_value && !is_command(word) {
                    may_be_value = false;
                    continue;
                }
                self.command = Some(word.to_string_lossy().into_owned());
                self.globals = words.next - 1;
                return;
            };
            let found = option.find("");
            may_be_value = found.is_none() && !option.is_flag() && option.value.is_none();
            match (option.name.as_slice(), found) {
                (_, Some(found)) => self.keep(found, words),
                (b"help" | b"h" | b"?", _) => self.asks_for_help = true,
                (b"version" | b"v" | b"V", _) => self.asks_for_version = true,
                _ => {}
            }
        }
        self.globals = words.next;
    }

    fn read_command(&mut self, words: &mut Words<'_>) {
        let Some(command) = self.command.clone() else {
            return;
        };
        let mut are_options_over = false;
        self.options_end = words.given.len();
        while let Some(word) = words.take() {
            if !are_options_over && word == "--" {
                self.options_end = self.options_end.min(words.next - 1);
                are_options_over = true;
                continue;
            }
            match Written::read(word).filter(|_| !are_options_over) {
                Some(option) => {
                    if command == WITH_PROGRAM {
                        self.of_process.extend(option.flags_of_process());
                    }
                    if let Some(found) = option.find(&command) {
                        self.keep(found, words);
                    }
                }
                None => {
                    self.container.get_or_insert_with(|| word.to_owned());
                    self.options_end = self.options_end.min(words.next - 1);
                    if command == WITH_PROGRAM {
                        let rest = words.given.get(words.next..).unwrap_or_default();
                        self.program = rest.to_vec();
                        return;
                    }
                }
            }
        }
    }

    /// Keeps an option's value, which is the next word if the option's own has none. The last of several holds.
    fn keep(&mut self, found: Found, words: &mut Words<'_>) {
        let value = found.value.or_else(|| words.take().map(OsStr::to_owned));
        let place = match found.kept {
            None => return,
            Some(Kept::OfProcess) => {
                self.of_process
                    .extend(value.map(|value| (found.name, value)));
                return;
            }
            Some(Kept::Root) => &mut self.root,
            Some(Kept::Log) => &mut self.log,
            Some(Kept::LogFormat) => &mut self.log_format,
            Some(Kept::Bundle) => &mut self.bundle,
            Some(Kept::Specification) => &mut self.specification,
            Some(Kept::Process) => &mut self.process,
            Some(Kept::PreserveFds) => &mut self.preserve_fds,
            Some(Kept::PidFile) => &mut self.pid_file,
            Some(Kept::ConsoleSocket) => &mut self.console_socket,
        };
        *place = value;
    }
}

fn is_command(word: &OsStr) -> bool {
    COMMANDS.iter().any(|command| word == *command)
}

struct Words<'a> {
    given: &'a [OsString],
    next: usize,
}

impl<'a> Words<'a> {
    fn take(&mut self) -> Option<&'a OsStr> {
        let word = self.given.get(self.next)?;
        self.next += 1;
        Some(word)
    }
}

/// A word that is an option.
struct Written {
    /// Without its dashes, and without a value.
    name: Vec<u8>,
    /// What follows `=`.
    value: Option<OsString>,
    is_long: bool,
}

/// An option that takes a value.
struct Found {
    /// The first of its names.
    name: &'static str,
    kept: Option<Kept>,
    /// The value, if it stands in the option's own word.
    value: Option<OsString>,
}

impl Written {
    fn read(word: &OsStr) -> Option<Written> {
        let bytes = word.as_bytes();
        let name = bytes.strip_prefix(b"-").filter(|name| !name.is_empty())?;
        let long = name.strip_prefix(b"-");
        let name = long.unwrap_or(name);
        let (name, value) = match name.iter().position(|byte| *byte == b'=') {
            Some(at) => (
                &name[..at],
                Some(OsString::from_vec(name[at + 1..].to_vec())),
            ),
            None => (name, None),
        };
        Some(Written {
            name: name.to_vec(),
            value,
            is_long: long.is_some(),
        })
    }

    /// What this says of the program without a value: `--tty`, or with crun `-dt`, or with runc `--tty=false`.
    fn flags_of_process(&self) -> Vec<(&'static str, OsString)> {
        let is_set = |letter: u8| {
            let letters = self.name.iter();
            let mut letters = letters.take_while(|letter| FLAG_LETTERS.contains(letter));
            !self.is_long && letters.any(|set| *set == letter)
        };
        let value = self.value.clone().unwrap_or_else(|| "true".into());
        let flags = FLAGS_OF_PROCESS.iter();
        let flags = flags
            .filter(|(name, letter)| name.as_bytes() == self.name || letter.is_some_and(is_set));
        flags.map(|(name, _)| (*name, value.clone())).collect()
    }

    fn is_flag(&self) -> bool {
        FLAGS.iter().any(|flag| flag.as_bytes() == self.name)
    }

    /// The option of `command` that this is, or if that is empty, the option before the command.
    fn find(&self, command: &str) -> Option<Found> {
        let row = named(command, |name| name.as_bytes() == self.name);
        let row = row.or_else(|| match self.is_long {
            true => self.cut_short(command),
            false => None,
        });
        match row {
            Some(row) => Some(Found {
                name: row.name(),
                kept: row.kept,
                value: self.value.clone(),
            }),
            None if self.is_long => None,
            None => self.attached(command),
        }
    }

    /// The option of which this is the beginning.
    fn cut_short(&self, command: &str) -> Option<&'static Valued> {
        let is_cut = |name: &str| name.len() > 1 && name.as_bytes().starts_with(&self.name);
        let is_flag = command.is_empty() && FLAGS.iter().any(|flag| is_cut(flag));
        match self.name.is_empty() || is_flag {
            true => None,
            false => named(command, is_cut),
        }
    }

    /// `-bDIRECTORY`, also after letters that take no value: `-dbDIRECTORY`.
    fn attached(&self, command: &str) -> Option<Found> {
        let is_flag = |letter: &u8| FLAG_LETTERS.contains(letter);
        let at = self
            .name
            .iter()
            .take_while(|letter| is_flag(letter))
            .count();
        let letter = self.name.get(at)?;
        let row = named(command, |name| name.as_bytes() == [*letter])?;
        let mut rest = self.name.get(at + 1..).unwrap_or_default().to_vec();
        if let Some(value) = &self.value {
            rest.push(b'=');
            rest.extend(value.as_bytes());
        }
        Some(Found {
            name: row.name(),
            kept: row.kept,
            value: (!rest.is_empty()).then(|| OsString::from_vec(rest)),
        })
    }
}

/// The row of `command`, or if that is empty, of what comes before it, that has a name which fits.
fn named(command: &str, fits: impl Fn(&str) -> bool) -> Option<&'static Valued> {
    TABLE.iter().find(|row| {
        let is_of_command = match command {
            "" => row.commands.is_empty(),
            command => row.commands.contains(&command),
        };
        is_of_command && row.names.iter().any(|name| fits(name))
    })
}

#[cfg(test)]
mod tests;
