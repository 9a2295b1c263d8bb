//! What NVIDIA's hook takes for a request, by the rows of its own `internal/config/image/cuda_image_test.go`, v1.20.2, and others.

use serde_json::json;

use super::*;

fn specification(environment: &[&str], mounts: &[&str], capabilities: &[&str]) -> Specification {
    let mounts: Vec<Value> = mounts
        .iter()
        .map(|path| json!({"source": "/dev/null", "destination": path, "type": "bind"}))
        .collect();
    Specification(json!({
        "process": {"env": environment, "capabilities": {"bounding": capabilities}}, "mounts": mounts,
    }))
}

fn named(names: &[&str]) -> Request {
    Request::Named(names.iter().map(ToString::to_string).collect())
}

#[test]
fn variables_ask() {
    for (environment, expected) in [
        (&[][..], Request::Nothing),
        (&["NVIDIA_VISIBLE_DEVICES="], Request::Nothing),
        (&["NVIDIA_VISIBLE_DEVICES=void"], Request::Nothing),
        (&["NVIDIA_VISIBLE_DEVICES=0,void"], Request::Nothing),
        (&["NVIDIA_VISIBLE_DEVICES=none"], named(&[])),
        (&["NVIDIA_VISIBLE_DEVICES=all"], Request::All),
        (&["NVIDIA_VISIBLE_DEVICES=0,all"], Request::All),
        (
            &["NVIDIA_VISIBLE_DEVICES=0, GPU-ab,"],
            named(&["0", "GPU-ab"]),
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=0"],
            named(&["0"]),
        ),
        (
            &["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"],
            Request::Nothing,
        ),
        (&["CUDA_VERSION=8.0.61"], Request::All),
        (
            &["CUDA_VERSION=8.0.61", "NVIDIA_VISIBLE_DEVICES="],
            Request::Nothing,
        ),
        (
            &["CUDA_VERSION=12.4", "NVIDIA_REQUIRE_CUDA=cuda>=12.4"],
            Request::Nothing,
        ),
        (&["DOCKER_RESOURCE_GPU=0"], Request::Nothing),
    ] {
        let found = request(
            &specification(environment, &[], &[]),
            &Configuration::default(),
        );
        assert_eq!(found, expected, "{environment:?}");
    }
}

/// An administrator lets no image ask.
#[test]
fn the_configuration_says_who_may_ask() {
    let text = "accept-nvidia-visible-devices-envvar-when-unprivileged = false
accept-nvidia-visible-devices-as-volume-mounts = true
swarm-resource = \"DOCKER_RESOURCE_GPU, OTHER\"
[nvidia-container-cli]
no-cgroups = true
";
    let configuration = Configuration::parse(text).expect("a configuration");
    let preferred = ["DOCKER_RESOURCE_GPU".to_owned(), "OTHER".to_owned()];
    assert_eq!(configuration.preferred, preferred);
    let all = ["NVIDIA_VISIBLE_DEVICES=all"];
    let mount = "/var/run/nvidia-container-devices/GPU-ab";
    for (environment, mounts, capabilities, expected) in [
        (&all[..], &[][..], &[][..], Request::Nothing),
        (&all, &[], &["CAP_SYS_ADMIN"], Request::All),
        (&all, &[mount], &[], named(&["GPU-ab"])),
        (&all, &[mount], &["CAP_SYS_ADMIN"], named(&["GPU-ab"])),
        (
            &["NVIDIA_VISIBLE_DEVICES=void"],
            &["/var/run/nvidia-container-devices/void"],
            &[],
            Request::Nothing,
        ),
        (
            &["OTHER=1", "NVIDIA_VISIBLE_DEVICES=all"],
            &[],
            &["CAP_SYS_ADMIN"],
            named(&["1"]),
        ),
    ] {
        let specification = specification(environment, mounts, capabilities);
        assert_eq!(
            request(&specification, &configuration),
            expected,
            "{environment:?} {mounts:?}"
        );
    }
    assert_eq!(Configuration::parse(""), Ok(Configuration::default()));
    let wrong = Configuration::parse("accept-nvidia-visible-devices-as-volume-mounts = 1");
    let reason = "accept-nvidia-visible-devices-as-volume-mounts is neither true nor false";
    assert_eq!(wrong, Err(reason.to_owned()));
}

/// As engines, NVIDIA's runtime and its operator name it.
#[test]
fn the_configuration_is_found_as_the_hook_finds_it() {
    let hook = |arguments: &[&str], environment: &[&str]| json!({"path": "/opt/nvidia/nvidia-container-runtime-hook", "args": arguments, "env": environment});
    let own = |name: &str| (name == DIRECTORY_VARIABLE).then(|| "/own".to_owned());
    let beside = "/opt/nvidia/.config/nvidia-container-runtime/config.toml";
    for (arguments, environment, has_operator, expected) in [
        (
            &["hook", "prestart"][..],
            &["PATH=/bin"][..],
            false,
            "/etc/nvidia-container-runtime/config.toml",
        ),
        (
            &["hook", "prestart"],
            &[],
            false,
            "/own/nvidia-container-runtime/config.toml",
        ),
        (
            &["hook", "prestart"],
            &["XDG_CONFIG_HOME=/x"],
            false,
            "/x/nvidia-container-runtime/config.toml",
        ),
        (
            &["hook", "prestart"],
            &["NVIDIA_CTK_CONFIG_FILE_PATH=/c"],
            true,
            "/c",
        ),
        (&["hook", "prestart"], &["XDG_CONFIG_HOME=/x"], true, beside),
        (
            &["hook", "-config", "/a", "prestart"],
            &["NVIDIA_CTK_CONFIG_FILE_PATH=/c"],
            true,
            "/a",
        ),
        (&["hook", "--config=/a", "prestart"], &[], true, "/a"),
    ] {
        let exists = |path: &Path| has_operator && path == Path::new(beside);
        let found = file_of(&hook(arguments, environment), &own, &exists);
        assert_eq!(found, Path::new(expected), "{arguments:?} {environment:?}");
    }
}
