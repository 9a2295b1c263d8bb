//! Memory of a program's own that the driver pins, which takes the program's own thread.

use userland_tests::{Ended, finish, guest_under, guest_with, prints};

const ONCE: &str = "\
pinned: ok
again: NV_ERR_INSERT_DUPLICATE_NAME
freed: ok
by class: ok
then: ok
";

#[test]
fn private_memory_is_pinned() {
    prints(&["pin-private"], ONCE);
}

#[test]
fn shared_memory_is_pinned() {
    prints(&["pin-shared"], ONCE);
}

#[test]
fn the_driver_refuses_pins() {
    let expected = "\
not at a page: NV_ERR_NOT_SUPPORTED
below a missing device: NV_ERR_OBJECT_NOT_FOUND
on nvidiactl: EINVAL
after all that: ok
";
    prints(&["pin-refused"], expected);
}

#[test]
fn other_threads_do_not_notice_a_pin() {
    prints(&["pin-among-threads"], "pinned 20 times: ok\n");
}

#[test]
fn two_threads_pin_at_once() {
    prints(&["pin-from-two-threads"], "ok, ok\n");
}

#[test]
fn a_pin_does_not_wait_for_another_threads_request() {
    prints(
        &["pin-during-blocking"],
        "pinned during the long request: true\n",
    );
}

#[test]
fn no_signal_is_lost_to_a_pin() {
    prints(
        &["pin-under-signals"],
        "500 signals\nthen: NV_ERR_OBJECT_NOT_FOUND\n",
    );
}

#[test]
fn no_signal_of_a_thread_that_stands_still_for_a_pin_is_lost() {
    // A signal reaches it in the moment that matters, when it is seized and not yet interrupted, in some runs only.
    for _ in 0..8 {
        prints(&["pin-beside-signals"], "500 signals\n");
    }
}

#[test]
fn a_process_can_be_killed_while_it_pins() {
    prints(&["pin-killed"], ONCE);
}

#[test]
fn a_pin_takes_no_descriptor_of_the_program() {
    prints(&["pin-without-descriptors"], "with none left: ok\n");
}

/// A program can have its pins fail for ever, and is not to fill the log. The limit has room for one: what was set aside for
/// those that failed is given back.
#[test]
fn pins_that_fail_again_and_again_are_warned_of_once() {
    let room_for_one = ["--host-memory", "20KiB"];
    // An error without a name is one, too.
    for (number, name, text) in [
        (libc::EPERM, "EPERM", "Operation not permitted"),
        (134, "EIO", "I/O error"),
    ] {
        let expected = Ended {
            stderr: format!(" WARN a request that pins was not finished: {name}: {text}\n"),
            ..Ended::printing(&format!(
                "{}then: ok\n",
                format!("without threads: {name}\n").repeat(3)
            ))
        };
        let scenario = ["pin-that-fails", &number.to_string()];
        assert_eq!(finish(&mut guest_with(&room_for_one, &scenario)), expected);
    }
}

/// The thread that waits for the child is as good as held, and lets no pin wait, whenever it goes on.
#[test]
fn a_pin_does_not_wait_for_another_process_that_waits_for_its_vforked_child() {
    for scenario in [
        &["pin-beside-vfork"][..],
        &["pin-beside-vfork", "a copy"][..],
    ] {
        prints(scenario, "beside: ok\nonce more: ok\nthen: ok\n");
    }
}

/// Here it is not looked what a thread waits for that does not stop. So the test above can fail, too.
#[test]
fn a_pin_fails_while_a_thread_does_not_stop() {
    for memory in ["its own", "a copy"] {
        let scenario = ["pin-beside-vfork", memory, "once"];
        let ended = finish(&mut guest_under("sentry.vforked=drop", &scenario));
        let expected = "beside: EAGAIN\nonce more: EAGAIN\nthen: ok\n";
        assert_eq!(ended, Ended::printing(expected), "{memory}");
    }
}

/// While a program is executed that has much memory, the kernel does not say what its thread waits for. Nobody waits for that.
#[test]
fn a_pin_fails_while_the_kernel_does_not_say_what_a_thread_waits_for() {
    let scenario = ["pin-beside-vfork", "its own", "once"];
    let ended = finish(&mut guest_under("sentry.vforked=delay:60000", &scenario));
    let expected = "beside: EAGAIN\nonce more: EAGAIN\nthen: ok\n";
    assert_eq!(ended, Ended::printing(expected));
}
