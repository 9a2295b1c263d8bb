//! What programs begin with that are run by a tool which heeds signals.

use std::process::Command;
use std::time::Duration;

use ringfence_programs::leftovers::heed_signals;
use ringfence_programs::running::{End, run};

#[test]
fn a_program_has_no_signal_blocked_and_none_ignored_because_the_tool_heeds_some() {
    let told = || {
        let mut command = Command::new("grep");
        command.args(["-E", "^Sig(Blk|Ign):", "/proc/self/status"]);
        let ran = run(&mut command, Duration::from_secs(10)).expect("grep");
        assert_eq!(ran.end, End::Status(0));
        String::from_utf8(ran.stdout).expect("text")
    };
    let before = told();
    heed_signals().expect("signals");
    assert_eq!(told(), before);
    assert!(
        before.starts_with("SigBlk:\t0000000000000000\n"),
        "{before}"
    );
}
