//! Events of the operating system, as `poll` sees them.

use std::os::fd::AsFd;

use super::*;
use crate::structs::control::NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent};

pub(super) const NOTIFIER_SW: u32 = 0;
pub(super) const SINGLE: u32 = 1;
pub(super) const REPEAT: u32 = 2;
/// The number that the program chose for its event descriptor; it names nothing to the driver.
pub(super) const KEY: u32 = 41;

pub(super) fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).expect("polled") == 1
}

/// NV01_EVENT_WITHOUT_EVENT_DATA (nvos.h).
const WITHOUT_EVENT_DATA: u32 = 0x1000_0000;

/// Takes what is pending.
pub(super) fn take(descriptor: &OwnedFd) {
    let epoll = Epoll(descriptor.try_clone().expect("a copy"));
    let taken = epoll.wait(
        &mut [EpollEvent::empty()],
        nix::sys::epoll::EpollTimeout::ZERO,
    );
    assert_eq!(taken, Ok(1));
}

pub(super) fn register(file: &Open, client: u32, key: u32) -> u32 {
    let mut argument = nv_ioctl_alloc_os_event_t {
        hClient: client,
        hDevice: 0,
        fd: key,
        Status: 0xdead,
    };
    assert_eq!(file.ioctl(NV_ESC_ALLOC_OS_EVENT, &mut argument), Ok(0));
    argument.Status
}

pub(super) fn unregister(file: &Open, client: u32, key: u32) -> u32 {
    let mut argument = nv_ioctl_free_os_event_t {
        hClient: client,
        hDevice: 0,
        fd: key,
        Status: 0xdead,
    };
    assert_eq!(file.ioctl(NV_ESC_FREE_OS_EVENT, &mut argument), Ok(0));
    argument.Status
}

/// An event object on `source` for notification `index`: the status.
pub(super) fn event(
    control: &Open,
    client: u32,
    object: u32,
    source: u32,
    index: u32,
    key: u32,
) -> u32 {
    let mut parameters = NV0005_ALLOC_PARAMETERS {
        hParentClient: client,
        hSrcResource: source,
        hClass: NV01_EVENT_OS_EVENT,
        notifyIndex: index | WITHOUT_EVENT_DATA,
        data: key.into(),
    };
    control.allocate(client, source, object, NV01_EVENT_OS_EVENT, &mut parameters)
}

pub(super) fn switch(control: &Open, client: u32, event: u32, action: u32) -> u32 {
    let mut parameters = NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS::new_zeroed();
    (parameters.event, parameters.action) = (event, action);
    control.control(
        client,
        0x11,
        NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION,
        &mut parameters,
    )
}

pub(super) fn trigger(control: &Open, client: u32) {
    assert_eq!(
        control.control(client, 0x11, NV2080_CTRL_CMD_EVENT_SET_TRIGGER, &mut ()),
        NV_OK
    );
}

#[test]
fn a_trigger_makes_the_registered_description_readable() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let waiting = open(&driver, Node::Control);
    assert_eq!(register(&waiting, client, KEY), NV_OK);
    assert_eq!(event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
    let descriptor = waiting
        .file
        .event_descriptor()
        .expect("an event descriptor");
    trigger(&control, client);
    assert!(!is_readable(&descriptor), "the notification is off");
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    for _ in 0..2 {
        trigger(&control, client);
        assert!(is_readable(&descriptor));
        take(&descriptor);
        assert!(!is_readable(&descriptor));
    }
    let other = control
        .file
        .event_descriptor()
        .expect("an event descriptor");
    trigger(&control, client);
    assert!(
        !is_readable(&other),
        "only the registered description hears"
    );
}

#[test]
fn an_event_that_came_before_the_descriptor_was_asked_for_is_pending() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    trigger(&control, client);
    assert!(is_readable(
        &control
            .file
            .event_descriptor()
            .expect("an event descriptor")
    ));
}

#[test]
fn a_single_notification_fires_once() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
    assert_eq!(switch(&control, client, NOTIFIER_SW, SINGLE), NV_OK);
    let descriptor = control
        .file
        .event_descriptor()
        .expect("an event descriptor");
    trigger(&control, client);
    take(&descriptor);
    trigger(&control, client);
    assert!(!is_readable(&descriptor));
    assert_eq!(switch(&control, client, NOTIFIER_SW, SINGLE), NV_OK);
    trigger(&control, client);
    assert!(is_readable(&descriptor));
}

#[test]
fn notifications_are_checked() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        switch(&control, client, NOTIFIER_SW, REPEAT),
        NV_ERR_INVALID_STATE
    );
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
    assert_eq!(
        switch(&control, client, 198, REPEAT),
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(
        switch(&control, client, 11, REPEAT),
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(
        switch(&control, client, NOTIFIER_SW, 3),
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    assert_eq!(
        switch(&control, client, NOTIFIER_SW, SINGLE),
        NV_ERR_INVALID_STATE
    );
    assert_eq!(switch(&control, client, NOTIFIER_SW, 0), NV_OK);
    assert_eq!(switch(&control, client, NOTIFIER_SW, SINGLE), NV_OK);
}

#[test]
fn events_refer_to_registrations_and_notifiers_that_exist() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY),
        NV_ERR_OBJECT_NOT_FOUND
    );
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(
        register(&control, client, KEY),
        NV_ERR_INSUFFICIENT_RESOURCES
    );
    // A device notifies of nothing.
    assert_eq!(
        event(&control, client, 0x20, 0x10, NOTIFIER_SW, KEY),
        NV_ERR_INVALID_OBJECT
    );
    const NONSTALL: u32 = 0x0800_0000;
    assert_eq!(
        event(&control, client, 0x20, client, NONSTALL, KEY),
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(event(&control, client, 0x20, 0x11, NONSTALL, KEY), NV_OK);
    assert_eq!(unregister(&control, client, KEY + 1), NV_ERR_INVALID_EVENT);
    assert_eq!(unregister(&control, client, KEY), NV_OK);
    assert_eq!(unregister(&control, client, KEY), NV_ERR_INVALID_EVENT);
}

#[test]
fn an_event_is_silent_once_its_registration_is_gone() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(event(&control, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    assert_eq!(unregister(&control, client, KEY), NV_OK);
    let descriptor = control
        .file
        .event_descriptor()
        .expect("an event descriptor");
    trigger(&control, client);
    assert!(!is_readable(&descriptor));
}

#[test]
fn a_registration_goes_with_its_client() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    assert_eq!(control.free(client, client), NV_OK);
    assert_eq!(unregister(&control, client, KEY), NV_ERR_INVALID_EVENT);
}

#[test]
fn events_of_one_gpu_are_not_heard_on_another() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let _other_gpu = open(&driver, Node::Gpu(3));
    let other = open(&driver, Node::Control);
    let theirs = other.client();
    other.device(theirs, 0x10, 1);
    for (file, client) in [(&control, client), (&other, theirs)] {
        assert_eq!(register(file, client, KEY), NV_OK);
        assert_eq!(event(file, client, 0x20, 0x11, NOTIFIER_SW, KEY), NV_OK);
        assert_eq!(switch(file, client, NOTIFIER_SW, REPEAT), NV_OK);
    }
    trigger(&other, theirs);
    assert!(is_readable(
        &other.file.event_descriptor().expect("an event descriptor")
    ));
    assert!(!is_readable(
        &control
            .file
            .event_descriptor()
            .expect("an event descriptor")
    ));
}

#[test]
fn an_event_hears_its_parent_whatever_the_program_says() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    let allocate = |parent, object| {
        let mut parameters = NV0005_ALLOC_PARAMETERS {
            hParentClient: client,
            hSrcResource: 0,
            hClass: NV01_EVENT_OS_EVENT,
            notifyIndex: NOTIFIER_SW | WITHOUT_EVENT_DATA,
            data: KEY.into(),
        };
        let status = control.allocate(client, parent, object, NV01_EVENT_OS_EVENT, &mut parameters);
        (status, parameters.hSrcResource)
    };
    assert_eq!(allocate(0x11, 0x20), (NV_OK, 0x11));
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    // An event notifies of nothing.
    assert_eq!(allocate(0x20, 0x21).0, NV_ERR_INVALID_OBJECT);
}

#[test]
fn an_event_can_be_asked_for_by_the_class_in_its_parameters() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(register(&control, client, KEY), NV_OK);
    let mut parameters = NV0005_ALLOC_PARAMETERS {
        hParentClient: client,
        hSrcResource: 0x11,
        hClass: NV01_EVENT_OS_EVENT,
        notifyIndex: NOTIFIER_SW | WITHOUT_EVENT_DATA,
        data: KEY.into(),
    };
    let status = control.allocate(client, 0x11, 0x20, NV01_EVENT, &mut parameters);
    assert_eq!(status, NV_OK);
    assert_eq!(switch(&control, client, NOTIFIER_SW, REPEAT), NV_OK);
    let heard = control.file.event_descriptor();
    trigger(&control, client);
    assert!(is_readable(&heard.expect("an event descriptor")));
}
