//! A whole sandbox that is frozen and thawed every few milliseconds, while its program opens nodes and pins memory: each
//! wait of every process is interrupted sooner or later, and the program sees nothing of that.

use userland_tests::freezer::Freezer;
use userland_tests::{Ended, finish, guest};

/// Runs a scenario of the guest that often, which has to print exactly this each time.
fn prints_though_frozen(times: usize, scenario: &str, expected: &str) {
    let freezer = match Freezer::new() {
        Ok(freezer) => freezer,
        Err(error) => {
            eprintln!("skipped: this user can have no cgroup to freeze: {error}");
            return;
        }
    };
    for _ in 0..times {
        let mut command = guest(&[scenario]);
        freezer.contain(&mut command).expect("the cgroup");
        let ended = freezer.freezing_while(|| finish(&mut command));
        assert_eq!(ended, Ended::printing(expected));
    }
}

#[test]
fn opens_go_on_where_they_were_frozen() {
    prints_though_frozen(3, "close", "freed 50 times\n");
}

#[test]
fn pins_go_on_where_they_were_frozen() {
    let once = "\
pinned: ok
again: NV_ERR_INSERT_DUPLICATE_NAME
freed: ok
by class: ok
then: ok
";
    prints_though_frozen(10, "pin-private", once);
}

#[test]
fn pins_of_two_threads_go_on_where_they_were_frozen() {
    prints_though_frozen(5, "pin-from-two-threads", "ok, ok\n");
}

#[test]
fn no_signal_of_a_frozen_thread_is_lost_to_a_pin() {
    prints_though_frozen(3, "pin-beside-signals", "500 signals\n");
}
