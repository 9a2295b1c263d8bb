//! What a task cannot do.

use userland_tests::{Ended, finish, guest_under, prints};

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
            "{name} for reading: EACCES\n{name} for writing: EACCES\n\
             {name} with O_CREAT: EACCES\n{name} with O_TRUNC: EACCES\n{name} with O_APPEND: EACCES\n\
             {name} through a link: EACCES\n\
             {name} by O_PATH: EBADF\n{name} opened anew: EACCES\n"
        )
    });
    prints(&["native-opens"], &expected.concat());
}

#[test]
fn an_open_whose_path_changes_meanwhile_fails() {
    prints(&["raced-open"], "never opened by the kernel\n");
}

/// What terminals, sockets, pipes and files are asked all the time costs nothing: a sentry that an ioctl kills does not
/// hear of it.
#[test]
fn ordinary_ioctls_are_not_stopped() {
    let ordinary = |words: &[&str]| {
        let scenario = [&["ordinary-words"], words].concat();
        finish(&mut guest_under("sentry.received=kill", &scenario))
    };
    let expected = "\
terminal: ok ok ok ok ok
socket: ENOTTY ok ok ok ENOTTY
pipe: ENOTTY ok ok ok ENOTTY
file: ENOTTY ok ok ok ENOTTY
";
    assert_eq!(ordinary(&[]), Ended::printing(expected));
    // RM_CONTROL with another type: this test can fail.
    let word = 0xc020_002au32.to_string();
    assert_eq!(ordinary(&[&word]).status, 125);
}

/// What the driver's words come to on other files: each is answered on the very file, and none by the kernel.
#[test]
fn the_drivers_words_on_other_files_are_answered_by_the_sentry() {
    let expected = "\
file: EPERM ok ENOTTY ENOTTY ENOTTY
path: EBADF EBADF EBADF EBADF EBADF
terminal: ENOTTY ENOTTY ENOTTY ENOTTY ENOTTY
pipe: ENOTTY ENOTTY ENOTTY ENOTTY ENOTTY
none: EBADF EBADF EBADF EBADF EBADF
left of the file: [1, 0, 1]
from nowhere: Err(EINVAL)
to be read only: Err(EBADF)
";
    prints(&["foreign-words"], expected);
}

#[test]
fn sockets_and_terminals_are_of_kinds_that_programs_use() {
    let expected = "\
NETLINK_ROUTE: ok
NETLINK_NETFILTER: EPROTONOSUPPORT
NETLINK_GENERIC: EPROTONOSUPPORT
NETLINK_KOBJECT_UEVENT: EPROTONOSUPPORT
AF_UNIX: ok
TCP: ok
TCP of IPv6: ok
UDP: ok
SCTP: EPROTONOSUPPORT
SCTP of packets: EPROTONOSUPPORT
SMC: EPROTONOSUPPORT
SOCK_DCCP: EPROTONOSUPPORT
L2TP: EPROTONOSUPPORT
UDP-Lite: EPROTONOSUPPORT
SOCK_PACKET: EPROTONOSUPPORT
TCP_MD5SIG: ENOPROTOOPT
TCP_ULP: ENOPROTOOPT
TCP_AO_ADD_KEY: ENOPROTOOPT
SIOCGIFBR: ENOTTY
SIOCGIFVLAN: ENOTTY
SIOCGIFCONF: ok
a pair of AF_UNIX: ok
a pair of AF_INET: EOPNOTSUPP
a pair of AF_TIPC: EOPNOTSUPP
TIOCSETD: Err(EPERM)
";
    prints(&["narrow"], expected);
}

/// What one file system alone knows may reach further than what was given of it.
#[test]
fn files_are_asked_for_what_all_file_systems_know() {
    prints(&["own-words"], "with a filter: Err(ENOTTY)\n");
}

/// The test above can fail.
#[test]
fn files_are_asked_for_what_one_file_system_knows_without_the_filter() {
    let mut command = guest_under("sentry.filter=duplicate", &["own-words", "beside"]);
    let expected = "without a filter: Ok(())\nwith a filter: Err(ENOTTY)\n";
    assert_eq!(finish(&mut command), Ended::printing(expected));
}
