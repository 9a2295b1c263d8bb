//! A machine for an engine: mounts and processes of its own, in which the engine and all that it starts live.
//!
//! The idea: whatever becomes of a test, nothing may be left of dockerd, containers, mounts and nodes. So all of them are in
//! namespaces whose process 1 ends when the tests' process does, however that ends: it waits for the end of a pipe. A shell outside waits
//! for that, and removes the directory and the cgroups.
//!
//! In there `/etc`, `/run` and `/dev` are copies, so that an engine finds users, settings and GPUs that this machine does not
//! have, and meets no other engine. The nodes of the GPU are numbers without a driver. Cgroups of version 2 are hidden where those of
//! version 1 are used as well: crun takes no such machine. What else the file system has is this machine's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Pid, geteuid};
use serde_json::json;
use userland_tests::{Directory, Ended, finish, ringfence_program};

use crate::image;

/// What it sees of cgroups.
#[derive(Clone, Copy, Debug)]
pub enum Cgroups {
    /// Those that this machine uses: of version 1, where there are both.
    Usual,
    /// Those of version 2 alone.
    Second,
}

pub struct Machine {
    directory: PathBuf,
    /// The process 1, as this machine numbers it.
    first: Pid,
    /// It ends, and with it all others, when nobody has the other end of its standard input any more.
    _shell: Child,
}

/// Waits for the machine's end, and removes what it has left.
const OUTSIDE: &str = r#"
trap : INT TERM HUP
unshare --mount --pid --fork --kill-child --propagation private sh -c "$2" inside "$1" "$3"
group=${1##*/}
find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null
rm -rf --one-file-system "$1"
"#;

const INSIDE: &str = r#"
set -eu
place=$1
# It tells the number that is known outside, as long as /proc is that of outside.
read -r pid rest </proc/self/stat
mount -t tmpfs -o mode=755 tmpfs "$place/data"
mkdir "$place/data/dev" "$place/data/etc"
mount -t tmpfs -o mode=755 tmpfs "$place/data/dev"
cd "$place/data/dev"
for node in null zero full random urandom tty fuse net; do
    ! test -e /dev/$node || cp -a /dev/$node .
done
mkdir pts shm mqueue
mount --rbind /dev/pts pts
mount -t tmpfs -o mode=1777 tmpfs shm
mount -t mqueue mqueue mqueue
ln -s pts/ptmx ptmx
ln -s /proc/self/fd fd
ln -s fd/0 stdin
ln -s fd/1 stdout
ln -s fd/2 stderr
mknod -m 666 nvidia0 c 195 0
mknod -m 666 nvidiactl c 195 255
cd /
mount --move "$place/data/dev" /dev
cp -a /etc/. "$place/data/etc"
mount --bind "$place/data/etc" /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t proc proc /proc
case $2 in
Usual)
    if test -d /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    ;;
Second)
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    ;;
esac
exec 3<&0
cat <&3 >/dev/null &
echo "$pid"
# The shell waits for all that have lost their parent, too.
wait $!
"#;

impl Machine {
    /// A new one, or why there can be none.
    pub fn new(cgroups: Cgroups) -> Result<Machine, String> {
        if !geteuid().is_root() {
            return Err("only root can start it".to_owned());
        }
        if !Path::new("/bin/busybox").exists() {
            return Err("there is no /bin/busybox (Debian's busybox-static)".to_owned());
        }
        let directory = Directory::new("engine");
        fs::create_dir(directory.path().join("data")).expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", OUTSIDE, "outside"]);
        command.arg(directory.path()).arg(INSIDE);
        command.arg(format!("{cgroups:?}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("a pipe");
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("a line");
        let Ok(first) = line.trim().parse().map(Pid::from_raw) else {
            // It has ended without a line.
            shell.wait().expect("its status");
            return Err("it gets no mounts and processes of its own here".to_owned());
        };
        let path = directory.path().to_owned();
        // The shell removes it.
        std::mem::forget(directory);
        let machine = Machine {
            directory: path,
            first,
            _shell: shell,
        };
        machine.install();
        Ok(machine)
    }

    /// Has Ringfence as an administrator would install it, and an image.
    fn install(&self) {
        let programs = self.name_of("programs");
        let ringfence = ringfence_program();
        // By another process: what this one has open to be written, a child that another test forks has, too, and nobody
        // can execute it.
        self.tell(&format!(
            "mkdir {programs}; cp {} {programs}/ringfence; ln -s ringfence {programs}/ringfence-runtime",
            ringfence.display()
        ));
        // Containers of an ordinary user write there, too.
        self.tell(&format!("umask 0; touch {}", self.name_of("messages.log")));
        let specification = json!({
            "cdiVersion": "0.3.0",
            "kind": "nvidia.com/gpu",
            "devices": [{"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}],
        });
        let file = self.path("cdi.json");
        fs::write(&file, specification.to_string()).expect("a file");
        self.tell(&format!(
            "mkdir -p /etc/cdi; cp {} /etc/cdi/nvidia.json",
            file.display()
        ));
        image::write(&self.path("image.tar"));
    }

    /// `ringfence`
    pub fn ringfence(&self) -> String {
        self.name_of("programs/ringfence")
    }

    /// Settings that name a low-level runtime, in a file of this name below the machine's directory.
    pub fn set(&self, name: &str, low_level: &Path) {
        let text = format!(
            "[runtime]\nlow-level = \"{}\"\ndriver = \"sim\"\nlog = \"{}\"\n",
            low_level.display(),
            self.name_of("messages.log"),
        );
        fs::write(self.path(name), text).expect("settings");
    }

    /// A `ringfence-runtime` whose settings are these, for engines that have several. Returns its path.
    pub fn runtime_with(&self, name: &str, settings: &str) -> String {
        let runtime = self.name_of("programs/ringfence-runtime");
        let text = format!("#!/bin/sh\nRINGFENCE_CONFIG={settings} exec {runtime} \"$@\"\n");
        let path = self.name_of(name);
        self.write_program(&path, &text);
        path
    }

    /// Writes a script that can be executed.
    pub fn write_program(&self, path: &str, text: &str) {
        let mut command = self.command("sh");
        let script = "mkdir -p \"${0%/*}\"; printf %s \"$1\" >\"$0\"; chmod 755 \"$0\"";
        let ended = finish(command.args(["-c", script, path, text]));
        assert_eq!(ended, Ended::printing(""));
    }

    /// Where a file of this machine's is, which is the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The same as text.
    pub fn name_of(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    /// Below this cgroup the engine makes its containers'.
    pub fn group(&self) -> String {
        let name = self.directory.file_name().expect("a name");
        format!("/{}", name.to_string_lossy())
    }

    /// A program that is started inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &self.first.to_string()]);
        command.arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a shell's script inside to its end.
    pub fn shell(&self, script: &str) -> Ended {
        finish(self.command("sh").args(["-c", script]))
    }

    /// The same, which succeeds. Returns what it has printed.
    #[track_caller]
    pub fn tell(&self, script: &str) -> String {
        let ended = self.shell(script);
        assert_eq!(ended.status, 0, "{script}: {ended:?}");
        ended.stdout
    }

    /// Starts a daemon, which writes to a file of this name.
    pub fn start(&self, command: &mut Command, log: &str) {
        let log = fs::File::create(self.path(log)).expect("a file");
        let copy = log.try_clone().expect("a descriptor");
        let daemon = command.stdout(log).stderr(copy).spawn();
        // It ends with the machine, and so with the tests' process: nobody waits for it.
        drop(daemon.expect("a daemon"));
    }
}
