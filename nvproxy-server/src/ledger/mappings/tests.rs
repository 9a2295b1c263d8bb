//! Mappings against a model that has an entry for each address.

use std::collections::{BTreeMap, BTreeSet};

use super::super::accounts::tests::random;
use super::*;

fn content(key: usize) -> Content {
    Content {
        gpu: None,
        memory: vec![key],
    }
}

fn uuid(gpu: u8) -> Uuid {
    gpu.into()
}

/// What was dropped, by the one key that each has.
fn keys(dropped: Vec<Content>) -> BTreeSet<usize> {
    dropped
        .into_iter()
        .flat_map(|content| content.memory)
        .collect()
}

#[test]
fn what_is_unmapped_in_parts_is_kept_until_the_last() {
    let mut mappings = Mappings::default();
    assert!(keys(mappings.map(&(10..20), &[uuid(0), uuid(1)], content(7))).is_empty());
    assert_eq!(mappings.parts(), 2);
    assert!(keys(mappings.unmap(&(12..15), Some(&uuid(0)))).is_empty());
    assert_eq!(mappings.parts(), 3);
    assert!(keys(mappings.unmap(&(0..100), Some(&uuid(0)))).is_empty());
    assert!(keys(mappings.unmap(&(10..19), None)).is_empty());
    assert_eq!(keys(mappings.unmap(&(19..20), None)), BTreeSet::from([7]));
    assert_eq!(mappings.parts(), 0);
}

#[test]
fn only_what_leaves_something_on_both_sides_needs_room() {
    let mut mappings = Mappings::default();
    let (one, other) = (uuid(0), uuid(1));
    assert!(keys(mappings.map(&(10..20), &[one, other], content(7))).is_empty());
    for (at, gpu, parted) in [
        (10..20, None, 0),
        (10..15, None, 0),
        (15..20, None, 0),
        (0..u64::MAX, None, 0),
        (20..30, None, 0),
        (11..19, None, 2),
        (11..19, Some(&one), 1),
    ] {
        assert_eq!(mappings.parted_by(&at, gpu), parted, "{at:?}");
    }
}

#[test]
fn a_range_ends_with_all_that_is_in_it() {
    let mut mappings = Mappings::default();
    assert!(keys(mappings.add_range(&(10..20), content(8))).is_empty());
    assert!(keys(mappings.add_range(&(20..30), Content::default())).is_empty());
    for (key, at) in [(10..13), (13..20), (20..30)].iter().enumerate() {
        assert!(keys(mappings.map(at, &[uuid(0)], content(key))).is_empty());
    }
    assert_eq!(mappings.parts(), 5);
    assert!(keys(mappings.end_range(13)).is_empty());
    assert_eq!(keys(mappings.end_range(10)), BTreeSet::from([0, 1, 8]));
    assert!(keys(mappings.end_range(10)).is_empty());
    assert_eq!(mappings.parts(), 2);
}

#[test]
fn an_address_space_counts_once_and_each_of_its_range_groups() {
    let mut mappings = Mappings::default();
    assert!(keys(mappings.begin(content(1))).is_empty());
    assert_eq!(keys(mappings.begin(content(2))), BTreeSet::from([2]));
    mappings.add_group();
    mappings.add_group();
    assert_eq!(mappings.parts(), 3);
    mappings.end_group();
    assert_eq!(mappings.parts(), 2);
    for _ in 0..2 {
        mappings.end_group();
    }
    assert_eq!(mappings.parts(), 1);
    let kept = mappings.into_contents().collect();
    assert_eq!(keys(kept), BTreeSet::from([1]));
}

#[test]
fn nothing_is_kept_of_what_has_no_memory_or_is_mapped_nowhere() {
    let mut mappings = Mappings::default();
    let gpus = [uuid(0)];
    assert!(keys(mappings.map(&(0..9), &gpus, content(1))).is_empty());
    let empty = mappings.map(&(0..9), &gpus, Content::default());
    assert_eq!(keys(empty), BTreeSet::from([1]));
    for (at, gpus) in [(5..5, &gpus[..]), (5..9, &[])] {
        assert_eq!(
            keys(mappings.map(&at, gpus, content(2))),
            BTreeSet::from([2])
        );
    }
    assert_eq!(mappings.parts(), 0);
}

#[test]
fn long_random_sequences_come_to_what_the_model_says() {
    let state = &mut 1;
    for _ in 0..200 {
        let mut mappings = Mappings::default();
        let mut model: BTreeMap<(u8, u64), usize> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for key in 0..40 {
            let start = random(state, 12);
            let at = start..start + random(state, 6);
            let dropped = if random(state, 2) == 0 {
                let gpus: Vec<u8> = (0..random(state, 4))
                    .map(|_| random(state, 3) as u8)
                    .collect();
                for gpu in &gpus {
                    model.extend(at.clone().map(|address| ((*gpu, address), key)));
                }
                kept.insert(key);
                let gpus: Vec<Uuid> = gpus.into_iter().map(uuid).collect();
                mappings.map(&at, &gpus, content(key))
            } else {
                let gpu = (random(state, 4) as u8).checked_sub(1);
                model.retain(|(own, address), _| {
                    gpu.is_some_and(|gpu| gpu != *own) || !at.contains(address)
                });
                mappings.unmap(&at, gpu.map(uuid).as_ref())
            };
            let now: BTreeSet<usize> = model.values().copied().collect();
            let gone: BTreeSet<usize> = kept.difference(&now).copied().collect();
            assert_eq!(keys(dropped), gone);
            kept = now;
            assert!(mappings.parts() <= model.len());
        }
        assert_eq!(keys(mappings.into_contents().collect()), kept);
    }
}
