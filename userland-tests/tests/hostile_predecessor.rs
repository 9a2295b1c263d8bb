//! A test in the place of the launcher, and of a server that was taken over and is to be replaced: what it hands over to the
//! next one is what it likes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::node::Node;
use nvproxy_protocol::requests::{ARGUMENT_NODE, Kind};
use nvproxy_protocol::supervision::{Message, receive_until, send};
use ringfence_ipc::{ClientChannel, Geometry, Socket, Spin, Submission, Wake, handshake};
use userland_tests::ringfence_program;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that the test has started, and where it is told what to do.
struct Server {
    child: Child,
    supervision: Socket,
}

impl Server {
    /// One with this standard input. The server confines itself with rights that the launcher's user namespace gives it
    /// (unshare(1)).
    fn start(input: OwnedFd, options: &[&str]) -> Server {
        let (ours, theirs) = Socket::pair().expect("a socket pair");
        let child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--"])
            .arg(ringfence_program())
            .args([
                "nvproxy-server",
                "--driver=sim",
                "--nodes=nvidiactl,nvidia-uvm,nvidia0",
            ])
            .args(["--driver-version=580.142", "--tables=580.142"])
            .args(["--driver-capabilities=compute,utility", "--supervision=1"])
            .arg("--nodes-in=/dev")
            .args(["--gpu-memory=64MiB", "--host-memory=128MiB"])
            .args(options)
            .stdin(input)
            .stdout(OwnedFd::from(theirs))
            .spawn();
        Server {
            child: child.expect("a server"),
            supervision: ours,
        }
    }

    fn hear(&self) -> Message {
        let deadline = Instant::now() + PATIENCE;
        let (message, _) = receive_until(&self.supervision, deadline).expect("a message");
        message
    }

    /// A field of `/proc/PID/status`.
    fn status(&self, field: &str) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("its status");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.expect("the field").trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("its end");
    }
}

/// A server that serves, as the sentry sees it.
fn served() -> (Server, ClientChannel) {
    let (ours, theirs) = Socket::pair().expect("a socket pair");
    let server = Server::start(theirs.into(), &[]);
    let geometry = Geometry {
        ring_entries: 256,
        arena_bytes: 64 << 10,
    };
    let channel = handshake::offer(ours, geometry).expect("a channel");
    (server, channel)
}

/// What a server hands over.
struct State {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl State {
    /// That of a server, which waits from then on to be told whether it is to end.
    fn of(server: &Server) -> State {
        let (ours, theirs) = Socket::pair().expect("a socket pair");
        let hand_over = &Message::HandOver;
        send(&server.supervision, hand_over, Some(theirs.as_fd())).expect("sent");
        let (message, state) = receive_until(&ours, Instant::now() + PATIENCE).expect("a state");
        let Message::State { descriptors: count } = message else {
            panic!("{message:?}");
        };
        let descriptors = (0..count).map(|expected| {
            let (number, descriptor) = ours.receive().expect("a descriptor");
            assert_eq!(number, expected);
            descriptor
        });
        let descriptors = descriptors.collect();
        assert_eq!(server.hear(), Message::HandedOver);
        let mut file = File::from(state.expect("a file"));
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).expect("a seek");
        file.read_to_string(&mut text).expect("text");
        State { text, descriptors }
    }

    /// A file with the same text, but for this.
    fn with(&self, from: &str, to: &str) -> OwnedFd {
        assert_eq!(self.text.matches(from).count(), 1, "{from}: {}", self.text);
        let mut file = file();
        file.write_all(self.text.replace(from, to).as_bytes())
            .expect("written");
        file.into()
    }

    /// Gives `state` to a new server, with the descriptors of this one: the server, and what it says.
    fn handed_over(&self, state: &OwnedFd) -> (Server, Message) {
        let (ours, theirs) = Socket::pair().expect("a socket pair");
        let server = Server::start(theirs.into(), &["--take-over"]);
        assert_eq!(server.hear(), Message::Prepared);
        // It has read nothing yet.
        assert_eq!(server.status("Seccomp"), "2");
        assert_eq!(server.status("NoNewPrivs"), "1");
        for capabilities in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(server.status(capabilities), "0000000000000000");
        }
        let message = Message::State {
            descriptors: self.descriptors.len() as u64,
        };
        send(&ours, &message, Some(state.as_fd())).expect("sent");
        for (number, descriptor) in (0..).zip(&self.descriptors) {
            // A server that refuses the state may be gone.
            let _ = ours.send(number, descriptor.as_fd());
        }
        let message = server.hear();
        (server, message)
    }
}

fn file() -> File {
    let file = memfd_create(c"state", MFdFlags::MFD_CLOEXEC);
    File::from(file.expect("a memory file"))
}

#[test]
fn a_new_server_is_confined_and_has_its_limits_before_it_reads_a_state() {
    let (old, mut channel) = served();
    let state = State::of(&old);
    let larger = file();
    larger.set_len((256 << 20) + 1).expect("a sparse file");
    let silent = EventFd::new().expect("an eventfd");
    let books = |field: &str| state.with(r#""books":{"#, &format!(r#""books":{{{field},"#));
    let host = |field: &str| state.with(r#""host":{"#, &format!(r#""host":{{{field},"#));
    let limits = r#""limits":{"clients":9,"gpu_memory":null,"host_memory":null,"objects":9}"#;
    let allocation = r#"{"8000000000":{"pool":"Host","bytes":1,"references":1}}"#;
    let allocation = format!(r#""allocations":{allocation}"#);
    for (what, state_handed_over, expected) in [
        ("limits", books(limits), "unknown field `limits`"),
        ("a sum", books(r#""charged":{}"#), "unknown field `charged`"),
        ("something", books(r#""more":0"#), "unknown field `more`"),
        ("GPUs", host(r#""given":[0,1]"#), "unknown field `given`"),
        ("a size", host(r#""memory":1"#), "unknown field `memory`"),
        (
            "a slab",
            state.with(r#""allocations":{}"#, &allocation),
            "the number 8000000000",
        ),
        (
            "a large one",
            larger.into(),
            "the state has 268435457 bytes",
        ),
        ("none", silent.into(), "the state is no file"),
    ] {
        let (_server, message) = state.handed_over(&state_handed_over);
        let Message::Refused(reason) = message else {
            panic!("{what}: {message:?}");
        };
        assert!(reason.contains(expected), "{what}: {reason}");
    }
    // As it was, it is taken, and the server serves as soon as it is told to.
    let (new, message) = state.handed_over(&state.with(r#""books":{"#, r#""books":{"#));
    assert_eq!(message, Message::Restored);
    drop(old);
    send(&new.supervision, &Message::Go, None).expect("sent");
    assert_eq!(new.hear(), Message::Serving);
    let mut open = Submission {
        kind: Kind::Open as u16,
        cookie: 7,
        ..Submission::default()
    };
    open.arguments[ARGUMENT_NODE] = Node::Gpu(1).to_wire();
    channel.submissions.push(&open).expect("room");
    channel.submissions.ring();
    let waited = channel.completions.wait(Spin::NONE, Some(PATIENCE));
    assert_eq!(waited, Ok(Wake::Ready));
    let completion = channel.completions.pop().expect("a ring");
    let completion = completion.expect("a completion");
    let absent = -i64::from(nix::libc::ENODEV);
    assert_eq!((completion.cookie, completion.result), (7, absent));
}
