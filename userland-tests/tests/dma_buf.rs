//! Memory of a GPU's as a dma-buf (`--driver-capabilities rdma`): what the driver makes reaches the program and nobody else, of
//! memory that is the program's, and counts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use nix::unistd::Pid;
use userland_tests::processes::Tree;
use userland_tests::{
    Ended, eventually, finish, guest, guest_under_with, guest_with, started, wait_for,
};

const RDMA: &[&str] = &["--driver-capabilities", "compute,utility,rdma"];

/// What a scenario prints, and how it ends.
fn with_rdma(rules: &str, scenario: &str) -> (i32, String) {
    let Ended { status, stdout, .. } = finish(&mut guest_under_with(rules, RDMA, &[scenario]));
    (status, stdout)
}

fn printing(expected: &str) -> (i32, String) {
    (0, expected.to_owned())
}

#[test]
fn memory_of_a_gpu_is_exported() {
    let expected = "\
one object: 4194304 bytes, closed on execve: true
two objects: 5242880 bytes, closed on execve: true
the free number is used again: true
on another node: ok
added to: NV_ERR_NOT_SUPPORTED
in parts: NV_ERR_NOT_SUPPORTED
without end: NV_ERR_NOT_SUPPORTED
to be mapped: NV_ERR_NOT_SUPPORTED
of the host's memory: NV_ERR_INVALID_ARGUMENT
of a device: NV_ERR_INVALID_ARGUMENT
of nothing: NV_ERR_OBJECT_NOT_FOUND
beyond its end: NV_ERR_INVALID_ARGUMENT
on nvidiactl: EINVAL
";
    assert_eq!(with_rdma("", "dma-buf"), printing(expected));
}

#[test]
fn without_the_capability_nothing_is_exported() {
    let refused = "nvproxy: ioctl 0xd9 (NV_ESC_EXPORT_TO_DMABUF_FD) needs a capability that the sandbox lacks: rdma";
    for capabilities in ["compute,utility", "compute,utility,fabric-imex-mgmt"] {
        let options = ["--driver-capabilities", capabilities];
        let ended = finish(&mut guest_with(&options, &["dma-buf"]));
        assert_eq!(ended.stdout, "one object: EINVAL: Invalid argument\n");
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.stderr.contains(refused), "{ended:?}");
    }
    let ended = finish(&mut guest(&["dma-buf"]));
    assert!(ended.stderr.contains(refused), "{ended:?}");
    let ended = finish(&mut guest_with(
        &["--driver-capabilities", "all"],
        &["dma-buf"],
    ));
    assert!(ended.stdout.starts_with("one object: 4194304 bytes"));
}

/// The driver would find whoever has got the client's number meanwhile. It is there until the memory is exported.
#[test]
fn a_client_is_there_until_its_memory_is_exported() {
    let expected = "\
meanwhile: ok
afterwards: NV_ERR_INVALID_OBJECT_HANDLE
";
    let ended = with_rdma("server.relied@2=delay:2000", "dma-buf-closing");
    assert_eq!(ended, printing(expected));
}

/// The test above can fail.
#[test]
fn a_client_is_gone_before_its_memory_is_exported_if_it_is_not_kept() {
    let expected = "\
meanwhile: NV_ERR_INVALID_OBJECT_HANDLE
afterwards: NV_ERR_INVALID_OBJECT_HANDLE
";
    let rules = "server.relied@1=drop server.relied@2=delay:2000";
    assert_eq!(with_rdma(rules, "dma-buf-closing"), printing(expected));
}

#[test]
fn no_memory_of_another_s_is_exported() {
    let expected = "\
another's: NV_ERR_INVALID_OBJECT_HANDLE
nobody's: NV_ERR_INVALID_OBJECT_HANDLE
";
    let as_foreign = printing(expected);
    assert_eq!(with_rdma("", "dma-buf-foreign"), as_foreign);
    // It is known neither whose client nor what the memory is. Each suffices.
    let expected = expected.replacen("NV_ERR_INVALID_OBJECT_HANDLE", "NV_ERR_OBJECT_NOT_FOUND", 1);
    let expected = expected.replace(
        "nobody's: NV_ERR_INVALID_OBJECT_HANDLE",
        "nobody's: NV_ERR_OBJECT_NOT_FOUND",
    );
    let without_one = with_rdma("server.owned=drop", "dma-buf-foreign");
    assert_eq!(without_one, printing(&expected));
    let without_the_other = with_rdma("server.exported=drop", "dma-buf-foreign");
    assert_eq!(without_the_other, as_foreign);
}

/// That the test above can fail: the driver does not look whose memory it exports.
#[test]
fn memory_of_another_s_is_exported_if_nobody_looks() {
    let expected = "\
another's: 1048576 bytes, closed on execve: true
nobody's: NV_ERR_INVALID_OBJECT_HANDLE
";
    let rules = "server.owned=drop server.exported=drop";
    assert_eq!(with_rdma(rules, "dma-buf-foreign"), printing(expected));
}

/// What `dma-buf-limit` prints with 4 GiB of each GPU's memory, where these rules hold.
fn limited(rules: &str) -> (i32, String) {
    let options = [RDMA, &["--gpu-memory", "4GiB"]].concat();
    let ended = finish(&mut guest_under_with(rules, &options, &["dma-buf-limit"]));
    (ended.status, ended.stdout)
}

#[test]
fn what_was_exported_counts_once_and_until_the_sandbox_ends() {
    let expected = "\
exported: ok
exported again: ok
1 GiB more: ok
1024 MiB are free
2 GiB, freed and closed: NV_ERR_NO_MEMORY
1 GiB: ok
2 GiB, freed with the client: NV_ERR_NO_MEMORY
1 GiB: ok
";
    assert_eq!(limited(""), printing(expected));
}

/// That the test above can fail: 5 GiB are had under a limit of 4, if somebody has kept the dma-buf.
#[test]
fn what_was_exported_is_free_if_it_does_not_count() {
    let (status, printed) = limited("server.counted=drop");
    assert_eq!(status, 0);
    assert!(
        printed.contains("2 GiB, freed and closed: ok\n"),
        "{printed}"
    );
}

#[test]
fn what_the_driver_keeps_of_each_dma_buf_counts() {
    let options = [RDMA, &["--host-memory", "1MiB"]].concat();
    let ended = finish(&mut guest_with(&options, &["dma-buf-records"]));
    let expected = "\
64 MiB 3 times, then NV_ERR_NO_MEMORY
1 MiB 18 times, then NV_ERR_NO_MEMORY
";
    assert_eq!(ended, Ended::printing(expected));
}

/// A sandbox whose program exports when it is told to.
struct OnDemand {
    child: Child,
    output: BufReader<ChildStdout>,
    tree: Tree,
}

impl OnDemand {
    fn start(rules: &str) -> OnDemand {
        let mut command = guest_under_with(rules, RDMA, &["dma-bufs-on-demand"]);
        let (child, output) = started(command.stdin(Stdio::piped()));
        let tree = Tree::of(child.id());
        OnDemand {
            child,
            output,
            tree,
        }
    }

    /// What it says when it has done this.
    fn tell(&mut self, what: &str) -> String {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{what}").expect("a line");
        let mut said = String::new();
        self.output.read_line(&mut said).expect("a line");
        said
    }

    /// Neither the sentry nor the server has a dma-buf any more, when they have come so far.
    fn expect_none_left(&self) {
        for (name, process) in [("sentry", self.tree.sentry), ("server", self.tree.server)] {
            eventually(&format!("the {name} has none"), || {
                dma_bufs(process.pid) == 0
            });
        }
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        let ended = wait_for(self.child);
        assert_eq!(ended.status, 0, "{ended:?}");
    }
}

/// How many of a process's descriptors are of what the simulated driver makes.
fn dma_bufs(process: Pid) -> usize {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).expect("descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains("dma-buf"))
        .count()
}

#[test]
fn what_is_made_is_the_programs_alone() {
    let mut sandbox = OnDemand::start("");
    for kept in 1..4 {
        assert_eq!(sandbox.tell("keep"), "kept\n");
        assert_eq!(dma_bufs(sandbox.tree.program.pid), kept);
        sandbox.expect_none_left();
    }
    assert_eq!(sandbox.tell("close"), "closed\n");
    assert_eq!(dma_bufs(sandbox.tree.program.pid), 3);
    sandbox.expect_none_left();
    sandbox.finish();
}

/// As the driver answers, whether it is the program's table or the server's that is full.
#[test]
fn a_table_without_room_has_the_drivers_answer_and_nothing_is_left() {
    let mut sandbox = OnDemand::start("");
    let expected = "full: NV_ERR_OPERATING_SYSTEM, then ok\n";
    for _ in 0..2 {
        assert_eq!(sandbox.tell("full"), expected);
        assert_eq!(dma_bufs(sandbox.tree.program.pid), 0);
        sandbox.expect_none_left();
    }
    sandbox.finish();
    // The server's, from before the request on.
    let printed = with_rdma("server.prepared@4=exhaust-descriptors:0", "dma-buf");
    assert_eq!(printed, printing("one object: NV_ERR_OPERATING_SYSTEM\n"));
}

#[test]
fn of_who_is_killed_meanwhile_nothing_is_left() {
    for moment in ["sentry.handed", "sentry.installed"] {
        let mut sandbox = OnDemand::start(&format!("{moment}=kill-task"));
        assert_eq!(sandbox.tell("doomed"), "doomed: SIGKILL\n", "{moment}");
        sandbox.expect_none_left();
        sandbox.finish();
    }
}

#[test]
fn a_server_that_was_taken_over_hands_nothing_else_to_a_program() {
    let (status, printed) = with_rdma("server.made=garbage", "dma-buf");
    assert_eq!(
        (status, printed.as_str()),
        (0, "one object: EIO: I/O error\n")
    );
}

/// That the test above can fail.
#[test]
fn a_server_that_was_taken_over_hands_anything_to_a_program_if_nobody_looks() {
    let (status, printed) = with_rdma("server.made=garbage sentry.handed=drop", "dma-buf");
    assert_eq!(status, 0);
    let no_memory = "one object: 0 bytes, closed on execve: true\n";
    assert!(printed.starts_with(no_memory), "{printed}");
}
