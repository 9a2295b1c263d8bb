//! The launcher of a container's sandbox: that it is there is known to the front, and what it leaves when it is killed somebody
//! else removes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use userland_tests::{eventually, finish, ringfence_with_faults};

use super::sandboxes::{Maker, said_of, with_gpu as running};
use super::{Front, handed_over, refused, with_gpu};

/// The process that has this directory open.
fn holder(directory: &Path) -> Option<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holds = |number: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{number}/fd"));
        let mut links = descriptors.into_iter().flatten().flatten();
        links.any(|link| fs::read_link(link.path()).is_ok_and(|path| path == directory))
    };
    numbers.find(holds).map(Pid::from_raw)
}

#[test]
fn what_a_killed_launcher_has_left_the_next_delete_removes() {
    for maker in Maker::all() {
        let called = maker.called();
        maker.front.specify(&running("exec sleep 1000"));
        assert_eq!(called.run(&["create", "c"]).status, 0);
        assert_eq!(called.run(&["start", "c"]).status, 0);
        let state: Value =
            serde_json::from_str(&called.run(&["state", "c"]).stdout).expect("a state");
        let bundle = PathBuf::from(state["bundle"].as_str().expect("a bundle"));
        // Whoever reads what is known of the sandbox, or connects to the way into it, could enter it.
        for entry in fs::read_dir(&bundle).expect("a bundle").flatten() {
            let mode = entry.metadata().expect("a status").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}: {mode:o}", entry.path());
        }
        // What somebody else makes and removes is no matter of this container's.
        let other = Front::of_script();
        other.specify(&with_gpu());
        assert_eq!(other.run(&["create", "other"]).status, 42);
        let delete = ["delete", "other"];
        assert_eq!(other.run(&delete), handed_over(&delete));
        assert!(bundle.exists(), "{}", maker.name);
        let launcher = holder(&bundle).expect("a launcher");
        kill(launcher, Signal::SIGKILL).expect("killed");
        eventually("the container has ended", || {
            called.status_of_container().as_deref() == Some("stopped")
        });
        assert_eq!(called.run(&["delete", "c"]).status, 0);
        assert!(!bundle.exists(), "{}", maker.name);
    }
}

#[test]
fn what_another_user_could_write_is_no_place_for_bundles() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root makes directories of other users");
        return;
    }
    let front = Front::of_script();
    front.specify(&with_gpu());
    let own = front.path("configuration/ringfence");
    fs::create_dir_all(&own).expect("a directory");
    let text = format!(
        "runtime.low-level = \"{}\"\nruntime.driver = \"sim\"\n",
        front.path("low-level").display()
    );
    fs::write(own.join("config.toml"), text).expect("settings");
    let place = front.path("ringfence-containers");
    fs::create_dir(&place).expect("a directory");
    let expect = |owner: u32, mode: u32| {
        chown(&place, Some(owner), None).expect("another owner");
        fs::set_permissions(&place, Permissions::from_mode(mode)).expect("a mode");
        let mut command = front.command(&["create", "c"]);
        command.env("XDG_RUNTIME_DIR", front.directory.path());
        // That user cannot write the test's log.
        command.env_remove("RINGFENCE_CONFIG");
        command.env("XDG_CONFIG_HOME", front.path("configuration"));
        let ended = finish(command.uid(1000).gid(1000));
        let line = format!(
            "{}: it belongs to user {owner}, or others may write it (mode {mode:04o}): remove it, or set XDG_RUNTIME_DIR to a directory of \
             your own",
            place.display()
        );
        assert_eq!(ended, refused(&line));
    };
    expect(1001, 0o777);
    expect(1000, 0o777);
    expect(1001, 0o755);
}

/// Each step of the front's fails in turn. The launcher is started by two of them, since it is to be nobody's child.
#[test]
fn a_launcher_that_cannot_be_started_is_told_of_in_a_line() {
    let front = Front::of_script();
    fs::remove_file(front.runtime()).expect("removed");
    std::os::unix::fs::symlink(ringfence_with_faults(), front.runtime()).expect("a link");
    front.specify(&with_gpu());
    let mut lines = Vec::new();
    let (mut step, mut unheard) = (1, 0);
    // So many steps in a row that fail and are not heard of mean that there are none left.
    while unheard < 8 {
        let mut command = front.command(&["create", "c"]);
        // EHWPOISON, by which no call fails here otherwise.
        command.env(
            "RINGFENCE_FAULTS",
            format!("launcher.step@{step}=errno:133"),
        );
        let ended = finish(&mut command);
        match ended.status {
            1 => {
                lines.push(ended.stderr);
                unheard = 0;
            }
            42 => unheard += 1,
            _ => panic!("{step}: {ended:?}"),
        }
        step += 1;
    }
    for told in &lines {
        // A launcher that has been started has a step of that number, too.
        let (own, others): (Vec<&str>, Vec<&str>) = told
            .lines()
            .partition(|line| line.starts_with("ringfence-runtime: "));
        let is_one = own.len() == 1 && own.iter().all(|line| line.ends_with("hardware error"));
        let are_launchers = others.iter().all(|line| line.starts_with("ringfence: "));
        assert!(is_one && are_launchers, "{lines:?}");
    }
    let starts = lines
        .iter()
        .filter(|line| line.contains("starting the launcher"));
    assert_eq!(starts.count(), 2, "{lines:?}");
    // Those that had the log by then have failed in it.
    let said = said_of(&front.path("messages.log"), "c");
    assert!(
        !said.is_empty() && said.iter().all(|line| line.starts_with("ERROR ")),
        "{said:?}"
    );
}
