use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStringExt;

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands};

use super::*;

fn driver(kind: Kind) -> Driver {
    let version = "580.142".parse().expect("a release");
    Driver {
        kind,
        version,
        tables: "580.95.05".parse().expect("a release"),
        capabilities: Capabilities::default(),
        firmware_commands: FirmwareCommands::All,
        nodes: vec![Node::Control, Node::Uvm, Node::Gpu(3)],
        directory: "/dev".into(),
    }
}

/// As the user asks for them, all that there are. `7` is a size and a number; an option that is neither needs a text of its own.
fn settings() -> Settings {
    let mut settings = Settings::default();
    for option in Settings::ALL {
        (option.set)(&mut settings, "7").expect(option.name);
    }
    settings
}

/// With something of each group.
fn full() -> Options {
    Options {
        driver: driver(Kind::Recorded),
        settings: settings(),
        left: Left {
            supervision: 7,
            log: Some(9),
            takes_over: true,
        },
        naming: Naming {
            container: Some("c --log=7".to_owned()),
        },
        replay: Some(Replay {
            recording: OsString::from_vec(b"a=b,\xff c".to_vec()).into(),
            progress: "/proc/self/fd/3".into(),
            report: "--log=5".into(),
        }),
    }
}

fn read(words: &[&str]) -> Result<Options, Wrong> {
    Options::from_arguments(words.iter().map(OsString::from))
}

#[test]
fn options_are_read_as_they_are_written() {
    let least = Options {
        driver: Driver {
            nodes: Vec::new(),
            ..driver(Kind::Simulated)
        },
        settings: Settings::default(),
        left: Left {
            supervision: 3,
            log: None,
            takes_over: false,
        },
        naming: Naming::default(),
        replay: None,
    };
    for options in [full(), least] {
        let words = options.to_arguments();
        assert_eq!(Options::from_arguments(words), Ok(options));
    }
}

#[test]
fn the_command_line_is_words_that_say_what_they_mean() {
    let options = Options {
        driver: driver(Kind::Host),
        replay: None,
        ..full()
    };
    let driver = "--driver=host --driver-version=580.142 --tables=580.95.05 \
        --driver-capabilities=compute,utility --firmware-commands=all --nodes=nvidiactl,nvidia-uvm,nvidia3 --nodes-in=/dev";
    let settings = Settings::ALL.iter();
    let settings: String = settings
        .map(|option| format!("--{}=7 ", option.name))
        .collect();
    let expected =
        format!("{driver} {settings}--supervision=7 --log=9 --take-over --container=c --log=7");
    let words = options.to_arguments().join(OsStr::new(" "));
    assert_eq!(words, expected.as_str());
}

#[test]
fn what_does_not_say_all_that_a_server_has_to_know_is_refused() {
    let good = [
        "--driver=sim",
        "--driver-version=580.142",
        "--tables=580.142",
        "--driver-capabilities=compute",
        "--nodes-in=/dev",
        "--supervision=1",
    ];
    assert!(read(&good).is_ok());
    for left_out in 0..good.len() {
        let mut words = good.to_vec();
        let name = words.remove(left_out);
        let (name, _) = name.split_once('=').expect("a value");
        let refused = read(&words).expect_err(name).to_string();
        assert_eq!(refused, format!("{name}: it has to be given"));
    }
    for (more, expected) in [
        ("580.142", "'580.142' is none of its options"),
        ("-x", "'-x' is none of its options"),
        ("--minors=0", "'minors' is none of its options"),
        ("--recording=a", "'recording' is none of its options"),
        ("--tables=580.142", "--tables is there twice"),
        ("--log", "--log: it needs a value"),
        ("--take-over=1", "--take-over: it has no value"),
        (
            "--nodes=nvidia0,sda",
            "--nodes: 'sda' is no node of the driver's",
        ),
        ("--gpu-memory=0", "--gpu-memory: it has to be more than 0"),
        (
            "--firmware-commands=some",
            "--firmware-commands: it is neither all nor listed: write one of these",
        ),
    ] {
        let refused = read(&[&good[..], &[more]].concat()).expect_err(more);
        assert_eq!(refused.to_string(), expected);
    }
    let recorded = read(&[&["--driver=recorded"], &good[1..]].concat());
    let refused = recorded.expect_err("no recording").to_string();
    assert_eq!(refused, "--recording: it has to be given");
}

options! {
    /// Options of kinds that others may come to have.
    #[derive(Default)]
    Numbers {
        /// How many
        count: Option<u32> = "count" "COUNT",
        /// How much
        amount: Option<u64> = "amount" "COUNT",
        /// How many, and not none
        some: Option<NonZeroU32> = "some" "COUNT",
    }
}

#[test]
fn numbers_are_options_too() {
    let numbers = Numbers {
        count: Some(u32::MAX),
        amount: Some(0),
        some: NonZeroU32::new(7),
    };
    let mut words = Vec::new();
    numbers.write(&mut words);
    assert_eq!(words, ["--count=4294967295", "--amount=0", "--some=7"]);
    let read = Words::new(words).and_then(|mut words| Numbers::read(&mut words));
    assert_eq!(read, Ok(numbers));
    for (text, expected) in [
        ("", "it has to be a whole number"),
        ("some", "it has to be a whole number"),
        ("-1", "it has to be a whole number"),
        ("1.5", "it has to be a whole number"),
        ("18446744073709551616", "it is too large a number"),
    ] {
        for option in Numbers::ALL {
            let refused = (option.set)(&mut Numbers::default(), text).expect_err(text);
            assert_eq!(refused.to_string(), expected, "{text}");
        }
    }
    let some = Numbers::ALL.last().expect("an option");
    let refused = (some.set)(&mut Numbers::default(), "0").expect_err("none");
    assert_eq!(refused.to_string(), "it has to be more than 0");
}

#[test]
fn what_the_user_may_ask_of_the_server_is_described() {
    for option in Settings::ALL {
        let first = option.help[0].trim();
        assert!(!first.is_empty() && !first.ends_with('.'), "{first}");
    }
    let option = &Settings::ALL[0];
    let refused = (option.set)(&mut Settings::default(), "much").expect_err("no size");
    assert!(
        refused.to_string().starts_with("'much' is no size"),
        "{refused}"
    );
}

/// A launcher of a release that knew of nothing else meant the listed ones.
#[test]
fn the_firmwares_commands_are_the_listed_ones_where_nothing_is_said() {
    for (word, expected) in [
        (None, FirmwareCommands::Listed),
        (Some("--firmware-commands=listed"), FirmwareCommands::Listed),
        (Some("--firmware-commands=all"), FirmwareCommands::All),
    ] {
        let mut words = vec![
            "--driver=sim",
            "--driver-version=580.142",
            "--tables=580.142",
            "--driver-capabilities=compute",
            "--nodes-in=/dev",
            "--supervision=1",
        ];
        words.extend(word);
        let options = read(&words).expect("options");
        assert_eq!(options.driver.firmware_commands, expected, "{word:?}");
    }
}
