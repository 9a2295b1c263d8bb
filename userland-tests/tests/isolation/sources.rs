//! What the caller binds, and the root that it chooses, is what it named, whatever programs have put in its place in a
//! directory that they were given.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

const CONTENT: &str = "precious\n";

/// A directory that programs are given, and beside it a file that they are not.
struct Place {
    both: Directory,
    given: PathBuf,
    precious: PathBuf,
}

impl Place {
    fn new() -> Place {
        let both = Directory::new("sources");
        let real = fs::canonicalize(both.path()).expect("its path");
        let (given, precious) = (real.join("given"), real.join("precious"));
        fs::create_dir_all(given.join("below")).expect("directories");
        fs::write(&precious, CONTENT).expect("a file");
        Place {
            both,
            given,
            precious,
        }
    }

    /// Plants links, by a program: to the file, to the directory that it is in, and to the root.
    fn with_links() -> Place {
        let place = Place::new();
        let script = "cd @; ln -s ../precious planted; ln -s .. out; ln -s / root";
        let ended = place.run(&ringfence_program(), &["--bind", "@"], script);
        assert_eq!(ended, Ended::printing(""));
        place
    }

    /// Runs a script in a sandbox with these options, each `@` in them and in the script standing for the directory that is
    /// given. An executable for tests takes nothing for given.
    fn run(&self, ringfence: &Path, options: &[&str], script: &str) -> Ended {
        let mut run = Command::new(ringfence);
        run.args(["run", "--driver=sim", "--workdir=/"]);
        run.args(options.iter().map(|option| self.named(option)));
        run.args(["--", "sh", "-c", &self.named(script)]);
        run.current_dir(&self.given).stdin(Stdio::null());
        finish(run.env("RINGFENCE_FAULTS", "sentry.sources=drop"))
    }

    fn named(&self, text_with_mark: &str) -> String {
        text_with_mark.replace('@', text(&self.given))
    }

    fn content(&self) -> String {
        fs::read_to_string(&self.precious).expect("its content")
    }
}

const WRITE: &str = "echo evil > /tmp/x";

#[test]
fn a_link_that_a_program_has_put_there_is_not_bound() {
    let place = Place::with_links();
    for (given, option, path, rest) in [
        ("@", "--bind", "@/planted", ":/tmp/x"),
        ("@", "--bind", "@/below/../planted", ":/tmp/x"),
        ("@", "--bind", "@/out/precious", ":/tmp/x:ro"),
        ("@/../given:/tmp/y", "--bind", "@/planted", ":/tmp/x"),
        ("@", "--bind", "/proc/self/cwd/planted", ":/tmp/x"),
        ("@", "--bind", "/proc/self/root@/planted", ":/tmp/x"),
        ("@", "--rootfs", "@/root", ""),
        ("@", "--rootfs", "@/root/.", ""),
    ] {
        let line = place.named(&format!(
            "ringfence: {option} {path}: a symbolic link in @, where programs can put one, is not followed: remove it, or \
             name what it leads to"
        ));
        let named = format!("{path}{rest}");
        for options in [
            ["--bind", given, option, &named],
            [option, &named, "--bind", given],
        ] {
            let ended = place.run(&ringfence_program(), &options, WRITE);
            assert_eq!(ended, Ended::failing(125, &line), "{options:?}");
        }
    }
    // A relative path is made absolute when the options are read.
    let options = ["--bind", ".", "--bind", "planted:/tmp/x"];
    let ended = place.run(&ringfence_program(), &options, WRITE);
    assert_eq!(ended.status, 125, "{ended:?}");
    assert_eq!(place.content(), CONTENT);
}

/// That the test above can fail.
#[test]
fn a_link_that_a_program_has_put_there_leads_out_if_it_is_bound() {
    let place = Place::with_links();
    let ringfence = ringfence_with_faults();
    let options = ["--bind", "@", "--bind", "@/planted:/tmp/x"];
    let ended = place.run(&ringfence, &options, WRITE);
    assert_eq!(ended, Ended::printing(""));
    assert_eq!(place.content(), "evil\n");
    let options = ["--bind", "@", "--rootfs", "@/root"];
    let ended = place.run(&ringfence, &options, "echo entered");
    assert_eq!(ended, Ended::printing("entered\n"));
}

/// A place in the sandbox is not looked for behind such a link either.
#[test]
fn nothing_is_placed_behind_a_link_that_a_program_has_put_there() {
    let place = Place::with_links();
    let precious = format!("{}:@/planted:ro", text(&place.precious));
    let options = ["--bind", "@", "--bind", &precious];
    let line = place.named(
        "ringfence: --bind @/../precious:@/planted: in the sandbox, a symbolic link in @, where programs can put one, is not \
         followed: remove it, or choose another place",
    );
    let line = line.replace("given/../", "");
    let ended = place.run(&ringfence_program(), &options, "true");
    assert_eq!(ended, Ended::failing(125, &line));
}

#[test]
fn links_elsewhere_are_bound() {
    let place = Place::with_links();
    let own = place.both.path().join("own");
    symlink("given/below", &own).expect("a link");
    let own = format!("{}:/tmp/x", text(&own));
    let options = ["--bind", "@", "--bind", &own];
    let ended = place.run(&ringfence_program(), &options, "echo made > /tmp/x/made");
    assert_eq!(ended, Ended::printing(""));
    let made = fs::read_to_string(place.given.join("below/made"));
    assert_eq!(made.expect("it"), "made\n");
    // The run does not give the directory with the link: the path means what it says.
    let options = ["--bind", "@/planted:/tmp/x:ro", "--bind", "@::ro"];
    let ended = place.run(&ringfence_program(), &options, "cat /tmp/x");
    assert_eq!(ended, Ended::printing(CONTENT));
}

/// A program that tries to put something of its own under the path of what it may read only.
fn replaced_by(ringfence: &Path) -> (Place, Ended) {
    let place = Place::new();
    let kept = place.given.join("below/deeper/kept");
    fs::create_dir_all(&kept).expect("directories");
    fs::write(kept.join("file"), CONTENT).expect("a file");
    let script = "cd @; echo made > below/made
        for path in below below/deeper below/deeper/kept; do
            mv $path was 2> /dev/null && mkdir -p below/deeper/kept && echo evil > below/deeper/kept/file && echo $path
        done; rmdir below/deeper/kept 2> /dev/null; cat below/made";
    let options = ["--bind", "@", "--bind", "@/below/deeper/kept::ro"];
    let ended = place.run(ringfence, &options, script);
    (place, ended)
}

fn kept(place: &Place) -> String {
    let file = place.given.join("below/deeper/kept/file");
    fs::read_to_string(file).expect("the file")
}

#[test]
fn what_lies_at_the_path_of_a_bind_that_is_read_only_is_not_replaced() {
    let (place, ended) = replaced_by(&ringfence_program());
    assert_eq!(ended, Ended::printing("made\n"));
    assert_eq!(kept(&place), CONTENT);
}

/// That the test above can fail.
#[test]
fn what_lies_at_the_path_of_a_bind_that_is_read_only_is_replaced_if_its_directory_moves() {
    let (place, ended) = replaced_by(&ringfence_with_faults());
    assert!(ended.stdout.starts_with("below\n"), "{ended:?}");
    assert_eq!(kept(&place), "evil\n");
}
