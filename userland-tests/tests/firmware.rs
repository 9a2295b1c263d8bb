//! The commands that the GPU's firmware answers: those that no list has are passed by a rule, or not at all.

use userland_tests::{Ended, finish, guest_under_with, guest_with};

const LISTED_ALONE: &[&str] = &["--firmware-commands", "listed"];

/// What the driver says of an object that does not exist: it was asked.
const ASKED: &str = "NV_ERR_OBJECT_NOT_FOUND";
const INVALID: &str = "NV_ERR_INVALID_ARGUMENT";
const UNKNOWN: &str = "NV_ERR_NOT_SUPPORTED";
const FORBIDDEN: &str = "NV_ERR_INSUFFICIENT_PERMISSIONS";

/// What becomes of commands of no list: of ordinary ones, of those that are too large, of those whose parameters are nowhere, of
/// those for administrators, and of one that the driver's tables leave to the driver.
struct OfNoList {
    ordinary: &'static str,
    larger: &'static str,
    nowhere: &'static str,
    administrators: &'static str,
    drivers: &'static str,
}

/// What the scenario prints.
fn printed(of_no_list: &OfNoList) -> String {
    let OfNoList {
        ordinary,
        larger,
        nowhere,
        administrators,
        drivers,
    } = of_no_list;
    format!(
        "listed: ok\n\
         listed, larger: {INVALID}\n\
         of no list: {UNKNOWN}\n\
         of no list, of nothing: {ordinary}\n\
         of no list, without parameters: {ordinary}\n\
         of no list, as large as can be: {ordinary}\n\
         of no list, larger: {larger}\n\
         of no list, nowhere: {nowhere}\n\
         of the other class: {UNKNOWN}\n\
         of the other class, of nothing: {ordinary}\n\
         for administrators: {administrators}\n\
         of the other class, for administrators: {administrators}\n\
         with an entry: {drivers}\n\
         of another class: {UNKNOWN}\n"
    )
}

/// The lines that begin so.
fn warnings(lines: &[&str]) -> String {
    let lines = lines.iter();
    lines
        .map(|line| format!(" WARN nvproxy: {line}\n"))
        .collect()
}

/// What the log says of all that is refused either way, around these lines.
fn log(of_no_list: &[&str]) -> String {
    let first = "control command 0x20808162 (not in the public headers) with parameters of 2 bytes";
    let last = [
        "control command 0x2080e06d (not in the public headers) is reserved by the driver for administrators",
        "control command 0x2081c107 (not in the public headers) is reserved by the driver for administrators",
        "unknown control command 0x2080a7d7 (NV2080_CTRL_CMD_INTERNAL_GCX_ENTRY_PREREQUISITE)",
        "unknown control command 0x2082a06d",
    ];
    warnings(&[&[first], of_no_list, &last].concat())
}

#[test]
fn commands_of_no_list_are_passed_if_they_are_small_and_for_everybody() {
    let expected = Ended {
        status: 0,
        stdout: printed(&OfNoList {
            ordinary: ASKED,
            larger: INVALID,
            nowhere: INVALID,
            administrators: FORBIDDEN,
            drivers: UNKNOWN,
        }),
        stderr: log(&[
            "control command 0x2080a06d (not in the public headers) with parameters of 262145 bytes",
            "control command 0x2080a06d (not in the public headers) with parameters of 4294967295 bytes",
        ]),
    };
    for options in [
        &[][..],
        &["--firmware-commands", "all"],
        &["--driver-capabilities", "compute"],
    ] {
        assert_eq!(finish(&mut guest_with(options, &["firmware"])), expected);
    }
}

#[test]
fn commands_of_no_list_are_refused_if_the_listed_ones_are_asked_for() {
    let expected = Ended {
        status: 0,
        stdout: printed(&OfNoList {
            ordinary: UNKNOWN,
            larger: UNKNOWN,
            nowhere: UNKNOWN,
            administrators: FORBIDDEN,
            drivers: UNKNOWN,
        }),
        stderr: log(&[
            "unknown control command 0x2080a06d",
            "unknown control command 0x20810107",
        ]),
    };
    let ended = finish(&mut guest_with(LISTED_ALONE, &["firmware"]));
    assert_eq!(ended, expected);
}

/// That the tests above can fail. (The simulated driver takes no parameters that are nowhere, and for those of the lists one size.)
#[test]
fn all_of_the_firmwares_commands_are_passed_if_nobody_looks() {
    let without = |rules| finish(&mut guest_under_with(rules, LISTED_ALONE, &["firmware"]));
    let expected = Ended {
        status: 0,
        stdout: printed(&OfNoList {
            ordinary: ASKED,
            larger: ASKED,
            nowhere: INVALID,
            administrators: ASKED,
            drivers: ASKED,
        }),
        stderr: warnings(&["unknown control command 0x2082a06d"]),
    };
    assert_eq!(
        without("sentry.firmware=drop server.firmware=drop"),
        expected
    );
    // Either of the two suffices.
    for rules in ["sentry.firmware=drop", "server.firmware=drop"] {
        let ended = without(rules);
        assert!(
            !ended
                .stdout
                .contains(&format!("of no list, of nothing: {ASKED}")),
            "{ended:?}"
        );
    }
}

/// Releases from 575.51.02 to 575.64.03 write as many as are said, beyond the end of their list.
#[test]
fn as_many_instructions_are_passed_as_the_list_has() {
    let lines = |more: &str| {
        let of = |command: &str| format!("{command}: {ASKED} {more} {more}\n");
        of("0x20800513") + &of("0x20808513")
    };
    let ended = finish(&mut guest_with(&[], &["instructions"]));
    assert_eq!(ended.stdout, lines(INVALID), "{ended:?}");
    // That this can fail.
    let rules = "sentry.values=drop server.values=drop";
    let ended = finish(&mut guest_under_with(rules, &[], &["instructions"]));
    assert_eq!(ended.stdout, lines(ASKED), "{ended:?}");
}
