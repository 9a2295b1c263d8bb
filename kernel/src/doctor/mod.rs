//! `ringfence doctor`: whether `ringfence run` can work on this machine, and what to do if not.
//!
//! What Ringfence needs of the kernel is tried, not looked up: the probes call the functions that the launcher, the
//! sentry and the server call, in children that leave nothing behind. A version number would say what a kernel has, but
//! not what a container's seccomp profile, a security module or a sysctl takes away again. What it needs of NVIDIA's
//! driver is read without opening a GPU, which could take seconds.
//!
//! | module | subject |
//! |---|---|
//! | `checks` | the table: what is needed, what for, and how to get it |
//! | `order` | which needs build on which |
//! | `probes` | how each need is tried |
//! | `child` | processes in which to try |
//! | `gpus` | NVIDIA's driver, its GPUs and their nodes |
//! | `containers` | what containers need besides |
//! | `report` | what was found, as text and as JSON |

mod checks;
mod child;
mod containers;
mod gpus;
mod order;
mod probes;
mod report;

use ringfence_sentry::failure::Failure;

pub use self::probes::outside;
use self::report::{Finding, Outcome, Report};
use crate::driver::{self, Demand};
use crate::endings;

/// Prints to stdout what was found, as text or as a JSON object. Returns the exit status: 0 if `ringfence run` can work
/// here, 1 if it cannot. Fails if it cannot be printed.
///
/// The calling process must have one thread; otherwise what takes a child to be tried is reported as missing.
pub fn run(json: bool) -> Result<u8, Failure> {
    let report = examine();
    let text = if json {
        report.to_json()
    } else {
        report.to_string()
    };
    endings::print(&(text + "\n"))?;
    Ok(u8::from(!report.usable()))
}

fn examine() -> Report {
    let mut findings = vec![kernel()];
    for check in &checks::ALL {
        let finding = match order::cause(check.name(), &findings) {
            Some(cause) => check.left_out(cause),
            None => check.perform(),
        };
        findings.push(finding);
    }
    findings.extend(gpus::examine());
    findings.extend(containers::findings());
    let driver = driver::choose(&Demand::default());
    Report::new(findings, driver.map(|chosen| chosen.driver))
}

/// The kernel's release, which decides nothing: whoever reads the rest may want to know.
fn kernel() -> Finding {
    let detail = match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => format!("Linux {}", release.trim()),
        Err(error) => format!("unknown: /proc/sys/kernel/osrelease: {error}"),
    };
    Finding::plain("kernel", Outcome::Note, detail)
}
