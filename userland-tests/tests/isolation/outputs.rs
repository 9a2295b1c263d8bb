//! What the launcher writes for its caller lands in the file that was named, whatever programs have put in its place in a
//! directory that they were given.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// A directory that programs are given, and beside it a file that they are not.
struct Place {
    _both: Directory,
    given: PathBuf,
    precious: PathBuf,
}

const CONTENT: &str = "precious\n";

impl Place {
    fn new() -> Place {
        let both = Directory::new("outputs");
        let real = fs::canonicalize(both.path()).expect("its path");
        let (given, precious) = (real.join("given"), real.join("precious"));
        fs::create_dir(&given).expect("a directory");
        fs::write(&precious, CONTENT).expect("a file");
        Place {
            _both: both,
            given,
            precious,
        }
    }

    /// `ringfence COMMAND --bind DIRECTORY OPTIONS… -- true`, each `@` in an option standing for the directory.
    fn run(&self, ringfence: &Path, command: &str, options: &[&str]) -> Ended {
        self.run_program(ringfence, command, options, &["true"])
    }

    /// The same with another program.
    fn run_program(
        &self,
        ringfence: &Path,
        command: &str,
        options: &[&str],
        program: &[&str],
    ) -> Ended {
        let mut run = Command::new(ringfence);
        run.args([command, "--driver=sim", "--workdir=/", "--bind"]);
        run.arg(&self.given);
        run.args(options.iter().map(|option| self.named(option)));
        run.arg("--").args(program).stdin(Stdio::null());
        run.current_dir(&self.given);
        finish(run.env("RINGFENCE_FAULTS", "sentry.outputs=drop"))
    }

    fn named(&self, text_with_mark: &str) -> String {
        text_with_mark.replace('@', text(&self.given))
    }

    fn plant(&self, name: &str) {
        symlink(&self.precious, self.given.join(name)).expect("a link");
    }

    fn content(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.precious).expect("its content")).into_owned()
    }
}

#[test]
fn a_link_that_a_program_can_have_put_there_is_not_followed() {
    let place = Place::new();
    place.plant("planted");
    symlink(place.given.parent().expect("one"), place.given.join("out")).expect("a link");
    symlink("/proc/self/cwd", place.given.with_file_name("here")).expect("a link");
    let remedy = ": name a file that you may write to, where there is room";
    for (option, file, remedy) in [
        // However the directory is come to.
        ("--trace", "/proc/self/cwd/planted", remedy),
        ("--trace", "/proc/thread-self/root@/planted", remedy),
        ("--log", "/proc/self/cwd/planted", ""),
        ("--log", "/proc/self/cwd/out/precious", ""),
        ("--log", "@/../here/planted", ""),
        ("--trace", "@/planted", remedy),
        ("--trace", "@/out/precious", remedy),
        ("--log", "@/planted", ""),
        ("--log", "@/out/precious", ""),
    ] {
        let ended = place.run(&ringfence_program(), "run", &[option, file]);
        let line = place.named(&format!(
            "ringfence: {option} {file}: a symbolic link in @, where programs can put one, is not followed: remove it, or name \
             another file{remedy}"
        ));
        assert_eq!(ended, Ended::failing(125, &line));
    }
    let ended = place.run(&ringfence_program(), "record", &["--out", "@/planted"]);
    let line = place.named(
        "ringfence: --out @/planted: a symbolic link in @, where programs can put one, is not followed: remove it, or name \
         another file: name a file in a directory that you may write to",
    );
    assert_eq!(ended, Ended::failing(125, &line));
    assert_eq!(place.content(), CONTENT);
}

#[test]
fn a_named_pipe_that_a_program_can_have_put_there_is_not_waited_for() {
    let place = Place::new();
    let everybody = Mode::from_bits_truncate(0o666);
    mkfifo(&place.given.join("pipe"), everybody).expect("a pipe");
    let ended = place.run(&ringfence_program(), "run", &["--trace", "@/pipe"]);
    let line = place.named(
        "ringfence: --trace @/pipe: it is no ordinary file, and in @, where programs can put one: remove it, or name another \
         file: name a file that you may write to, where there is room",
    );
    assert_eq!(ended, Ended::failing(125, &line));
}

#[test]
fn a_recording_is_a_file_of_its_own_whatever_is_in_its_place() {
    let place = Place::new();
    place.plant("recording.part");
    let ended = place.run(&ringfence_program(), "record", &["--out", "@/recording"]);
    assert_eq!(ended, Ended::printing(""));
    assert_eq!(place.content(), CONTENT);
    let recording = fs::symlink_metadata(place.given.join("recording")).expect("a recording");
    assert!(recording.is_file() && recording.len() > 0);
    // Nothing else is left.
    assert_eq!(fs::read_dir(&place.given).expect("it").count(), 2);
}

/// Records a program that puts a link in the place of the recording while it is made.
fn recorded_by_who_exchanges_it(place: &Place, ringfence: &Path) -> Ended {
    let script = place.named(
        "cd @ && for part in recording*.part; do mv $part moved && ln -s ../precious $part; done",
    );
    let options = ["--out", "@/recording"];
    place.run_program(ringfence, "record", &options, &["sh", "-c", &script])
}

#[test]
fn a_recording_that_its_program_exchanges_is_none() {
    let place = Place::new();
    let ended = recorded_by_who_exchanges_it(&place, &ringfence_program());
    assert_eq!(ended.status, 125, "{ended:?}");
    let reason = "was moved away or replaced while the program ran";
    assert!(ended.stderr.contains(reason), "{ended:?}");
    assert!(fs::symlink_metadata(place.given.join("recording")).is_err());
    assert_eq!(place.content(), CONTENT);
}

/// That the test above can fail.
#[test]
fn a_link_is_published_for_a_recording_if_nobody_looks() {
    let place = Place::new();
    let ended = recorded_by_who_exchanges_it(&place, &ringfence_with_faults());
    assert_eq!(ended.status, 0, "{ended:?}");
    let recording = fs::symlink_metadata(place.given.join("recording")).expect("it");
    assert!(recording.is_symlink());
}

#[test]
fn what_is_no_ordinary_file_is_not_replaced_by_a_recording() {
    let place = Place::new();
    let pipe = place.given.join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o666)).expect("a pipe");
    let mut record = Command::new(ringfence_program());
    record.args(["record", "--driver=sim", "--out"]).arg(&pipe);
    let ended = finish(record.args(["--", "true"]).stdin(Stdio::null()));
    let line = format!(
        "ringfence: --out {}: it is no ordinary file: name a file in a directory that you may write to",
        pipe.display()
    );
    assert_eq!(ended, Ended::failing(125, &line));
}

#[test]
fn what_is_written_where_a_program_writes_is_written() {
    let place = Place::new();
    let options = ["--trace", "@/trace", "--log", "@/log"];
    let ended = place.run(&ringfence_program(), "run", &options);
    assert_eq!(ended, Ended::printing(""));
    let log = fs::read_to_string(place.given.join("log")).expect("a log");
    assert!(log.contains("starting a sandbox"), "{log}");
    // Elsewhere a path means what it says.
    for elsewhere in ["/dev/stderr", "/proc/self/fd/2"] {
        let ended = place.run(&ringfence_program(), "run", &["--log", elsewhere]);
        assert!(ended.stderr.contains("starting a sandbox"), "{ended:?}");
    }
    let trace = fs::read_to_string(place.given.join("trace")).expect("a trace");
    assert!(trace.starts_with('['), "{trace}");
}

/// The tests above can fail: a link in the place of what is written leads to what the program was not given.
#[test]
fn links_that_programs_can_have_put_there_lead_out_if_they_are_followed() {
    let ringfence = ringfence_with_faults();
    let place = Place::new();
    place.plant("planted");
    let ended = place.run(&ringfence, "run", &["--trace", "@/planted"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(place.content().starts_with('['));

    let place = Place::new();
    place.plant("planted");
    let ended = place.run(&ringfence, "run", &["--log", "/proc/self/cwd/planted"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(place.content().contains("starting a sandbox"));

    let place = Place::new();
    place.plant("recording.part");
    let ended = place.run(&ringfence, "record", &["--out", "@/recording"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_ne!(place.content(), CONTENT);
}

/// Whatever they are called, and whether they are there yet.
#[test]
fn no_two_outputs_are_the_same_file() {
    let place = Place::new();
    fs::write(place.given.join("there"), CONTENT).expect("a file");
    fs::hard_link(place.given.join("there"), place.given.join("hard")).expect("a link");
    let outside = place.precious.with_file_name("outside");
    symlink("precious", &outside).expect("a link");
    let (outside, precious) = (text(&outside), text(&place.precious));
    for (command, first, one, second, other) in [
        ("run", "--log", "@/new", "--trace", "new"),
        ("run", "--log", "@/../given/new", "--trace", "./new"),
        ("run", "--log", "@/there", "--trace", "@/hard"),
        ("run", "--log", precious, "--trace", outside),
        ("record", "--out", "new", "--log", "@/new"),
        ("record", "--out", "@/there", "--trace", "there"),
    ] {
        let options = [first, one, second, other];
        let ended = place.run(&ringfence_program(), command, &options);
        let line = format!(
            "ringfence: {first} {} and {second} {} are the same file: name two",
            place.named(one),
            place.named(other)
        );
        assert_eq!(ended, Ended::failing(125, &line));
    }
    assert!(!place.given.join("new").exists());
    for kept in [&place.given.join("there"), &place.precious] {
        assert_eq!(fs::read_to_string(kept).expect("the file"), CONTENT);
    }
    // What is no file keeps nothing that could be lost.
    let options = ["--log", "/dev/null", "--trace", "/dev/null"];
    let ended = place.run(&ringfence_program(), "run", &options);
    assert_eq!(ended, Ended::printing(""));
    let options = ["--out", "new", "--log", "new.log", "--trace", "new.trace"];
    let ended = place.run(&ringfence_program(), "record", &options);
    assert_eq!(ended, Ended::printing(""));
}

#[test]
fn a_recording_is_not_replayed_into_itself() {
    let place = Place::new();
    let ended = place.run(&ringfence_program(), "record", &["--out", "made"]);
    assert_eq!(ended, Ended::printing(""));
    let made = place.given.join("made");
    let before = fs::read(&made).expect("a recording");
    let log = place.named("@/./made");
    let mut replay = Command::new(ringfence_program());
    replay
        .args(["replay", "made", "--log", &log])
        .current_dir(&place.given);
    let line = format!("ringfence: the recording made and --log {log} are the same file: name two");
    assert_eq!(
        finish(replay.stdin(Stdio::null())),
        Ended::failing(125, &line)
    );
    assert!(fs::read(&made).expect("the recording") == before);
}
