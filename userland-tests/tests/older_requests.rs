//! The older requests by which graphics programs ask for memory: the limits hold for them as for the newer ones.

use userland_tests::{Ended, finish, guest_under_with, guest_with};

const LIMITED: &[&str] = &[
    "--gpu-memory",
    "4GiB",
    "--host-memory",
    "64MiB",
    "--driver-capabilities",
    "compute,utility,graphics",
];

/// What a scenario prints with 4 GiB of each GPU and 64 MiB of the host's memory.
fn printed(scenario: &str) -> Ended {
    finish(&mut guest_with(LIMITED, &[scenario]))
}

/// That a scenario succeeds and prints this. What is refused is warned of besides.
fn said(scenario: &str, expected: &str) {
    let ended = printed(scenario);
    assert_eq!(ended.stdout, expected, "{ended:?}");
    assert_eq!(ended.status, 0, "{ended:?}");
}

/// What a scenario prints where what these rules say goes wrong.
fn printed_with(rules: &str, scenario: &str) -> Ended {
    finish(&mut guest_under_with(rules, LIMITED, &[scenario]))
}

const REFUSED: &str = "\
of a node of the host: NV_ERR_NOT_SUPPORTED
addresses: ok
with tables of the host: NV_ERR_NOT_SUPPORTED
function 3: NV_ERR_NOT_SUPPORTED
function 5: NV_ERR_NOT_SUPPORTED
function 6: NV_ERR_NOT_SUPPORTED
function 14: NV_ERR_NOT_SUPPORTED
function 15: NV_ERR_NOT_SUPPORTED
function 16: NV_ERR_NOT_SUPPORTED
function 18: NV_ERR_NOT_SUPPORTED
function 19: NV_ERR_NOT_SUPPORTED
function 20: NV_ERR_NOT_SUPPORTED
function 27: NV_ERR_NOT_SUPPORTED
on a GPU's node: EINVAL
";

#[test]
fn memory_by_flags_is_had_up_to_the_limits() {
    let expected = "\
3 GiB: ok
2 GiB more: NV_ERR_NO_MEMORY
by the newer request: NV_ERR_NO_MEMORY
1024 MiB are free
a byte more: NV_ERR_NO_MEMORY
4 GiB, freed: ok
2^64 - 1: NV_ERR_NO_MEMORY
of no GPU: NV_ERR_INVALID_OBJECT_PARENT
48 MiB of the host: ok
32 MiB more: NV_ERR_NO_MEMORY
freed: ok
";
    let expected = expected.to_owned() + REFUSED;
    said("limit-by-flags", &expected);
}

/// That the test above can fail: 5 GiB of a GPU are had under a limit of 4, and 80 MiB of the host under one of 64.
#[test]
fn memory_by_flags_is_without_end_if_it_is_not_charged() {
    let ended = printed_with("server.counted=drop", "limit-by-flags");
    for had in [
        "3 GiB: ok\n2 GiB more: ok\n",
        "48 MiB of the host: ok\n32 MiB more: ok\n",
    ] {
        assert!(ended.stdout.contains(had), "{ended:?}");
    }
}

/// What `older-memory` prints, where `registers` become of an object for them.
fn without_memory(size: u32, registers: &str) -> Ended {
    Ended::printing(&format!(
        "the GPU has {size} MiB\n4 GiB of it: ok\nregisters: {registers}\n\
         all of it mapped: NV_ERR_NOT_SUPPORTED\nthe registers mapped: NV_ERR_OBJECT_NOT_FOUND\n"
    ))
}

#[test]
fn classes_without_memory_tell_of_the_limit_and_show_nothing() {
    assert_eq!(printed("older-memory"), without_memory(4 << 10, "ok"));
    let graphics = &LIMITED[4..];
    let unlimited = finish(&mut guest_with(graphics, &["older-memory"]));
    assert_eq!(unlimited, without_memory(80 << 10, "ok"));
}

/// The driver makes no object for registers: it is answered in its place.
#[test]
fn registers_are_asked_of_the_driver_if_nobody_answers_in_its_place() {
    let ended = printed_with("server.instead=drop", "older-memory");
    let expected = without_memory(4 << 10, "NV_ERR_INVALID_CLASS");
    assert_eq!(ended, expected);
}

#[test]
fn the_older_command_tells_of_the_limit() {
    let expected = Ended::printing("ram 4096\nheap 4096\nfree 3072\n");
    assert_eq!(printed("older-shown"), expected);
}

#[test]
fn events_are_no_callbacks_and_the_watchdog_is_left_alone() {
    let expected = "\
an event: ok
a callback: NV_ERR_INVALID_CLASS
of itself: NV_ERR_INVALID_CLASS
the watchdog: ok
the watchdog of another object: ok
";
    said("older-events", expected);
}

/// That the driver was not asked above: it has no such command for another object.
#[test]
fn the_watchdog_is_asked_for_if_nobody_answers_in_the_drivers_place() {
    let ended = printed_with("server.instead=drop", "older-events");
    let expected = "the watchdog: ok\nthe watchdog of another object: NV_ERR_NOT_SUPPORTED\n";
    assert!(ended.stdout.ends_with(expected), "{ended:?}");
}

#[test]
fn no_memory_of_the_host_has_a_handle_that_nobody_is_told() {
    let expected = "0 times 8 MiB, then NV_ERR_INVALID_OBJECT_HANDLE\n";
    said("older-untold", expected);
}

/// That the test above can fail: 160 MiB are had under a limit of 64, and more, since each takes the place of the one before.
#[test]
fn memory_of_the_host_is_without_end_if_nobody_is_told_its_handle() {
    let ended = printed_with("sentry.values=drop server.values=drop", "older-untold");
    assert_eq!(ended, Ended::printing("20 times 8 MiB, then ok\n"));
}
