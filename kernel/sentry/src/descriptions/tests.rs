//! Recognizing descriptions, with event counters and memory files for the server's.

use nix::sys::eventfd::EventFd;

use super::*;

fn description(handle: u64) -> Arc<Description> {
    Arc::new(Description {
        handle: Handle {
            server: 1,
            number: handle,
        },
        node: Node::Control,
        room: None,
    })
}

fn handle_of(identified: Identified) -> Option<u64> {
    match identified {
        Identified::Device(description) => Some(description.handle.number),
        _ => None,
    }
}

#[test]
fn a_description_is_known_under_every_number_until_its_last_close() {
    let descriptions = Descriptions::default();
    let events: Vec<OwnedFd> = (0..40).map(|_| EventFd::new().unwrap().into()).collect();
    for (handle, event) in events.iter().enumerate() {
        assert_eq!(
            descriptions.register(event, &description(handle as u64 + 1)),
            Ok(Registered::Witnessed)
        );
    }
    let this = Pid::this();
    for (handle, event) in events.iter().enumerate() {
        let duplicate = event.try_clone().unwrap();
        let identified = descriptions
            .identify(this, duplicate.as_raw_fd(), false)
            .unwrap();
        assert_eq!(handle_of(identified), Some(handle as u64 + 1));
    }
    let stranger: OwnedFd = EventFd::new().unwrap().into();
    assert!(matches!(
        descriptions.identify(this, stranger.as_raw_fd(), false),
        Ok(Identified::Foreign(_))
    ));
    assert!(matches!(
        descriptions.identify(this, 100_000, false),
        Ok(Identified::Closed)
    ));

    assert!(descriptions.sweep().is_empty());
    let mut events = events;
    let kept = events.remove(7).try_clone().unwrap();
    drop(events);
    assert_eq!(descriptions.sweep().len(), 39);
    let identified = descriptions
        .identify(this, kept.as_raw_fd(), false)
        .unwrap();
    assert_eq!(handle_of(identified), Some(8));
    drop(kept);
    assert_eq!(descriptions.sweep(), vec![description(8)]);
}

#[test]
fn a_search_finds_its_way_past_descriptions_that_are_gone() {
    let descriptions = Descriptions::default();
    let mut events: Vec<OwnedFd> = (0..40).map(|_| EventFd::new().unwrap().into()).collect();
    for (handle, event) in events.iter().enumerate() {
        descriptions
            .register(event, &description(handle as u64))
            .unwrap();
    }
    let kept: Vec<(u64, OwnedFd)> = [3u64, 17, 38]
        .into_iter()
        .rev()
        .map(|at| (at, events.remove(at as usize)))
        .collect();
    drop(events);
    for (handle, event) in &kept {
        let identified = descriptions
            .identify(Pid::this(), event.as_raw_fd(), false)
            .unwrap();
        assert_eq!(handle_of(identified), Some(*handle));
    }
}

#[test]
fn the_order_survives_opens_and_closes_in_turn() {
    let descriptions = Descriptions::default();
    let mut held: Vec<(u64, OwnedFd)> = Vec::new();
    let mut swept = 0;
    for handle in 1..=400u64 {
        let event: OwnedFd = EventFd::new().unwrap().into();
        descriptions.register(&event, &description(handle)).unwrap();
        held.push((handle, event));
        if handle % 3 != 0 {
            drop(held.swap_remove((handle as usize * 7) % held.len()));
        }
        if handle % 50 == 0 {
            swept += descriptions.sweep().len();
        }
        for (handle, event) in &held {
            let identified = descriptions.identify(Pid::this(), event.as_raw_fd(), false);
            assert_eq!(handle_of(identified.unwrap()), Some(*handle));
        }
    }
    assert_eq!(swept, 400 - held.len());
}

#[test]
fn a_description_lives_while_one_of_its_stand_ins_does() {
    let descriptions = Descriptions::default();
    let of = description(1);
    let first: OwnedFd = EventFd::new().unwrap().into();
    let second: OwnedFd = EventFd::new().unwrap().into();
    descriptions.register(&first, &of).unwrap();
    descriptions.register(&second, &of).unwrap();
    drop(first);
    assert!(descriptions.sweep().is_empty());
    drop(second);
    assert_eq!(descriptions.sweep(), vec![of]);
}

#[test]
fn a_description_with_an_inode_lives_while_its_event_descriptor_does_and_the_other_way_round() {
    let memory =
        || nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let descriptions = Descriptions::default();
    let registered = |of: &Arc<Description>| {
        let event: OwnedFd = EventFd::new().unwrap().into();
        descriptions.register(&event, of).unwrap();
        match descriptions.register(&memory(), of) {
            Ok(Registered::ByInode(inode)) => (event, inode),
            other => panic!("{other:?}"),
        }
    };
    let (event, inode) = registered(&description(1));
    assert_eq!(descriptions.forget(inode), None);
    drop(event);
    assert_eq!(descriptions.sweep(), vec![description(1)]);

    let (event, inode) = registered(&description(2));
    drop(event);
    assert!(descriptions.sweep().is_empty());
    assert_eq!(descriptions.forget(inode), Some(description(2)));
}

#[test]
fn what_cannot_be_polled_is_known_by_its_inode() {
    let descriptions = Descriptions::default();
    let memory =
        nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let Ok(Registered::ByInode(inode)) = descriptions.register(&memory, &description(5)) else {
        panic!("a memfd cannot be polled");
    };
    let identified = descriptions
        .identify(Pid::this(), memory.as_raw_fd(), true)
        .unwrap();
    assert_eq!(handle_of(identified), Some(5));
    assert_eq!(descriptions.forget(inode), Some(description(5)));
    assert!(matches!(
        descriptions.identify(Pid::this(), memory.as_raw_fd(), true),
        Ok(Identified::Foreign(_))
    ));
}
