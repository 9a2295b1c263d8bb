//! The shadow: the specification that the low-level runtime gets in place of the caller's.
//!
//! The idea: it differs in what makes the container's first process the sentry, and in nothing else. It is edited as
//! JSON, so that what engines write and this does not know survives. What it takes from the program and has lent to the
//! first process is told to that, which gives it all back (`launch/container/`). The caller's file stays as it is: engines read it
//! again.
//!
//! Everything of NVIDIA's driver that the container was given is taken out, and its nodes are shown where nothing can be
//! opened: bound, on mounts without devices. What a hook puts there later can be opened no more than those, since the
//! container's cgroup does not let it, and the program's process covers it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use caps::Capability;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::stat;
use nvproxy_protocol::driver::{Driver, Kind};
use ringfence_confinement::linux::Feature;
use ringfence_sentry::confinement::DESCRIPTORS;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::server::OnServerExit;
use serde_json::{Value, json};

use super::gpus::{Asked, HookKind, MAJOR, Numbers, Way};
use super::specification::{Specification, number, text};
use crate::launch::container::rights::{LENT, LENT_FURTHER, Rights};
use crate::launch::container::told::{DriverText, Further, Told, WORD, WORD_FURTHER};
use crate::launch::container::{first, profile, seat};

/// Says in a specification that it is a shadow.
pub const MARK: &str = "dev.ringfence.container";
/// What a specification calls the limit of descriptors.
const LIMIT_OF_DESCRIPTORS: &str = "RLIMIT_NOFILE";
/// What stands in the place of a simulated driver's nodes.
const STAND_IN: &str = "/dev/null";
/// Devices that every container has, and below which ioctls are harmless.
const HARMLESS: [&str; 8] = [
    "/dev/console",
    "/dev/full",
    "/dev/null",
    "/dev/pts",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// What a shadow is made of.
pub struct Making<'a> {
    pub specification: &'a Specification,
    pub asked: &'a Asked,
    /// The container's name.
    pub name: &'a str,
    /// The directory of the caller's bundle, from the root.
    pub bundle: &'a Path,
    pub driver: &'a Driver,
    pub on_server_exit: OnServerExit,
    /// Those of NVIDIA's devices.
    pub numbers: &'a Numbers,
    /// This executable, from the root.
    pub executable: &'a Path,
    /// Whether the container's cgroup decides which devices it opens.
    pub has_device_cgroup: bool,
    /// The first number of what is handed over.
    pub number: usize,
}

/// Whether Landlock can keep ioctls from devices here (Linux 6.10).
fn has_landlock() -> bool {
    Feature::LandlockIoctlDev.is_there()
}

/// The shadow, and what the first process is told.
pub fn make(making: &Making<'_>) -> Result<(Value, Told), Failure> {
    let mut shadow = making.specification.0.clone();
    let harmless = harmless(making);
    let told = Told {
        name: making.name.to_owned(),
        driver: DriverText::from(making.driver),
        on_server_exit: making.on_server_exit,
        rights: lend_rights(&mut shadow, &LENT),
        descriptors: lend_descriptors(&mut shadow)?,
        hidden: take_paths(&mut shadow, "maskedPaths"),
        read_only: take_paths(&mut shadow, "readonlyPaths"),
        harmless: harmless.clone(),
        forbidden_major: (making.has_device_cgroup && (harmless.is_none() || !has_landlock()))
            .then_some(MAJOR),
        closed: match shadow.pointer_mut("/linux/seccomp") {
            Some(profile) if profile.is_object() => profile::open(profile)?,
            _ => Vec::new(),
        },
        majors: making.numbers.majors.iter().copied().collect(),
        label: take_label(&mut shadow),
        has_hook: making.asked.has_hook(HookKind::Legacy),
        has_terminal: has_terminal(&shadow),
        entrance: first::entrance()?,
    };
    take_devices(&mut shadow, making.asked, making.numbers);
    show_nodes(&mut shadow, making);
    show_openable(&mut shadow, making.driver)?;
    make_absolute(&mut shadow, making.bundle);
    put_first(&mut shadow, making)?;
    set(&mut shadow, "annotations", MARK, json!("1"));
    Ok((shadow, told))
}

/// The shadow of a further program's `process`, and what the process is told that starts it. The first number of what is handed to
/// that is `number`.
pub fn make_further(
    mut process: Value,
    container: &Told,
    number: usize,
) -> Result<(Value, Further), Failure> {
    let words = process.get("args").and_then(Value::as_array);
    let words = words.into_iter().flatten().filter_map(Value::as_str);
    let command: Vec<String> = words.map(str::to_owned).collect();
    let directory = text(&process, "cwd").unwrap_or("/").into();
    // Without any the low-level runtime takes the container's, with what is lent to its first process.
    let has_rights = process.get("capabilities").is_some_and(Value::is_object);
    if !has_rights && let Some(process) = process.as_object_mut() {
        process.insert("capabilities".to_owned(), json!(container.rights));
    }
    let mut shadow = json!({ "process": process });
    let further = Further {
        name: container.name.clone(),
        command,
        working_directory: directory,
        rights: lend_rights(&mut shadow, &LENT_FURTHER),
        closed: container.closed.clone(),
        label: take_label(&mut shadow).or_else(|| container.label.clone()),
        has_terminal: has_terminal(&shadow),
    };
    let mut process = shadow["process"].take();
    process["args"] = json!([container.entrance, WORD_FURTHER, number.to_string()]);
    process["cwd"] = json!("/");
    Ok((process, further))
}

fn has_terminal(shadow: &Value) -> bool {
    shadow.pointer("/process/terminal") == Some(&Value::Bool(true))
}

/// Puts a value into an object, which is made if there is none.
fn set(shadow: &mut Value, object: &str, name: &str, value: Value) {
    if let Some(root) = shadow.as_object_mut() {
        let object = root.entry(object).or_insert_with(|| json!({}));
        if let Some(object) = object.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    }
}

/// Takes the entries of a list for which this holds.
fn take_from(shadow: &mut Value, pointer: &str, is_to_go: impl Fn(&Value) -> bool) {
    if let Some(list) = shadow.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.retain(|entry| !is_to_go(entry));
    }
}

/// Adds what is lent to each set of capabilities, and returns what was there.
fn lend_rights(shadow: &mut Value, lent: &[Capability]) -> Rights {
    let mut lend = |name: &str| {
        let process = shadow
            .pointer_mut("/process")
            .and_then(Value::as_object_mut);
        let Some(process) = process else {
            return Vec::new();
        };
        let sets = process.entry("capabilities").or_insert_with(|| json!({}));
        if !sets.is_object() {
            *sets = json!({});
        }
        let set = sets.get(name).and_then(Value::as_array);
        let set = set.into_iter().flatten().filter_map(Value::as_str);
        let found: Vec<String> = set.map(str::to_owned).collect();
        let lent = lent.iter().map(ToString::to_string);
        let all: BTreeSet<String> = found.iter().cloned().chain(lent).collect();
        sets[name] = json!(all);
        found
    };
    Rights {
        bounding: lend("bounding"),
        effective: lend("effective"),
        permitted: lend("permitted"),
        inheritable: lend("inheritable"),
        ambient: lend("ambient"),
    }
}

/// Has the first process have as many descriptors as this one may, since it has some for each of those of all the program's processes.
/// Returns how many the program is to have: what the specification says, or else what this process has.
fn lend_descriptors(shadow: &mut Value) -> Result<(u64, u64), Failure> {
    let (soft, own) = getrlimit(Resource::RLIMIT_NOFILE).attempt("the limit of descriptors")?;
    let process = shadow.pointer_mut("/process");
    let Some(process) = process.and_then(Value::as_object_mut) else {
        return Ok((soft, own));
    };
    let limits = process.entry("rlimits").or_insert_with(|| json!([]));
    let Some(limits) = limits.as_array_mut() else {
        return Ok((soft, own));
    };
    let is_it = |limit: &Value| text(limit, "type") == Some(LIMIT_OF_DESCRIPTORS);
    let found = limits.iter().rfind(|limit| is_it(limit));
    let value = |name: &str| found?.get(name)?.as_u64();
    let (soft, hard) = (value("soft").unwrap_or(soft), value("hard").unwrap_or(own));
    limits.retain(|limit| !is_it(limit));
    let most = hard.max(own.min(DESCRIPTORS));
    limits.push(json!({"type": LIMIT_OF_DESCRIPTORS, "soft": most, "hard": most}));
    Ok((soft, hard))
}

/// Takes the paths in `/proc` out of a list of `linux`: the program's is another.
fn take_paths(shadow: &mut Value, list: &str) -> Vec<PathBuf> {
    let pointer = format!("/linux/{list}");
    let is_of_processes = |path: &Value| {
        let path = path.as_str().unwrap_or_default();
        Path::new(path).starts_with("/proc")
    };
    let paths = shadow.pointer(&pointer).and_then(Value::as_array);
    let paths = paths.into_iter().flatten();
    let taken = paths.filter(|path| is_of_processes(path));
    let taken = taken.filter_map(Value::as_str).map(PathBuf::from).collect();
    take_from(shadow, &pointer, is_of_processes);
    taken
}

/// Takes the label of AppArmor's or SELinux's: the first process mounts, which labels for containers forbid. The program
/// gets it as it executes.
fn take_label(shadow: &mut Value) -> Option<String> {
    let process = shadow.pointer_mut("/process")?.as_object_mut()?;
    let mut take = |name: &str| {
        let label = process.remove(name)?.as_str()?.to_owned();
        (!label.is_empty()).then_some(label)
    };
    let of_selinux = take("selinuxLabel");
    take("apparmorProfile")
        .map(|profile| format!("exec {profile}"))
        .or(of_selinux)
}

/// The devices on which ioctls are harmless. `None` if the program may mount, which a domain of Landlock's about devices would forbid, and the
/// container's cgroup keeps it from the driver's nodes: that holds for real root only, whose containers are in no user namespace.
fn harmless(making: &Making<'_>) -> Option<Vec<String>> {
    let mut bounding = making.specification.bounding_capabilities();
    if making.has_device_cgroup && bounding.any(|name| name == "CAP_SYS_ADMIN") {
        return None;
    }
    let is_asked = |path: &str| making.asked.nodes.iter().any(|node| node.path == path);
    let devices = making.specification.devices().iter();
    let devices = devices.filter_map(|device| text(device, "path"));
    let mounts = making.specification.mounts().iter();
    let mounts = mounts
        .filter(|mount| text(mount, "source").is_some_and(|path| path.starts_with("/dev/")))
        .filter_map(|mount| text(mount, "destination"));
    let others = devices.chain(mounts).filter(|path| !is_asked(path));
    Some(
        HARMLESS
            .into_iter()
            .chain(others)
            .map(str::to_owned)
            .collect(),
    )
}

/// Takes NVIDIA's devices out of what is made and what may be opened, and forbids them where all may be opened.
fn take_devices(shadow: &mut Value, asked: &Asked, numbers: &Numbers) {
    let is_asked = |way: Way, path: Option<&str>| {
        let mut nodes = asked.nodes.iter();
        nodes.any(|node| node.way == way && Some(node.path.as_str()) == path)
    };
    take_from(shadow, "/linux/devices", |device| {
        is_asked(Way::Device, text(device, "path"))
    });
    take_from(shadow, "/mounts", |mount| {
        is_asked(Way::Mount, text(mount, "destination"))
    });
    let is_nvidias = |rule: &Value| {
        let major = number(rule, "major");
        let is_allowed = rule.get("allow") == Some(&Value::Bool(true));
        is_allowed && major.is_some_and(|major| numbers.have(major, number(rule, "minor")))
    };
    take_from(shadow, "/linux/resources/devices", is_nvidias);
    let rules = shadow.pointer_mut("/linux/resources/devices");
    let Some(rules) = rules.and_then(Value::as_array_mut) else {
        return;
    };
    let opens_any = |major| move |rule: &Value| opens_every(rule, major);
    let majors = numbers.majors.iter();
    let majors = majors.filter(|_| rules.iter().any(opens_any(None)));
    let majors =
        majors.map(|major| json!({"allow": false, "type": "c", "major": major, "access": "rwm"}));
    let graphics = numbers.graphics.iter();
    let graphics = graphics.filter(|(major, _)| {
        [None, Some(*major)]
            .into_iter()
            .any(|of| rules.iter().any(opens_any(of)))
    });
    let graphics = graphics.map(|(major, minor)| {
        json!({"allow": false, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    });
    let forbidden: Vec<Value> = majors.chain(graphics).collect();
    rules.extend(forbidden);
}

/// Whether a rule lets every character device, or all with this major number, be read or written. Where there is none, a rule
/// that forbids some more is of no use, and runc takes none beside one that lets nodes be made (cgroups of version 1).
fn opens_every(rule: &Value, major: Option<u32>) -> bool {
    let access = text(rule, "access").unwrap_or("rwm");
    rule.get("allow") == Some(&Value::Bool(true))
        && number(rule, "major") == major
        && (major.is_none() || number(rule, "minor").is_none())
        && text(rule, "type") != Some("b")
        && (access.contains('r') || access.contains('w'))
}

/// Shows the nodes that a program opens itself where they can be opened to be read, and has the container's cgroup let them be. What NVIDIA's
/// hook puts over one is the same node.
fn show_openable(shadow: &mut Value, driver: &Driver) -> Result<(), Failure> {
    let nodes = driver.nodes.iter();
    let nodes = nodes.filter(|node| driver.kind.lets_be_opened(**node));
    let (mut mounts, mut rules) = (Vec::new(), Vec::new());
    for node in nodes {
        let source = driver.path(*node);
        let number = stat(&source).attempt(source.display())?.st_rdev;
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        rules.push(
            json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "r"}),
        );
        let place = format!("/dev/{}", node.file_name());
        mounts.push(json!({
            "destination": place, "type": "bind", "source": source, "options": ["bind", "ro", "nosuid", "noexec"],
        }));
    }
    add_mounts(shadow, mounts);
    // Without rules the engine forbids no device.
    let list = shadow.pointer_mut("/linux/resources/devices");
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.extend(rules);
    }
    Ok(())
}

/// Shows the driver's nodes where they cannot be opened. NVIDIA's hook opens what is where it puts some: there it finds what opens
/// nothing of the driver's, and the first process puts the others over what it has left.
fn show_nodes(shadow: &mut Value, making: &Making<'_>) {
    let has_hook = making.asked.has_hook(HookKind::Legacy);
    let inert = ["bind", "ro", "nosuid", "nodev", "noexec"];
    let own = nodes(making).into_iter().map(|(name, source)| {
        let place = format!("/dev/{name}");
        let mount = |place: String, source: PathBuf, options: &[&str]| {
            json!({"destination": place, "type": "bind", "source": source, "options": options})
        };
        match has_hook {
            false => mount(place, source, &inert),
            // What the hook can open. The inert node is beside the executable.
            true => mount(place, STAND_IN.into(), &["bind", "nosuid", "noexec"]),
        }
    });
    add_mounts(shadow, own.collect());
}

/// The names of the nodes that the sandbox has and its program cannot open itself, and what is shown in their places.
fn nodes(making: &Making<'_>) -> Vec<(String, PathBuf)> {
    let nodes = making.driver.nodes.iter();
    let nodes = nodes.filter(|node| !making.driver.kind.lets_be_opened(**node));
    let shown = nodes.map(|node| match making.driver.kind {
        Kind::Host => (node.file_name(), making.driver.path(*node)),
        _ => (node.file_name(), STAND_IN.into()),
    });
    shown.collect()
}

fn add_mounts(shadow: &mut Value, mounts: Vec<Value>) {
    if let Some(root) = shadow.as_object_mut() {
        let list = root.entry("mounts").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.extend(mounts);
        }
    }
}

/// Has this executable be the first process, and a hook put it where the container finds it. Of the hooks in its list it is the
/// last: what others mount is there before.
fn put_first(shadow: &mut Value, making: &Making<'_>) -> Result<(), Failure> {
    let root = shadow.pointer("/root/path").and_then(Value::as_str);
    let root = root.ok_or_else(|| {
        Failure::setup("the specification names no root: have the engine write root.path")
    })?;
    let beside = match making.asked.has_hook(HookKind::Legacy) {
        true => nodes(making),
        false => Vec::new(),
    };
    let hook = seat::hook(Path::new(root), making.executable, &beside)?;
    let hooks = shadow
        .get_mut("hooks")
        .and_then(|hooks| hooks.get_mut("createContainer"));
    match hooks.and_then(Value::as_array_mut) {
        Some(hooks) => hooks.push(hook),
        None => set(shadow, "hooks", "createContainer", json!([hook])),
    }
    let Some(process) = shadow
        .pointer_mut("/process")
        .and_then(Value::as_object_mut)
    else {
        return Ok(());
    };
    let program = process.get("args").and_then(Value::as_array).cloned();
    let mut arguments = vec![
        json!(seat::executable()),
        json!(WORD),
        json!(making.number.to_string()),
    ];
    arguments.extend(program.unwrap_or_default());
    process.insert("args".to_owned(), arguments.into());
    Ok(())
}

/// The root's path is one from the bundle, which is another's now.
fn make_absolute(shadow: &mut Value, bundle: &Path) {
    if let Some(path) = shadow.pointer_mut("/root/path") {
        let absolute = path.as_str().map(|path| bundle.join(path));
        if let Some(absolute) = absolute {
            *path = json!(absolute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_opens_a_device_of_nvidias() {
        let numbers = Numbers {
            majors: BTreeSet::from([195, 510]),
            graphics: BTreeSet::from([(226, 1)]),
            parts: None,
        };
        let allow = |kind: &str, major: Option<u32>, minor: Option<u32>, access: &str| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
        let no = |major: u32| json!({"allow": false, "type": "c", "major": major, "access": "rwm"});
        let no_graphics =
            json!({"allow": false, "type": "c", "major": 226, "minor": 1, "access": "rwm"});
        let graphics = |minor| allow("c", Some(226), minor, "rwm");
        let make = allow("c", None, None, "m");
        let all = allow("a", None, None, "rwm");
        for (rules, expected) in [
            (vec![allow("c", Some(195), Some(0), "rwm")], vec![]),
            (vec![allow("c", Some(510), None, "rw")], vec![]),
            (
                vec![graphics(Some(1)), graphics(Some(0))],
                vec![graphics(Some(0))],
            ),
            (
                vec![graphics(None)],
                vec![graphics(None), no_graphics.clone()],
            ),
            (vec![make.clone()], vec![make]),
            (vec![all.clone()], vec![all, no(195), no(510), no_graphics]),
        ] {
            let mut shadow = json!({"linux": {"resources": {"devices": rules}}});
            take_devices(&mut shadow, &Asked::default(), &numbers);
            assert_eq!(
                shadow["linux"]["resources"]["devices"],
                json!(expected),
                "{rules:?}"
            );
        }
    }

    #[test]
    fn nodes_of_parts_are_bound_as_devices_and_may_be_read() {
        let devices = std::env::temp_dir().join(format!("ringfence-shadow-{}", std::process::id()));
        std::fs::create_dir_all(devices.join("nvidia-caps")).unwrap();
        let source = devices.join("nvidia-caps/nvidia-cap12");
        std::os::unix::fs::symlink("/dev/null", &source).unwrap();
        let mut driver = crate::driver::choose(&crate::driver::Demand {
            choice: crate::driver::Choice::Sim,
            ..Default::default()
        })
        .unwrap()
        .driver;
        driver.nodes.extend(nvproxy_abi::node::of_part(12));
        driver.directory.clone_from(&devices);
        let shown = |driver: &Driver| {
            let mut shadow = json!({"linux": {"resources": {"devices": []}}});
            show_openable(&mut shadow, driver).map(|()| shadow)
        };
        let simulated = shown(&driver).unwrap();
        driver.kind = Kind::Host;
        let real = shown(&driver).unwrap();
        std::fs::remove_dir_all(&devices).unwrap();
        let missing = shown(&driver);
        assert_eq!(simulated["linux"]["resources"]["devices"], json!([]));
        assert_eq!(
            real["linux"]["resources"]["devices"],
            json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}])
        );
        let options = ["bind", "ro", "nosuid", "noexec"];
        let place = "/dev/nvidia-caps/nvidia-cap12";
        assert_eq!(
            real["mounts"],
            json!([{"destination": place, "type": "bind", "source": source, "options": options}])
        );
        assert!(missing.is_err());
    }
}
