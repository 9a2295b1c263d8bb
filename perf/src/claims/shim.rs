//! What a request costs that goes to the server without the trap, by the library that `--fast` preloads.

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session};
use crate::guest::requests::VERSION;
use crate::measure::{Side, in_turns};
use crate::processors::Confined;

pub const SHIM: Claim = Claim {
    name: "shim",
    title: "an ioctl through the shim, which the simulated driver answers without doing anything (NV_ESC_CHECK_VERSION_STR)",
    beside: "the same ioctl, trapped",
    how: "The same program runs in two sandboxes, one of them with `ringfence run --fast`, on the same two processors.",
    bars: &[Bar::ratio("median", 0.25)],
    needs_gpu: false,
    measure,
};

/// Why the shim cannot be measured, if it cannot.
pub fn lacking(session: &Session) -> Result<Option<NotMeasured>, NotMeasured> {
    let has = session.has_option(FAST)?;
    Ok((!has).then(|| {
        NotMeasured::lacking(
            "this ringfence has no option --fast",
            "give one that has with --ringfence PATH",
        )
    }))
}

/// The option that preloads the shim.
pub const FAST: &str = "--fast";

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    if let Some(lacking) = lacking(session)? {
        return Err(lacking);
    }
    let _confined = Confined::to_two().attempt("the processors")?;
    let sandboxed = |options: &[&str]| {
        let command = session.sandboxed_guest(options, &["requests", VERSION]);
        session.subject("the program in the sandbox", command)
    };
    let (mut trapped, mut fast) = (sandboxed(&[])?, sandboxed(&[FAST])?);
    let mut sides = [
        Side::new("ioctl through the shim", |count| {
            fast.ask(&count.to_string())
        }),
        Side::new("trapped ioctl", |count| trapped.ask(&count.to_string())),
    ];
    let samples = in_turns(session.effort.prompt, &session.progress, &mut sides)?;
    let [fast, trapped] = &samples[..] else {
        return Err(NotMeasured::failed("the shim", "not two sides"));
    };
    Ok(Measurement {
        values: vec![Ok(fast.ratio_to(trapped, 0.5))],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
