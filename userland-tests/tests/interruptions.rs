//! Calls that no signal disturbs outside are not disturbed in a sandbox: the filter does not stop them.
//!
//! A call that the filter stops can fail with `EINTR` until the sentry has received it.

use userland_tests::{Ended, finish, guest};

#[test]
fn a_process_ends_under_a_rain_of_signals() {
    assert_eq!(
        finish(&mut guest(&["ends-under-signals", "200"])),
        Ended::printing("200 of 200 have ended\n")
    );
}

#[test]
fn opens_that_are_of_no_node_are_not_interrupted() {
    let kinds = [
        "O_CREAT",
        "O_TRUNC",
        "O_APPEND",
        "O_PATH",
        "O_DIRECTORY",
        "O_TMPFILE",
    ];
    let expected: Vec<String> = kinds
        .iter()
        .map(|kind| format!("{kind}: 0 of 10000 interrupted\n"))
        .collect();
    assert_eq!(
        finish(&mut guest(&["opens-under-signals", "10000"])),
        Ended::printing(&expected.concat())
    );
}
