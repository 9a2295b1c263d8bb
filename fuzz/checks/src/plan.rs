//! The planner, run as the sentry runs it over a task's memory and then as the server does over what the
//! sentry made of it.
//!
//! An input is a release, what the sandbox may do, a request, and the bytes that the task has in memory,
//! in the order in which they are asked for, which is the form of a payload. The request is a node and
//! a command word, as it was recorded, or a row of the release's tables. By the row a fuzzer, which sees
//! coverage of code and none of tables, gets to every request of every release.

use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_ESC_RM_ALLOC, NV_ESC_RM_CONTROL, ioctl_word, parts};
use nvproxy_abi::plan::{MAXIMUM_BUFFER, MAXIMUM_PAYLOAD, Plan, Planner, Step};
use nvproxy_abi::refusal::{Answer, Refusal, What};
use nvproxy_abi::table::{Family, Request};
use nvproxy_sim::structs::frontend::{NVOS54_PARAMETERS, NVOS64_PARAMETERS};
use ringfence_recording::layout::Layout;
use zerocopy::{FromZeros, IntoBytes};

use crate::input::Input;
use crate::tables;

/// No request of any release has as many buffers.
const MAXIMUM_FETCHES: usize = 64;

/// Where the task's argument lies. Only fetches show it.
const ARGUMENT: u64 = 0x7000_0000;

/// In the second byte of an input: the sandbox may do no more than an ordinary one.
const ORDINARY: u8 = 1;
/// In the second byte of an input: the request is a row.
pub const ROW: u8 = 2;

/// Plans one request twice.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let (release, choice) = (input.byte(), input.byte());
    let abi = tables::by_number(release, choice & ORDINARY);
    if choice & ROW == 0 {
        let node = Node::from_wire(input.short().into()).unwrap_or(Node::Control);
        let command = input.word();
        planned_alike(abi, node, command, &mut input);
    } else {
        let place = usize::from(input.short());
        let rows = FAMILIES.map(|family| abi.rows(family).map(move |row| (family, row)));
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let (family, row) = rows[place % rows.len()];
        let (node, command, argument) = asking_for(family, row, &mut input);
        let memory = [argument.as_slice(), input.0].concat();
        planned_alike(abi, node, command, &mut Input(&memory));
    }
}

const FAMILIES: [Family; 4] = [
    Family::Frontend,
    Family::Control,
    Family::Alloc,
    Family::Uvm,
];

/// The ioctl by which a program asks for what a row describes, and its argument, as far as that follows.
fn asking_for(family: Family, row: &Request, input: &mut Input<'_>) -> (Node, u32, Vec<u8>) {
    let size = row.only_size();
    let size = size.unwrap_or_else(|| u32::from(input.short()));
    match family {
        Family::Frontend => {
            let size = size as usize & ((1 << 14) - 1);
            (Node::Control, ioctl_word(row.id, size), Vec::new())
        }
        Family::Uvm => (Node::Uvm, row.id, Vec::new()),
        Family::Control => {
            let mut argument = NVOS54_PARAMETERS::new_zeroed();
            (argument.cmd, argument.params, argument.paramsSize) = (row.id, 1, size);
            let command = ioctl_word(NV_ESC_RM_CONTROL, size_of_val(&argument));
            (Node::Control, command, argument.as_bytes().to_vec())
        }
        Family::Alloc => {
            let mut argument = NVOS64_PARAMETERS::new_zeroed();
            (argument.hClass, argument.pAllocParms, argument.paramsSize) = (row.id, 1, size);
            let command = ioctl_word(NV_ESC_RM_ALLOC, size_of_val(&argument));
            (Node::Control, command, argument.as_bytes().to_vec())
        }
    }
}

/// Plans what the sentry would, and what it would send to the server.
fn planned_alike(abi: &'static Abi, node: Node, command: u32, memory: &mut Input<'_>) {
    let (outcome, payload) = as_sentry(abi, node, command, memory);
    let again = as_server(abi, node, command, &payload);
    match (outcome, again) {
        (Ok(plan), Ok(again)) => {
            same(&plan, &again);
            well_formed(&plan, &payload);
            let layout = Layout::of(abi, node, command, &payload);
            assert_eq!(layout.segments, plan.segments.to_vec());
            assert_eq!(layout.descriptors, plan.descriptors.to_vec());
        }
        (Err(refusal), Err(again)) => {
            assert_eq!(refusal, again);
            sound(&refusal, node, command);
        }
        (one, other) => panic!("the sentry finds {one:?}, the server {other:?}"),
    }
}

/// The walk over a task's memory, and the payload as far as it went.
fn as_sentry(
    abi: &'static Abi,
    node: Node,
    command: u32,
    memory: &mut Input<'_>,
) -> (Result<Plan, Refusal>, Vec<u8>) {
    let mut payload = Vec::new();
    let mut planner = match Planner::new(abi, node, command, ARGUMENT) {
        Ok(planner) => planner,
        Err(refusal) => return (Err(refusal), payload),
    };
    for count in 0..MAXIMUM_FETCHES {
        let fetch = match planner.step(&payload) {
            Ok(Step::Fetch(fetch)) => fetch,
            Ok(Step::Complete) => return (Ok(planner.finish()), payload),
            Err(refusal) => return (Err(refusal), payload),
        };
        let (start, length) = (fetch.offset as usize, fetch.length as usize);
        assert_eq!(start, payload.len(), "the payload grows at its end");
        assert!(0 < length && length <= MAXIMUM_BUFFER as usize);
        assert_eq!(fetch.address == ARGUMENT && start == 0, count == 0);
        let bytes = memory.bytes(length);
        payload.extend_from_slice(bytes);
        payload.resize((start + length).next_multiple_of(8), 0);
        assert!(payload.len() <= MAXIMUM_PAYLOAD);
        if let Answer::Status { at, .. } = planner.unreadable() {
            assert!(in_argument(at, node, command));
        }
    }
    panic!("a request of more than {MAXIMUM_FETCHES} buffers");
}

/// The walk over what was sent, which ends where the sentry's did.
fn as_server(abi: &'static Abi, node: Node, command: u32, payload: &[u8]) -> Result<Plan, Refusal> {
    let mut planner = Planner::new(abi, node, command, 0)?;
    let mut known = 0;
    loop {
        let mut astray = planner.clone();
        if let (Ok(_), false) = (astray.step(&[]), known == 0) {
            panic!("a payload of another length than was asked for is planned");
        }
        match planner.step(&payload[..known])? {
            Step::Complete => break,
            Step::Fetch(fetch) => {
                known = (fetch.offset as usize + fetch.length as usize).next_multiple_of(8);
                assert!(known <= payload.len(), "the server asks for more");
            }
        }
    }
    assert_eq!(known, payload.len(), "the server asks for less");
    Ok(planner.finish())
}

fn same(one: &Plan, other: &Plan) {
    assert_eq!(one.segments, other.segments);
    assert_eq!(one.descriptors, other.descriptors);
    assert_eq!(one.forced_bits(), other.forced_bits());
    assert_eq!(one.status_at(), other.status_at());
    assert_eq!(one.total_length(), other.total_length());
    assert!(std::ptr::eq(one.request, other.request));
    assert_eq!((one.family, one.id), (other.family, other.id));
    assert_eq!(
        (one.may_block(), one.pins(), one.makes_event()),
        (other.may_block(), other.pins(), other.makes_event())
    );
}

/// Segments lie in the payload one behind the other, and whatever is to be replaced in it lies in a
/// segment, apart from the rest.
fn well_formed(plan: &Plan, payload: &[u8]) {
    assert_eq!(plan.total_length(), payload.len());
    let mut end = 0;
    let mut replaced: Vec<(u32, u32)> = Vec::new();
    for segment in &plan.segments {
        assert_eq!(segment.offset, end, "segments follow one another");
        end = (segment.offset + segment.length).next_multiple_of(8);
        if let Some(at) = segment.pointer_at {
            assert!(at + 8 <= segment.offset, "a pointer leads forwards");
            replaced.push((at, 8));
        }
    }
    assert_eq!(end as usize, payload.len());
    replaced.extend(plan.descriptors.iter().map(|field| (field.at, 4)));
    replaced.extend(plan.forced_bits().map(|(at, _)| (at, 8)));
    replaced.extend(plan.status_at().map(|at| (at, 4)));
    for (at, length) in &replaced {
        let holds = plan
            .segments
            .iter()
            .any(|segment| segment.offset <= *at && at + length <= segment.offset + segment.length);
        assert!(holds, "{length} bytes at {at} lie in no segment");
    }
    replaced.sort_unstable();
    for pair in replaced.windows(2) {
        let [(at, length), (next, _)] = pair else {
            continue;
        };
        assert!(at + length <= *next, "fields at {at} and {next} overlap");
    }
}

/// A refusal can be told to the user and to the program.
fn sound(refusal: &Refusal, node: Node, command: u32) {
    assert_ne!(refusal.what, What::Malformed, "no program can cause this");
    assert!(!refusal.what.to_string().is_empty());
    match refusal.answer {
        Answer::Errno(errno) => assert!((1..4096).contains(&errno)),
        Answer::Status { at, status } => {
            assert!(in_argument(at, node, command) && status != 0);
        }
    }
}

/// Whether a status at `at` lies in the argument. That of UVM's requests has no size in its command word.
fn in_argument(at: u32, node: Node, command: u32) -> bool {
    let (_, _, size) = parts(command);
    node == Node::Uvm || at + 4 <= size
}
