//! What programs ask of the driver, and what they get.

use std::collections::BTreeSet;

use nvproxy_abi::node::{OPEN_ONLY, Series};
use nvproxy_abi::policy::Capabilities;
use userland_tests::{Ended, finish, guest, guest_under, guest_with, prints};

#[test]
fn a_program_walks_from_enumeration_to_freeing() {
    let expected = "\
gpus [100, 200]
allocated 67108864 bytes of GPU memory
read back 65536 bytes through nvidiactl
read back 65536 bytes through nvidia0
before the trigger 0 ready
after the trigger 1 ready
freed all but 0 bytes
";
    prints(&["walk"], expected);
}

/// Nodes that no sandbox is given are not there. One that has them can open them, make no request on them, and name them.
#[test]
fn open_only_nodes_can_be_opened_and_take_no_request() {
    let lines = |are_all_given: bool| -> String {
        let line = |series: &'static Series| {
            let came_to = match are_all_given || series.is_for(Capabilities::default()) {
                true => "opened; a request: ENOTTY; named in one: ok",
                false => "ENOENT",
            };
            let name = series.first().file_name();
            format!("/dev/{name}: {came_to}\n")
        };
        OPEN_ONLY.iter().map(line).collect()
    };
    prints(&["open-only"], &lines(false));
    let given = finish(&mut guest_under("sentry.open-only=drop", &["open-only"]));
    assert_eq!(given.stdout, lines(true), "{}", given.stderr);
}

#[test]
fn wrong_handles_sizes_and_classes_get_the_drivers_statuses() {
    let stdout = "\
missing client: NV_ERR_INVALID_CLIENT
client of another description: NV_ERR_INVALID_CLIENT
missing object: NV_ERR_OBJECT_NOT_FOUND
command of another class: NV_ERR_NOT_SUPPORTED
parameters of another size: NV_ERR_INVALID_ARGUMENT
parameters missing: NV_ERR_INVALID_ARGUMENT
argument of another size: EINVAL
on another node: EINVAL
missing parent: NV_ERR_OBJECT_NOT_FOUND
parent of another class: NV_ERR_INVALID_OBJECT_PARENT
class that this GPU lacks: NV_ERR_NOT_SUPPORTED
no bytes: NV_ERR_INVALID_ARGUMENT
allocated: ok
handle in use: NV_ERR_INSERT_DUPLICATE_NAME
mapping more than there is: NV_ERR_INVALID_LIMIT
freed: ok
freed again: ok
mapping what was freed: NV_ERR_OBJECT_NOT_FOUND
";
    let stderr = " \
 WARN nvproxy: control command 0x20800110 (NV2080_CTRL_CMD_GPU_GET_NAME_STRING) with parameters of 131 bytes
 WARN nvproxy: ioctl 0x29 (NV_ESC_RM_FREE) with parameters of 20 bytes
";
    let expected = Ended {
        status: 0,
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    };
    assert_eq!(finish(&mut guest(&["statuses"])), expected);
}

/// The driver looks neither at the type nor at the direction of a word.
#[test]
fn a_request_is_the_same_whatever_the_type_of_its_word() {
    prints(&["types"], "one request\n");
}

#[test]
fn unknown_requests_are_refused_as_the_driver_would_and_reported_once() {
    let each =
        "NV_ERR_NOT_SUPPORTED NV_ERR_NOT_SUPPORTED NV_ERR_INVALID_CLASS EINVAL ENOSYS\nthen ok\n";
    let stderr = " \
 WARN nvproxy: unknown control command 0x20807fff
 WARN nvproxy: unknown control command 0x20800112 (NV2080_CTRL_CMD_GPU_SET_POWER)
 WARN nvproxy: unknown class 0xfeed
 WARN nvproxy: unknown ioctl 0x77
 WARN nvproxy: unknown UVM ioctl 0x7e
";
    let expected = Ended {
        status: 0,
        stdout: each.repeat(10),
        stderr: stderr.to_owned(),
    };
    assert_eq!(finish(&mut guest(&["unknown", "10"])), expected);
}

#[test]
fn memory_that_is_not_there_fails_the_request_and_nothing_else() {
    let expected = "\
argument nowhere: EFAULT
argument in the kernel: EFAULT
argument on a page without access: EFAULT
argument that ends on one: EFAULT
argument of UVM's on one: EFAULT
parameters nowhere: NV_ERR_INVALID_ADDRESS
parameters on a page without access: NV_ERR_INVALID_ADDRESS
parameters that end on one: NV_ERR_INVALID_ADDRESS
list that ends on one: NV_ERR_INVALID_ADDRESS
list that ends in time: ok
argument that cannot be written: EFAULT
after all that: ok
";
    prints(&["bad-pointers"], expected);
}

#[test]
fn closed_and_foreign_descriptors_are_refused() {
    let targets = "\
client on a closed one: EBADF
UVM on a closed one: EBADF
client on /dev/null: ENOTTY
client on a pipe: ENOTTY
UVM on a pipe: ENOTTY
client on UVM: ENOSYS
";
    let fields = [
        "none",
        "a closed one",
        "a number that was one",
        "/dev/null",
        "UVM",
        "a GPU",
    ]
    .map(|wrong| {
        format!(
            "registered with {wrong}: EINVAL\n\
             mapped through {wrong}: NV_ERR_INVALID_ARGUMENT\n\
             exported to {wrong}: NV_ERR_INVALID_PARAMETER\n"
        )
    });
    let expected = Ended {
        status: 0,
        stdout: format!("{targets}{}after all that: ok\n", fields.concat()),
        stderr: " WARN nvproxy: unknown UVM ioctl 0xc020462b\n".to_owned(),
    };
    assert_eq!(finish(&mut guest(&["bad-descriptors"])), expected);
}

#[test]
fn memory_runs_out_and_comes_back() {
    let expected = "\
81 GiB: NV_ERR_NO_MEMORY
allocations of 10 GiB: 8, free bytes: 0
one more byte: NV_ERR_NO_MEMORY
11 GiB where 10 were freed: NV_ERR_NO_MEMORY
10 GiB: ok
2^64 bytes of the host's: NV_ERR_NO_MEMORY
1 MiB of the host's: ok
";
    prints(&["memory-limit"], expected);
}

#[test]
fn unified_memory_is_set_up_and_taken_apart() {
    // The flag for several processes, which the server adds, is not shown to the program.
    let expected = "\
before it is initialized: NV_ERR_ILLEGAL_ACTION
initialize: ok
its flags and status: 0x0 0x0
register a GPU: ok
once more: NV_ERR_INVALID_DEVICE
elsewhere: ok
tie its address space: ok
create a range: ok
map: ok
allocated: 1048576
free half of the range: NV_ERR_INVALID_ADDRESS
free the range: ok
allocated: 0
untie: ok
unregister: ok
";
    prints(&["uvm"], expected);
}

#[test]
fn objects_are_exported_to_another_task() {
    prints(&["export"], "imported as 0x1007\nholds parcel\nfreed\n");
}

/// What the scenario `visible` prints with these GPUs, by minor number.
fn visible(minors: &[u32]) -> Ended {
    let mut nodes = BTreeSet::from(["nvidia-uvm".to_owned(), "nvidiactl".to_owned()]);
    nodes.extend(minors.iter().map(|minor| format!("nvidia{minor}")));
    let open_only = OPEN_ONLY.iter();
    let open_only = open_only.filter(|series| series.is_for(Capabilities::default()));
    nodes.extend(open_only.map(|series| {
        let name = series.first().file_name();
        // Those of a directory are seen by its name.
        name.split_once('/')
            .map_or(name.clone(), |(directory, _)| directory.to_owned())
    }));
    let nodes: Vec<String> = nodes.into_iter().collect();
    let gpu = |minor: u32| {
        if minors.contains(&minor) {
            "ok"
        } else {
            "ENOENT"
        }
    };
    let ids: Vec<u32> = minors.iter().map(|minor| (minor + 1) << 8).collect();
    Ended::printing(&format!(
        "nodes {nodes:?}\nnvidiactl: ok\nnvidia0: {}\nnvidia1: {}\nnvidia2: ENOENT\nnvidia-uvm: ok\n\
         probed {ids:x?}\nminors {minors:?}\n",
        gpu(0),
        gpu(1)
    ))
}

const FIRST_UUID: &str = "GPU-73696d75-6c61-7465-6420-475055200000";
const SECOND_UUID: &str = "GPU-73696d75-6c61-7465-6420-475055200001";

#[test]
fn the_sandbox_has_the_gpus_that_were_chosen() {
    let chosen = |gpus: &str| finish(&mut guest_with(&["--gpus", gpus], &["visible"]));
    assert_eq!(chosen("all"), visible(&[0, 1]));
    assert_eq!(chosen("0,1"), visible(&[0, 1]));
    assert_eq!(chosen("0"), visible(&[0]));
    assert_eq!(chosen("1"), visible(&[1]));
    assert_eq!(chosen(SECOND_UUID), visible(&[1]));
    assert_eq!(chosen(&format!("0,{FIRST_UUID}")), visible(&[0]));
    let none = "nodes []\nnvidiactl: ENOENT\nnvidia0: ENOENT\nnvidia1: ENOENT\nnvidia2: ENOENT\nnvidia-uvm: ENOENT\n";
    assert_eq!(chosen("none"), Ended::printing(none));
}

#[test]
fn gpus_that_do_not_exist_are_named() {
    let there = format!("0 ({FIRST_UUID}), 1 ({SECOND_UUID})");
    for wrong in ["2", "GPU-1234"] {
        let line = format!("ringfence: --gpus: this machine has no GPU {wrong}; it has {there}");
        let ended = finish(&mut guest_with(
            &["--gpus", &format!("0,{wrong}")],
            &["walk"],
        ));
        assert_eq!(ended, Ended::failing(125, &line));
    }
}
