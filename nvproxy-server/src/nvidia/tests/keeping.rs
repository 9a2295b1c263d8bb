//! Servers that hand over and keep, each a process of its own, up to the last, which is the test.
//!
//! What stands for the kernel writes down who was asked to issue what, so that a test can tell.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process::{Child, Command, Stdio};

use nvproxy_abi::plan::Segment;
use ringfence_ipc::Message;
use ringfence_ipc::typed::Format;
use serde::{Deserialize, Serialize};

use super::*;
use crate::backend::Made;

/// The test that is run as a process of its own.
const SERVER: &str = "nvidia::tests::keeping::a_server_that_hands_over";
/// Set for it: the directory of the nodes.
const DEVICES: &str = "RINGFENCE_TEST_DEVICES";

/// A request as the test double takes it: a list of fields of 4 bytes. Into the first it puts the process that issues it, into
/// the second the description that it is issued on. Each further one holds a descriptor number, but for the last, which
/// says how many milliseconds it is to take. A buffer as long, behind it, gets for each which description its number is.
const FIELDS: usize = 6;

/// Which description a number is: the position, which belongs to it.
fn position(number: i32) -> u32 {
    let path = format!("/proc/self/fdinfo/{number}");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let position = text.lines().find_map(|line| line.strip_prefix("pos:"));
    position.map_or(u32::MAX, |position| {
        position.trim().parse().expect("a number")
    })
}

fn record(descriptor: &OwnedFd, call: Call<'_>) -> Result<i32, Errno> {
    let mut fields: Vec<u32> = call
        .payload
        .chunks_exact(4)
        .map(|field| u32::from_ne_bytes(field.try_into().expect("4 bytes")))
        .collect();
    for segment in call.segments {
        assert!((segment.offset + segment.length) as usize <= call.payload.len());
    }
    fields[0] = std::process::id();
    fields[1] = position(descriptor.as_raw_fd());
    for at in 2..FIELDS - 1 {
        fields[FIELDS + at] = position(fields[at] as i32);
    }
    std::thread::sleep(std::time::Duration::from_millis(fields[FIELDS - 1].into()));
    for (field, value) in call.payload.chunks_exact_mut(4).zip(fields) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    match call.request {
        0 => Err(Errno::ENOSPC),
        request => Ok(request as i32),
    }
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
struct Issued {
    by: u32,
    on: u32,
    named: Vec<u32>,
}

/// Issues a request that names `descriptors`.
fn issue(
    file: &dyn DeviceFile,
    descriptors: &[BorrowedFd<'_>],
    milliseconds: u32,
) -> Result<Issued, Errno> {
    let mut fields = vec![u32::MAX; 2 * FIELDS];
    fields[FIELDS - 1] = milliseconds;
    let mut named = Vec::new();
    for (at, descriptor) in (2..).zip(descriptors) {
        fields[at] = descriptor.as_raw_fd() as u32;
        named.push((4 * at, *descriptor));
    }
    let before = fields.clone();
    let mut payload: Vec<u8> = fields
        .iter()
        .flat_map(|field| field.to_ne_bytes())
        .collect();
    let segments = [(0, None), (4 * FIELDS as u32, Some(0))];
    let segments = segments.map(|(offset, pointer_at)| Segment {
        offset,
        length: 4 * FIELDS as u32,
        pointer_at,
    });
    let outcome = file.ioctl(Call {
        request: 7,
        payload: &mut payload,
        segments: &segments,
        descriptors: &named,
        made: None,
    });
    assert_eq!(outcome?, 7);
    let fields: Vec<u32> = payload
        .chunks_exact(4)
        .map(|field| u32::from_ne_bytes(field.try_into().expect("4 bytes")))
        .collect();
    assert_eq!(
        fields[2..FIELDS],
        before[2..FIELDS],
        "the numbers are put back"
    );
    Ok(Issued {
        by: fields[0],
        on: fields[1],
        named: fields[FIELDS + 2..FIELDS + 2 + descriptors.len()].to_vec(),
    })
}

/// What a server hands over, but for descriptors.
#[derive(Serialize, Deserialize)]
struct State(serde_json::Value, Vec<serde_json::Value>);

impl Message for State {
    const MAXIMUM_BYTES: usize = 4096;
    const FORMAT: Format = Format::Json;
}

/// What a server in a process of its own is to do: see [`Other::start`].
#[derive(Serialize, Deserialize)]
struct Task {
    positions: Vec<u8>,
    /// Whether it takes the place of another, to which a socket comes along.
    succeeds: bool,
}

impl Message for Task {
    const MAXIMUM_BYTES: usize = 64;

    fn has_descriptor(&self) -> bool {
        self.succeeds
    }
}

/// A server that can be handed over.
struct Served {
    driver: Driver,
    files: Vec<Arc<dyn DeviceFile>>,
}

impl Served {
    fn new(devices: &Path) -> Served {
        let mut driver = Driver::new(devices, &[Node::Gpu(0)]);
        driver.issue = record;
        Served {
            driver,
            files: Vec::new(),
        }
    }

    /// Opens a node, whose description is then known by `position`.
    fn open(&mut self, node: Node, position: u64) {
        let file = open_file(&self.driver, node);
        lent(&file).seek(SeekFrom::Start(position)).expect("a seek");
        self.files.push(file);
    }

    fn send(&self, successor: &Socket) {
        let mut enclosures = Enclosures::default();
        let save = |file: &Arc<dyn DeviceFile>| file.save(&mut enclosures).expect("saved");
        let files: Vec<serde_json::Value> = self.files.iter().map(save).collect();
        let driver = self.driver.save(&mut enclosures).expect("saved");
        successor.say(&State(driver, files), None).expect("sent");
        for descriptor in Vec::from(enclosures) {
            successor.send(1, descriptor.as_fd()).expect("sent");
        }
        // The last one.
        successor.send(0, successor.as_fd()).expect("sent");
    }

    fn receive(devices: &Path, predecessor: &Socket) -> Served {
        let (state, _) = predecessor.hear::<State>().expect("a state");
        let mut descriptors = Vec::new();
        while let (1, descriptor) = predecessor.receive().expect("a descriptor") {
            descriptors.push(descriptor);
        }
        let mut enclosures = Enclosures::from(descriptors);
        let successor = Driver::new(devices, &[Node::Gpu(0)]);
        let mut driver = successor
            .restore(state.0, &mut enclosures)
            .expect("restored");
        driver.issue = record;
        let files = state.1.into_iter().map(|file| {
            let restored = driver.restore_file(file, &mut enclosures);
            restored.expect("restored")
        });
        let files = files.collect();
        driver.finish_restoring();
        driver.begin_to_serve();
        Served { driver, files }
    }
}

#[test]
#[ignore = "the other tests run it, as a process of its own"]
fn a_server_that_hands_over() {
    let devices = std::env::var_os(DEVICES).expect("a directory");
    let given = Socket::from(
        std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .expect("stdin"),
    );
    let (task, predecessor) = given.hear::<Task>().expect("a task");
    let mut served = match predecessor {
        Some(predecessor) => Served::receive(Path::new(&devices), &Socket::from(predecessor)),
        None => Served::new(Path::new(&devices)),
    };
    for position in &task.positions {
        let node = [Node::Control, Node::Gpu(0)][usize::from(position % 2)];
        if *position > 0 {
            served.open(node, u64::from(*position));
        }
    }
    served.send(&given);
    let Served { driver, files } = served;
    let keep = driver.keep();
    drop((files, given));
    // What the test does not close ends with this process's standard input.
    nix::unistd::dup2_stdin(File::open("/dev/null").expect("/dev/null")).expect("dup2");
    keep.into_iter().for_each(|keep| keep());
    std::process::exit(0);
}

/// A server in a process of its own.
struct Other {
    process: Child,
    socket: Socket,
}

impl Other {
    /// One that opens a GPU's node for each odd number and `nvidiactl` for each even one but 0, and then hands over.
    fn start(devices: &Path, positions: &[u8], predecessor: Option<&Other>) -> Other {
        let (socket, other) = Socket::pair().expect("a pair");
        let process = Command::new(std::env::current_exe().expect("this test"))
            .args([SERVER, "--exact", "--ignored"])
            .env(DEVICES, devices)
            .stdin(OwnedFd::from(other))
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        let predecessor = predecessor.map(|predecessor| predecessor.socket.as_fd());
        let task = Task {
            positions: positions.to_vec(),
            succeeds: predecessor.is_some(),
        };
        socket.say(&task, predecessor).expect("sent");
        Other { process, socket }
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    fn take_over(&self, devices: &Path) -> Served {
        Served::receive(devices, &self.socket)
    }

    /// Waits for its end.
    fn expect_end(mut self) {
        let status = self.process.wait().expect("its end");
        assert_eq!(status.code(), Some(0));
    }
}

fn descriptor_of(file: &Arc<dyn DeviceFile>) -> BorrowedFd<'_> {
    file.number().expect("opened");
    file.descriptor().expect("a descriptor")
}

fn devices() -> tempfile::TempDir {
    driver().0
}

#[test]
fn who_opened_a_description_issues_the_requests_on_it() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2, 3], None);
    let second = Other::start(devices.path(), &[4], Some(&first));
    let mut served = second.take_over(devices.path());
    served.open(Node::Control, 6);
    let [a, b, c, d] = &served.files[..] else {
        panic!("four files");
    };
    let named = [a, b, c, d].map(descriptor_of);
    // Each process finds every description that a request names, whoever has opened it.
    let named = [&named[..3], &named[1..]];
    for (file, by, on) in [
        (a, first.id(), 2),
        (b, first.id(), 3),
        (c, second.id(), 4),
        (d, std::process::id(), 6),
    ] {
        for (named, positions) in named.iter().zip([[2, 3, 4], [3, 4, 6]]) {
            let expected = Issued {
                by,
                on,
                named: positions.to_vec(),
            };
            assert_eq!(issue(&**file, named, 0), Ok(expected));
        }
    }
    // What the driver answers passes, an errno too.
    let mut payload = [0; 8 * FIELDS];
    let refused = Call {
        request: 0,
        payload: &mut payload,
        segments: &[],
        descriptors: &[],
        made: None,
    };
    assert_eq!(a.ioctl(refused), Err(Errno::ENOSPC));
    // What the driver makes comes to who asks for it, so that the one that serves does.
    let (mut payload, mut nothing) = ([0; 8 * FIELDS], None);
    let making = Call {
        request: 7,
        payload: &mut payload,
        segments: &[],
        descriptors: &[],
        made: Some(Made {
            at: 0,
            descriptor: &mut nothing,
        }),
    };
    assert_eq!(a.ioctl(making), Ok(7));
    let by_and_on = [std::process::id(), 2].map(u32::to_ne_bytes);
    assert_eq!(payload[..8], by_and_on.concat());
    drop(served);
    first.expect_end();
    second.expect_end();
}

#[test]
fn a_request_on_a_description_of_uvm_is_issued_by_who_opened_what_it_names() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2], None);
    let mut served = first.take_over(devices.path());
    served.open(Node::Control, 6);
    let mut task = tempfile::tempfile().expect("a file");
    task.seek(SeekFrom::Start(9)).expect("a seek");
    let uvm = UvmFile {
        descriptor: task.into(),
        issue: record,
        register: Arc::clone(&served.driver.register),
        marks: Arc::clone(&served.driver.marks),
    };
    let [kept, own] = &served.files[..] else {
        panic!("two files");
    };
    for (named, by, position) in [(kept, first.id(), 2), (own, std::process::id(), 6)] {
        let expected = Issued {
            by,
            on: 9,
            named: vec![position],
        };
        assert_eq!(issue(&uvm, &[descriptor_of(named)], 0), Ok(expected));
    }
    drop(served);
    first.expect_end();
}

#[test]
fn a_server_that_opened_nothing_ends_and_one_that_did_ends_with_the_last_file() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2, 4], None);
    let second = Other::start(devices.path(), &[0], Some(&first));
    let mut served = second.take_over(devices.path());
    second.expect_end();
    // What the second dropped is still there, and the first is not gone.
    let last = served.files.pop().expect("a file");
    let path = |number: RawFd| format!("/proc/{}/fd/{number}", first.id());
    let kept = || {
        let target = |number| std::fs::read_link(path(number)).ok();
        (0..64)
            .filter_map(target)
            .filter(|target| target.starts_with(devices.path()))
            .count()
    };
    assert_eq!(kept(), 2);
    served.files.clear();
    assert_eq!(kept(), 1, "what is closed here is closed there");
    assert_eq!(issue(&*last, &[], 0).map(|issued| issued.on), Ok(4));
    drop(last);
    first.expect_end();
}

#[test]
fn a_server_that_does_not_come_to_serve_closes_nothing() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2], None);
    let served = first.take_over(devices.path());
    let mut enclosures = Enclosures::default();
    let file = served.files[0].save(&mut enclosures).expect("saved");
    let saved = served.driver.save(&mut enclosures).expect("saved");
    let mut enclosures = sent(enclosures);
    let successor = Driver::new(devices.path(), &[Node::Gpu(0)]);
    let failed = successor.restore(saved, &mut enclosures).expect("restored");
    drop(
        failed
            .restore_file(file, &mut enclosures)
            .expect("restored"),
    );
    drop((failed, enclosures));
    let issued = issue(&*served.files[0], &[], 0).map(|issued| issued.by);
    assert_eq!(issued, Ok(first.id()));
    drop(served);
    first.expect_end();
}

#[test]
fn a_request_that_takes_long_delays_no_other() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2, 3], None);
    let served = first.take_over(devices.path());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let slow = sender.clone();
        let [one, other] = &served.files[..] else {
            panic!("two files");
        };
        scope.spawn(move || {
            issue(&**one, &[], 2000).expect("issued");
            slow.send("the slow one").expect("received");
        });
        for _ in 0..10 {
            issue(&**other, &[], 0).expect("issued");
        }
        sender.send("ten others").expect("received");
    });
    let order: Vec<&str> = receiver.try_iter().collect();
    assert_eq!(order, ["ten others", "the slow one"]);
    drop(served);
    first.expect_end();
}

#[test]
fn what_is_kept_fails_when_its_keeper_is_lost() {
    let devices = devices();
    let mut first = Other::start(devices.path(), &[2], None);
    let mut served = first.take_over(devices.path());
    served.open(Node::Gpu(0), 3);
    assert!(issue(&*served.files[0], &[], 0).is_ok());
    first.process.kill().expect("killed");
    first.process.wait().expect("its end");
    assert_eq!(issue(&*served.files[0], &[], 0), Err(Errno::EIO));
    let own = issue(&*served.files[1], &[], 0);
    assert_eq!(own.map(|issued| issued.on), Ok(3));
}

#[test]
fn a_keeper_holds_a_presence_of_a_gpu_that_is_opened_later() {
    let devices = devices();
    let first = Other::start(devices.path(), &[2], None);
    let mut served = first.take_over(devices.path());
    served.open(Node::Gpu(0), 3);
    let node = devices.path().join("nvidia0");
    let held = (0..64)
        .filter_map(|number: RawFd| {
            std::fs::read_link(format!("/proc/{}/fd/{number}", first.id())).ok()
        })
        .filter(|target| *target == node)
        .count();
    assert_eq!(held, 1);
    drop(served);
    first.expect_end();
}
