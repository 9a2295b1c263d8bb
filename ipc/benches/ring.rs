//! What the channel costs on one thread: no peer, no wake, only the work on the shared memory itself.
//!
//! For a change to the rings to be held against what was before it. What a round trip between two processes costs is
//! measured by `perf/`.

use std::hint::black_box;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence_ipc::{
    ClientChannel, Completion, Geometry, ServerChannel, Socket, Submission, handshake,
};

/// Entries under way at once.
const BATCH: u64 = 32;

fn channel() -> (ClientChannel, ServerChannel) {
    let (client, server) = Socket::pair().expect("a socket");
    let server = thread::spawn(move || handshake::accept(server, Ok(())));
    let geometry = Geometry {
        ring_entries: 256,
        arena_bytes: 32 << 10,
    };
    let client = handshake::offer(client, geometry).expect("a channel");
    (client, server.join().expect("a thread").expect("a channel"))
}

fn rings(criterion: &mut Criterion) {
    let (mut client, mut server) = channel();
    let mut group = criterion.benchmark_group("ring");
    group.bench_function("an entry there and back", |bencher| {
        bencher.iter(|| exchange(&mut client, &mut server, 1));
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("32 entries there and back", |bencher| {
        bencher.iter(|| exchange(&mut client, &mut server, BATCH));
    });
}

/// Publishes so many submissions at once and takes their completions, which are published at once too.
fn exchange(client: &mut ClientChannel, server: &mut ServerChannel, entries: u64) {
    for cookie in 0..entries {
        let submission = Submission {
            cookie,
            ..Submission::default()
        };
        client
            .submissions
            .stage(black_box(&submission))
            .expect("room");
    }
    client.submissions.publish();
    client.submissions.ring();
    while let Some(asked) = server.submissions.pop().expect("a sound ring") {
        let completion = Completion {
            cookie: asked.cookie,
            ..Completion::default()
        };
        server.completions.stage(&completion).expect("room");
    }
    server.completions.publish();
    server.completions.ring();
    while let Some(answer) = client.completions.pop().expect("a sound ring") {
        black_box(answer);
    }
}

fn arena(criterion: &mut Criterion) {
    let (client, server) = channel();
    let mut group = criterion.benchmark_group("arena");
    for length in [64, 4096] {
        let (sent, mut received) = (vec![7; length], vec![0; length]);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("{length} bytes in and out"), |bencher| {
            bencher.iter(|| {
                client.arena.write(0, black_box(&sent)).expect("inside");
                server.arena.read(0, &mut received).expect("inside");
                black_box(&received);
            });
        });
    }
}

criterion_group!(benches, rings, arena);
criterion_main!(benches);
