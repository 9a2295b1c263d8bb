//! A test in the sentry's place: it starts a server process, shares a channel with it, and writes there what it likes.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_protocol::requests::{ARGUMENT_NODE, Kind, VALUE_HANDLE};
use nvproxy_sim::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_sim::structs::frontend::{NVOS21_PARAMETERS, NVOS54_PARAMETERS};
use ringfence_ipc::{
    ClientChannel, Completion, FLAG_DESCRIPTOR, Geometry, PROTOCOL_VERSION, PushError, Region,
    Socket, Spin, Submission, Wake,
};
use userland_tests::ringfence_with_faults;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Far longer than anything takes, so that a failure is an error and not a hang.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// The arena is small, so that it can be compared whole again and again.
pub const GEOMETRY: Geometry = Geometry {
    ring_entries: 256,
    arena_bytes: 64 << 10,
};

/// Where the words of the rings lie in the region (`ringfence_ipc::region`).
pub const SUBMISSION_HEAD: i64 = 0;
pub const SUBMISSION_TAIL: i64 = 128;
pub const SUBMISSION_SLEEP: i64 = 256;
pub const COMPLETION_HEAD: i64 = 384;

/// Bytes of the request that [`Peer::probe`] makes: the argument, and the buffer that it points to.
pub const PROBE_LENGTH: u32 =
    (size_of::<NVOS54_PARAMETERS>() + size_of::<NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS>()) as u32;

/// A server, and the sentry's end of its channel.
pub struct Peer {
    child: Child,
    pub channel: ClientChannel,
    pub region: Region,
    cookie: u64,
    /// What was submitted last, to be named where nothing comes of it.
    last: Submission,
}

/// How a server ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: Option<i32>,
    pub stderr: String,
}

/// Starts a server that obeys `rules` and has not been spoken to.
pub fn spawn(rules: &str) -> (Child, OwnedFd) {
    spawn_with(rules, &[])
}

/// The same with further options.
fn spawn_with(rules: &str, options: &[&str]) -> (Child, OwnedFd) {
    let (ours, theirs) = Socket::pair().expect("a socket pair");
    // Where the launcher would give orders. Nobody does, but a server ends when nobody can.
    let (orders, supervision) = Socket::pair().expect("a socket pair");
    std::mem::forget(orders);
    // The server confines itself with rights that the launcher's user namespace gives it (unshare(1)).
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(ringfence_with_faults())
        .args([
            "nvproxy-server",
            "--driver=sim",
            "--nodes=nvidiactl,nvidia-uvm,nvidia0,nvidia1",
        ])
        .args(["--driver-version=580.142", "--tables=580.142"])
        .args(["--driver-capabilities=compute,utility", "--supervision=1"])
        .arg("--nodes-in=/dev")
        .args(options)
        .env("RINGFENCE_FAULTS", rules)
        .stdin(OwnedFd::from(theirs))
        .stdout(OwnedFd::from(supervision))
        .stderr(Stdio::piped())
        .spawn();
    (child.expect("a server"), ours.into())
}

/// Sends a message with descriptors, as only a hostile process does.
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights };
    let parts = [std::io::IoSlice::new(bytes)];
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &parts, rights, MsgFlags::empty(), None).expect("sendmsg");
}

/// The handshake's question, as it lies on the wire.
pub fn hello(version: u32, geometry: Geometry) -> Vec<u8> {
    const HELLO: u32 = 1;
    let mut message = b"ringfenc".to_vec();
    for word in [version, HELLO, geometry.ring_entries, geometry.arena_bytes] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message
}

/// The answer to a handshake: its kind, and the reason of a refusal.
pub fn answer(socket: &impl AsFd) -> (u32, String) {
    let mut answer = [0; 1024];
    let length = recv(socket.as_fd().as_raw_fd(), &mut answer, MsgFlags::empty()).expect("recv");
    let kind = answer[12..]
        .first_chunk()
        .map(|kind| u32::from_ne_bytes(*kind));
    let reason = String::from_utf8_lossy(&answer[16..length]).into_owned();
    (kind.expect("a kind"), reason)
}

/// Waits for the end of a server.
pub fn end_of(mut child: Child) -> Ended {
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut stderr).expect("stderr");
    let status = child.wait().expect("the server's end").code();
    Ended { status, stderr }
}

impl Peer {
    /// A server that obeys `rules`, with a channel of [`GEOMETRY`].
    pub fn new(rules: &str) -> Peer {
        Peer::with(rules, &[])
    }

    /// The same with further options for the server.
    pub fn with(rules: &str, options: &[&str]) -> Peer {
        let (child, socket) = spawn_with(rules, options);
        let region = Region::create(GEOMETRY).expect("a region");
        let copy = region.as_fd().try_clone_to_owned().expect("a copy");
        send(&socket, &hello(PROTOCOL_VERSION, GEOMETRY), &[copy]);
        assert_eq!(answer(&socket).0, 2, "accepted");
        let channel = ClientChannel::new(&region, Socket::from(socket));
        Peer {
            child,
            channel,
            region,
            cookie: 0,
            last: Submission::default(),
        }
    }

    /// Publishes a submission under a cookie of its own, which is returned.
    pub fn submit(&mut self, mut submission: Submission) -> Result<u64, PushError> {
        self.cookie += 1;
        submission.cookie = self.cookie;
        self.channel.submissions.push(&submission)?;
        self.last = submission;
        self.channel.submissions.ring();
        Ok(self.cookie)
    }

    /// Waits for the next completion.
    pub fn next(&mut self) -> Completion {
        let completions = &mut self.channel.completions;
        let waited = completions.wait(Spin::NONE, PATIENCE);
        assert_eq!(waited, Ok(Wake::Ready), "after {:x?}", self.last);
        completions.pop().expect("a ring").expect("a completion")
    }

    /// Waits for the completion that has this cookie, passing over others.
    pub fn next_with(&mut self, cookie: u64) -> Completion {
        loop {
            let completion = self.next();
            if completion.cookie == cookie {
                return completion;
            }
        }
    }

    /// Submits, and waits for the answer, which is the next.
    pub fn ask(&mut self, submission: Submission) -> Completion {
        let cookie = self.submit(submission).expect("room");
        let completion = self.next();
        assert_eq!(completion.cookie, cookie);
        completion
    }

    /// Opens a node: its handle, or a negated errno.
    pub fn open(&mut self, node: Node) -> Result<u64, i64> {
        let completion = self.ask(submission(Kind::Open, 0, node));
        if completion.flags & u32::from(FLAG_DESCRIPTOR) != 0 {
            drop(self.channel.socket.receive().expect("a descriptor"));
        }
        match completion.result {
            0 => Ok(completion.values[VALUE_HANDLE]),
            errno => Err(errno),
        }
    }

    /// Puts `payload` at `offset` of the arena, and makes a request of it.
    pub fn request(
        &mut self,
        mut submission: Submission,
        offset: u32,
        payload: &[u8],
    ) -> Completion {
        self.channel
            .arena
            .write(offset, payload)
            .expect("in the arena");
        (submission.payload_offset, submission.payload_length) = (offset, payload.len() as u32);
        self.ask(submission)
    }

    /// Allocates a client on `/dev/nvidiactl`: the handle of that and the client's own.
    pub fn client(&mut self) -> (u64, u32) {
        let handle = self.open(Node::Control).expect("a handle");
        let (status, client) = self.allocate_client(handle);
        assert_eq!(status, 0);
        (handle, client)
    }

    /// Allocates a client on a description of `/dev/nvidiactl`: the status and the handle.
    pub fn allocate_client(&mut self, handle: u64) -> (u32, u32) {
        let mut request = NVOS21_PARAMETERS::new_zeroed();
        request.hClass = NV01_ROOT_CLIENT;
        let asked = Submission {
            code: ioctl_word(NV_ESC_RM_ALLOC, size_of_val(&request)),
            ..submission(Kind::Ioctl, handle, Node::Control)
        };
        let done = self.request(asked, 0, request.as_bytes());
        assert_eq!(done.result, 0);
        let mut answer = [0; size_of::<NVOS21_PARAMETERS>()];
        self.channel
            .arena
            .read(0, &mut answer)
            .expect("in the arena");
        let answer = NVOS21_PARAMETERS::read_from_bytes(&answer).expect("an answer");
        (answer.status, answer.hObjectNew)
    }

    /// A good request, and that its answer is right.
    pub fn expect_service(&mut self, (handle, root): (u64, u32)) {
        let done = self.request(probe(handle), 0, &probe_payload(root));
        assert_eq!((done.result, done.payload_length), (0, PROBE_LENGTH));
        assert_eq!(self.probed(0), (0, [0x100, 0x200, u32::MAX]));
    }

    /// The answer to a probe that lies at `offset`: its status, and the first three of its GPUs.
    pub fn probed(&self, offset: u32) -> (u32, [u32; 3]) {
        let mut answer = [0; PROBE_LENGTH as usize];
        self.channel
            .arena
            .read(offset, &mut answer)
            .expect("in the arena");
        let (request, rest) = NVOS54_PARAMETERS::read_from_prefix(&answer).expect("an argument");
        let gpus = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::read_from_bytes(rest).expect("a buffer");
        (
            request.status,
            [gpus.gpuIds[0], gpus.gpuIds[1], gpus.gpuIds[2]],
        )
    }

    /// A number of the server's in `/proc/PID/status`, such as `VmRSS`, in KiB, or `Threads`.
    pub fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("its status");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    }

    /// Writes a word of the region's control blocks.
    pub fn set_word(&self, offset: i64, value: u32) {
        let written = nix::sys::uio::pwrite(self.region.as_fd(), &value.to_ne_bytes(), offset);
        assert_eq!(written, Ok(4));
    }

    /// Waits for the server's end without closing the channel.
    pub fn expect_end(self) -> Ended {
        let Peer { child, channel, .. } = self;
        let ended = end_of(child);
        drop(channel);
        ended
    }

    /// Closes the channel and waits for the server's end.
    pub fn close(self) -> Ended {
        let Peer { child, channel, .. } = self;
        drop(channel);
        end_of(child)
    }
}

/// A submission of this kind about a description of `node`.
pub fn submission(kind: Kind, handle: u64, node: Node) -> Submission {
    let mut submission = Submission {
        kind: kind as u16,
        target: handle,
        ..Submission::default()
    };
    submission.arguments[ARGUMENT_NODE] = node.to_wire();
    submission
}

/// A request for the ids of all GPUs, but for its payload.
pub fn probe(handle: u64) -> Submission {
    Submission {
        code: ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>()),
        ..submission(Kind::Ioctl, handle, Node::Control)
    }
}

/// The payload of a probe. What the pointer points to is the planner's business, and nobody's address.
pub fn probe_payload(root: u32) -> Vec<u8> {
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject) = (root, root);
    request.cmd = NV0000_CTRL_CMD_GPU_GET_PROBED_IDS;
    request.params = 0x1000;
    request.paramsSize = size_of::<NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS>() as u32;
    let mut payload = request.as_bytes().to_vec();
    payload.resize(PROBE_LENGTH as usize, 0);
    payload
}
