//! Containers whose image is hostile, and volumes that another container changes while this one starts: what they try so as to
//! be executed in the first process's place, or to reach the sentry.
//!
//! What is lent to the first process is what they want: it is shown which capabilities whoever they had executed has.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use userland_tests::linux::{self, Feature};
use userland_tests::{Ended, eventually};

use super::sandboxes::{Maker, grant, with_gpu};

/// CAP_KILL, which the specification gives.
const GIVEN: &str = "CapEff:\t0000000000000020\n";
/// The same, and what is lent.
const LENT: &str = "CapEff:\t00000000082c0120\n";

/// Has a container mount what lies at this path in the test's directory.
fn bind(value: &mut Value, source: &Path, destination: &str) {
    let mounts = value["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({
        "destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"],
    }));
}

fn directory(maker: &Maker, name: &str) -> PathBuf {
    let path = maker.front.path(name);
    fs::create_dir_all(&path).expect("a directory");
    path
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
}

/// The volume that an image has mounted over `/dev` by a link, and where programs write which capabilities they have.
struct Covered {
    devices: PathBuf,
    seen: PathBuf,
    value: Value,
}

impl Covered {
    fn new(maker: &Maker) -> Covered {
        let [links, devices, seen] =
            ["links", "devices", "seen"].map(|name| directory(maker, name));
        symlink("/dev", links.join("link")).expect("a link");
        let mut value = with_gpu("grep CapEff /proc/self/status >/seen/program");
        bind(&mut value, &links, "/links");
        bind(&mut value, &devices, "/links/link");
        bind(&mut value, &seen, "/seen");
        Covered {
            devices,
            seen,
            value,
        }
    }

    /// Does what another container with the volume can do before this one is started.
    fn exchange(&self) {
        let place = self.devices.join(".ringfence");
        if place.exists() {
            fs::rename(&place, self.devices.join("away")).expect("renamed");
        }
        fs::create_dir(&place).expect("a directory");
        executable(
            &place.join("ringfence"),
            "#!/bin/sh\ngrep CapEff /proc/self/status >/seen/other\n",
        );
    }

    /// What is written by whoever is executed in a container that is made, has its volume changed, and is started.
    fn run(&self, maker: &Maker) -> [Option<String>; 2] {
        let called = maker.called();
        maker.front.specify(&self.value);
        let created = called.run(&["create", "c"]);
        assert_eq!(created.status, 0, "{}: {created:?}", maker.name);
        self.exchange();
        assert_eq!(called.run(&["start", "c"]).status, 0);
        eventually("it has ended", || {
            called.status_of_container().as_deref() == Some("stopped")
        });
        assert_eq!(called.run(&["delete", "c"]).status, 0);
        ["program", "other"].map(|name| fs::read_to_string(self.seen.join(name)).ok())
    }
}

#[test]
fn nobody_is_executed_in_the_first_processs_place() {
    for maker in Maker::all() {
        let seen = Covered::new(&maker).run(&maker);
        assert_eq!(seen, [Some(GIVEN.to_owned()), None], "{}", maker.name);
    }
}

/// The test above can fail: whoever is executed in its place has what is lent to it.
#[test]
fn others_are_executed_in_the_first_processs_place_if_the_container_decides_where_it_is() {
    for maker in Maker::all() {
        maker.obey("sentry.seat=drop");
        let seen = Covered::new(&maker).run(&maker);
        assert_eq!(seen, [None, Some(LENT.to_owned())], "{}", maker.name);
    }
}

/// What is mounted at `/proc` in the container.
const PROC: &str = "/proc";

/// A volume that a link of another one leads there, and a link of the image's.
#[test]
fn a_container_whose_proc_is_not_the_kernels_does_not_start() {
    for maker in Maker::all() {
        let image = maker.front.bundle().join("rootfs/proc");
        let [links, processes] = ["links", "processes"].map(|name| directory(&maker, name));
        fs::create_dir_all(processes.join("fs")).expect("a directory");
        executable(&processes.join("fs/ringfence"), "#!/bin/sh\necho started\n");
        symlink(PROC, links.join("link")).expect("a link");
        let mut covered = with_gpu("echo started");
        bind(&mut covered, &links, "/links");
        bind(&mut covered, &processes, "/links/link");
        // runc takes neither itself, and crun not the latter.
        let is_runc = maker.name == "runc";
        let expect = |value: &Value, of_runc: &str, of_crun: &str| {
            let ended = maker.run(value);
            let line = if is_runc { of_runc } else { of_crun };
            assert!(
                ended.status == 1 && ended.stdout.is_empty() && ended.stderr.contains(line),
                "{}: {ended:?}",
                maker.name
            );
        };
        expect(
            &covered,
            "cannot be mounted because it is not of type proc",
            "error executing hook `",
        );
        fs::rename(&image, image.with_file_name("elsewhere")).expect("renamed");
        symlink("elsewhere", &image).expect("a link");
        expect(
            &with_gpu("echo started"),
            "must be mounted on ordinary directory",
            "the target `/proc` is invalid",
        );
    }
}

/// Runs a container whose image has a link to `place`, where this of a volume's is mounted.
fn volume_where_a_link_leads(maker: &Maker, place: &str, source: &str) -> Ended {
    let volume = directory(maker, "volume");
    executable(&volume.join("exe"), "told by a volume\n");
    let link = maker.front.bundle().join("rootfs/data");
    let _ = fs::remove_file(&link);
    symlink(place, &link).expect("a link");
    let mut value = with_gpu("cat /proc/1/maps");
    bind(&mut value, &volume.join(source), "/data");
    maker.run(&value)
}

/// What libraries ask `/proc` of their own process would be the image's to answer.
#[test]
fn a_container_in_which_a_volume_tells_of_processes_does_not_start() {
    for maker in Maker::all() {
        for (place, source) in [("/proc/1", "."), ("/proc/1/maps", "exe")] {
            let ended = volume_where_a_link_leads(&maker, place, source);
            // runc takes none itself.
            let line = match maker.name == "runc" {
                true => "/proc/1",
                false => "error executing hook `",
            };
            assert!(
                ended.status == 1 && ended.stdout.is_empty() && ended.stderr.contains(line),
                "{}: {place}: {ended:?}",
                maker.name
            );
        }
    }
}

/// The test above can fail.
#[test]
fn a_volume_tells_of_a_containers_processes_if_nobody_looks_what_is_covered() {
    for maker in Maker::all() {
        maker.obey("sentry.covered=drop");
        let ended = volume_where_a_link_leads(&maker, "/proc/1/maps", "exe");
        if maker.name == "runc" {
            eprintln!("skipped: runc: it mounts no volume there itself");
            assert!(
                ended.status == 1 && ended.stderr.contains("/proc/1"),
                "{ended:?}"
            );
            continue;
        }
        let told = Ended::printing("told by a volume\n");
        assert_eq!(ended, told, "{}", maker.name);
    }
}

/// What has an effect on programs that are linked as most are, and what would be taken for a part of Ringfence.
#[test]
fn nothing_that_an_image_brings_is_loaded_or_taken_for_ringfence() {
    for maker in Maker::all() {
        let root = maker.front.bundle().join("rootfs");
        let other = "#!/bin/sh\necho another one\n";
        for place in ["dev/.ringfence", "proc/fs", "usr/bin", "etc", "lib64"] {
            fs::create_dir_all(root.join(place)).expect("a directory");
        }
        for program in [
            "dev/.ringfence/ringfence",
            "proc/fs/ringfence",
            "usr/bin/ringfence",
            "bin/ringfence",
            "lib64/ld-linux-x86-64.so.2",
        ] {
            executable(&root.join(program), other);
        }
        fs::write(root.join("etc/ld.so.preload"), "/evil.so\n").expect("a file");
        fs::write(root.join("evil.so"), "no library").expect("a file");
        let change = |mut value: Value| {
            value["process"]["env"] = json!([
                "PATH=/bin",
                "LD_PRELOAD=/evil.so",
                "LD_AUDIT=/evil.so",
                "LD_LIBRARY_PATH=/",
                "GLIBC_TUNABLES=glibc.malloc.check=3",
                "GCONV_PATH=/",
                "LOCPATH=/",
                "RINGFENCE_CONFIG=/evil.so",
                "RINGFENCE_DEVICES=/tmp",
            ]);
            value
        };
        let inside = maker.run(&change(with_gpu(
            "grep CapEff /proc/self/status; guest close",
        )));
        let expected = Ended::printing(&format!("{GIVEN}freed 50 times\n"));
        assert_eq!(inside, expected, "{}", maker.name);
    }
}

/// Starts a container that goes on, and returns what `look` sees of its first process, by that one's number.
fn of_sentry<T>(maker: &Maker, look: impl FnOnce(i64) -> T) -> T {
    let called = maker.called();
    maker
        .front
        .specify(&with_gpu("guest close; exec sleep 1000"));
    assert_eq!(called.run(&["create", "c"]).status, 0);
    assert_eq!(called.run(&["start", "c"]).status, 0);
    let state = called.run(&["state", "c"]).stdout;
    let state: Value = serde_json::from_str(&state).expect("a state");
    let sentry = state["pid"].as_i64().expect("a number");
    // It was started when the low-level runtime is about to execute it, and may be that still.
    eventually("the first process is the sentry", || {
        let name = fs::read_to_string(format!("/proc/{sentry}/comm"));
        name.is_ok_and(|name| name.starts_with("ringfence-sentr"))
    });
    let seen = look(sentry);
    assert_eq!(called.run(&["delete", "--force", "c"]).status, 0);
    seen
}

/// Why the executable of the first process cannot be opened to be written. Where nothing but its being executed is in the way,
/// whoever has a descriptor of it writes to it as soon as it is not.
fn why_not_written(maker: &Maker) -> Option<i32> {
    of_sentry(maker, |sentry| {
        let executable = format!("/proc/{sentry}/exe");
        let opened = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(executable);
        opened.expect_err("it is executed").raw_os_error()
    })
}

#[test]
fn the_hosts_executable_is_not_written_by_the_first_processs() {
    for maker in Maker::all() {
        assert_eq!(why_not_written(&maker), Some(libc::EROFS), "{}", maker.name);
    }
}

/// The test above can fail.
#[test]
fn the_hosts_executable_is_written_by_the_first_processs_if_its_mount_allows_it() {
    for maker in Maker::all() {
        maker.obey("sentry.written=drop");
        assert_eq!(
            why_not_written(&maker),
            Some(libc::ETXTBSY),
            "{}",
            maker.name
        );
    }
}

/// Takes away all that is mounted at `/proc`, and opens the memory of whom there is then.
fn after_taking_proc_away(maker: &Maker, rules: &str) -> Ended {
    let script = "umount -l /proc; ls /proc; cat /proc/1/comm; (exec 3<>/proc/1/mem && echo opened) 2>/dev/null; echo end";
    let mut value = with_gpu(script);
    value["process"]["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={rules}")]);
    grant(&mut value, &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
    maker.run(&value)
}

#[test]
fn who_takes_proc_away_finds_no_other_below() {
    for maker in Maker::all() {
        let expected = Ended {
            stderr: "cat: can't open '/proc/1/comm': No such file or directory\n".to_owned(),
            ..Ended::printing("end\n")
        };
        assert_eq!(
            after_taking_proc_away(&maker, ""),
            expected,
            "{}",
            maker.name
        );
    }
}

/// With CAP_SYS_PTRACE, a program that has the sentry's `/proc` below its own.
fn with_the_sentrys_proc(rules: &str, end: &str) {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = after_taking_proc_away(&maker, &format!("program.outer=drop {rules}"));
        assert!(ended.stdout.ends_with(end), "{}: {ended:?}", maker.name);
    }
}

/// So does one whose container another has joined, and that is handed that one's `/proc`.
#[test]
fn who_sees_the_sentry_does_not_open_its_memory() {
    // Before there is no domain that lets mount.
    if linux::has(Feature::LandlockScopes) {
        with_the_sentrys_proc("", "\nringfence-sentr\nend\n");
    }
}

/// The tests above can fail: with CAP_SYS_PTRACE the sentry's memory is the program's.
#[test]
fn who_sees_the_sentry_opens_its_memory_without_a_domain() {
    with_the_sentrys_proc("sentry.domain=drop", "\nringfence-sentr\nopened\nend\n");
}

/// What comes of an ioctl on a device that the image has in the place of harmless ones, by a link.
fn ioctl_where_a_link_leads(maker: &Maker, rules: &str) -> Ended {
    let nodes = directory(maker, "nodes");
    let node = nodes.join("node");
    if !node.exists() {
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        let device = nix::sys::stat::makedev(10, 200);
        nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device).expect("a node");
    }
    let devices = maker.front.bundle().join("rootfs/dev");
    let _ = symlink("/nodes", devices.join("pts"));
    let mut value = with_gpu("stty -F /nodes/node");
    let mounts = value["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["destination"] != "/dev");
    bind(&mut value, &nodes, "/nodes");
    value["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}]);
    value["process"]["env"] = json!(["PATH=/bin", format!("RINGFENCE_FAULTS={rules}")]);
    maker.run(&value)
}

#[test]
fn a_link_does_not_make_ioctls_on_a_device_harmless() {
    for maker in Maker::all() {
        let expected = Ended::failing(1, "stty: /nodes/node: Permission denied");
        assert_eq!(
            ioctl_where_a_link_leads(&maker, ""),
            expected,
            "{}",
            maker.name
        );
    }
}

/// The test above can fail.
#[test]
fn a_link_makes_ioctls_on_a_device_harmless_if_it_is_followed() {
    for maker in Maker::all() {
        maker.with_faults();
        let ended = ioctl_where_a_link_leads(&maker, "sentry.harmless=drop");
        let expected = Ended::failing(1, "stty: /nodes/node: File descriptor in bad state");
        assert_eq!(ended, expected, "{}", maker.name);
    }
}
