//! `--gpu-memory`: how much of a GPU a sandbox gets, by whichever way it asks, and what it is told.

use std::process::Stdio;

use userland_tests::{Ended, finish, guest, guest_with, wait_for};

const LIMITED: &[&str] = &["--gpu-memory", "4GiB"];

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
fn a_limit_that_is_none_is_refused() {
    for (size, problem) in [
        (
            "plenty",
            "'plenty' is no size: write a whole number of bytes, or one with a unit, as in 512MiB or 4GiB",
        ),
        ("0", "it has to be more than 0"),
        ("16384PiB", "'16384PiB' is more than 2^64 bytes"),
    ] {
        let ended = finish(&mut guest_with(&["--gpu-memory", size], &["walk"]));
        assert_eq!((ended.status, ended.stdout.as_str()), (125, ""));
        let expected =
            format!("error: invalid value '{size}' for '--gpu-memory <SIZE>': {problem}\n");
        let line = ended.stderr.lines().next().unwrap_or_default();
        assert_eq!(format!("{line}\n"), expected);
    }
}
