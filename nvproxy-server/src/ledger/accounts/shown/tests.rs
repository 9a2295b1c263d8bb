use nvproxy_protocol::options::Settings;

use super::super::{Limits, Pin};
use super::*;

const MIB: u64 = 1 << 20;

/// A ledger with 1 MiB of the host's memory as the object 2 of the client 1, and 1 MiB of a GPU's as the object 3.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Limits::of(&Settings::WITHOUT_LIMITS));
    ledger.add_client(1, 10, None);
    for (object, pool) in [(2, Pool::Host), (3, Pool::Gpu(0))] {
        let memory = vec![ledger.charge(pool, MIB).expect("no limit")];
        ledger.add_object(1, object, 1, Content { gpu: None, memory });
    }
    ledger
}

/// Lets the object 2 be mapped through a description with this mark.
fn show(ledger: &mut Ledger, mark: Option<u64>) {
    let content = ledger.host_memory_of(1, 2).expect("memory of the host");
    ledger.show(mark, &content);
    ledger.release(content);
}

#[test]
fn it_counts_once_until_the_last_description_is_gone() {
    let mut ledger = ledger();
    assert!(ledger.host_memory_of(1, 3).is_none(), "a GPU's");
    show(&mut ledger, Some(7));
    show(&mut ledger, Some(8));
    assert_eq!(ledger.charged_to_host(), MIB);
    ledger.free(1, 1);
    ledger.end_shown(7);
    ledger.end_shown(9);
    assert_eq!((ledger.charged_to_host(), ledger.marks()), (MIB, vec![8]));
    let text = serde_json::to_string(&ledger).expect("text");
    let other: Ledger = serde_json::from_str(&text).expect("a ledger");
    let mut other = other.with_limits(Limits::of(&Settings::WITHOUT_LIMITS));
    assert_eq!(other.charged_to_host(), MIB);
    other.end_shown(8);
    assert_eq!(other.charged_to_host(), 0);
    other.close(10);
    assert!(other.is_empty());
}

#[test]
fn what_nobody_can_follow_counts_once_and_for_good() {
    let mut ledger = ledger();
    show(&mut ledger, None);
    show(&mut ledger, None);
    show(&mut ledger, Some(7));
    ledger.end_shown(7);
    ledger.close(10);
    assert_eq!(ledger.charged_to_host(), MIB);
    let text = serde_json::to_string(&ledger).expect("text");
    let other: Ledger = serde_json::from_str(&text).expect("a ledger");
    let other = other.with_limits(Limits::of(&Settings::WITHOUT_LIMITS));
    assert_eq!(other.charged_to_host(), MIB);
}

#[test]
fn so_many_are_followed_and_others_count_for_good() {
    let mut ledger = ledger();
    let most = MAXIMUM_SHOWN as u64;
    let mut looks = 0;
    for mark in 0..most {
        if ledger.should_look_for_ended() {
            ledger.looked_for_ended();
            looks += 1;
        }
        show(&mut ledger, Some(mark));
    }
    assert_eq!(looks, 6, "at 64, 128 and so on");
    assert!(ledger.should_look_for_ended());
    show(&mut ledger, Some(most));
    assert_eq!(ledger.marks().len(), MAXIMUM_SHOWN);
    ledger.close(10);
    for mark in 0..=most {
        ledger.end_shown(mark);
    }
    assert_eq!(ledger.charged_to_host(), MIB);
}

/// Pins something that takes nothing, as the object `object`.
fn pin(ledger: &mut Ledger, object: u32, meanwhile: impl FnOnce(&mut Ledger)) {
    let pin = Pin {
        description: 10,
        client: 1,
        parent: 1,
    };
    ledger.begin_pin(pin, 0).expect("no limit");
    meanwhile(ledger);
    let content = ledger.finish_pin(pin).expect("begun");
    ledger.expected_objects(1);
    ledger.add_object(1, object, 1, content);
}

#[test]
fn what_was_pinned_while_it_was_shown_keeps_it() {
    let nothing = |_: &mut Ledger| {};
    type Way = fn(&mut Ledger);
    let ways: [(&str, bool, Way); 5] = [
        ("pinned before", false, |ledger| {
            pin(ledger, 4, |_| {});
            show(ledger, Some(7));
            ledger.end_shown(7);
        }),
        ("pinned after", false, |ledger| {
            show(ledger, Some(7));
            ledger.end_shown(7);
            pin(ledger, 4, |_| {});
        }),
        ("meanwhile", true, |ledger| {
            show(ledger, Some(7));
            pin(ledger, 4, |_| {});
            ledger.end_shown(7);
        }),
        ("shown while it is pinned", true, |ledger| {
            pin(ledger, 4, |ledger| show(ledger, Some(7)));
            ledger.end_shown(7);
        }),
        ("shown only while it is pinned", true, |ledger| {
            pin(ledger, 4, |ledger| {
                show(ledger, Some(7));
                ledger.end_shown(7);
            });
        }),
    ];
    for (way, is_kept, act) in ways {
        let mut ledger = ledger();
        act(&mut ledger);
        ledger.free(1, 2);
        assert!(!ledger.release_unpinned(), "{way}");
        let kept = if is_kept { MIB } else { 0 };
        assert_eq!(ledger.charged_to_host(), kept, "{way}");
        let text = serde_json::to_string(&ledger).expect("text");
        let other: Ledger = serde_json::from_str(&text).expect("a ledger");
        let mut other = other.with_limits(Limits::of(&Settings::WITHOUT_LIMITS));
        assert!(!other.release_unpinned(), "{way}");
        other.free(1, 4);
        assert_eq!(other.release_unpinned(), is_kept, "{way}");
        assert_eq!(other.charged_to_host(), 0, "{way}");
    }
    // And what is pinned keeps nothing that it cannot hold.
    let mut ledger = ledger();
    pin(&mut ledger, 4, nothing);
    assert!(!ledger.release_unpinned());
}
