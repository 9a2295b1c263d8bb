//! Memory of a GPU's that lies in a dma-buf.
//!
//! The driver keeps it by an object of its own until the last who has the dma-buf lets go, which may be another driver or a
//! process outside of the sandbox (`nv_dma_buf_release`, kernel-open/nvidia/nv-dmabuf.c). Nobody tells of that moment. So the
//! idea: what was exported has one more reference, which is never given back, however often it is exported.

use ringfence_faults::{Act, Point, at};

use super::{Content, Handle, Ledger, Pool};

impl Ledger {
    /// Whether an object keeps memory of a GPU's, and no other.
    pub fn keeps_gpu_memory(&self, client: Handle, object: Handle) -> bool {
        let Some(object) = self.object(client, object) else {
            return false;
        };
        let mut memory = object.content.memory.iter();
        let is_gpus = |key: &usize| {
            let allocation = self.allocations.get(*key);
            allocation.is_some_and(|allocation| matches!(allocation.pool, Pool::Gpu(_)))
        };
        !object.content.memory.is_empty() && memory.all(is_gpus)
    }

    /// What `content` has lies in a dma-buf from now on, and counts until the sandbox ends.
    pub fn keep_in_dma_buf(&mut self, content: Content) {
        // A test leaves this out, to show that it would notice.
        let is_left = at(Point::Counted) == Some(Act::Drop);
        let Content { gpu, memory } = content;
        let counts_already = |key: &usize| is_left || !self.in_dma_bufs.insert(*key);
        let memory = memory.into_iter().filter(counts_already).collect();
        self.release(Content { gpu, memory });
    }
}

#[cfg(test)]
mod tests {
    use nvproxy_protocol::size::Size;

    use super::super::super::limits::Limits;
    use super::*;

    const CLIENT: Handle = 7;
    const MEMORY: Handle = 8;

    fn ledger() -> Ledger {
        let limits =
            Limits::with_memory(Size::of_at_least_one(100), Size::of_at_least_one(1 << 30));
        let mut ledger = Ledger::new(limits);
        ledger.add_client(CLIENT, 1, None);
        ledger
    }

    fn allocate(ledger: &mut Ledger, bytes: u64) -> Result<(), ()> {
        let key = ledger.charge(Pool::Gpu(0), bytes).map_err(drop)?;
        ledger.add_object(CLIENT, MEMORY, CLIENT, Content::of(key));
        Ok(())
    }

    fn export(ledger: &mut Ledger) {
        assert!(ledger.keeps_gpu_memory(CLIENT, MEMORY));
        let copy = ledger.copy_of(CLIENT, MEMORY).expect("memory");
        ledger.keep_in_dma_buf(copy);
    }

    #[test]
    fn what_was_exported_counts_once_and_for_good() {
        let mut ledger = ledger();
        allocate(&mut ledger, 40).expect("room");
        export(&mut ledger);
        export(&mut ledger);
        assert_eq!(ledger.charged(0), 40);
        ledger.free(CLIENT, MEMORY);
        assert_eq!(ledger.charged(0), 40);
        allocate(&mut ledger, 61).expect_err("no room");
        allocate(&mut ledger, 60).expect("room");
        ledger.free(CLIENT, MEMORY);
        assert_eq!(ledger.charged(0), 40);
        ledger.close(1);
        assert_eq!(ledger.charged(0), 40);
    }

    #[test]
    fn what_was_exported_counts_with_the_next_server() {
        let mut ledger = ledger();
        allocate(&mut ledger, 40).expect("room");
        export(&mut ledger);
        let saved = serde_json::to_string(&ledger).expect("text");
        let next: Ledger = serde_json::from_str(&saved).expect("a ledger");
        let mut next = next.with_limits(ledger.limits.clone());
        export(&mut next);
        next.free(CLIENT, MEMORY);
        assert_eq!(next.charged(0), 40);
    }

    #[test]
    fn memory_of_the_host_is_none_of_a_gpus() {
        let mut ledger = ledger();
        assert!(!ledger.keeps_gpu_memory(CLIENT, MEMORY));
        ledger.add_object(CLIENT, MEMORY, CLIENT, Content::default());
        assert!(!ledger.keeps_gpu_memory(CLIENT, MEMORY));
        let key = ledger.charge(Pool::Host, 4).expect("room");
        ledger.add_object(CLIENT, MEMORY, CLIENT, Content::of(key));
        assert!(!ledger.keeps_gpu_memory(CLIENT, MEMORY));
    }
}
