//! A sandbox reaches only clients of its own, and has no more of them than it may.

use userland_tests::{finish, guest_under, prints};

#[test]
fn another_s_client_is_answered_like_one_that_does_not_exist() {
    let expected = "\
control: NV_ERR_INVALID_CLIENT
allocate: NV_ERR_INVALID_OBJECT_HANDLE
free: NV_ERR_INVALID_OBJECT_HANDLE
free the client: NV_ERR_INVALID_OBJECT_HANDLE
map: NV_ERR_INVALID_OBJECT_HANDLE
unmap: NV_ERR_INVALID_OBJECT_HANDLE
share: NV_ERR_INVALID_OBJECT_HANDLE
copy from: NV_ERR_INVALID_OBJECT_HANDLE
copy to: NV_ERR_INVALID_OBJECT_HANDLE
copy within: ok
register for events: NV_ERR_INVALID_CLIENT
share an address space: NV_ERR_INVALID_CLIENT
hear its events: NV_ERR_INVALID_OBJECT_HANDLE
disable one's own channel: ok
disable its channel: NV_ERR_INVALID_CLIENT
register with UVM: NV_ERR_INVALID_CLIENT
tie its address space: NV_ERR_INVALID_CLIENT
map its memory: NV_ERR_INVALID_CLIENT
map one's own memory: ok
after all that: ok
";
    prints(&["foreign-clients"], expected);
}

/// That the test above can fail: where the driver is asked, it tells of a client of another that it exists, and UVM goes on
/// to look for what the client has.
#[test]
fn another_s_client_is_known_by_the_drivers_answer_if_nobody_looks() {
    let ended = finish(&mut guest_under("server.owned=drop", &["foreign-clients"]));
    for told in [
        "free: NV_ERR_INVALID_CLIENT",
        "free the client: NV_ERR_INVALID_CLIENT",
        "map: NV_ERR_INVALID_CLIENT",
        "unmap: NV_ERR_INVALID_CLIENT",
        "share: NV_ERR_INVALID_CLIENT",
        "copy to: NV_ERR_INVALID_CLIENT",
        "register with UVM: ok",
        "map its memory: NV_ERR_OBJECT_NOT_FOUND",
    ] {
        let mut lines = ended.stdout.lines();
        assert!(lines.any(|line| line == told), "{told}: {}", ended.stdout);
    }
}

#[test]
fn a_client_whose_address_space_is_used_is_there_as_long_as_the_device() {
    let expected = "\
another description's: NV_ERR_INVALID_CLIENT
the first's: ok
free a device of it: ok
by one that is named: NV_ERR_INVALID_CLIENT
of one that names another: NV_ERR_INVALID_CLIENT
free who is named: NV_ERR_STATE_IN_USE
free who names: ok
free who was named: ok
free it again: NV_ERR_INVALID_OBJECT_HANDLE
its own: ok
the third's: ok
";
    prints(&["shared-spaces"], expected);
}

/// That the test above can fail: the driver has a device that names a client which is gone, or one that names another.
#[test]
fn a_device_names_a_client_that_is_gone_if_nobody_looks() {
    let ended = finish(&mut guest_under(
        "server.outlasted=drop",
        &["shared-spaces"],
    ));
    for told in [
        "by one that is named: ok",
        "of one that names another: ok",
        "free who is named: ok",
    ] {
        let mut lines = ended.stdout.lines();
        assert!(lines.any(|line| line == told), "{told}: {}", ended.stdout);
    }
}

#[test]
fn clients_are_limited() {
    let expected = "\
4096 clients, then NV_ERR_INSUFFICIENT_RESOURCES
freed: ok
another: ok
and another: NV_ERR_INSUFFICIENT_RESOURCES
";
    prints(&["many-clients"], expected);
}
