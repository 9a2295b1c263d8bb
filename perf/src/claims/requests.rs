//! What a light request to NVIDIA's driver costs, by each way that there is.

use std::process::Command;

use super::{Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit, shim};
use crate::guest::requests::{PROBED_IDS, VERSION};
use crate::measure::{Side, in_turns};

pub const REQUESTS: Claim = Claim {
    name: "requests",
    title: "NV_ESC_CHECK_VERSION_STR and RM_CONTROL 0x214 on NVIDIA's driver, trapped and through the shim",
    beside: "the same requests without a sandbox, and under a naive supervisor",
    how: "The same program, which reads the clock around each request, is run in each way in turns, anew for each round. \
          The values are what the median has above that without a sandbox. The naive supervisor receives the \
          notification, takes a copy of the descriptor (pidfd_getfd), looks what it is (fstat), reads the argument, \
          issues the request, writes the argument back, and answers. All processors of the machine are used.",
    bars: &[
        above("CHECK_VERSION_STR, trapped", Limit::None),
        above("CHECK_VERSION_STR, naive supervisor", Limit::None),
        above("CHECK_VERSION_STR, through the shim", Limit::AtMost(2.5)),
        above("0x214, trapped", Limit::None),
        above("0x214, naive supervisor", Limit::None),
        above("0x214, through the shim", Limit::AtMost(2.5)),
    ],
    needs_gpu: true,
    measure,
};

const fn above(of: &'static str, limit: Limit) -> Bar {
    let unit = Unit::Microseconds;
    Bar { of, unit, limit }
}

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let without_shim = shim::lacking(session)?;
    let mut measurement = Measurement {
        values: Vec::new(),
        samples: Vec::new(),
        curves: Vec::new(),
        notes: Vec::new(),
    };
    for (kind, name) in [(VERSION, "CHECK_VERSION_STR"), (PROBED_IDS, "0x214")] {
        let inside = |options: &[&str]| {
            let mut command = session.sandbox(&[&["--driver", "host"], options].concat());
            command.arg(&session.own).args(["guest", "requests", kind]);
            command
        };
        let outside = |how: &str| session.guest(&[how, kind]);
        let ways: [(_, &dyn Fn() -> Command); 4] = [
            ("without a sandbox", &|| outside("requests")),
            ("trapped", &|| inside(&[])),
            ("naive supervisor", &|| outside("naive")),
            ("through the shim", &|| inside(&[shim::FAST])),
        ];
        // The shim's is the last.
        let possible = ways.len() - usize::from(without_shim.is_some());
        let mut sides: Vec<Side<'_>> = ways
            .iter()
            .take(possible)
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
        measurement.values.extend(without_shim.clone().map(Err));
        measurement.samples.extend(samples);
    }
    Ok(measurement)
}
