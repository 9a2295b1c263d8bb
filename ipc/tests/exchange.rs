//! Whole conversations between two threads and between two processes, exact to the last word.
//!
//! The second process is this test program again: it runs one of the ignored tests below with the
//! channel's socket as its standard input.

use std::{
    fs::File,
    io::{Read, Write, pipe, stdin},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use ringfence_ipc::{
    ArenaAllocator, ArenaRange, ClientChannel, Completion, FLAG_DESCRIPTOR, Geometry,
    HandshakeError, PushError, ServerChannel, SlotClass, Socket, SocketError, Spin, Submission,
    Wake, handshake,
};

const ENTRIES: u64 = 100_000;
/// The client sends this many at once and the server answers as many at once as are there.
const BATCH: u64 = 24;
/// Every so many-th entry brings a payload, and a descriptor.
const PAYLOAD_EVERY: u64 = 7;
const DESCRIPTOR_EVERY: u64 = 1000;
const GEOMETRY: Geometry = Geometry {
    ring_entries: 32,
    arena_bytes: 32 << 10,
};
/// Far longer than anything takes, so that a failure is an error and not a hang.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn question(cookie: u64, payload: Option<&ArenaRange>) -> Submission {
    let descriptor = cookie.is_multiple_of(DESCRIPTOR_EVERY);
    Submission {
        cookie,
        target: cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        kind: cookie as u16,
        flags: if descriptor { FLAG_DESCRIPTOR } else { 0 },
        code: !(cookie as u32),
        payload_offset: payload.map_or(0, ArenaRange::offset),
        payload_length: payload.map_or(0, |_| payload_length(cookie)),
        arguments: [cookie, !cookie, cookie << 32, cookie ^ 0x5555],
    }
}

fn answer(asked: &Submission) -> Completion {
    let [first, second, third, fourth] = asked.arguments;
    Completion {
        cookie: asked.cookie,
        result: -(asked.cookie as i64),
        flags: u32::from(asked.flags),
        payload_length: asked.payload_length,
        driver_nanoseconds: asked.target,
        values: [fourth, third, second, first],
    }
}

fn payload_length(cookie: u64) -> u32 {
    (cookie % 1000) as u32 + 1
}

fn payload(cookie: u64) -> Vec<u8> {
    (0..payload_length(cookie))
        .map(|index| (u64::from(index) ^ cookie) as u8)
        .collect()
}

/// Answers until all were answered: payloads come back inverted, descriptors as they came.
fn serve(mut channel: ServerChannel) {
    let spin = Spin::automatic();
    let mut bytes = Vec::new();
    for expected in 0..ENTRIES {
        if !channel.submissions.is_ready() {
            channel.completions.publish();
            channel.completions.ring();
            assert_eq!(channel.submissions.wait(spin, PATIENCE), Ok(Wake::Ready));
        }
        let asked = channel.submissions.pop().unwrap().unwrap();
        assert_eq!(asked.cookie, expected);
        if asked.flags & FLAG_DESCRIPTOR != 0 {
            let (tag, descriptor) = channel.socket.receive().unwrap();
            assert_eq!(tag, expected);
            channel.socket.send(tag, descriptor.as_fd()).unwrap();
        }
        if asked.payload_length != 0 {
            let (offset, length) = (asked.payload_offset, asked.payload_length as usize);
            bytes.resize(length, 0);
            channel.arena.read(offset, &mut bytes).unwrap();
            assert_eq!(bytes, payload(expected));
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            channel.arena.write(offset, &bytes).unwrap();
        }
        channel.completions.stage(&answer(&asked)).unwrap();
    }
    channel.completions.publish();
    channel.completions.ring();
}

/// Asks all questions, batch by batch, and checks every answer.
fn ask(mut channel: ClientChannel) {
    let classes = [SlotClass {
        bytes: 1000,
        count: 32,
    }];
    let mut allocator = ArenaAllocator::new(GEOMETRY.arena_bytes, &classes).unwrap();
    let spin = Spin::automatic();
    let mut first = 0;
    while first < ENTRIES {
        let cookies = first..ENTRIES.min(first + BATCH);
        let mut asked = Vec::new();
        for cookie in cookies.clone() {
            let range = cookie.is_multiple_of(PAYLOAD_EVERY).then(|| {
                let range = allocator.alloc(payload_length(cookie)).unwrap();
                channel
                    .arena
                    .write(range.offset(), &payload(cookie))
                    .unwrap();
                range
            });
            let entry = question(cookie, range.as_ref());
            channel.submissions.stage(&entry).unwrap();
            let pipe = (entry.flags & FLAG_DESCRIPTOR != 0).then(|| {
                let (reader, writer) = pipe().unwrap();
                channel.socket.send(cookie, writer.as_fd()).unwrap();
                reader
            });
            asked.push((entry, range, pipe));
        }
        channel.submissions.publish();
        channel.submissions.ring();
        for (entry, range, pipe) in asked {
            assert_eq!(channel.completions.wait(spin, PATIENCE), Ok(Wake::Ready));
            assert_eq!(channel.completions.pop(), Ok(Some(answer(&entry))));
            if let Some(range) = range {
                let mut bytes = vec![0; entry.payload_length as usize];
                channel.arena.read(range.offset(), &mut bytes).unwrap();
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
                assert_eq!(bytes, payload(entry.cookie));
                allocator.release(range);
            }
            if let Some(mut reader) = pipe {
                let (tag, writer) = channel.socket.receive().unwrap();
                assert_eq!(tag, entry.cookie);
                File::from(writer).write_all(&tag.to_ne_bytes()).unwrap();
                let mut arrived = Vec::new();
                reader.read_to_end(&mut arrived).unwrap();
                assert_eq!(arrived, tag.to_ne_bytes());
            }
        }
        first = cookies.end;
    }
    assert_eq!(channel.completions.pop(), Ok(None));
}

/// Starts this program again as the other process, which runs one ignored test.
fn start(role: &str) -> (Socket, Child) {
    let (ours, theirs) = Socket::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", role])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (ours, child)
}

/// The socket that [`start`] gave this process.
fn inherited() -> Socket {
    Socket::from(stdin().as_fd().try_clone_to_owned().unwrap())
}

#[test]
fn two_threads_exchange_every_entry_exactly() {
    let (client, server) = Socket::pair().unwrap();
    let server = thread::spawn(move || serve(handshake::accept(server, Ok(())).unwrap()));
    ask(handshake::offer(client, GEOMETRY).unwrap());
    server.join().unwrap();
}

#[test]
fn two_processes_exchange_every_entry_exactly() {
    let (socket, mut child) = start("role_serve");
    ask(handshake::offer(socket, GEOMETRY).unwrap());
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the second process of two_processes_exchange_every_entry_exactly"]
fn role_serve() {
    serve(handshake::accept(inherited(), Ok(())).unwrap());
}

#[test]
fn the_death_of_the_server_ends_in_errors() {
    let (socket, mut child) = start("role_sleep");
    let mut channel = handshake::offer(socket, GEOMETRY).unwrap();
    let short = Some(Duration::from_millis(1));
    assert_eq!(
        channel.completions.wait(Spin::NONE, short),
        Ok(Wake::TimedOut)
    );

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(channel.socket.receive().unwrap_err(), SocketError::Closed);
    assert_eq!(
        channel.socket.send(0, stdin().as_fd()),
        Err(SocketError::Closed)
    );
    // The memory outlives the peer: the ring fills and stays sound.
    for cookie in 0..u64::from(GEOMETRY.ring_entries) {
        assert_eq!(channel.submissions.push(&question(cookie, None)), Ok(()));
        channel.submissions.ring();
    }
    assert_eq!(
        channel.submissions.push(&question(0, None)),
        Err(PushError::Full)
    );
    assert_eq!(
        channel.completions.wait(Spin::NONE, short),
        Ok(Wake::TimedOut)
    );
}

#[test]
#[ignore = "the second process of the_death_of_the_server_ends_in_errors"]
fn role_sleep() {
    let mut channel = handshake::accept(inherited(), Ok(())).unwrap();
    // Until it is killed; or, should the first process fail, until nobody waits any more.
    let _ = channel.submissions.wait(Spin::NONE, PATIENCE);
}

#[test]
fn a_server_that_dies_before_it_answers_is_an_error() {
    let (socket, mut child) = start("no test has this name, so it ends at once");
    assert_eq!(
        handshake::offer(socket, GEOMETRY).err(),
        Some(HandshakeError::PeerClosed)
    );
    assert!(child.wait().unwrap().success());
}
