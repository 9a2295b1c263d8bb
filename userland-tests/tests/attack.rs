//! What hostile programs try, and do not get.
//!
//! `unsafe` is here because ioctl takes an address.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nvproxy_abi::number::{
    NV_ESC_CHECK_VERSION_STR, NV_ESC_RM_ALLOC_MEMORY, NV_IOCTL_MAGIC,
    NV01_MEMORY_SYSTEM_OS_DESCRIPTOR, UVM_REGISTER_GPU, ioctl_word, parts,
};
use ringfence_recording::{Event, Recording};
use userland_tests::linux::{self, Feature, Version};
use userland_tests::stand_in::{self, Seen};
use userland_tests::{
    Directory, Ended, finish, guest_program, guest_under, is_emulated, prints,
    ringfence_with_faults, showing_the_guest, wait_for,
};

#[test]
fn a_process_with_many_threads_gets_no_more_than_its_part() {
    prints(&["greed", "1", "200"], "had its part\n");
}

#[test]
fn many_processes_with_many_threads_get_no_more_than_their_part() {
    prints(&["greed", "8", "60"], "had its part\n");
}

/// A directory for nodes. Not one below `/tmp`, where a server has the root that it makes for itself.
fn nodes(name: &str) -> Directory {
    Directory::in_place(Path::new("/var/tmp"), name)
}

/// Character devices that stand in for the driver's nodes, and what the first answers to the request that a pin is.
fn stand_ins() -> (Directory, Errno) {
    // Whoever may open them; none of these is a device that tasks may use as they like.
    let candidates = ["/dev/net/tun", "/dev/fuse", "/dev/kvm"].map(PathBuf::from);
    let mut opened = candidates.into_iter().filter_map(|path| {
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Some((path, file.ok()?))
    });
    let (Some((rm, file)), Some((uvm, _))) = (opened.next(), opened.next()) else {
        panic!("two of /dev/net/tun, /dev/fuse and /dev/kvm have to be there for this user");
    };
    let mut argument = [0u64; 7];
    let request = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, size_of_val(&argument));
    // SAFETY: the argument is as large as the request says.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request.into(), argument.as_mut_ptr()) };
    let errno = Errno::result(answer).expect_err("no device knows the request");
    let directory = nodes("stand-ins");
    for (name, device) in [("nvidiactl", &rm), ("nvidia0", &rm), ("nvidia-uvm", &uvm)] {
        symlink(device, directory.path().join(name)).expect("a link");
    }
    (directory, errno)
}

/// What a sandbox with NVIDIA's driver says where nothing but the filter keeps tasks from the driver.
fn warning() -> String {
    linux::warning(|row| !linux::has(row.feature))
}

#[test]
fn a_sandbox_warns_of_the_walls_that_an_older_kernel_lacks() {
    const OLD: Version = Version { major: 6, minor: 1 };
    let (nodes, _) = stand_ins();
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "host", "--workdir", "/", "--", "true"])
        .env("RINGFENCE_DEVICES", nodes.path());
    let expected = Ended {
        stderr: linux::warning(|row| row.since > OLD || !linux::has(row.feature)),
        ..Ended::printing("")
    };
    assert!(expected.stderr.contains("PR_SET_MDWE (Linux 6.3), "));
    assert_eq!(finish(linux::as_of(&mut command, OLD)), expected);
}

/// Runs a program and, beside it, the same without a filter.
fn unfiltered(further_rules: &str) -> (Ended, Errno) {
    let (nodes, errno) = stand_ins();
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "host"])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .arg("unfiltered")
        .env("RINGFENCE_DEVICES", nodes.path())
        .env(
            "RINGFENCE_FAULTS",
            format!("sentry.filter=duplicate {further_rules}"),
        );
    (finish(&mut command), errno)
}

/// The same without the list of the requests that reached a node, which is long where nothing is withheld.
fn without_what_was_reached(ended: Ended) -> Ended {
    let line = |line: &str| {
        let (before, reached) = line.split_once(": reached: {")?;
        (!linux::has(Feature::LandlockIoctlDev) && reached.ends_with('}'))
            .then(|| format!("{before}: reached\n"))
    };
    Ended {
        stdout: ended
            .stdout
            .lines()
            .map(|whole| line(whole).unwrap_or_else(|| format!("{whole}\n")))
            .collect(),
        ..ended
    }
}

#[test]
fn without_a_filter_no_request_reaches_the_resource_manager() {
    let (ended, errno) = unfiltered("sentry.pin-checked=delay:1");
    // Where Landlock cannot withhold ioctl there is no wall but the filter, which this process does not have.
    let outcome = if linux::has(Feature::LandlockIoctlDev) {
        "withheld"
    } else {
        "reached"
    };
    let stdout = format!(
        "\
before: {outcome}
before, UVM: reached
50 pins: {{\"Err(Errno({errno:?}))\"}}
during: {outcome}
during, UVM: reached
after: {outcome}
after, UVM: reached
"
    );
    let stderr = warning();
    assert_eq!(
        without_what_was_reached(ended),
        Ended {
            stderr,
            ..Ended::printing(&stdout)
        }
    );
}

/// The test above can fail: what a pin lends is found and used if the other tasks are not held.
#[test]
fn without_a_filter_and_not_held_a_task_gets_at_what_a_pin_lends() {
    let (ended, errno) = unfiltered("sentry.hold=drop sentry.pin-checked=delay:10");
    let request = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
    let reached = format!("during: reached: {{\"{request:#x}: Err({errno:?})\"}}\n");
    assert!(ended.stdout.contains(&reached), "{ended:?}");
}

/// Has a process pin whose descriptor table another one has, and says what came of it and what was left in the table.
fn lent(filter: &[&str], rules: &str) -> Ended {
    finish(&mut guest_under(rules, &[&["lent"], filter].concat()))
}

/// With the caller's own descriptor table in the place of one that is made for the pin.
const OWN_TABLE: &str = "sentry.pin-table=drop";
/// The calling process is killed when the descriptor has been lent.
const KILLED: &str = "sentry.pin-checked=kill-task";
/// close(2), whose success would be believed of nobody, and whose failure would leave the descriptor.
const CLOSE_SUCCEEDS: [&str; 2] = ["3", "0"];
const CLOSE_FAILS: [&str; 2] = ["3", "1"];
/// close_range(2), by which the thread leaves its process's table.
const LEAVING_SUCCEEDS: [&str; 2] = ["436", "0"];
const LEAVING_FAILS: [&str; 2] = ["436", "1"];
/// It looks as if it is to begin anew (ERESTARTSYS of include/linux/errno.h).
const LEAVING_BEGINS_ANEW: [&str; 2] = ["436", "512"];
/// What the kernel says of the table is not asked.
const BELIEVED: &str = "sentry.pin-table-own=drop";
/// exit(2) of one thread.
const EXIT_SUCCEEDS: [&str; 2] = ["60", "0"];
const EXIT_FAILS: [&str; 2] = ["60", "1"];

#[test]
fn what_a_pin_lends_is_not_left_whatever_a_filter_answers() {
    for filter in [CLOSE_SUCCEEDS, CLOSE_FAILS, LEAVING_SUCCEEDS, LEAVING_FAILS] {
        let expected = Ended::printing("pinned: ok\nchild: status 0\nleft: 0\n");
        assert_eq!(lent(&filter, ""), expected);
    }
}

/// The test above can fail.
#[test]
fn what_a_pin_lends_is_left_under_a_filter_if_no_table_is_made_for_it() {
    for filter in [CLOSE_SUCCEEDS, CLOSE_FAILS] {
        let ended = lent(&filter, OWN_TABLE);
        assert!(ended.stdout.ends_with("left: 1\n"), "{ended:?}");
    }
}

/// The kernel has a call that is to begin anew do so. Where a filter says so it does not, and the thread would go on to its program's code,
/// which ends the process otherwise.
#[test]
fn a_pins_thread_does_not_go_on_whatever_a_filter_answers() {
    let expected = Ended {
        stderr: " WARN a process that pinned memory was killed, because the calls that it was set to took too long: \
                        its code or signals were in the way, or others kept the processors from it\n"
            .to_owned(),
        ..Ended::printing("child: SIGKILL\nleft: 0\n")
    };
    assert_eq!(lent(&LEAVING_BEGINS_ANEW, ""), expected);
}

#[test]
fn what_a_pin_lends_is_not_left_by_who_is_killed_meanwhile() {
    let expected = Ended::printing("child: SIGKILL\nleft: 0\n");
    for filter in [&[][..], &LEAVING_SUCCEEDS, &LEAVING_FAILS] {
        assert_eq!(lent(filter, KILLED), expected);
    }
}

/// The test above can fail.
#[test]
fn what_a_pin_lends_is_left_by_who_is_killed_if_no_table_is_made_for_it() {
    let expected = Ended::printing("child: SIGKILL\nleft: 1\n");
    assert_eq!(lent(&[], &format!("{KILLED} {OWN_TABLE}")), expected);
}

/// So it can where a filter keeps the thread in its process's table.
#[test]
fn what_a_pin_lends_is_left_by_who_is_killed_if_the_table_is_believed_to_be_left() {
    let expected = Ended::printing("child: SIGKILL\nleft: 1\n");
    for filter in [LEAVING_SUCCEEDS, LEAVING_FAILS] {
        assert_eq!(lent(&filter, &format!("{KILLED} {BELIEVED}")), expected);
    }
}

/// A filter that keeps the thread from ending which has what was lent costs the process its life.
#[test]
fn what_a_pin_lends_is_not_left_to_a_thread_that_cannot_end() {
    for filter in [EXIT_SUCCEEDS, EXIT_FAILS] {
        let expected = Ended {
            stderr: " WARN a process that pinned memory was killed, because its seccomp filter lets no thread end: \
                     EPERM: Operation not permitted\n"
                .to_owned(),
            ..Ended::printing("child: SIGKILL\nleft: 0\n")
        };
        assert_eq!(lent(&filter, ""), expected);
    }
}

/// Has a process look, through `/proc`, at what the threads of another have while it pins.
fn watched(rules: &str) -> Ended {
    finish(&mut guest_under(rules, &["pin-watched"]))
}

#[test]
fn what_a_pin_lends_cannot_be_seen_by_another_process() {
    assert_eq!(
        watched("sentry.pin-checked=delay:1"),
        Ended::printing(
            "saw lent ones: false, opened some: false, fetched some: false, saw any others: true\n"
        )
    );
}

/// The test above can fail.
#[test]
fn what_a_pin_lends_is_seen_and_opened_if_no_task_is_held() {
    assert_eq!(
        watched("sentry.hold=drop sentry.pin-checked=delay:10"),
        Ended::printing(
            "saw lent ones: true, opened some: true, fetched some: true, saw any others: true\n"
        )
    );
}

/// What is in every field that no pin may be made with (guest/contest.rs).
const HOSTILE: [u8; 4] = 0xbadc_0de5u32.to_ne_bytes();

/// Whether what the kernel read of a task's request is something other than a pin that was validated.
fn is_altered(seen: &Seen) -> bool {
    let class = seen.argument.get(12..16);
    let is_hostile = seen.argument.chunks(4).any(|word| word == HOSTILE);
    class != Some(&NV01_MEMORY_SYSTEM_OS_DESCRIPTOR.to_ne_bytes()) || is_hostile
}

/// Pins while 63 threads and two processes fight for what the driver reads, striking so many times, once in so many
/// milliseconds; returns what it read from tasks.
fn contest(blows: u32, period: u32, rules: &str) -> (Ended, Vec<Seen>) {
    let scenario = ["contest", &blows.to_string(), &period.to_string()];
    let (ended, mut seen) = on_files(&scenario, rules);
    seen.retain(|seen| !seen.by_server);
    (ended, seen)
}

/// Runs a scenario on files that stand in for the nodes; returns what these saw. The files are no devices,
/// so Landlock withholds no ioctl on them: it is as on a kernel that lacks IOCTL_DEV.
fn on_files(scenario: &[&str], rules: &str) -> (Ended, Vec<Seen>) {
    started_on_files(&["run"], scenario, rules)
}

/// As [`on_files`], started by another command, which may have options.
fn started_on_files(start: &[&str], scenario: &[&str], rules: &str) -> (Ended, Vec<Seen>) {
    let nodes = nodes("files");
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(start)
        .args(["--driver", "host"])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .args(scenario)
        .env("RINGFENCE_DEVICES", nodes.path())
        .env("RINGFENCE_FAULTS", rules)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let serve = stand_in::mount_for(&mut command, nodes.path());
    let child = command.spawn().expect("ringfence");
    // The command holds the other end of what comes from the namespace.
    drop(command);
    let serving = serve();
    let ended = wait_for(child);
    (ended, serving.join().expect("the files"))
}

/// The parameters lie where the contestants expect them, in memory like any other. That nobody can write to them is to rest
/// on neither.
const FORESEEABLE: &str = "sentry.pin-page=drop sentry.pin-secret=drop";

#[test]
fn what_is_pinned_is_what_was_validated() {
    // Where a pin takes longer than a blow takes to come, each is found altered and refused, which shows nothing.
    for (blows, period) in [(200, 10), (100, 50), (50, 250), (30, 1000)] {
        let (ended, seen) = contest(
            blows,
            period,
            &format!("{FORESEEABLE} sentry.pin-checked=delay:1"),
        );
        assert_eq!((ended.status, ended.stdout.as_str()), (0, "contested\n"));
        // A page that was just put in the argument's place is empty.
        let empty = " WARN nvproxy: unknown class 0x0 (NV01_ROOT)\n";
        let others = ended.stderr.replacen(&warning(), "", 1);
        assert!(["", empty].contains(&others.as_str()), "{ended:?}");
        let altered: Vec<&Seen> = seen.iter().filter(|seen| is_altered(seen)).collect();
        assert!(altered.is_empty(), "{altered:x?}");
        if !seen.is_empty() {
            return;
        }
    }
    panic!("nothing was pinned");
}

/// The test above can fail: what the driver reads is altered if the other tasks are not held.
#[test]
fn what_is_pinned_is_altered_if_no_task_is_held() {
    let (ended, seen) = contest(
        30,
        100,
        &format!("{FORESEEABLE} sentry.hold=drop sentry.pin-checked=delay:120"),
    );
    assert!(seen.iter().any(is_altered), "{ended:?}");
}

/// Of every word that the driver of any release reads, of these types or all, on every node: what reached the nodes from the
/// task itself, and what the server issued.
fn words_that_reached(types: &[&str], rules: &str) -> [Vec<u32>; 2] {
    let (ended, seen) = on_files(&[&["every-word"], types].concat(), rules);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.starts_with("tried "), "{ended:?}");
    [false, true].map(|by_server| {
        let seen = seen.iter().filter(|seen| seen.by_server == by_server);
        seen.map(|seen| seen.command).collect()
    })
}

/// Whatever type and direction a word has, and whatever the release. The file layer takes FIGETBSZ before any file does.
#[test]
fn no_word_that_any_driver_reads_reaches_a_node() {
    // Where a processor is emulated there is time for the driver's own type, its neighbours, and the ends alone.
    let (types, count): (&[&str], usize) = if is_emulated() {
        (&["0", "69", "70", "71", "255"], 5)
    } else {
        (&[], 256)
    };
    let [reached, issued] = words_that_reached(types, "");
    assert!(reached.is_empty(), "{reached:x?}");
    // What the tables allow is the same request whatever the type, and issued as the driver's headers write it.
    let allowed = ioctl_word(NV_ESC_CHECK_VERSION_STR, 72);
    let times = issued.iter().filter(|word| **word == allowed).count();
    assert_eq!(times, 2 * count, "on nvidiactl and nvidia0");
    let has_type = |word: &&u32| parts(**word).0 == NV_IOCTL_MAGIC;
    let others: Vec<&u32> = issued.iter().filter(|word| !has_type(word)).collect();
    assert!(others.is_empty(), "{others:x?}");
}

/// The test above can fail: with a filter that knows the driver's type alone, a request of another type is executed.
#[test]
fn words_of_other_types_reach_a_node_if_the_filter_knows_one_type() {
    let [reached, _] = words_that_reached(&[], "sentry.words=drop");
    let control = |kind: u32| {
        let of_kind = |word: &&u32| **word & 0x3fff_ffff == 0x20_002a | kind << 8;
        reached.iter().filter(of_kind).count()
    };
    // On nvidiactl, nvidia0 and nvidia-uvm.
    assert_eq!((control(0), control(0x47), control(0xff)), (3, 3, 3));
    assert_eq!(control(0x46), 0);
}

/// Nothing is let run that was looked at, so it is of no use to exchange a descriptor meanwhile.
#[test]
fn a_descriptor_that_is_exchanged_gains_nothing() {
    let (ended, seen) = on_files(&["exchanged"], "");
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "exchanged\n"),
        "{ended:?}"
    );
    let reached: Vec<Seen> = seen.into_iter().filter(|seen| !seen.by_server).collect();
    assert!(reached.is_empty(), "{reached:x?}");
}

/// The test above can fail: the driver executes what the sentry lets run on what it took for a file.
#[test]
fn a_descriptor_that_is_exchanged_is_reached_by_what_is_let_run() {
    let (ended, seen) = on_files(&["exchanged"], "sentry.foreign=drop");
    assert_eq!(ended.status, 0, "{ended:?}");
    let mut reached = seen.iter().filter(|seen| !seen.by_server);
    assert!(
        reached.any(|seen| seen.command == UVM_REGISTER_GPU),
        "{ended:?}"
    );
}

/// A server that cannot find a node says so to the program, which does not wait for ever.
#[test]
fn a_node_that_the_server_does_not_find_is_missing() {
    let (nodes, _) = stand_ins();
    // A terminal's master looks for the file system of terminals beside it, which a server does not have.
    let uvm = nodes.path().join("nvidia-uvm");
    std::fs::remove_file(&uvm).expect("the link");
    symlink("/dev/ptmx", uvm).expect("a link");
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "host"])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .args(["open-node", "/dev/nvidia-uvm"])
        .env("RINGFENCE_DEVICES", nodes.path());
    let expected = Ended {
        stderr: warning(),
        ..Ended::printing("ENOENT\n")
    };
    assert_eq!(finish(&mut command), expected);
}

/// An open-only node that this user cannot open is no reason not to run: the sandbox has the others.
#[test]
fn open_only_nodes_that_cannot_be_opened_are_left_out() {
    let (nodes, _) = stand_ins();
    let caps = nodes.path().join("nvidia-caps");
    std::fs::create_dir(&caps).expect("a directory");
    for (name, stand_in) in [
        ("nvidia-cap1", "/nonexistent"),
        ("nvidia-cap2", "/dev/null"),
    ] {
        symlink(stand_in, caps.join(name)).expect("a link");
    }
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "host"])
        .args(showing_the_guest())
        .args([
            "--",
            "sh",
            "-c",
            "cd /dev/nvidia-caps && echo * && exec \"$0\" open-node nvidia-cap2",
        ])
        .arg(guest_program())
        .env("RINGFENCE_DEVICES", nodes.path())
        .env("RINGFENCE_FAULTS", "sentry.open-only=drop");
    let expected = Ended {
        stderr: warning(),
        ..Ended::printing("nvidia-cap2\nopened\n")
    };
    assert_eq!(finish(&mut command), expected);
}

/// Stand-ins of a GPU that is divided, of which one part has these nodes.
fn divided(numbers: &[u16]) -> Directory {
    let (nodes, _) = stand_ins();
    let write = |path: &str, text: &str| {
        let path = nodes.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    };
    write(
        "proc/gpus/0000:01:00.0/information",
        "GPU UUID: GPU-5a3e\nDevice Minor: 0\nModel: x\n",
    );
    let instance = "proc/capabilities/gpu0/mig/gi1";
    write(&format!("{instance}/access"), "DeviceFileMinor: 12\n");
    write(&format!("{instance}/ci0/access"), "DeviceFileMinor: 13\n");
    let caps = nodes.path().join("nvidia-caps");
    std::fs::create_dir(&caps).expect("a directory");
    for number in numbers {
        symlink("/dev/null", caps.join(format!("nvidia-cap{number}"))).expect("a link");
    }
    nodes
}

fn on_divided(nodes: &Directory, gpus: &str, script: &str) -> Ended {
    let mut command = Command::new(ringfence_with_faults());
    command
        .args(["run", "--driver", "host", "--workdir", "/", "--gpus", gpus])
        .args(["--", "sh", "-c", script])
        .env("RINGFENCE_DEVICES", nodes.path());
    finish(&mut command)
}

/// Programs open a part's nodes to be read, and no server does it for them: they are devices on which no driver takes a request.
#[test]
fn the_nodes_of_a_part_are_opened_by_the_program_itself() {
    let expected = Ended {
        stderr: warning(),
        ..Ended::printing("nvidia-cap12 nvidia-cap13\nopened\n")
    };
    let script =
        "cd /dev/nvidia-caps && echo * && exec 3<nvidia-cap12 4<nvidia-cap13 && echo opened";
    let nodes = divided(&[2, 12, 13, 21]);
    assert_eq!(on_divided(&nodes, "0/1/0", script), expected);
}

#[test]
fn a_node_of_a_part_that_is_missing_is_named_with_the_way_to_it() {
    let nodes = divided(&[12]);
    let line = format!(
        "ringfence: {}/nvidia-caps/nvidia-cap13: No such file or directory: create it with nvidia-modprobe -f \
         /proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access",
        nodes.path().display()
    );
    let ended = on_divided(&nodes, "0/1/0", "true");
    assert_eq!(ended, Ended::failing(125, &line));
}

/// NVIDIA's driver gives nobody memory or channels there.
#[test]
fn a_divided_gpu_without_a_part_is_worth_a_warning() {
    let ended = on_divided(
        &divided(&[12, 13]),
        "0",
        "ls /dev/nvidia-caps 2>/dev/null || echo none",
    );
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "none\n"),
        "{ended:?}"
    );
    let line = " WARN programs find no GPU where one is divided (MIG) and they have no part of it, as of /dev/nvidia0 (1/0): give some, in a \
                container by their nodes, else as in --gpus 0/1/0\n";
    assert_eq!(ended.stderr.replace(&warning(), ""), line);
}

/// To tell the descriptions of UVM apart, of which the server keeps nothing, the sentry marks them.
#[test]
fn what_is_asked_of_uvm_is_recorded() {
    let directory = Directory::new("recording");
    let file = directory.path().join("recording");
    let start = ["record", "--out", file.to_str().expect("a path of text")];
    let (ended, _) = started_on_files(&start, &["exchanged"], "");
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "exchanged\n"),
        "{ended:?}"
    );
    let recording = std::fs::read(&file).expect("a recording");
    let recording = Recording::from_bytes(&recording).expect("a valid recording");
    let is_of_uvm =
        |event: &Event| matches!(event, Event::Request(made) if made.command == UVM_REGISTER_GPU);
    assert!(recording.events.iter().any(is_of_uvm));
}
