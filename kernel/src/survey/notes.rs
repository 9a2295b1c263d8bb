//! What a survey has noted: which requests a sandbox would refuse, why, with parameters of which sizes, and how often.
//!
//! Requests are told apart by what is wrong with them, as the log of a sandbox does it. Of what they say nothing is kept.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number;
use nvproxy_abi::plan::{MAXIMUM_BUFFER, Plan};
use nvproxy_abi::refusal::What;
use nvproxy_abi::table::{Contents, Family, Length, Request};
use ringfence_sentry::marshalling::{self, Stopped};

/// At most so many different refusals are told apart: a program decides how many there are.
const MAXIMUM_REFUSED: usize = 4096;
/// And so many sizes of each.
const MAXIMUM_SIZES: usize = 16;

/// How the name of a class ends that computes. What comes before it is the architecture.
const COMPUTE_CLASS: &str = "_COMPUTE_";

/// Notes on one program.
pub struct Notes {
    abi: &'static Abi,
    payload: Vec<u8>,
    /// How many requests there were.
    pub requests: u64,
    /// How many of them could not be read.
    pub unreadable: u64,
    /// By the sentence that the log of a sandbox would say.
    pub refused: BTreeMap<String, Refused>,
    /// The architectures whose classes were asked for.
    pub architectures: BTreeSet<String>,
}

/// Requests that would be refused for one reason.
#[derive(Debug)]
pub struct Refused {
    pub what: What,
    pub count: u64,
    /// Bytes of their parameters, where they say how many.
    pub sizes: BTreeSet<u32>,
}

impl Notes {
    pub fn new(abi: &'static Abi) -> Notes {
        Notes {
            abi,
            payload: Vec::new(),
            requests: 0,
            unreadable: 0,
            refused: BTreeMap::new(),
            architectures: BTreeSet::new(),
        }
    }

    /// Takes a note of the request of `command` that a task is about to make on `node`.
    pub fn take(&mut self, task: Pid, node: Node, command: u32, argument: u64) {
        self.requests += 1;
        let payload = &mut self.payload;
        match marshalling::copy(self.abi, node, task, command, argument, payload) {
            Ok((plan, _)) => self.architectures.extend(architecture(&plan)),
            Err(Stopped::Refused(refusal)) if is_refused_anyway(refusal.what) => {}
            Err(Stopped::Refused(refusal)) => self.refuse(refusal.what, node, command),
            Err(Stopped::Unreadable(_) | Stopped::Errno(_)) => self.unreadable += 1,
        }
    }

    fn refuse(&mut self, what: What, node: Node, command: u32) {
        let size = self.size_of(what, node, command);
        let sentence = what.to_string();
        if self.refused.len() >= MAXIMUM_REFUSED && !self.refused.contains_key(&sentence) {
            return;
        }
        let refused = self.refused.entry(sentence).or_insert_with(|| Refused {
            what,
            count: 0,
            sizes: BTreeSet::new(),
        });
        refused.count += 1;
        if refused.sizes.len() < MAXIMUM_SIZES {
            refused.sizes.extend(size);
        }
    }

    /// How long the parameters of a refused request are: of a control command as its ioctl says, of an ioctl as its word does.
    fn size_of(&self, what: What, node: Node, command: u32) -> Option<u32> {
        if node == Node::Uvm {
            return None;
        }
        let (_, number, size) = number::parts(command);
        match family_of(what)? {
            Family::Frontend => Some(size),
            Family::Control => {
                let row = self.abi.frontend(number, size).ok()?;
                let at = usize::from(length_at(row)?);
                let bytes = self.payload.get(at..)?.first_chunk()?;
                Some(u32::from_le_bytes(*bytes))
            }
            Family::Alloc | Family::Uvm => None,
        }
    }
}

/// Whether no driver would have done what a sandbox refuses: it copies no more for one pointer.
fn is_refused_anyway(what: What) -> bool {
    matches!(what, What::TooLarge { length, .. } if length > u64::from(MAXIMUM_BUFFER))
}

/// Where the ioctl's argument says how long a control command's parameters are.
fn length_at(row: &Request) -> Option<u16> {
    row.pointers
        .iter()
        .find_map(|pointer| match (pointer.contents, pointer.length) {
            (Contents::Control { .. }, Length::Field { at, .. }) => Some(at),
            _ => None,
        })
}

/// The architecture of the GPU that a request is for, if it allocates a class that computes: `HOPPER` of `HOPPER_COMPUTE_A`.
fn architecture(plan: &Plan) -> Option<String> {
    let is_class = plan.family == Family::Alloc;
    let (name, _) = plan.request.name.split_once(COMPUTE_CLASS)?;
    is_class.then(|| name.to_owned())
}

/// The family of a refused request.
pub fn family_of(what: What) -> Option<Family> {
    match what {
        What::Unknown { family, .. }
        | What::NotGranted { family, .. }
        | What::Reserved { family, .. }
        | What::BadSize { family, .. }
        | What::TooLarge { family, .. }
        | What::Flags { family, .. }
        | What::Value { family, .. } => Some(family),
        What::Malformed => None,
    }
}
