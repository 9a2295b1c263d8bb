//! What a request costs that the kernel stops for the sentry, beyond what stopping it costs by itself.

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::guest::requests::{PROBED_IDS, VERSION};
use crate::measure::{Side, in_turns};
use crate::processors::Confined;

pub const TRAP: Claim = Claim {
    name: "trap",
    title: "a trapped ioctl that the simulated driver answers without doing anything (NV_ESC_CHECK_VERSION_STR)",
    beside: "a bare seccomp notification: getppid, answered by a supervisor that does nothing else",
    how: "Both programs are processes that read the clock around each call, on the same two processors, and neither is \
          confined further. The bare supervisor is a process of its own and receives and answers by the sentry's own \
          listener, with the same flags. The third value is of a request that points to a second buffer, of 384 bytes.",
    bars: &[
        Bar::ratio("median", 1.5),
        Bar::ratio("99th percentile", 2.0),
        Bar::shown("median of RM_CONTROL 0x214", Unit::Ratio),
    ],
    ways: &[],
    needs_gpu: false,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let mut bare = session.subject("the bare notification", session.guest(&["bare"]))?;
    let sandboxed = |kind: &str| {
        let command = session.sandboxed_guest(&[], &["requests", kind]);
        session.subject("the program in the sandbox", command)
    };
    let mut trapped = sandboxed(VERSION)?;
    let mut pointing = sandboxed(PROBED_IDS)?;
    let mut sides = [
        Side::new("trapped ioctl", |count| trapped.ask(&count.to_string())),
        Side::new("bare notification", |count| bare.ask(&count.to_string())),
        Side::new("trapped RM_CONTROL 0x214", |count| {
            pointing.ask(&count.to_string())
        }),
    ];
    let samples = in_turns(session.effort.prompt, &session.progress, &mut sides)?;
    let [trapped, bare, pointing] = &samples[..] else {
        return Err(NotMeasured::failed("the trap", "not three sides"));
    };
    Ok(Measurement {
        values: vec![
            Ok(trapped.ratio_to(bare, 0.5)),
            Ok(trapped.ratio_to(bare, 0.99)),
            Ok(pointing.ratio_to(bare, 0.5)),
        ],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
