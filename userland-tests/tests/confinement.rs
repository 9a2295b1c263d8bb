//! What a task cannot do.

use userland_tests::prints;

#[test]
fn ways_around_the_filter_are_missing() {
    prints(
        &["ways-around"],
        "io_uring_setup: ENOSYS\nx32: ENOSYS\ni386: missing\n",
    );
}

#[test]
fn a_task_holds_no_device() {
    // Its standard input is /dev/null.
    prints(&["held"], "character devices: {\"/dev/null\"}\n");
}

#[test]
fn opens_past_the_sentry_fail() {
    let expected = ["nvidiactl", "nvidia0", "nvidia-uvm"].map(|name| {
        format!(
            "{name} for reading: EACCES\n{name} for writing: EACCES\n{name} through a link: EACCES\n\
             {name} by O_PATH: EBADF\n{name} opened anew: EACCES\n"
        )
    });
    prints(&["native-opens"], &expected.concat());
}

#[test]
fn an_open_whose_path_changes_meanwhile_fails() {
    prints(&["raced-open"], "never opened by the kernel\n");
}
