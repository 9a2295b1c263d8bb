//! Requests of random bytes, each of which has to be answered and none of which may disturb the next.

use super::*;
use nvproxy_abi::table::{Family, Request};

/// xorshift64*, so that a failure can be repeated.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Bytes of which many are what a handle, a size or a number of a description could be.
    fn bytes(&mut self, length: usize, likely: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 4);
        while bytes.len() < length {
            let word = match self.next() % 4 {
                0 => self.next() as u32,
                1 => 0,
                2 => u32::MAX,
                _ => likely[self.next() as usize % likely.len()],
            };
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Plans over the bytes with every buffer behind them random, too, and issues what the planner lets through.
fn issue(
    file: &Open,
    random: &mut Random,
    likely: &[u32],
    request: u32,
    argument: &[u8],
    parameters: &[u8],
) {
    let Ok(mut planner) = Planner::new(abi(), file.node, request, ARGUMENT) else {
        return;
    };
    let mut payload: Vec<u8> = Vec::new();
    loop {
        match planner.step(&payload) {
            Err(_) => return,
            Ok(Step::Complete) => break,
            Ok(Step::Fetch(fetch)) => {
                let (at, length) = (fetch.offset as usize, fetch.length as usize);
                let mut bytes = match at {
                    0 => argument.to_vec(),
                    _ if fetch.address == 0x2000 => parameters.to_vec(),
                    _ => random.bytes(length.min(1 << 16), likely),
                };
                bytes.resize(length, 0);
                payload.extend(bytes);
                payload.resize((at + length).next_multiple_of(8), 0);
            }
        }
    }
    let plan = planner.finish();
    for way in [Way::Server, Way::Task] {
        let call = Call {
            request,
            payload: &mut payload.clone(),
            segments: &plan.segments,
            descriptors: &[],
            made: None,
        };
        // Whatever the answer is.
        let _ = match way {
            Way::Server => file.file.ioctl(call),
            Way::Task => file.file.pinned(Err(Errno::ENOTTY), call),
        };
    }
}

fn size(row: &Request, random: &mut Random) -> usize {
    match row.only_size() {
        Some(size) => size as usize,
        None => random.next() as usize % 512,
    }
}

/// Every ioctl once, with random arguments.
pub(super) fn issue_ioctls(uvm: &Open, others: [&Open; 2], random: &mut Random, likely: &[u32]) {
    for row in abi().rows(Family::Uvm) {
        let length = size(row, random);
        let argument = random.bytes(length, likely);
        issue(uvm, random, likely, row.id, &argument, &[]);
    }
    for row in abi().rows(Family::Frontend) {
        let length = size(row, random);
        let argument = random.bytes(length, likely);
        for file in others {
            let request = ioctl_word(row.id, length);
            issue(file, random, likely, request, &argument, &[]);
        }
    }
}

#[test]
fn random_requests_are_answered() {
    let driver = driver();
    let mut random = Random(0x5eed);
    for _ in 0..40 {
        let (control, gpu, client) = registered(&driver);
        let uvm = open(&driver, Node::Uvm);
        let spare = open(&driver, Node::Control);
        let likely = [
            client,
            0x10,
            0x11,
            0x20,
            1,
            2,
            4096,
            65536,
            spare.number() as u32,
            uvm.number() as u32,
            0x2000,
        ];
        issue_ioctls(&uvm, [&spare, &gpu], &mut random, &likely);
        for row in abi().rows(Family::Alloc) {
            for parent in [client, 0x10, 0x11, 0x20] {
                let length = size(row, &mut random);
                let parameters = random.bytes(length, &likely);
                let mut argument = NVOS64_PARAMETERS::new_zeroed();
                (argument.hRoot, argument.hObjectParent, argument.hClass) =
                    (client, parent, row.id);
                (argument.hObjectNew, argument.pAllocParms) =
                    (likely[random.next() as usize % likely.len()], 0x2000);
                let request = ioctl_word(NV_ESC_RM_ALLOC, size_of_val(&argument));
                issue(
                    &control,
                    &mut random,
                    &likely,
                    request,
                    argument.as_bytes(),
                    &parameters,
                );
            }
        }
        for row in abi().rows(Family::Control) {
            for object in [client, 0x10, 0x11, 0x20] {
                let length = size(row, &mut random);
                let parameters = random.bytes(length, &likely);
                let mut argument = NVOS54_PARAMETERS::new_zeroed();
                (argument.hClient, argument.hObject, argument.cmd) = (client, object, row.id);
                (argument.params, argument.paramsSize) = (0x2000, length as u32);
                let request = ioctl_word(NV_ESC_RM_CONTROL, size_of_val(&argument));
                issue(
                    &control,
                    &mut random,
                    &likely,
                    request,
                    argument.as_bytes(),
                    &parameters,
                );
            }
        }
    }
    // Everything is closed, and everything is there again.
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, MEMORY),
        NV_OK
    );
}
