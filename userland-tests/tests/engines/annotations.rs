//! What Docker's users ask Ringfence for by annotations, which Docker has since release 25.
//!
//! Debian's client has no option for them. So the test talks to the daemon itself, by its API (HTTP over a socket).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::docker;
use crate::engine::{Container, Engine, LowLevel, Runtime, called};
use crate::image::IMAGE;

/// Asks the daemon for something. Returns the status and the answer. (To HTTP 1.0 an answer comes in one piece, and ends with the
/// connection.)
fn post(engine: &Engine, path: &str, body: &Value) -> (u16, Value) {
    let socket = engine.machine.path(docker::SOCKET);
    let mut connection = UnixStream::connect(socket).expect("the daemon's socket");
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let request = head + &body;
    connection.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {head}"));
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Makes a container with a GPU that asks for so much of its memory, and starts it. Returns it, and how the daemon answered the start.
fn start<'a>(
    engine: &'a Engine,
    runtime: &str,
    name: &str,
    memory: &str,
) -> (Container<'a>, (u16, Value)) {
    let device = "/dev/nvidia0";
    let wanted = json!({
        "Image": IMAGE,
        "Cmd": ["guest", "limit-shown"],
        "HostConfig": {
            "Runtime": runtime,
            "NetworkMode": "none",
            "Devices": [{"PathOnHost": device, "PathInContainer": device, "CgroupPermissions": "rwm"}],
            "Annotations": {"dev.ringfence.gpu-memory": memory},
        },
    });
    let (status, answer) = post(engine, &format!("/containers/create?name={name}"), &wanted);
    assert_eq!(status, 201, "{}: {answer}", engine.name);
    let container = Container {
        engine,
        runtime: Runtime::Ringfence(LowLevel::Runc),
        name: name.to_owned(),
    };
    let started = post(engine, &format!("/containers/{name}/start"), &json!({}));
    (container, started)
}

#[test]
fn the_memory_that_an_annotation_of_dockers_asks_for_is_the_most_that_the_container_gets() {
    let Some(engine) = docker::current() else {
        return;
    };
    for low_level in &engine.low_levels {
        let runtime = called(Runtime::Ringfence(*low_level));
        let name = format!("annotated-{}", low_level.name());
        let (container, started) = start(engine, runtime, &name, "2Gi");
        assert_eq!(started, (204, Value::Null), "{runtime}");
        assert_eq!(container.wait(), "0", "{runtime}");
        let output = container.ask(&["logs"]);
        let expected = "nothing allocated: ram 2048, total 2048, ";
        assert!(output.starts_with(expected), "{runtime}: {output}");
    }
}

#[test]
fn an_annotation_of_dockers_beyond_what_the_settings_allow_is_refused_in_a_line() {
    let Some(engine) = docker::current() else {
        return;
    };
    let (within, started) = start(engine, docker::LIMITED, "within", "4Gi");
    assert_eq!(started, (204, Value::Null));
    assert_eq!(within.wait(), "0");
    let output = within.ask(&["logs"]);
    let expected = "nothing allocated: ram 4096, total 4096, ";
    assert!(output.starts_with(expected), "{output}");

    let (_beyond, (status, answer)) = start(engine, docker::LIMITED, "beyond", "5Gi");
    let message = answer["message"].as_str().expect("a message");
    let line = format!(
        "annotation dev.ringfence.gpu-memory: 5Gi is more than 4GiB, the most that a container gets here: ask for less, or raise \
         maximum in [gpu-memory] of {}",
        engine.machine.name_of(docker::LIMITED_SETTINGS)
    );
    let shown =
        |shown: &str| shown.contains("ringfence-runtime: container ") && shown.contains(&line);
    assert_eq!(
        (status, message.lines().filter(|line| shown(line)).count()),
        (500, 1),
        "{message}"
    );
}
