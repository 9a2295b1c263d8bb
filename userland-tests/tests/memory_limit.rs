//! `--gpu-memory` and `--host-memory`: how much of a GPU, and of the host, a sandbox gets, by whichever way it asks, and
//! what it is told.

use std::process::Stdio;

use userland_tests::{Ended, finish, guest, guest_under_with, guest_with, wait_for};

const LIMITED: &[&str] = &["--gpu-memory", "4GiB", "--host-memory", "1TiB"];

/// Runs a scenario with 4 GiB of each GPU, which has to succeed and to print exactly this.
fn prints_with_4_gib(scenario: &str, expected: &str) {
    let ended = finish(&mut guest_with(LIMITED, &[scenario]));
    assert_eq!(ended, Ended::printing(expected));
}

#[test]
fn memory_is_had_up_to_the_limit_and_comes_back_by_every_way() {
    let expected = "\
5 GiB: NV_ERR_NO_MEMORY
3 GiB: ok
2 GiB more: NV_ERR_NO_MEMORY
1 GiB more: ok
one more byte: NV_ERR_NO_MEMORY
of the host's: ok
a handle in use: NV_ERR_NO_MEMORY
3 GiB, freed: ok
4 GiB, freed with the device: ok
under nothing: NV_ERR_OBJECT_NOT_FOUND
4 GiB, after a refusal: ok
another client: NV_ERR_NO_MEMORY
4 GiB, freed with the client: ok
4 GiB, freed with the description: ok
4 GiB, freed with the process: ok
";
    prints_with_4_gib("limit", expected);
}

#[test]
fn copies_are_charged_once_in_whichever_order_they_are_freed() {
    let each = |order: &str| {
        format!(
            "copied: ok\n1 GiB more: ok\nand more: NV_ERR_NO_MEMORY\n{order}: NV_ERR_NO_MEMORY\nthen the other: ok\n"
        )
    };
    let orders = each("the original first") + &each("the copy first");
    let expected = orders + "copied, of nothing: NV_ERR_OBJECT_NOT_FOUND\n";
    prints_with_4_gib("limit-copies", &expected);
}

#[test]
fn memory_on_its_way_to_another_process_is_charged_once() {
    let expected = "\
in the description: NV_ERR_NO_MEMORY
imported besides: NV_ERR_NO_MEMORY
1 GiB: ok
imported alone: NV_ERR_NO_MEMORY
all: ok
";
    prints_with_4_gib("limit-exports", expected);
}

#[test]
fn what_is_mapped_is_charged_until_it_is_mapped_no_longer() {
    let freed = |how: &str| format!("{how}: NV_ERR_NO_MEMORY, then ok\n");
    let expected = [
        "the range freed",
        "unmapped",
        "another mapped there",
        "the GPU's address space taken away",
        "the GPU unregistered",
    ]
    .map(freed)
    .concat()
        + "\
half of it unmapped: NV_ERR_NO_MEMORY
the same range freed in another address space: NV_ERR_NO_MEMORY
free 1024 MiB
1 GiB more: ok
the address space closed: ok
the process ended: ok
";
    prints_with_4_gib("limit-mappings", &expected);
}

#[test]
fn each_gpu_has_the_limit() {
    let expected = "\
first: ok
second: ok
first again: NV_ERR_NO_MEMORY
second again: NV_ERR_NO_MEMORY
second still: NV_ERR_NO_MEMORY
free 0
";
    prints_with_4_gib("limit-gpus", expected);
}

#[test]
fn threads_at_once_get_no_more_than_the_limit() {
    prints_with_4_gib("limit-threads", &"4096 MiB\nfree 0\n".repeat(2));
}

#[test]
fn two_sandboxes_have_a_limit_each() {
    let start = || {
        guest_with(LIMITED, &["limit-held"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a sandbox")
    };
    let (first, second) = (start(), start());
    for sandbox in [first, second] {
        let expected = Ended::printing("all: ok\nmore: NV_ERR_NO_MEMORY\n");
        assert_eq!(wait_for(sandbox), expected);
    }
}

#[test]
fn the_program_is_told_of_the_limit() {
    let told = |all: u32, free: u32| {
        format!(
            "ram {all}, total {all}, heap {all}, bus width 5120, largest {free}, free {free}, usable {all}"
        )
    };
    let expected = |all: u32| {
        let (before, during) = (told(all, all), told(all, all - 1024));
        format!("nothing allocated: {before}\n1 GiB allocated: {during}\nfreed: {before}\n")
    };
    prints_with_4_gib("limit-shown", &expected(4 << 10));
    let unlimited = Ended::printing(&expected(80 << 10));
    assert_eq!(finish(&mut guest(&["limit-shown"])), unlimited);
    // More than there is changes nothing.
    let generous = finish(&mut guest_with(&["--gpu-memory", "100G"], &["limit-shown"]));
    assert_eq!(generous, unlimited);
}

#[test]
fn what_the_driver_takes_is_charged_and_not_what_was_asked_for() {
    let ended = finish(&mut guest_with(
        &["--gpu-memory", "64MiB"],
        &["limit-taken"],
    ));
    let expected = "\
1024 objects of 1 byte
a small page: 4096 bytes
1 byte at a fixed address: 65536 bytes
the same, aligned to 128 MiB: NV_ERR_NO_MEMORY
1 byte in a page of 512 MiB: NV_ERR_NO_MEMORY
all but 1 byte: 67108864 bytes
1 byte more than all: NV_ERR_NO_MEMORY
2^64 - 1: NV_ERR_NO_MEMORY
a device without parameters: NV_ERR_INVALID_ARGUMENT
all, of the first GPU: ok
more of it: NV_ERR_NO_MEMORY
of no GPU: NV_ERR_INVALID_OBJECT_PARENT
of a size that is not said: NV_ERR_INVALID_ARGUMENT
";
    let expected = Ended {
        stderr: " WARN nvproxy: class 0x80 (NV01_DEVICE_0) with parameters of 0 bytes\n".to_owned(),
        ..Ended::printing(expected)
    };
    assert_eq!(ended, expected);
}

/// Runs a scenario in which the driver may take 64 MiB of the host's memory; it has to succeed and to print exactly this.
fn prints_with_64_mib_of_the_host(scenario: &str, expected: &str) {
    let ended = finish(&mut guest_with(&["--host-memory", "64MiB"], &[scenario]));
    assert_eq!(ended, Ended::printing(expected));
}

#[test]
fn the_driver_takes_no_more_of_the_hosts_memory_than_the_limit() {
    let expected = "\
48 MiB: ok
32 MiB more: NV_ERR_NO_MEMORY
8 MiB more: ok
freed: ok
33 MiB in one piece: NV_ERR_NO_MEMORY
0xffffffffffffffff: NV_ERR_NO_MEMORY
up to 0xffffffffffffffff: NV_ERR_NO_MEMORY
0xfffffffffffff000: NV_ERR_NO_MEMORY
up to 0xfffffffffffff000: NV_ERR_NO_MEMORY
0x8000000000000000: NV_ERR_NO_MEMORY
up to 0x8000000000000000: NV_ERR_NO_MEMORY
after refusals: ok
48 MiB by the older request: ok
32 MiB more: NV_ERR_NO_MEMORY
33 MiB in one piece: NV_ERR_NO_MEMORY
freed: ok
a pool of 48 MiB: ok
32 MiB more: NV_ERR_NO_MEMORY
freed: ok
a pool of 80 MiB: NV_ERR_NO_MEMORY
another pool: NV_ERR_NO_MEMORY
its address space closed: ok
";
    prints_with_64_mib_of_the_host("limit-host", expected);
}

#[test]
fn the_hosts_memory_is_charged_as_long_as_anything_keeps_it() {
    let expected = "\
copied: ok
8 MiB more: ok
the original freed: NV_ERR_NO_MEMORY
the copy's device freed: ok
exported and freed: NV_ERR_NO_MEMORY
the description closed: ok
mapped and freed: NV_ERR_NO_MEMORY
the range freed: ok
the process ended: ok
";
    prints_with_64_mib_of_the_host("limit-host-keepers", expected);
}

#[test]
fn objects_count_for_the_records_that_the_driver_keeps_of_them() {
    // A page each: one client, its device and its subdevice have theirs.
    let expected = "\
16381 objects
one more: NV_ERR_INSUFFICIENT_RESOURCES
a client: NV_ERR_INSUFFICIENT_RESOURCES
freed: ok
";
    prints_with_64_mib_of_the_host("limit-host-records", expected);
}

/// What a scenario prints with 64 MiB of the host's memory where the server does not count address spaces, range groups
/// and what a request that failed has left.
fn printed_without_counting(scenario: &str) -> Ended {
    printed_with("server.counted=drop", &[scenario])
}

/// What a scenario prints with 64 MiB of the host's memory where what these rules say goes wrong.
fn printed_with(rules: &str, scenario: &[&str]) -> Ended {
    let options = ["--host-memory", "64MiB"];
    finish(&mut guest_under_with(rules, &options, scenario))
}

#[test]
fn address_spaces_and_range_groups_count_as_memory_of_the_host() {
    // 129 pages for each address space, a page for each group, of 16,384.
    let expected = "\
127 address spaces
one more: NV_ERR_NO_MEMORY
16255 range groups
one more: NV_ERR_INSUFFICIENT_RESOURCES
one destroyed: ok
another: ok
one more: NV_ERR_INSUFFICIENT_RESOURCES
";
    prints_with_64_mib_of_the_host("limit-host-spaces", expected);
}

#[test]
fn regions_of_unified_memory_count_as_memory_of_the_host() {
    let expected = "regions: NV_ERR_INSUFFICIENT_RESOURCES\n";
    prints_with_64_mib_of_the_host("limit-host-regions", expected);
}

/// That the test above the last can fail.
#[test]
fn address_spaces_and_range_groups_are_without_end_if_they_are_not_counted() {
    let expected = "\
200 address spaces
one more: ok
16384 range groups
one more: ok
one destroyed: ok
another: ok
one more: ok
";
    assert_eq!(
        printed_without_counting("limit-host-spaces"),
        Ended::printing(expected)
    );
}

#[test]
fn events_are_bounded_and_count_until_they_are_gone() {
    let refused = "NV_ERR_INSUFFICIENT_RESOURCES";
    let expected = format!(
        "4096 events\none more: {refused}\none freed: ok\nanother, elsewhere: ok\n\
         one more: {refused}\nclosed: ok\nthe client freed: ok\n"
    );
    prints_with_64_mib_of_the_host("limit-host-events", &expected);
}

/// That the test above can fail.
#[test]
fn events_are_without_end_if_they_are_not_counted() {
    let ended = printed_without_counting("limit-host-events");
    assert!(ended.stdout.starts_with("5000 events\n"), "{ended:?}");
}

#[test]
fn what_is_mapped_can_be_unmapped_when_there_is_no_room_for_a_record() {
    let expected = "\
full: NV_ERR_INSUFFICIENT_RESOURCES
unmapped: ok
";
    prints_with_64_mib_of_the_host("limit-host-unmapping", expected);
}

#[test]
fn what_the_driver_keeps_with_a_description_counts_until_that_is_closed() {
    let expected = "\
15 tables
one more: NV_ERR_NO_MEMORY
closed: ok
255 lists
one more: EINVAL
closed: ok
";
    prints_with_64_mib_of_the_host("limit-host-tables", expected);
}

/// That the test above can fail.
#[test]
fn tables_and_lists_of_descriptions_are_without_end_if_they_are_not_counted() {
    let expected = "\
500 tables
one more: ok
closed: ok
500 lists
one more: ok
closed: ok
";
    let ended = printed_without_counting("limit-host-tables");
    assert_eq!(ended, Ended::printing(expected));
}

/// Whoever wants data of an event gets an event without: the driver would keep the data for good.
#[test]
fn no_event_has_data_that_the_driver_would_keep() {
    let pending = |after| format!("posted: 1 pending\ntaken: {after} pending\n");
    let ended = finish(&mut guest(&["event-data"]));
    assert_eq!(ended, Ended::printing(&pending(0)));
    // That this can fail.
    let ended = printed_with("server.forced-bits=drop", &["event-data"]);
    assert_eq!(ended, Ended::printing(&pending(1)));
}

#[test]
fn memory_of_the_host_that_is_mapped_counts_whoever_frees_the_object() {
    let expected = "\
7 times 8 MiB
one more: NV_ERR_NO_MEMORY
unmapped: ok
";
    prints_with_64_mib_of_the_host("limit-host-mapped", expected);
}

/// That the test above can fail: 160 MiB are had under a limit of 64, and more.
#[test]
fn memory_of_the_host_that_is_mapped_is_free_if_nobody_notes_it() {
    let expected = "\
20 times 8 MiB
one more: ok
unmapped: ok
";
    let ended = printed_with("server.mapped=drop", &["limit-host-mapped"]);
    assert_eq!(ended, Ended::printing(expected));
}

#[test]
fn mapped_memory_of_the_host_counts_until_nothing_can_hold_it() {
    let freed = |way: &str| format!("{way} freed: NV_ERR_NO_MEMORY\nand unmapped: ok\n");
    let ways = ["the object", "its device", "its client", "its description"];
    let expected = ways.map(freed).concat()
        + "\
what the driver has unmapped: NV_ERR_NO_MEMORY
in a child: NV_ERR_NO_MEMORY
unmapped: ok
mapped by the older request: NV_ERR_NO_MEMORY
and closed: ok
";
    prints_with_64_mib_of_the_host("limit-host-mapped-kept", &expected);
}

#[test]
fn mapped_memory_of_the_host_counts_while_what_was_pinned_of_it_holds_it() {
    let expected = |then| format!("pinned, freed and unmapped: {then}\nunpinned: ok\n");
    let scenario = "limit-host-mapped-pinned";
    prints_with_64_mib_of_the_host(scenario, &expected("NV_ERR_NO_MEMORY"));
    // That this can fail.
    let ended = printed_with("server.kept=drop", &[scenario]);
    assert_eq!(ended, Ended::printing(&expected("ok")));
}

#[test]
fn memory_of_the_host_that_is_mapped_and_freed_again_and_again_leaves_nothing() {
    prints_with_64_mib_of_the_host("limit-host-mapped-back", "1000 times 40 MiB\n");
}

#[test]
fn memory_of_the_host_that_a_failed_request_leaves_counts() {
    let expected = "\
7 times EINVAL, then NV_ERR_NO_MEMORY
32 MiB more: NV_ERR_NO_MEMORY
freed: ok
";
    prints_with_64_mib_of_the_host("limit-host-left", expected);
}

/// That the test above can fail: 160 MiB are had under a limit of 64, and more.
#[test]
fn memory_of_the_host_that_a_failed_request_leaves_is_free_if_it_is_not_counted() {
    let expected = "\
20 times EINVAL, then EINVAL
32 MiB more: ok
freed: ok
";
    assert_eq!(
        printed_without_counting("limit-host-left"),
        Ended::printing(expected)
    );
}

/// Pins by processes that are killed meanwhile, with 64 MiB of the host's memory.
fn unheard(filter: &[&str], rules: &str) -> Ended {
    printed_with(rules, &[&["limit-host-unheard"], filter].concat())
}

const BY_A_FILTER: &[&str] = &["by a filter"];

/// Whether the driver's answer is known, or nobody was left to see it: then it stays until the client is freed.
#[test]
fn what_was_pinned_counts_if_the_process_is_killed_meanwhile() {
    for (filter, rules, then) in [
        (BY_A_FILTER, "", "ok"),
        (&[][..], "sentry.pin-checked=kill-task", "NV_ERR_NO_MEMORY"),
    ] {
        let ended = unheard(filter, rules);
        let expected = format!(
            "\
3 killed
32 MiB more: NV_ERR_NO_MEMORY
freed: ok
freed: ok
freed: ok
then: {then}
of another client: ok
"
        );
        let seen = (ended.status, ended.stdout.as_str());
        assert_eq!(seen, (0, expected.as_str()), "{ended:?}");
    }
}

/// That the test above can fail: pins are had without end.
#[test]
fn what_was_pinned_is_free_if_the_server_does_not_hear_of_it() {
    for (filter, rules) in [
        (BY_A_FILTER, "sentry.pin-answer=drop"),
        (
            &[][..],
            "sentry.pin-checked=kill-task sentry.pin-answer=drop",
        ),
    ] {
        let ended = unheard(filter, rules);
        let start = "8 killed\n32 MiB more: ok\n";
        assert!(ended.stdout.starts_with(start), "{ended:?}");
    }
}

/// Pins by a program, of which the driver could not write the answer, with 64 MiB of the host's memory.
fn unwritten(rules: &str) -> Ended {
    let rules = format!("sentry.pin-written=errno:{} {rules}", libc::EFAULT);
    printed_with(&rules, &["limit-host-unwritten"])
}

/// It may have pinned what it was asked to all the same.
#[test]
fn what_was_pinned_counts_if_the_driver_could_not_write_its_answer() {
    let expected = "3 unanswered\n32 MiB more: NV_ERR_NO_MEMORY\n";
    let ended = unwritten("");
    assert_eq!((ended.status, ended.stdout.as_str()), (0, expected));
}

/// The test above can fail.
#[test]
fn what_was_pinned_is_free_if_the_driver_is_taken_at_its_word() {
    let expected = "8 unanswered\n32 MiB more: ok\n";
    let ended = unwritten("sentry.pin-unwritten=drop");
    assert_eq!((ended.status, ended.stdout.as_str()), (0, expected));
}

#[test]
fn threads_at_once_get_no_more_of_the_hosts_memory_than_the_limit() {
    // The records of 63 objects, and of what there was before, take a part of the last.
    prints_with_64_mib_of_the_host("limit-host-threads", "63 MiB\n");
}

#[test]
fn half_of_the_memory_is_the_drivers_unless_another_limit_is_given() {
    let ended = finish(&mut guest_with(&[], &["limit-host-default"]));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let lines: Vec<u64> = ended
        .stdout
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let &[all, had] = &lines[..] else {
        panic!("{}", ended.stdout);
    };
    assert!(had > 0 && had <= all / 2, "{had} of {all} MiB");
}

#[test]
fn a_limit_that_is_none_is_refused() {
    for (size, problem) in [
        (
            "plenty",
            "'plenty' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G",
        ),
        (
            "-1",
            "'-1' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G",
        ),
        ("0", "it has to be more than 0"),
        ("16384PiB", "'16384PiB' is more than 2^64 - 1 bytes"),
    ] {
        for option in ["--gpu-memory", "--host-memory"] {
            let ended = finish(&mut guest_with(&[option, size], &["walk"]));
            assert_eq!((ended.status, ended.stdout.as_str()), (125, ""));
            let expected =
                format!("ringfence: invalid value '{size}' for '{option} <SIZE>': {problem}\n");
            let line = ended.stderr.lines().next().unwrap_or_default();
            assert_eq!(format!("{line}\n"), expected);
        }
    }
}
