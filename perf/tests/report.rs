//! The three forms of the results, from values that nobody measured.

use ringfence_perf::claim::{Claim, Measurement};
use ringfence_perf::machine::Machine;
use ringfence_perf::measure::Samples;
use ringfence_perf::report::{Entry, Report, page, terminal};
use ringfence_perf::value::{Bar, ByWay, Curve, Limit, Line, NotMeasured, Unit, Value};

const CLAIM: Claim = Claim {
    name: "apples",
    title: "how apples <fall>",
    beside: "pears",
    how: "They are dropped.",
    bars: &[
        Bar::ratio("median", 1.5),
        Bar {
            of: "bruises",
            unit: Unit::CallsPerRequest,
            limit: Limit::AtLeast(10.0),
        },
        Bar::shown("weight", Unit::Mebibytes),
        Bar::ratio("cider", 2.0),
    ],
    ways: &[],
    needs_gpu: false,
    measure: |_| Err(NotMeasured::lacking("nobody asked", "ask")),
};

fn samples(label: &str, nanoseconds: [u64; 4]) -> Samples {
    let mut samples = Samples::new(label);
    for time in nanoseconds {
        samples.add_round(&[time, time]);
    }
    samples
}

fn outcome() -> Result<Measurement, NotMeasured> {
    let (apples, pears) = (
        samples("apples", [1000, 2000, 2000, 2000]),
        samples("pears", [1000; 4]),
    );
    let plain = |value| Value::plain(value, "some");
    Ok(Measurement {
        values: vec![
            Ok(apples.ratio_to(&pears, 0.5)),
            Ok(plain(12.0)),
            Ok(plain(0.25)),
            Err(NotMeasured::lacking("there is no press", "get one")),
        ],
        samples: vec![apples, pears],
        curves: vec![Curve {
            title: "harvest over trees".to_owned(),
            over: "trees".to_owned(),
            shown: "apples".to_owned(),
            lines: vec![Line {
                label: "autumn".to_owned(),
                points: vec![(1.0, 10.0), (2.0, 21.0)],
            }],
        }],
        notes: vec!["it was windy".to_owned()],
    })
}

fn report(outcome: Result<Measurement, NotMeasured>, slack: f64) -> Report {
    Report {
        machine: Machine {
            processor: "Abacus".to_owned(),
            processors: 4,
            two: vec![0, 2],
            threads_per_core: 2,
            hypervisor: true,
            memory_gib: 3,
            kernel: "9.9".to_owned(),
            clock: "sand".to_owned(),
            mitigations: Vec::new(),
            load_before: "0.10".to_owned(),
            load_after: "1.20".to_owned(),
            driver: None,
            gpus: Vec::new(),
            doctor: vec!["landlock: too old".to_owned()],
            ringfence: "ringfence 1.2.3".to_owned(),
            others: vec!["bubblewrap 4.5".to_owned(), "runc 6.7".to_owned()],
        },
        quick: true,
        slack,
        claims: vec![Entry::new(&CLAIM, outcome, slack)],
    }
}

#[test]
fn the_table_has_a_line_for_each_value() {
    let expected = "\
processors   4 × Abacus, several threads a core, in a virtual machine
measured on  processors 0 and 2
memory       3 GiB
kernel       Linux 9.9, clock sand
mitigations  none in force
load         0.10 before, 1.20 after
driver       none
GPUs         none
doctor       landlock: too old
ringfence    ringfence 1.2.3
beside       bubblewrap 4.5; runc 6.7
(--quick: little was measured, and the figures are rough)

claim   value    measured  beside                   quartiles      bar
apples  median   2.00 µs   1.00 µs  2.00 ×          1.750 to 2.00  at most 1.500 ×          MISSED
apples  bruises  some               12.0 a request                 at least 10.0 a request  met
apples  weight   some               0.250 MiB                      none                     shown
apples  cider                                                      at most 2.00 ×           not measured

apples was not measured: there is no press; get one
apples: it was windy
";
    assert_eq!(terminal::table(&report(outcome(), 1.0)), expected);
}

#[test]
fn what_is_missed_passes_with_enough_slack() {
    assert!(!report(outcome(), 1.0).passes());
    assert!(report(outcome(), 1.4).passes());
}

#[test]
fn what_this_machine_lacks_passes_and_what_went_wrong_does_not() {
    let lacking = report(Err(NotMeasured::lacking("no tree", "plant one")), 1.0);
    assert!(lacking.passes() && !lacking.has_values());
    let failed = report(Err(NotMeasured::failed("the tree", "it fell")), 100.0);
    assert!(!failed.passes() && !failed.has_values());
}

#[test]
fn json_has_the_same_values() {
    let json = serde_json::to_value(report(outcome(), 1.4)).expect("JSON");
    let values = json["claims"][0]["values"].as_array().expect("values");
    assert_eq!(
        values[0],
        serde_json::json!({
            "of": "median",
            "unit": "ratio",
            "limit": {"kind": "at-most", "value": 1.5},
            "value": 2.0,
            "quartiles": [1.75, 2.0],
            "measured": "2.00 µs",
            "beside": "1.00 µs",
            "interval": null,
            "by_way": [],
            "verdict": "missed",
            "passes": true,
            "not_measured": null,
        })
    );
    assert_eq!(
        values[3]["not_measured"],
        serde_json::json!({
            "reason": "there is no press",
            "remedy": "get one",
            "failed": false,
        })
    );
    assert_eq!(json["machine"]["processors"], 4);
    let times = &json["claims"][0]["distributions"][1];
    assert_eq!((&times["count"], &times["least"]), (&8.into(), &1.0.into()));
}

#[test]
fn the_page_has_every_value_and_a_plot_for_each_that_there_is() {
    let page = page::page(&report(outcome(), 1.0));
    assert!(page.contains("<p>How apples &lt;fall&gt;, beside pears.</p>"));
    assert!(page.contains(
        "<td>median</td><td>2.00 µs</td><td>1.00 µs</td><td>2.00 ×</td><td>1.750 to 2.00</td>\
         <td>at most 1.500 ×</td><td class=\"missed\">MISSED</td>"
    ));
    assert!(page.contains("not measured: there is no press; get one"));
    assert!(page.contains("<p>it was windy</p>"));
    assert!(page.contains("<h3>Harvest over trees</h3>"));
    assert_eq!(page.matches("<svg ").count(), 2);
    assert_eq!(page.matches("</svg>").count(), 2);
}

#[test]
fn a_page_of_nothing_measured_has_no_plots() {
    let lacking = Err(NotMeasured::lacking("no tree", "plant one"));
    let page = page::page(&report(lacking, 1.0));
    assert_eq!(page.matches("<svg ").count(), 0);
    assert_eq!(page.matches("not measured: no tree; plant one").count(), 4);
}

/// A value by ways, of which one is lacking, and Ringfence's runtime as it is given.
fn by_ways(runtime: ByWay) -> Report {
    let cell = |way, measured: &str, value| ByWay {
        way,
        measured: measured.to_owned(),
        value,
        quartiles: None,
        not_measured: None,
    };
    let lacking = NotMeasured::lacking("no <runsc> was named", "name one");
    let mut outcome = outcome().expect("a measurement");
    if let Ok(weight) = &mut outcome.values[2] {
        weight.interval = Some((0.2, 0.5));
        weight.quartiles = Some((0.1, 0.75));
        weight.by_way = vec![
            cell("native", "1.00 ms", None),
            cell("ringfence run", "1.50 ms", Some(1.5)),
            runtime,
            ByWay::not_measured("runsc", lacking),
        ];
    }
    report(Ok(outcome), 1.4)
}

fn measured_runtime() -> ByWay {
    ByWay {
        way: "ringfence-runtime",
        measured: "2.00 ms".to_owned(),
        value: Some(2.0),
        quartiles: None,
        not_measured: None,
    }
}

#[test]
fn what_was_measured_by_ways_has_columns_and_a_reason_for_what_is_lacking() {
    let table = terminal::table(&by_ways(measured_runtime()));
    let expected = "
By each way, and in parentheses beside running natively:

claim   value   native   ringfence run        ringfence-runtime   runsc
apples  weight  1.00 ms  1.50 ms (1.500 MiB)  2.00 ms (2.00 MiB)  –

apples was not measured: there is no press; get one
apples: it was windy
runsc was not measured: no <runsc> was named; name one
";
    assert!(table.ends_with(expected), "{table}");
    assert!(table.contains("0.100 to 0.750 (median 0.200 to 0.500)"));
}

#[test]
fn the_page_and_json_have_what_was_measured_by_ways() {
    let report = by_ways(measured_runtime());
    let page = page::page(&report);
    assert!(page.contains(
        "<tr><td>apples</td><td>weight</td><td>1.00 ms</td><td>1.50 ms (1.500 MiB)</td>\
         <td>2.00 ms (2.00 MiB)</td><td>–</td></tr>"
    ));
    assert!(page.contains("runsc was not measured: no &lt;runsc&gt; was named; name one"));
    let json = serde_json::to_value(&report).expect("JSON");
    let ways = &json["claims"][0]["values"][2]["by_way"];
    assert_eq!(ways[1]["way"], "ringfence run");
    assert_eq!(ways[1]["value"], 1.5);
    assert_eq!(ways[3]["not_measured"]["reason"], "no <runsc> was named");
    assert_eq!(
        json["claims"][0]["values"][2]["interval"],
        serde_json::json!([0.2, 0.5])
    );
}

#[test]
fn a_way_that_is_lacking_passes_and_ringfences_own_that_went_wrong_does_not() {
    assert!(by_ways(measured_runtime()).passes());
    let lacking = NotMeasured::lacking("no runc", "install it");
    assert!(by_ways(ByWay::not_measured("ringfence-runtime", lacking)).passes());
    let failed = NotMeasured::failed("ringfence-runtime", "it ended");
    assert!(!by_ways(ByWay::not_measured("ringfence-runtime", failed)).passes());
}
