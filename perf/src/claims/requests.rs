//! What a light request to NVIDIA's driver costs, by each way that there is.

use std::process::Command;

use super::{Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit};
use crate::guest::requests::{PROBED_IDS, VERSION};
use crate::measure::{Side, in_turns};

pub const REQUESTS: Claim = Claim {
    name: "requests",
    title: "NV_ESC_CHECK_VERSION_STR and RM_CONTROL 0x214 on NVIDIA's driver, trapped",
    beside: "the same requests without a sandbox, and under a naive supervisor",
    how: "The same program, which reads the clock around each request, is run in each way in turns, anew for each round. \
          The values are what the median has above that without a sandbox. The naive supervisor receives the \
          notification, takes a copy of the descriptor (pidfd_getfd), looks what it is (fstat), reads the argument, \
          issues the request, writes the argument back, and answers. All processors of the machine are used. The bar is what \
          gVisor's runsc was measured to take above native on an H200 with driver 580.159.04.",
    bars: &[
        above("CHECK_VERSION_STR, trapped", Limit::None),
        above("CHECK_VERSION_STR, naive supervisor", Limit::None),
        above("0x214, trapped", Limit::AtMost(8.25)),
        above("0x214, naive supervisor", Limit::None),
    ],
    needs_gpu: true,
    measure,
};

const fn above(of: &'static str, limit: Limit) -> Bar {
    let unit = Unit::Microseconds;
    Bar { of, unit, limit }
}

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let mut measurement = Measurement {
        values: Vec::new(),
        samples: Vec::new(),
        curves: Vec::new(),
        notes: Vec::new(),
    };
    for (kind, name) in [(VERSION, "CHECK_VERSION_STR"), (PROBED_IDS, "0x214")] {
        let inside = || {
            let mut command = session.sandbox(&["--driver", "host"]);
            command.arg(&session.own).args(["guest", "requests", kind]);
            command
        };
        let outside = |how: &str| session.guest(&[how, kind]);
        let ways: [(_, &dyn Fn() -> Command); 3] = [
            ("without a sandbox", &|| outside("requests")),
            ("trapped", &inside),
            ("naive supervisor", &|| outside("naive")),
        ];
        let mut sides: Vec<Side<'_>> = ways
            .iter()
            .map(|(way, command)| {
                Side::new(format!("{name}, {way}"), |samples| {
                    session.ask_anew(way, command(), samples)
                })
            })
            .collect();
        let samples = in_turns(session.effort.anew(), &session.progress, &mut sides)?;
        if let Some((native, others)) = samples.split_first() {
            let values = others
                .iter()
                .map(|way| Ok(way.microseconds_above(native, 0.5)));
            measurement.values.extend(values);
        }
        measurement.samples.extend(samples);
    }
    Ok(measurement)
}
