//! Ringfence as an ordinary user runs it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use userland_tests::{Directory, Ended, finish, guest_program, ringfence_program};

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
    // The user may not be able to reach the executables where they are.
    let directory = Directory::new("unprivileged");
    let everyone = Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), everyone.clone()).expect("permissions");
    let reachable = |from: std::path::PathBuf, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).expect("a copy");
        fs::set_permissions(&to, everyone.clone()).expect("permissions");
        to
    };
    let ringfence = reachable(ringfence_program(), "ringfence");
    let guest = reachable(guest_program(), "guest");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&ringfence);
        command
            .args(["run", "--driver", "sim", "--"])
            .args(arguments);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .uid(USER)
            .gid(USER);
        finish(&mut command)
    };
    let guest = guest.to_str().expect("a path in UTF-8");
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
