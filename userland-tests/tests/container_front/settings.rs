//! What an administrator sets, what a container asks for by annotations and by its environment, and what comes of both: in the
//! sandbox, or in the line that an engine shows.
//!
//! What has to be seen in a container needs what `sandboxes.rs` needs, and is skipped by name where that is missing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::{Value, json};
use userland_tests::{Ended, finish, ringfence_program};

use super::sandboxes::{Maker, said_of, with_gpu as running};
use super::{Front, handed_over, refused, specification, with_gpu};

/// Has the settings say this, too.
fn add(front: &Front, text: &str) {
    let settings = fs::read_to_string(front.settings()).expect("settings");
    front.set(&format!("{settings}{text}"));
}

/// Asks for something by an annotation.
fn annotate(value: &mut Value, name: &str, text: &str) {
    value["annotations"][format!("dev.ringfence.{name}")] = json!(text);
}

/// Asks for capabilities as an image does, or `docker run --gpus 'all,"capabilities=utility"'`.
fn ask_for_capabilities(value: &mut Value, list: &str) {
    let variables = value["process"]["env"].as_array_mut();
    let variables = variables.expect("an environment");
    variables.push(json!(format!("NVIDIA_DRIVER_CAPABILITIES={list}")));
}

/// Fails unless making the container ends with this line, where the engine looks, and on stderr.
#[track_caller]
fn expect_refused(front: &Front, words: &[&str], reason: &str) {
    let log = front.path("log.json");
    let _ = fs::remove_file(&log);
    let log_name = log.to_str().expect("text");
    let words = [&["--log", log_name, "--log-format", "json"], words].concat();
    assert_eq!(front.run(&words), refused(reason));
    let line = fs::read(&log).expect("a log");
    let entry: Value = serde_json::from_slice(&line).expect("one line of JSON");
    assert_eq!(entry["level"], "error");
    assert_eq!(entry["msg"], format!("ringfence-runtime: {reason}"));
}

#[test]
fn a_wrong_setting_is_named_with_its_file_and_key() {
    let front = Front::of_script();
    let file = front.settings();
    let file = file.display();
    let script = front.path("low-level");
    let script = script.display();
    for (text, reason) in [
        (
            "runtime.low_level = \"runc\"\n",
            "runtime.low_level: there is no such setting: write low-level",
        ),
        (
            "[gpu-memory]\nsize = \"1g\"\n",
            "gpu-memory.size: there is no such setting: [gpu-memory] has default and maximum",
        ),
        (
            "[runtime]\nlow-level = 7\n",
            "runtime.low-level: a text in quotes is wanted, and this is of type integer",
        ),
        (
            "[runtime]\nlow-level = \"kata\"\n",
            "runtime.low-level: \"kata\" is neither runc nor crun nor a path from the root: write one of these",
        ),
        ("[gpu-memory\n", "line 2: unclosed table, expected `]`"),
        (
            "[limits]\n",
            "limits: there is no such table: settings are in [runtime], [containers], [gpu-memory] and [host-memory]",
        ),
        (
            "[gpu-memory]\nmaximum = \"4 g\"\n",
            "gpu-memory.maximum: '4 g' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in \
             512m, 4GiB or 1.5G",
        ),
        (
            "[containers]\ndriver-capabilities = [\"compute\", \"gpu\"]\n",
            "containers.driver-capabilities: there is no capability 'gpu': there are compute, utility, graphics, video, display, \
             profiling, fabric-imex-mgmt, rdma, and all",
        ),
    ] {
        front.set(&match text.starts_with("[runtime]\nlow-level") {
            true => text.to_owned(),
            false => format!(
                "runtime.low-level = \"{script}\"
{text}"
            ),
        });
        let reason = format!("settings {file}: {reason}");
        expect_refused(&front, &["create", "c"], &reason);
        // Containers that run can be ended all the same, if it is known by whom.
        let kill = ["kill", "c", "9"];
        match text.starts_with("[runtime]\nlow-level") {
            true => expect_refused(&front, &kill, &reason),
            false => assert_eq!(front.run(&kill), handed_over(&kill), "{text}"),
        }
    }
    fs::remove_file(front.settings()).expect("removed");
    let reason = format!(
        "settings {file}, which RINGFENCE_CONFIG names: No such file or directory: write it, or leave the variable out"
    );
    assert_eq!(front.run(&["state", "c"]), refused(&reason));
}

/// Whatever else is wrong there, and wherever in the file it stands.
#[test]
fn a_wrong_setting_is_in_the_log_that_the_same_file_names() {
    let front = Front::of_script();
    front.specify(&with_gpu());
    let (script, log) = (front.path("low-level"), front.path("own.log"));
    let [script, named] = [&script, &log].map(|path| path.to_str().expect("text"));
    for settings in [
        format!("[runtime]\nlow-level = \"crunn\"\nlog = \"{named}\"\n"),
        format!("[runtime]\nlow-level = \"crunn\"\nlog = \"{named}\"\n[runtime\n"),
        format!("runtime.low-level = \"/no/such\"\nruntime.log = \"{named}\"\n"),
        format!(
            "runtime.low-level = \"{script}\"\nruntime.log = \"{named}\"\nruntime.driver = \"simm\"\n"
        ),
        format!("runtime.low-level = \"{script}\"\nruntime.log = \"{named}\"\n[gpu-memory\n"),
    ] {
        front.set(&settings);
        let ended = front.run(&["create", "c"]);
        assert_eq!(ended.status, 1, "{settings}: {ended:?}");
        let said = fs::read_to_string(&log).expect(&settings);
        fs::remove_file(&log).expect("removed");
        let (head, told) = said.split_once(" msg=").expect("a message");
        assert!(
            head.starts_with("time=\"20") && head.ends_with("level=error"),
            "{said}"
        );
        let told: String = serde_json::from_str(told.trim_end()).expect("text in quotes");
        assert_eq!(ended.stderr, format!("{told}\n"), "{settings}");
    }
}

#[test]
fn root_obeys_no_file_that_others_may_write() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root is told by whom a file was written");
        return;
    }
    let front = Front::of_script();
    let file = front.settings();
    let remedy = "chown root:root and chmod go-w it, when you have read what it says";
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("a mode");
        let reason = format!("others than root may write it (mode {mode:04o}), and root obeys it");
        let line = format!("settings {}: {reason}: {remedy}", file.display());
        expect_refused(&front, &["start", "c"], &line);
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(front.run(&["start", "c"]), handed_over(&["start", "c"]));
    chown(&file, Some(1000), None).expect("another owner");
    let line = format!(
        "settings {}: it belongs to user 1000, and root obeys it: {remedy}",
        file.display()
    );
    expect_refused(&front, &["start", "c"], &line);
}

/// As rootless engines do. It is nobody else's concern who writes that file.
#[test]
fn the_runtime_of_an_ordinary_user_obeys_that_users_file() {
    let front = Front::of_script();
    let own = front.path("configuration/ringfence");
    fs::create_dir_all(&own).expect("a directory");
    let file = own.join("config.toml");
    fs::copy(front.settings(), &file).expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o666)).expect("a mode");
    let call = |variable: &str, value: PathBuf, user: Option<u32>| {
        let mut command = front.command(&["start", "c"]);
        command.env_remove("RINGFENCE_CONFIG");
        command.env_remove("XDG_CONFIG_HOME").env(variable, value);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        finish(&mut command)
    };
    let user = geteuid().is_root().then_some(1000);
    let directory = || front.path("configuration");
    assert_eq!(
        call("XDG_CONFIG_HOME", directory(), user),
        handed_over(&["start", "c"])
    );
    fs::rename(directory(), front.path(".config")).expect("another name");
    let home = || front.directory.path().to_owned();
    assert_eq!(call("HOME", home(), user), handed_over(&["start", "c"]));
    let of_user = front.path(".config/ringfence/config.toml");
    fs::write(&of_user, "[runtime]\nlow-level = \"x\"\n").expect("a file");
    let line = format!(
        "settings {}: runtime.low-level: \"x\" is neither runc nor crun nor a path from the root: write one of these",
        of_user.display()
    );
    assert_eq!(call("HOME", home(), user), refused(&line));
    // Root's does not look there.
    if user.is_some() {
        assert_ne!(call("HOME", home(), None), refused(&line));
    }
}

/// The machine's is not his to write.
#[test]
fn an_ordinary_user_without_settings_is_told_of_the_file_that_would_be_read() {
    let is_there = |path: &str| Path::new(path).exists();
    if is_there("/sys/module/nvidia/version") || is_there("/etc/ringfence/config.toml") {
        eprintln!("skipped: this machine has NVIDIA's driver, or settings");
        return;
    }
    let front = Front::of_script();
    front.specify(&with_gpu());
    let programs = front.path("programs");
    fs::create_dir(&programs).expect("a directory");
    fs::rename(front.path("low-level"), programs.join("runc")).expect("another name");
    let call = |user: Option<u32>| {
        let mut command = front.command(&["create", "c"]);
        command.env_remove("RINGFENCE_CONFIG");
        command.env_remove("XDG_CONFIG_HOME");
        command.env("HOME", front.directory.path());
        // Beside what else the runtime of that user finds.
        command.env("XDG_RUNTIME_DIR", front.directory.path());
        command.env("PATH", &programs);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        finish(&mut command)
    };
    let told = |file: &Path| {
        refused(&format!(
            "this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): load the nvidia module, or to try containers \
             without a GPU, write driver = \"sim\" in [runtime] of {}",
            file.display()
        ))
    };
    let of_user = front.path(".config/ringfence/config.toml");
    let is_root = geteuid().is_root();
    assert_eq!(call(is_root.then_some(1000)), told(&of_user));
    if is_root {
        assert_eq!(call(None), told(Path::new("/etc/ringfence/config.toml")));
    }
}

/// The remedy is a setting, and no option of a command.
#[test]
fn a_release_that_the_tables_lack_is_named_with_the_setting_that_helps() {
    let front = Front::of_script();
    front.specify(&with_gpu());
    add(&front, "driver-abi = \"999.10.02\"\n");
    let ended = front.run(&["create", "c"]);
    let file = front.settings();
    let end = format!(
        "in [runtime] of {} treats the driver as that one\n",
        file.display()
    );
    assert!(
        ended.status == 1 && ended.stderr.ends_with(&end) && !ended.stderr.contains("--driver"),
        "{ended:?}"
    );
}

#[test]
fn what_a_container_cannot_have_is_refused_in_a_line_that_names_the_way_out() {
    let front = Front::of_script();
    add(
        &front,
        "[containers]\nannotations = [\"gpu-memory\", \"driver-capabilities\", \"firmware-commands\"]\n\
         firmware-commands = \"listed\"\n[gpu-memory]\nmaximum = \"4g\"\n",
    );
    let file = front.settings();
    let file = file.display();
    for (name, text, reason) in [
        (
            "gpu-memory",
            "5g",
            format!(
                "5g is more than 4GiB, the most that a container gets here: ask for less, or raise maximum in [gpu-memory] of {file}"
            ),
        ),
        (
            "gpu-memory",
            "much",
            "'much' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G"
                .to_owned(),
        ),
        (
            "host-memory",
            "1m",
            format!(
                "containers may not set it here: leave it out, or add \"host-memory\" to annotations in [containers] of {file}"
            ),
        ),
        (
            "driver-capabilities",
            "video",
            format!(
                "containers may not have video here: ask for compute,utility at most, or add to driver-capabilities in \
                 [containers] of {file}"
            ),
        ),
        (
            "firmware-commands",
            "all",
            format!(
                "containers may ask the listed ones here: ask for these, or set firmware-commands to \"all\" in [containers] of \
                 {file}"
            ),
        ),
        (
            "gpu-mem",
            "1g",
            "there is no such annotation: write dev.ringfence.gpu-memory".to_owned(),
        ),
        // By this Ringfence knows a sandbox of its own.
        (
            "container",
            "1",
            "there is no such annotation: behind dev.ringfence. there are gpu-memory, host-memory, driver-capabilities, \
             firmware-commands and on-server-exit"
                .to_owned(),
        ),
    ] {
        let mut value = with_gpu();
        annotate(&mut value, name, text);
        front.specify(&value);
        let line = format!("container c: annotation dev.ringfence.{name}: {reason}");
        expect_refused(&front, &["create", "c"], &line);
    }
    let mut value = with_gpu();
    ask_for_capabilities(&mut value, "compute,\u{1b}[2J");
    front.specify(&value);
    expect_refused(
        &front,
        &["create", "c"],
        "container c: NVIDIA_DRIVER_CAPABILITIES=compute,\\u{1b}[2J: there is no capability '\\u{1b}[2J': there are compute, utility, \
         graphics, video, display, profiling, fabric-imex-mgmt, rdma, and all, and for libraries alone compat32, ngx: take that word out",
    );
    // Of a container without GPUs nobody asks.
    value["linux"]["devices"] = json!([]);
    front.specify(&value);
    assert_eq!(front.run(&["create", "c"]), handed_over(&["create", "c"]));
}

/// What the program is told of a GPU's memory, of which it has so many MiB.
fn told(all: u32) -> Ended {
    let shown = |free: u32| {
        format!(
            "ram {all}, total {all}, heap {all}, bus width 5120, largest {free}, free {free}, usable {all}"
        )
    };
    let (before, during) = (shown(all), shown(all - 1024));
    Ended::printing(&format!(
        "nothing allocated: {before}\n1 GiB allocated: {during}\nfreed: {before}\n"
    ))
}

#[test]
fn a_container_has_the_memory_of_a_gpu_that_it_asks_for_or_that_is_set() {
    for maker in Maker::all() {
        let expect = |asked: Option<&str>, all: u32| {
            let mut value = running("exec guest limit-shown");
            if let Some(text) = asked {
                annotate(&mut value, "gpu-memory", text);
            }
            assert_eq!(maker.run(&value), told(all), "{} {asked:?}", maker.name);
        };
        expect(None, 80 << 10);
        expect(Some("3g"), 3 << 10);
        add(&maker.front, "[gpu-memory]\nmaximum = \"8g\"\n");
        expect(None, 8 << 10);
        expect(Some("6144MiB"), 6 << 10);
        add(&maker.front, "default = \"4g\"\n");
        expect(None, 4 << 10);
        expect(Some("8g"), 8 << 10);
    }
}

#[test]
fn the_driver_takes_for_a_container_what_that_asks_for_or_what_is_set() {
    for maker in Maker::all() {
        // A page for each object, of 64 MiB.
        let expected = Ended::printing(
            "16381 objects\none more: NV_ERR_INSUFFICIENT_RESOURCES\na client: NV_ERR_INSUFFICIENT_RESOURCES\nfreed: ok\n",
        );
        let mut value = running("exec guest limit-host-records");
        annotate(&mut value, "host-memory", "64m");
        assert_eq!(maker.run(&value), expected, "{}", maker.name);
        add(&maker.front, "[host-memory]\nmaximum = \"64m\"\n");
        let value = running("exec guest limit-host-records");
        assert_eq!(maker.run(&value), expected, "{}", maker.name);
        // It is bounded where nothing is set, too: no cgroup accounts for it.
        let settings = fs::read_to_string(maker.front.settings()).expect("settings");
        maker
            .front
            .set(&settings.replace("[host-memory]\nmaximum = \"64m\"\n", ""));
        let mut value = running("exec guest limit-host-records");
        annotate(&mut value, "host-memory", "15PiB");
        let ended = maker.run(&value);
        let start = "ringfence-runtime: container c: annotation dev.ringfence.host-memory: 15PiB is more than ";
        assert!(
            ended.status == 1 && ended.stderr.starts_with(start),
            "{ended:?}"
        );
    }
}

#[test]
fn a_container_may_ask_of_the_driver_what_its_capabilities_allow() {
    let walked = "walk: ok";
    for maker in Maker::all() {
        let walk = |change: &dyn Fn(&mut Value)| {
            let mut value = running("guest walk >/dev/null && echo walk: ok");
            change(&mut value);
            maker.run(&value)
        };
        let may = Ended::printing(&format!("{walked}\n"));
        let may_not = Ended::failing(1, "guest: walk: NV_ERR_INVALID_CLASS");
        assert_eq!(walk(&|_| {}), may, "{}", maker.name);
        for (list, expected) in [
            ("compute", &may),
            ("all", &may),
            ("graphics,utility,compat32", &may),
            ("utility", &may_not),
        ] {
            add(
                &maker.front,
                "[containers]\ndriver-capabilities = [\"compute\", \"utility\", \"graphics\"]\n",
            );
            assert_eq!(
                &walk(&|value| ask_for_capabilities(value, list)),
                expected,
                "{list}"
            );
            assert_eq!(
                &walk(&|value| annotate(value, "driver-capabilities", list)),
                expected,
                "{list}"
            );
            maker.front.name(&maker.low_level);
        }
        let log = fs::read_to_string(maker.front.path("messages.log")).expect("a log");
        let warning = "class 0x40 (NV01_MEMORY_LOCAL_USER) needs a capability that the sandbox lacks: compute";
        let lines = log.lines().filter(|line| line.contains(warning));
        let containers: Vec<_> = lines.map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(containers, [Some("c"); 2], "{log}");
        // What an annotation says wins, and `all` is what the settings allow.
        let both = walk(&|value| {
            ask_for_capabilities(value, "utility");
            annotate(value, "driver-capabilities", "compute");
        });
        assert_eq!(both, may);
        add(
            &maker.front,
            "[containers]\ndriver-capabilities = [\"utility\"]\n",
        );
        assert_eq!(walk(&|value| ask_for_capabilities(value, "all")), may_not);
        assert_eq!(walk(&|_| {}), may_not);
    }
}

/// An annotation asks for fewer, and never for more.
#[test]
fn a_container_asks_the_firmware_what_is_set_or_less() {
    for maker in Maker::all() {
        let asks = |asked: Option<&str>| {
            let mut value = running("exec guest firmware");
            if let Some(text) = asked {
                annotate(&mut value, "firmware-commands", text);
            }
            let ended = maker.run(&value);
            assert_eq!(ended.status, 0, "{ended:?}");
            let mut lines = ended.stdout.lines();
            let line = lines.find_map(|line| line.strip_prefix("of no list, of nothing: "));
            line.expect("a line").to_owned()
        };
        let (passed, refused) = ("NV_ERR_OBJECT_NOT_FOUND", "NV_ERR_NOT_SUPPORTED");
        assert_eq!(asks(None), passed);
        assert_eq!(asks(Some("listed")), refused);
        assert_eq!(asks(Some("all")), passed);
        add(
            &maker.front,
            "[containers]\nfirmware-commands = \"listed\"\n",
        );
        assert_eq!(asks(None), refused);
        assert_eq!(asks(Some("listed")), refused);
    }
}

#[test]
fn a_container_that_loses_its_server_goes_on_or_ends_as_it_asks_or_as_is_set() {
    let kept = "every request to the driver fails with EIO from now on";
    let ended = "the server ended unexpectedly, and the sandbox with it";
    let another = "what is open fails with EIO from now on, and another server is asked for";
    for maker in Maker::all() {
        maker.with_faults();
        let script = maker.front.path("with-faults");
        let runtime = maker.front.runtime();
        let text = format!(
            "#!/bin/sh\nRINGFENCE_FAULTS=server.call@4=kill exec {} \"$@\"\n",
            runtime.display()
        );
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a mode");
        let log = maker.front.path("messages.log");
        let run = |asked: Option<&str>| {
            let _ = fs::remove_file(&log);
            let mut value = running("guest walk 2>/dev/null >&2; echo lives on");
            if let Some(word) = asked {
                annotate(&mut value, "on-server-exit", word);
            }
            maker.front.specify(&value);
            let mut called = maker.called();
            called.program = script.clone();
            let outcome = called.run(&["run", "c"]);
            (outcome.status, outcome.stdout, said_of(&log, "c"))
        };
        let expect = |asked: Option<&str>, line: &str| {
            let (status, stdout, log) = run(asked);
            let expected = match line == ended {
                true => (125, ""),
                false => (0, "lives on\n"),
            };
            assert_eq!((status, stdout.as_str()), expected, "{asked:?}: {log:?}");
            let is_said = log.iter().any(|said| said.contains(line));
            assert!(is_said, "{}: {asked:?}: {log:?}", maker.name);
        };
        expect(None, kept);
        expect(Some("fail"), kept);
        expect(Some("kill"), ended);
        expect(Some("restart"), another);
        add(&maker.front, "[containers]\non-server-exit = \"kill\"\n");
        expect(None, ended);
        expect(Some("fail"), kept);
    }
}

#[test]
fn doctor_says_what_is_wrong_with_the_settings() {
    let front = Front::of_script();
    let said = || found_by_doctor(&front, "container settings");
    let file = front.settings();
    let file = file.to_str().expect("text");
    let right = said();
    assert_eq!(
        (&right["outcome"], &right["detail"]),
        (&json!("ok"), &json!(file))
    );
    add(&front, "[gpu-memory]\nmaximum = \"0\"\n");
    let wrong = said();
    assert_eq!(wrong["outcome"], "weakness");
    let detail = format!("settings {file}: gpu-memory.maximum: it has to be more than 0");
    assert_eq!(wrong["detail"], json!(detail));
    let remedy = "correct the file: no container starts until then";
    assert_eq!(wrong["remedy"], json!(remedy));

    // The log is of sandboxes alone.
    front.set("[runtime]\nlog = \"/nonexistent/log\"\n");
    let wrong = said();
    assert_eq!(wrong["outcome"], "weakness");
    let remedy = "correct the file: no container with GPUs starts until then";
    assert_eq!(wrong["remedy"], json!(remedy));
    front.specify(&specification(&["sh"]));
    front.name(&front.path("low-level"));
    let settings = fs::read_to_string(front.settings()).expect("settings");
    let usual = front.path("messages.log");
    front.set(&settings.replace(usual.to_str().expect("text"), "/nonexistent/log"));
    assert_eq!(front.run(&["create", "c"]), handed_over(&["create", "c"]));
}

/// What `ringfence doctor` says under this name of the settings.
fn found_by_doctor(front: &Front, name: &str) -> Value {
    let mut command = Command::new(ringfence_program());
    command.args(["doctor", "--json"]);
    command.env("RINGFENCE_CONFIG", front.settings());
    let report: Value = serde_json::from_str(&finish(&mut command).stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    check.expect("a check").clone()
}

#[test]
fn doctor_finds_the_low_level_runtime_as_a_container_does() {
    let front = Front::of_script();
    let said = || {
        let found = found_by_doctor(&front, "low-level runtime");
        (found["outcome"].clone(), found["detail"].clone())
    };
    let script = front.path("low-level");
    let detail = format!(
        "{}: it does not say its version, as runc and crun do",
        script.display()
    );
    assert_eq!(said(), (json!("weakness"), json!(detail)));
    front.name(Path::new("/nonexistent"));
    let line = "runtime.low-level: /nonexistent: No such file or directory: name an executable";
    assert_eq!(said(), (json!("weakness"), json!(line)));
    front.specify(&specification(&["sh"]));
    assert_eq!(front.run(&["create", "c"]), refused(line));
}

#[test]
fn doctor_says_that_containers_with_gpus_are_refused_without_a_driver() {
    if Path::new("/sys/module/nvidia/version").exists() {
        eprintln!("skipped: this machine has NVIDIA's driver");
        return;
    }
    let front = Front::of_script();
    let script = front.path("low-level");
    front.set(&format!(
        "[runtime]\nlow-level = \"{}\"\n",
        script.display()
    ));
    let said = found_by_doctor(&front, "container settings");
    let file = front.settings();
    let file = file.display();
    let detail = format!(
        "{file}; containers with GPUs are refused, since this machine has no NVIDIA driver"
    );
    let remedy =
        format!("to try them without a GPU, write driver = \"sim\" in [runtime] of {file}");
    assert_eq!(
        (&said["outcome"], &said["detail"]),
        (&json!("note"), &json!(detail))
    );
    assert_eq!(said["remedy"], json!(remedy));
    front.specify(&with_gpu());
    let ended = front.run(&["create", "c"]);
    assert!(
        ended.status == 1 && ended.stderr.contains("this machine has no NVIDIA driver"),
        "{ended:?}"
    );
}
