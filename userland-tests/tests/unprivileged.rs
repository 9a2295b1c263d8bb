//! Ringfence as an ordinary user runs it.

use std::process::Command;

use userland_tests::{Ended, Reachable, finish, ringfence_program};

/// Nobody and nogroup.
const USER: u32 = 65534;

#[test]
fn an_ordinary_user_needs_no_rights() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "skipped: only root can become another user; as an ordinary user all the other tests prove this"
        );
        return;
    }
    let executables = Reachable::new();
    let run = |arguments: &[&str]| executables.run_as(USER, &[], arguments);
    let guest = executables.guest.to_str().expect("a path in UTF-8");
    let identity = run(&[
        "sh",
        "-c",
        "id -u; id -g; cat /proc/self/status | grep -E '^Cap(Eff|Prm|Bnd)'",
    ]);
    let none = "0000000000000000";
    let expected = format!("65534\n65534\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\n");
    assert_eq!(identity, Ended::printing(&expected));
    assert_eq!(run(&[guest, "close"]), Ended::printing("freed 50 times\n"));
    assert_eq!(
        run(&[guest, "pin-private"]).stdout.lines().next(),
        Some("pinned: ok")
    );
}

/// Where there is one user, root, who cannot become another to look at the kernel's files.
#[test]
fn root_of_a_namespace_without_other_users_can_run_a_program() {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount"])
        .arg(ringfence_program())
        .args(["run", "--driver", "sim", "--", "sh", "-c"])
        .arg("echo ran; head -c 1 /proc/kpagecount 2>/dev/null | wc -c");
    let ended = finish(&mut command);
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "ran\n0\n"),
        "{ended:?}"
    );
}
