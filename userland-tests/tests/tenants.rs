//! Other tenants of the machine: a sandbox names none of their GPUs and is told nothing of them.

use userland_tests::{Ended, finish, guest_under_with, guest_with};

/// What a scenario prints with `--gpus GPUS`.
fn printed(gpus: &str, scenario: &[&str]) -> Ended {
    finish(&mut guest_with(&["--gpus", gpus], scenario))
}

/// The same where the server leaves out what keeps tenants apart.
fn printed_without(rules: &str, gpus: &str, scenario: &[&str]) -> Ended {
    finish(&mut guest_under_with(rules, &["--gpus", gpus], scenario))
}

/// What `named-gpus` prints where what is not given is answered with `other`.
fn named(other: impl Fn(&str) -> String) -> String {
    let list = |what: &str, status: &str| {
        let other = other(status);
        format!("{what}: ok {other} {other}\n")
    };
    let one = |what: &str, status: &str| format!("{what}: ok {}\n", other(status));
    let invalid = "NV_ERR_INVALID_ARGUMENT";
    [
        list("attach to the description", "EINVAL"),
        list("attach", invalid),
        list("detach", invalid),
        list("peers", invalid),
        list("peers, second form", invalid),
        list("matrix of peers", invalid),
        format!("attach all: {}\ndetach all: ok\n", other(invalid)),
        one("begin to attach", invalid),
        one("wait until it is attached", invalid),
        one("information", invalid),
        one("information, second form", invalid),
        one("place on the bus", "NV_ERR_OBJECT_NOT_FOUND"),
        one("UUID", "NV_ERR_OBJECT_NOT_FOUND"),
        one("whether it is drained", "NV_ERR_OBJECT_NOT_FOUND"),
        one("whether it is accounted", invalid),
        one("register with UVM", "NV_ERR_GPU_UUID_NOT_FOUND"),
    ]
    .concat()
}

#[test]
fn a_gpu_that_was_not_given_is_answered_like_one_that_does_not_exist() {
    let expected = Ended::printing(&named(str::to_owned));
    assert_eq!(printed("0", &["named-gpus", "0", "1"]), expected);
    assert_eq!(printed("1", &["named-gpus", "1", "0"]), expected);
    assert_eq!(printed("0,1", &["named-gpus", "0", "7"]), expected);
}

#[test]
fn a_gpu_that_was_given_is_named() {
    let expected = Ended::printing(&named(|_| "ok".to_owned()));
    let listed = printed("0,1", &["named-gpus", "0", "1"]);
    assert_eq!(
        listed,
        Ended::printing(
            &expected
                .stdout
                .replace("attach all: ok", "attach all: NV_ERR_INVALID_ARGUMENT")
        )
    );
}

/// That the tests above can fail.
#[test]
fn a_gpu_that_was_not_given_is_named_if_names_are_not_checked() {
    let expected = Ended::printing(&named(|_| "ok".to_owned()));
    let named = printed_without("server.named=drop", "0", &["named-gpus", "0", "1"]);
    assert_eq!(named, expected);
}

/// What `told-gpus` prints of GPUs with these ids.
fn told(ids: &[u32], groups: &str) -> Ended {
    Ended::printing(&format!(
        "probed {ids:x?}, excluded []\nattached {ids:x?}\nactive {ids:x?}\ncards {ids:x?}\n{groups}\n"
    ))
}

#[test]
fn gpus_that_were_not_given_are_not_told_of() {
    let none = "groups 0, with [0, 0]";
    assert_eq!(printed("0", &["told-gpus"]), told(&[0x100], none));
    assert_eq!(printed("1", &["told-gpus"]), told(&[0x200], none));
    assert_eq!(printed("0,1", &["told-gpus"]), told(&[0x100, 0x200], none));
}

/// That the test above can fail.
#[test]
fn gpus_that_were_not_given_are_told_of_if_answers_are_not_cleared() {
    let one = "groups 1, with [100, 200]";
    let expected = told(&[0x100, 0x200], one);
    assert_eq!(
        printed_without("server.told=drop", "1", &["told-gpus"]),
        expected
    );
}

/// What `told-processes` prints where `process` is told of each engine.
fn processes(process: &str, last: &str) -> Ended {
    let engines = ["fb", "gr", "nvenc", "nvdec", "nvjpg", "nvofa"];
    let engines = engines.map(|engine| format!("{engine}: 5000 of 10000, {process}\n"));
    Ended::printing(&format!("{}last: process {last}\n", engines.concat()))
}

#[test]
fn processes_of_others_are_not_told_of() {
    let nobody = "process ffffffff, in a guest ffffffff \"\", at 000000000";
    assert_eq!(
        printed("0", &["told-processes"]),
        processes(nobody, "ffffffff")
    );
}

/// That the test above can fail.
#[test]
fn processes_of_others_are_told_of_if_answers_are_not_cleared() {
    let somebody = "process 1092, in a guest 1092 \"another tenant's\", at ffff888102345600";
    let told = printed_without("server.told=drop", "0", &["told-processes"]);
    assert_eq!(told, processes(somebody, "0"));
}

/// What `block-size` prints where the driver answers the second time with `second`, and has `kept` afterwards.
fn block_size(second: &str, kept: &str) -> Ended {
    Ended::printing(&format!(
        "100000: ok\n40000000: {second}\nthe driver has {kept}\n"
    ))
}

#[test]
fn the_size_of_memory_blocks_does_not_reach_the_driver() {
    assert_eq!(printed("0", &["block-size"]), block_size("ok", "0"));
}

/// That the test above can fail: who says it first says it for the whole machine.
#[test]
fn the_size_of_memory_blocks_is_set_if_it_is_issued() {
    let set = printed_without("server.instead=drop", "0", &["block-size"]);
    assert_eq!(set, block_size("EBUSY", "100000"));
}

/// What `check-releases` prints: as the driver answers, but that of a call that failed a program sees no parameters.
const RELEASES: &str = "\
0: ok, the driver's (0 1)
0: EINVAL, its own (0 0)
49: ok, the driver's (49 1)
49: ok, its own (49 1)
50: ok, the driver's (50 1)
of another branch: EINVAL
";

#[test]
fn the_driver_has_no_wrong_release_to_complain_of() {
    assert_eq!(printed("0", &["check-releases"]), Ended::printing(RELEASES));
}

/// That the test above can fail: each wrong one is a complaint, in the program's words.
#[test]
fn the_driver_complains_of_a_wrong_release_that_reaches_it() {
    let ended = printed_without("server.instead=drop", "0", &["check-releases"]);
    assert_eq!(ended.stdout, RELEASES);
    let complaints = ended.stderr.lines();
    let complaints = complaints.filter(|line| line.contains("NVRM: API mismatch"));
    assert_eq!(complaints.count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("1.2.3"), "{}", ended.stderr);
}

/// What `values-for-all` is run with: profilers may ask what was set.
const VALUES: [&str; 4] = [
    "--gpus",
    "0",
    "--driver-capabilities",
    "compute,utility,profiling",
];

/// What `values-for-all` prints where what keeps tenants apart is left out.
fn values_without(rules: &str) -> Ended {
    finish(&mut guest_under_with(rules, &VALUES, &["values-for-all"]))
}

#[test]
fn what_would_change_a_gpu_for_others_is_passed_with_cudas_values_only() {
    let [unsupported, invalid] = ["NV_ERR_NOT_SUPPORTED", "NV_ERR_INVALID_ARGUMENT"];
    let boosts = [
        ("12", "ok"),
        ("10", "ok"),
        ("52", unsupported),
        ("1", unsupported),
    ];
    let boosts = boosts.map(|(flags, answer)| format!("boost {flags}: {answer}\n"));
    let slices = ["2048", "2049", "4000000", "4294967296"];
    let slices =
        slices.map(|slice| format!("timeslice {slice}: ok, still {slice}, 2048 to the driver\n"));
    let shares = (0..8).map(|kind| match kind {
        // The driver is told 4 in the place of 2 and 3.
        0 | 2..=4 => format!("share {kind}: ok ok ok ok\n"),
        // Of memory, which CUDA shares with other processes.
        1 => format!("share {kind}: {invalid} {invalid} {invalid} ok\n"),
        _ => format!("share {kind}: {invalid} {invalid} {invalid} {invalid}\n"),
    });
    let spaces = (0..5).map(|index| match index {
        0 | 3 => format!("address space {index}: ok\n"),
        _ => format!("address space {index}: {invalid}\n"),
    });
    let values = boosts.into_iter().chain(slices);
    let mut expected: String = values.chain(shares).chain(spaces).collect();
    expected += "\
address space of the fabric's: NV_ERR_NOT_SUPPORTED
device of own client, flags 0: ok
device of other client, flags 0: NV_ERR_INVALID_CLIENT
device of own client, flags 4: ok
descriptor of kind 0: asked
descriptor of kind 1: NV_ERR_NOT_SUPPORTED
descriptor of kind 2: NV_ERR_NOT_SUPPORTED
";
    let ended = finish(&mut guest_with(&VALUES, &["values-for-all"]));
    assert_eq!(ended.stdout, expected, "{ended:?}");
    assert_eq!(ended.status, 0);
}

/// That the test above can fail: a group has the GPU for as long as the program wishes.
#[test]
fn a_timeslice_is_as_long_as_a_program_wishes_if_the_driver_is_told() {
    let ended = values_without("server.forced-bits=drop");
    let told = "timeslice 4000000: ok, still 4000000, 4000000 to the driver\n";
    assert!(ended.stdout.contains(told), "{ended:?}");
}

/// That the test above can fail: all that a client has could be copied by everybody.
#[test]
fn a_client_and_its_device_are_shared_with_everybody_if_nobody_looks() {
    let ended = values_without("server.shared=drop");
    let shared = "share 1: NV_ERR_INVALID_ARGUMENT ok ok ok\n";
    assert!(ended.stdout.contains(shared), "{ended:?}");
}

/// What `chosen-clients` prints where a handle of one's choice is answered so: as a client's root, and as a new object's
/// handle, of which the driver takes no notice.
fn chosen_clients(free: &str, anothers: &str, ignored: &str) -> String {
    let lines = ["0", "1", "41"].into_iter().flat_map(|class| {
        let of = |whose: &str, answer: &str| {
            format!(
                "{class} 0 0: ok ok\n\
                 {class} {whose} 0: {answer} {answer}\n\
                 {class} 0 {whose}: {ignored} {ignored}\n\
                 {class} {whose} {whose}: {answer} {answer}\n"
            )
        };
        [of("free", free), of("another's", anothers)]
    });
    lines.collect()
}

#[test]
fn no_program_chooses_the_handle_of_a_client() {
    let invalid = "NV_ERR_INVALID_ARGUMENT";
    let ended = printed("0", &["chosen-clients"]);
    assert_eq!(ended.stdout, chosen_clients(invalid, invalid, invalid));
    assert_eq!(ended.status, 0);
}

/// That the test above can fail: of another tenant's handle a program is told that it exists, and a free one it is given.
#[test]
fn a_program_chooses_the_handle_of_a_client_and_learns_of_others_if_nobody_looks() {
    let without = |rules| printed_without(rules, "0", &["chosen-clients"]).stdout;
    let all = "sentry.values=drop server.values=drop server.owned=drop";
    let told = chosen_clients("ok", "NV_ERR_INSERT_DUPLICATE_NAME", "ok");
    assert_eq!(without(all), told);
    // Either of the two suffices.
    let values = "sentry.values=drop server.values=drop";
    let unknown = "NV_ERR_INVALID_OBJECT_HANDLE";
    assert_eq!(without(values), chosen_clients(unknown, unknown, "ok"));
    let invalid = "NV_ERR_INVALID_ARGUMENT";
    let refused = chosen_clients(invalid, invalid, invalid);
    assert_eq!(without("server.owned=drop"), refused);
}

/// That the test of what would change a GPU for others can fail, for address spaces of the GPU's own.
#[test]
fn address_spaces_of_the_gpus_own_are_entered_if_values_are_not_looked_at() {
    let rules = "sentry.values=drop server.values=drop";
    let ended = values_without(rules);
    for index in 0..5 {
        let entered = format!("address space {index}: ok\n");
        assert!(ended.stdout.contains(&entered), "{ended:?}");
    }
}

/// The same, for devices that keep another client's number, and pins of addresses in the kernel, which the driver believes.
#[test]
fn devices_and_pins_of_other_kinds_are_made_if_nobody_looks() {
    let without = |rules| values_without(rules).stdout;
    let owned = without("server.owned=drop");
    assert!(
        owned.contains("device of other client, flags 0: ok\n"),
        "{owned}"
    );
    let values = without("sentry.values=drop server.values=drop");
    let kept = "device of other client, flags 0: NV_ERR_INVALID_CLIENT\n";
    assert!(values.contains(kept), "{values}");
    for kind in [1, 2] {
        let pinned = format!("descriptor of kind {kind}: ok\n");
        assert!(values.contains(&pinned), "{values}");
    }
}

/// The server looks by itself, too: what a sentry that was taken over lets pass goes no further.
#[test]
fn the_server_looks_at_values_by_itself() {
    let ended = values_without("sentry.values=drop");
    for index in [1, 2, 4] {
        let refused = format!("address space {index}: EPROTO\n");
        assert!(ended.stdout.contains(&refused), "{ended:?}");
    }
    for kind in [1, 2] {
        let refused = format!("descriptor of kind {kind}: EPROTO\n");
        assert!(ended.stdout.contains(&refused), "{ended:?}");
    }
    let warning = " WARN refused after the sentry let it pass: ";
    assert!(ended.stderr.starts_with(warning), "{ended:?}");
}
