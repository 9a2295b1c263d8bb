//! What programs ask of the driver, and what they get.

use userland_tests::{Ended, finish, guest, guest_with};

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
    assert_eq!(finish(&mut guest(&["walk"])), Ended::printing(expected));
}

#[test]
fn wrong_handles_sizes_and_classes_get_the_drivers_statuses() {
    let expected = "";
    assert_eq!(finish(&mut guest(&["statuses"])), Ended::printing(expected));
}

/// What the log says of the requests of the scenario `unknown`.
const REFUSALS: [&str; 5] = [
    "nvproxy: unknown control command 0x2080ffff",
    "nvproxy: unknown control command 0x20800112 (NV2080_CTRL_CMD_GPU_SET_POWER)",
    "nvproxy: unknown class 0xfeed",
    "nvproxy: unknown ioctl 0x77",
    "nvproxy: unknown UVM ioctl 0x7e",
];

#[test]
fn unknown_requests_are_refused_as_the_driver_would_and_reported_once() {
    let each = "NV_ERR_NOT_SUPPORTED NV_ERR_NOT_SUPPORTED NV_ERR_INVALID_CLASS EINVAL ENOSYS\nthen ok\n";
    let expected = Ended {
        status: 0,
        stdout: each.repeat(10),
        stderr: REFUSALS.map(|line| format!(" WARN {line}\n")).concat(),
    };
    assert_eq!(finish(&mut guest(&["unknown", "10"])), expected);
}

#[test]
fn memory_that_is_not_there_fails_the_request_and_nothing_else() {
    let expected = "";
    assert_eq!(finish(&mut guest(&["bad-pointers"])), Ended::printing(expected));
}

#[test]
fn closed_and_foreign_descriptors_are_refused() {
    let expected = "";
    assert_eq!(finish(&mut guest(&["bad-descriptors"])), Ended::printing(expected));
}

#[test]
fn memory_runs_out_and_comes_back() {
    let expected = "";
    assert_eq!(finish(&mut guest(&["memory-limit"])), Ended::printing(expected));
}

#[test]
fn unified_memory_is_set_up_and_taken_apart() {
    let expected = "";
    assert_eq!(finish(&mut guest(&["uvm"])), Ended::printing(expected));
}

#[test]
fn objects_are_exported_to_another_task() {
    let expected = "imported as 0x1007\nholds parcel\nfreed\n";
    assert_eq!(finish(&mut guest(&["export"])), Ended::printing(expected));
}

#[test]
fn the_sandbox_has_the_gpus_that_were_chosen() {
    let visible = |gpus: &str| finish(&mut guest_with(&["--gpus", gpus], &["visible"]));
    let both = "";
    assert_eq!(visible("all"), Ended::printing(both));
}
