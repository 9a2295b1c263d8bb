//! What a light request to NVIDIA's driver costs, by each way that there is.

use super::{Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit};
use crate::comparison::{Comparison, Further, Relation};
use crate::guest::requests::{PROBED_IDS, VERSION};
use crate::ways::{self, Way};

pub const REQUESTS: Claim = Claim {
    name: "requests",
    title: "NV_ESC_CHECK_VERSION_STR and RM_CONTROL 0x214 on NVIDIA's driver, trapped",
    beside: "the same requests without a sandbox, and under a naive supervisor",
    how: "The same program, which reads the clock around each request, is run in each way in turns, anew for each round. \
          The values are what the median has above that without a sandbox. The naive supervisor receives the \
          notification, takes a copy of the descriptor (pidfd_getfd), looks what it is (fstat), reads the argument, \
          issues the request, writes the argument back, and answers. All processors of the machine are used. The last two \
          values say how far the trapped requests' tail is from their own median.",
    bars: &[
        above("CHECK_VERSION_STR, trapped", Limit::AtMost(6.5)),
        above("CHECK_VERSION_STR, naive supervisor", Limit::None),
        above("0x214, trapped", Limit::AtMost(7.5)),
        above("0x214, naive supervisor", Limit::None),
        Bar::ratio("CHECK_VERSION_STR, 99th percentile over median", 1.6),
        Bar::ratio("0x214, 99th percentile over median", 1.6),
    ],
    ways: ways::ALL,
    needs_gpu: true,
    measure,
};

const fn above(of: &'static str, limit: Limit) -> Bar {
    let unit = Unit::Microseconds;
    Bar { of, unit, limit }
}

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let mut above = Vec::new();
    let mut tails = Vec::new();
    let mut all = Vec::new();
    for (kind, name) in [(VERSION, "CHECK_VERSION_STR"), (PROBED_IDS, "0x214")] {
        let comparison = Comparison {
            ways: REQUESTS.ways,
            work: session.work(&["requests", kind]).with_gpu(),
            rounds: session.effort.anew(),
            parts: &[name],
            further: &[Further {
                name: NAIVE,
                command: &|| session.guest(&["naive", kind]),
            }],
        };
        let samples = comparison.rounds.samples;
        let compared = comparison.measure(session, &|start| {
            Ok(vec![session.ask_anew(name, start()?, samples)?])
        })?;
        let relation: Relation = |own, native| own.microseconds_above(native, 0.5);
        let native = compared.part(Way::Native.name(), 0)?;
        above.push(compared.value(0, relation));
        above.push(Ok(relation(compared.part(NAIVE, 0)?, native)));
        let trapped = compared.part(Way::Ringfence.name(), 0)?;
        tails.push(Ok(trapped.quantile_over_median(0.99)));
        all.extend(compared.samples());
    }
    Ok(Measurement {
        values: above.into_iter().chain(tails).collect(),
        samples: all,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// What is measured beside the ways.
const NAIVE: &str = "naive supervisor";
