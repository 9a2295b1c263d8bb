//! That what the driver keeps of pins counts towards `--host-memory`, whatever is done with them before the server has heard
//! what came of them, and that each of these would be noticed.

use userland_tests::{Ended, finish, guest_under_with};

/// Runs a scenario with 64 MiB of the host's memory, of which each pin takes 16, and a driver that has pinned when the
/// server has lent the descriptor, as the real one has before the server hears of it.
fn with_64_mib(scenario: &str, rules: &str) -> Ended {
    let rules = format!("server.lend=drop {rules}");
    finish(&mut guest_under_with(
        &rules,
        &["--host-memory", "64MiB"],
        &[scenario],
    ))
}

/// Tasks go on before the server is told, and their requests are on the way at any time.
const TOLD_LATE: &str = "sentry.pin-told=delay:300";

#[test]
fn a_copy_of_what_is_being_pinned_counts() {
    let expected = "\
refused: ENOMEM
3 copied
32 MiB more: NV_ERR_NO_MEMORY
then: ok
";
    let ended = with_64_mib("pin-copied", TOLD_LATE);
    assert_eq!(ended, Ended::printing(expected));
}

/// The test above can fail: 128 MiB are taken under a limit of 64, and more.
#[test]
fn a_copy_of_what_is_being_pinned_is_free_if_the_ledger_knows_of_none() {
    let ended = with_64_mib("pin-copied", &format!("{TOLD_LATE} server.copied=drop"));
    let expected = "8 copied\n32 MiB more: ok\nthen: ok\n";
    assert_eq!(ended, Ended::printing(expected));
}

/// Nobody is left to see what the driver answers.
const KILLED: &str = "sentry.pin-checked=kill-task";

#[test]
fn what_was_pinned_counts_when_the_description_is_closed_that_it_was_pinned_on() {
    let ended = with_64_mib("pin-on-a-closed-node", KILLED);
    let expected = "3 killed\n32 MiB more: NV_ERR_NO_MEMORY\nof another client: ok\n";
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, expected),
        "{ended:?}"
    );
}

/// The test above can fail.
#[test]
fn what_was_pinned_is_free_when_that_description_is_closed_if_its_client_is_forgotten() {
    let ended = with_64_mib(
        "pin-on-a-closed-node",
        &format!("{KILLED} server.copied=drop"),
    );
    let expected = "8 killed\n32 MiB more: ok\n";
    assert!(ended.stdout.starts_with(expected), "{ended:?}");
}
