//! Rows of the 580 branch: the ioctls on `/dev/nvidia-uvm`, by command word.
//!
//! From kernel-open/nvidia-uvm/uvm_ioctl.h and uvm_linux_ioctl.h. UVM copies nothing behind these arguments.

use crate::table::{Request, command, mapping};

/// UVM_INIT_FLAGS_MULTI_PROCESS_SHARING_MODE (uvm_types.h): without it UVM belongs to the address space of the process
/// that issued UVM_INITIALIZE, which is not the one that maps.
const MULTI_PROCESS_SHARING: u64 = 0x2;

/// Those that wait for a GPU's work, or tear it down, may block whatever was recorded; others where the recorded median was
/// 200 µs or more.
pub(super) static UVM: &[Request] = &[
    Request::new(0x17, "UVM_CREATE_RANGE_GROUP", 16).status_at(8),
    Request::new(0x18, "UVM_DESTROY_RANGE_GROUP", 16).status_at(8),
    Request::new(0x19, "UVM_REGISTER_GPU_VASPACE", 32)
        .may_block()
        .status_at(28)
        .descriptors(&[command(16)]),
    Request::new(0x1a, "UVM_UNREGISTER_GPU_VASPACE", 20)
        .may_block()
        .status_at(16),
    Request::new(0x1b, "UVM_REGISTER_CHANNEL", 56)
        .may_block()
        .status_at(48)
        .descriptors(&[command(16)]),
    Request::new(0x1c, "UVM_UNREGISTER_CHANNEL", 28)
        .may_block()
        .status_at(24),
    Request::new(0x1d, "UVM_ENABLE_PEER_ACCESS", 36)
        .may_block()
        .status_at(32),
    Request::new(0x1e, "UVM_DISABLE_PEER_ACCESS", 36)
        .may_block()
        .status_at(32),
    Request::new(0x1f, "UVM_SET_RANGE_GROUP", 32).status_at(24),
    Request::new(0x21, "UVM_MAP_EXTERNAL_ALLOCATION", 9264)
        .status_at(9260)
        .descriptors(&[command(9248)]),
    Request::new(0x22, "UVM_FREE", 24).may_block().status_at(16),
    Request::new(0x25, "UVM_REGISTER_GPU", 40)
        .may_block()
        .status_at(36)
        .descriptors(&[command(24)]),
    Request::new(0x26, "UVM_UNREGISTER_GPU", 20)
        .may_block()
        .status_at(16),
    Request::new(0x27, "UVM_PAGEABLE_MEM_ACCESS", 8).status_at(4),
    Request::new(0x2a, "UVM_SET_PREFERRED_LOCATION", 40)
        .may_block()
        .status_at(36),
    Request::new(0x2b, "UVM_UNSET_PREFERRED_LOCATION", 24).status_at(16),
    Request::new(0x2c, "UVM_ENABLE_READ_DUPLICATION", 24).status_at(16),
    Request::new(0x2d, "UVM_DISABLE_READ_DUPLICATION", 24).status_at(16),
    Request::new(0x2e, "UVM_SET_ACCESSED_BY", 40)
        .may_block()
        .status_at(32),
    Request::new(0x2f, "UVM_UNSET_ACCESSED_BY", 40).status_at(32),
    Request::new(0x33, "UVM_MIGRATE", 80)
        .may_block()
        .status_at(72),
    Request::new(0x35, "UVM_MIGRATE_RANGE_GROUP", 32)
        .may_block()
        .status_at(24),
    Request::new(0x41, "UVM_MAP_DYNAMIC_PARALLELISM_REGION", 40).status_at(32),
    Request::new(0x42, "UVM_UNMAP_EXTERNAL", 40)
        .may_block()
        .status_at(32),
    Request::new(0x44, "UVM_ALLOC_SEMAPHORE_POOL", 9248)
        .may_block()
        .status_at(9240),
    Request::new(0x46, "UVM_PAGEABLE_MEM_ACCESS_ON_GPU", 24).status_at(20),
    Request::new(0x48, "UVM_VALIDATE_VA_RANGE", 24).status_at(16),
    Request::new(0x49, "UVM_CREATE_EXTERNAL_RANGE", 24).status_at(16),
    // uvmFd is a UVM descriptor, which only the task holds.
    Request::new(0x4b, "UVM_MM_INITIALIZE", 8)
        .status_at(4)
        .descriptors(&[mapping(0)]),
    Request::new(0x30000001, "UVM_INITIALIZE", 16)
        .status_at(8)
        .set_bits(0, MULTI_PROCESS_SHARING),
    Request::new(0x30000002, "UVM_DEINITIALIZE", 0),
];
