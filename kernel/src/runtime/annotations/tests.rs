use serde_json::json;

use super::*;

fn size(text: &str) -> Option<Size> {
    Some(text.parse().expect("a size"))
}

fn settings() -> Settings {
    Settings {
        file: "/settings".into(),
        driver_capabilities: "compute,utility,graphics".parse().expect("capabilities"),
        annotations: ANNOTATIONS.into(),
        gpu_memory: Bounds {
            default: size("2g"),
            maximum: size("4g"),
        },
        host_memory: Bounds {
            default: None,
            maximum: size("1536m"),
        },
        ..Settings::default()
    }
}

fn granted(specification: Value, settings: &Settings) -> Result<Granted, String> {
    grant("c", &Specification(specification), settings).map_err(|failure| failure.message)
}

fn with(name: &str, value: &str) -> Value {
    json!({"annotations": {"org.example": "x", format!("{PREFIX}{name}"): value}})
}

#[test]
fn who_asks_for_nothing_has_the_default_or_else_the_maximum() {
    let mut granted = granted(json!({}), &settings()).expect("granted");
    assert_eq!(granted.capabilities, Capabilities::default());
    assert_eq!(granted.limits.gpu_memory, size("2g"));
    assert_eq!(granted.limits.host_memory, size("1536m"));
    assert_eq!(granted.on_server_exit, OnServerExit::Fail);
    let none = Settings::default();
    granted = self::granted(json!({}), &none).expect("granted");
    assert_eq!(granted.limits.gpu_memory, None);
    assert_eq!(
        granted.limits.host_memory,
        Some(memory::default_for_the_driver())
    );
    let utility = Settings {
        driver_capabilities: Capabilities::UTILITY,
        ..none
    };
    granted = self::granted(json!({}), &utility).expect("granted");
    assert_eq!(granted.capabilities, Capabilities::UTILITY);
}

#[test]
fn an_annotation_holds_within_the_bounds() {
    let settings = settings();
    for (name, value, expected) in [
        ("gpu-memory", "4GiB", "ok"),
        ("gpu-memory", "1", "ok"),
        (
            "gpu-memory",
            "4.1g",
            "4.1g is more than 4GiB, the most that a container gets here: ask for less, or raise maximum in [gpu-memory] of \
             /settings",
        ),
        (
            "gpu-memory",
            "4 GiB",
            "'4 GiB' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G",
        ),
        ("gpu-memory", "0", "it has to be more than 0"),
        (
            "host-memory",
            "2g",
            "2g is more than 1536MiB, the most that a container gets here: ask for less, or raise maximum in [host-memory] of \
             /settings",
        ),
        ("driver-capabilities", "utility", "ok"),
        (
            "driver-capabilities",
            "video,display",
            "containers may not have video and display here: ask for compute,utility,graphics at most, or add to \
             driver-capabilities in [containers] of /settings",
        ),
        ("firmware-commands", "listed", "ok"),
        ("firmware-commands", "all", "ok"),
        (
            "firmware-commands",
            "listed,all",
            "\"listed,all\" is neither all nor listed: write one of these",
        ),
        ("on-server-exit", "kill", "ok"),
        (
            "on-server-exit",
            "",
            "\"\" is none of fail, kill and restart: write one of these",
        ),
        (
            "gpu-mem",
            "1g",
            "there is no such annotation: write dev.ringfence.gpu-memory",
        ),
        (
            "container",
            "1",
            "there is no such annotation: behind dev.ringfence. there are gpu-memory, host-memory, driver-capabilities, \
             firmware-commands and on-server-exit",
        ),
    ] {
        let outcome = granted(with(name, value), &settings);
        let told = outcome.map_or_else(|line| line, |_| "ok".to_owned());
        let prefix = format!("container c: annotation dev.ringfence.{name}: ");
        let reason = told.strip_prefix(&prefix).unwrap_or(&told);
        assert_eq!(reason, expected, "{name} {value}");
    }
    let none = Settings {
        annotations: Vec::new(),
        ..settings
    };
    assert_eq!(
        granted(with("on-server-exit", "kill"), &none).expect_err("refused"),
        "container c: annotation dev.ringfence.on-server-exit: containers may not set it here: leave it out, or add \
         \"on-server-exit\" to annotations in [containers] of /settings"
    );
}

/// No cgroup accounts for that memory.
#[test]
fn without_a_setting_a_container_gets_no_more_of_the_hosts_memory_than_by_itself() {
    let none = Settings::default();
    let most = memory::default_for_the_driver();
    let asking = |bytes: u64| granted(with("host-memory", &bytes.to_string()), &none);
    assert!(asking(most.bytes()).is_ok());
    assert!(asking(most.bytes() + 1).is_err());
    assert!(granted(with("gpu-memory", "15PiB"), &none).is_ok());
    // A default is no less than what one may ask for.
    let large = Size::of_at_least_one(most.bytes() + 1);
    let more = Settings {
        host_memory: Bounds {
            default: Some(large),
            maximum: None,
        },
        ..none.clone()
    };
    let asked = with("host-memory", &large.to_string());
    assert!(granted(asked.clone(), &more).is_ok());
    assert!(granted(asked, &none).is_err());
}

#[test]
fn the_variable_means_what_it_means_to_nvidias_toolkit() {
    let settings = settings();
    let asking = |values: &[&str]| {
        let variables = values.iter().map(|value| format!("{VARIABLE}={value}"));
        let variables: Vec<String> = variables.collect();
        let outcome = granted(json!({"process": {"env": variables}}), &settings);
        outcome.map(|granted| granted.capabilities.to_string())
    };
    for (values, expected) in [
        (&[][..], "compute,utility"),
        (&[""], "compute,utility"),
        (&["utility"], "utility"),
        (&["all"], "compute,utility,graphics"),
        (&["utility, compute,,"], "compute,utility"),
        (&["utility", "compute"], "compute"),
        (&["graphics,compat32,utility"], "compute,utility,graphics"),
        (&["compute,ngx"], "compute"),
        (&["compute,utility,video"], "compute,utility"),
        (&["video"], "compute"),
    ] {
        assert_eq!(asking(values).as_deref(), Ok(expected), "{values:?}");
    }
    for (value, reason) in [
        (
            "compute,gpu",
            "there is no capability 'gpu': there are compute, utility, graphics, video, display, profiling, fabric-imex-mgmt, \
             rdma, and all, and for libraries alone compat32, ngx: take that word out",
        ),
        (
            "compat32",
            "it names nothing that could be asked of the driver: add utility",
        ),
    ] {
        let line = format!("container c: {VARIABLE}={value}: {reason}");
        assert_eq!(asking(&[value]), Err(line));
    }
}

#[test]
fn what_the_variable_names_and_nobody_may_have_is_left_out_with_a_warning() {
    let asking = |value: &str| {
        let specification = json!({"process": {"env": [format!("{VARIABLE}={value}")]}});
        granted(specification, &settings()).map(|granted| granted.warning)
    };
    assert_eq!(asking("compute,utility"), Ok(None));
    let line = "container c: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video: it runs without a part: containers may not have video \
                here: ask for compute,utility,graphics at most, or add to driver-capabilities in [containers] of /settings";
    assert_eq!(asking("compute,utility,video"), Ok(Some(line.to_owned())));
    let specification = json!({"process": {"env": [format!("{VARIABLE}=compute")]}});
    let nothing_left = Settings {
        driver_capabilities: Capabilities::UTILITY,
        ..settings()
    };
    assert_eq!(
        granted(specification, &nothing_left).expect_err("refused"),
        "container c: NVIDIA_DRIVER_CAPABILITIES=compute: containers may not have compute here: ask for utility at most, or add to \
         driver-capabilities in [containers] of /settings"
    );
}

#[test]
fn what_an_annotation_says_of_capabilities_wins_over_the_variable() {
    let mut both = with("driver-capabilities", "utility");
    both["process"] = json!({"env": [format!("{VARIABLE}=no such word")]});
    let granted = granted(both, &settings()).expect("granted");
    assert_eq!(granted.capabilities, Capabilities::UTILITY);
}

/// A container may have less than the settings say, and never more.
#[test]
fn the_firmwares_commands_are_those_of_the_settings_or_less() {
    let strict = Settings {
        firmware_commands: FirmwareCommands::Listed,
        ..settings()
    };
    for (asked, settings, expected) in [
        (None, &settings(), FirmwareCommands::All),
        (None, &strict, FirmwareCommands::Listed),
        (Some("listed"), &settings(), FirmwareCommands::Listed),
        (Some("listed"), &strict, FirmwareCommands::Listed),
    ] {
        let specification = asked.map_or_else(|| json!({}), |text| with("firmware-commands", text));
        let granted = granted(specification, settings).expect("granted");
        assert_eq!(granted.firmware_commands, expected, "{asked:?}");
    }
    assert_eq!(
        granted(with("firmware-commands", "all"), &strict),
        Err(
            "container c: annotation dev.ringfence.firmware-commands: containers may ask the listed ones here: ask for these, or set \
             firmware-commands to \"all\" in [containers] of /settings"
                .to_owned()
        )
    );
}
