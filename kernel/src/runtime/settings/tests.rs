use super::*;

#[test]
fn settings_are_read() {
    assert_eq!(Settings::parse(""), Settings::default());
    let text = "# ours
[runtime]
low-level = \"crun\"
log = \"/var/log/ringfence.log\"
driver = \"sim\"
driver-abi = \"570.86.15\"

[containers]
driver-capabilities = [\"compute\", \"utility\", \"video\"]
firmware-commands = \"listed\"
annotations = [\"gpu-memory\"]
on-server-exit = \"restart\"

[gpu-memory]
default = \"4g\"
maximum = \"16GiB\"

[host-memory]
maximum = \"512m\"
";
    let size = |text: &str| text.parse::<Size>().ok();
    let expected = Settings {
        file: file::FILE.into(),
        low_level: Some(LowLevel::Named("crun")),
        log: Some("/var/log/ringfence.log".into()),
        driver: Choice::Sim,
        driver_abi: Some(DriverVersion::new(570, 86, Some(15))),
        driver_capabilities: "compute,utility,video".parse().expect("capabilities"),
        firmware_commands: FirmwareCommands::Listed,
        annotations: vec!["gpu-memory"],
        on_server_exit: OnServerExit::Restart,
        gpu_memory: Bounds {
            default: size("4g"),
            maximum: size("16g"),
        },
        host_memory: Bounds {
            default: None,
            maximum: size("512m"),
        },
        wrong: None,
        wrong_low_level: None,
    };
    assert_eq!(Settings::parse(text), expected);
    let read = Settings::parse("runtime.low-level = \"/opt/runc\"");
    assert_eq!(read.low_level, Some(LowLevel::At("/opt/runc".into())));
    let none = Settings::parse("containers.annotations = []");
    assert!(none.annotations.is_empty());
    let all = Settings::parse("containers.driver-capabilities = [\"all\"]");
    assert_eq!(all.driver_capabilities, Capabilities::ALL);
}

#[test]
fn the_low_level_runtime_is_found_in_what_is_no_toml() {
    for (text, expected) in [
        (
            "[runtime]\nlow-level = \"crun\"\n[gpu-memory\n",
            Some("crun"),
        ),
        ("x = = 1\nruntime.low-level = \"runc\" # ours", Some("runc")),
        ("[runtime\nlow-level = runc\n", None),
    ] {
        let settings = Settings::parse(text);
        assert_eq!(settings.low_level, expected.map(LowLevel::Named), "{text}");
        assert!(settings.wrong.is_some(), "{text}");
    }
    let refused = Settings::parse("[runtime\nlow-level = \"kata\"\nlog = \"/ours\"\n");
    let reason = refused.wrong_low_level.expect("refused");
    assert!(reason.starts_with("runtime.low-level: "), "{reason}");
    // There the refusal is looked for.
    assert_eq!(refused.log, Some("/ours".into()));
}

#[test]
fn what_is_wrong_is_named_with_its_key() {
    for (text, expected) in [
        (
            "[runtime]\nlow_level = \"runc\"",
            "runtime.low_level: there is no such setting: write low-level",
        ),
        (
            "[runtime]\ncolour = \"red\"",
            "runtime.colour: there is no such setting: [runtime] has low-level, log, driver and driver-abi",
        ),
        (
            "[runtime]\nlow-level = 3",
            "runtime.low-level: a text in quotes is wanted, and this is of type integer",
        ),
        (
            "[runtime]\nlow-level = \"kata\"",
            "runtime.low-level: \"kata\" is neither runc nor crun nor a path from the root: write one of these",
        ),
        (
            "[runtime]\nlog = \"here\"",
            "runtime.log: \"here\" is no path from the root: engines start a runtime in different directories",
        ),
        (
            "[limits]\n",
            "limits: there is no such table: settings are in [runtime], [containers], [gpu-memory] and [host-memory]",
        ),
        (
            "[container]\n",
            "container: there is no such table: write [containers]",
        ),
        (
            "runtime = 1",
            "runtime: there is no such table: settings are in [runtime], [containers], [gpu-memory] and [host-memory]",
        ),
        (
            "[gpu-memory]\nmaximum = 4",
            "gpu-memory.maximum: a text in quotes is wanted, and this is of type integer",
        ),
        (
            "[host-memory]\ndefault = \"0\"",
            "host-memory.default: it has to be more than 0",
        ),
        (
            "[host-memory]\ndefault = \"2g\"\nmaximum = \"1g\"",
            "host-memory.default is more than host-memory.maximum: lower the one or raise the other",
        ),
        (
            "[containers]\ndriver-capabilities = \"all\"",
            "containers.driver-capabilities: a list of texts is wanted, as [\"one\", \"another\"]",
        ),
        (
            "[containers]\ndriver-capabilities = [\"utility\", \"video\"]",
            "containers.driver-capabilities: video adds to compute and is of no use without: add that",
        ),
        (
            "[containers]\nannotations = [\"dev.ringfence.gpu-memory\"]",
            "containers.annotations: there is no annotation \"dev.ringfence.gpu-memory\": there are gpu-memory, host-memory, \
             driver-capabilities, firmware-commands and on-server-exit",
        ),
        (
            "[containers]\nfirmware-commands = \"none\"",
            "containers.firmware-commands: \"none\" is neither all nor listed: write one of these",
        ),
        (
            "[containers]\non-server-exit = \"stop\"",
            "containers.on-server-exit: \"stop\" is none of fail, kill and restart: write one of these",
        ),
    ] {
        let parsed = Settings::parse(text);
        // Without the low-level runtime nothing can be done.
        let reason = match expected.starts_with("runtime.low-level: ") {
            true => parsed.wrong_low_level,
            false => parsed.wrong,
        };
        assert_eq!(reason.as_deref(), Some(expected), "{text}");
    }
    let broken = Settings::parse("[runtime]\nlog = \"/x\"\nlow-level = runc\n");
    let reason = broken.wrong.expect("no TOML");
    assert!(reason.starts_with("line 3: "), "{reason}");
    assert!(!reason.contains('\n'), "{reason}");
    let none = Settings::parse("[containers]\ndriver-capabilities = []");
    let reason = none.wrong.expect("none");
    assert!(reason.starts_with("containers.driver-capabilities: there is no capability ''"));
}

#[test]
fn a_file_that_was_named_has_to_be_there() {
    let failure = file::read(Some("/nonexistent/x".into())).expect_err("no file");
    let line = "settings /nonexistent/x, which RINGFENCE_CONFIG names: No such file or directory: write it, or leave the variable out";
    assert_eq!(failure.message, line);
}
