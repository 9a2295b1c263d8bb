//! The table of claims: complete, and in words that a reader can do something with.

use std::collections::BTreeSet;

use ringfence_perf::claims;
use ringfence_perf::claims::suite;
use ringfence_perf::command_line;
use ringfence_perf::value::Limit;
use ringfence_perf::ways::Way;

#[test]
fn every_claim_has_a_name_of_its_own_a_bar_and_words() {
    let names: BTreeSet<_> = claims::ALL.iter().map(|claim| claim.name).collect();
    assert_eq!(names.len(), claims::ALL.len());
    assert!(!names.contains(command_line::ALL));
    for claim in claims::ALL {
        let name = claim.name;
        assert!(
            !claim.title.is_empty() && !claim.beside.is_empty(),
            "{name}"
        );
        assert!(claim.how.len() > 80 && claim.how.ends_with('.'), "{name}");
        assert!(!claim.bars.is_empty(), "{name}");
        assert!(
            claim.bars.iter().any(|bar| bar.limit != Limit::None),
            "{name}: nothing is claimed"
        );
        let values: BTreeSet<_> = claim.bars.iter().map(|bar| bar.of).collect();
        assert_eq!(values.len(), claim.bars.len(), "{name}");
    }
}

#[test]
fn the_bars_are_those_that_the_project_set_itself() {
    let bars: Vec<_> = claims::ALL
        .iter()
        .flat_map(|claim| claim.bars.iter().map(|bar| (claim.name, bar.limit)))
        .filter(|(_, limit)| *limit != Limit::None)
        .collect();
    assert_eq!(
        bars,
        [
            ("ring-hot", Limit::AtMost(0.2)),
            ("ring-asleep", Limit::AtMost(1.0)),
            ("trap", Limit::AtMost(1.5)),
            ("trap", Limit::AtMost(2.0)),
            ("tasks", Limit::AtLeast(1.6)),
            ("tasks", Limit::AtMost(0.3)),
            ("start", Limit::AtMost(1.5)),
            ("memory", Limit::AtMost(16.0)),
            ("files", Limit::AtMost(1.05)),
            ("idle", Limit::AtMost(4.0)),
            ("idle", Limit::AtMost(1.0)),
            ("pins", Limit::AtMost(300.0)),
            ("pins", Limit::AtMost(1000.0)),
            ("torch", Limit::AtMost(1.01)),
            ("launch", Limit::AtMostWithinNoise(1.0)),
            ("launch", Limit::AtMostWithinNoise(1.0)),
            ("requests", Limit::AtMost(6.5)),
            ("requests", Limit::AtMost(7.5)),
            ("requests", Limit::AtMost(1.6)),
            ("requests", Limit::AtMost(1.6)),
            ("suite", Limit::AtMost(1.05)),
            ("phases", Limit::AtMost(1.04)),
            ("phases", Limit::AtMost(1.25)),
            ("crowd", Limit::AtMost(1.02)),
            ("dataloader", Limit::AtMost(1.01)),
            ("inference", Limit::AtMost(1.01)),
        ]
    );
}

#[test]
fn a_claim_is_found_by_its_name_only() {
    for claim in claims::ALL {
        let found = claims::find(claim.name).map(|found| found.name);
        assert_eq!(found, Some(claim.name));
    }
    assert!(claims::find("all").is_none());
}

#[test]
fn who_has_ways_has_the_two_that_are_compared() {
    for claim in claims::ALL.iter().filter(|claim| !claim.ways.is_empty()) {
        for way in [Way::Native, Way::Ringfence] {
            assert!(claim.ways.contains(&way), "{}: {way:?}", claim.name);
        }
    }
}

#[test]
fn the_programs_of_the_suite_are_short_and_say_what_they_are_about() {
    for (name, source) in suite::PROGRAMS {
        assert!(source.lines().count() < 60, "{name}");
        assert!(source.starts_with("// "), "{name}");
        assert!(source.contains("return checked("), "{name}");
    }
}
