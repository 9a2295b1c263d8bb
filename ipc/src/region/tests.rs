//! What a region is, and which files are not accepted as one.

use std::{fs::File, os::unix::fs::FileExt};

use super::*;

const SMALL: Geometry = Geometry {
    ring_entries: 2,
    arena_bytes: 4096,
};

/// A memory file with this size and these seals.
fn memfd(bytes: i64, seals: SealFlag) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let descriptor = memfd_create(c"test", flags).unwrap();
    ftruncate(&descriptor, bytes).unwrap();
    fcntl(&descriptor, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    descriptor
}

fn refusal(descriptor: OwnedFd, geometry: Geometry) -> RegionError {
    match Region::attach(descriptor, geometry) {
        Ok(_) => panic!("the region was accepted"),
        Err(error) => error,
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    assert_eq!(SMALL.region_bytes(), 4096 + 4096 + 4096);
    assert_eq!(
        Geometry {
            ring_entries: 64,
            arena_bytes: 0
        }
        .region_bytes(),
        4096 + 8192
    );
    let default = Geometry::default();
    assert_eq!(default.arena_bytes, 128 * 16384 + 2 * 1_179_648);
    assert_eq!(default.validate(), Ok(()));

    let region = Region::create(SMALL).unwrap();
    let file = File::from(region.as_fd().try_clone_to_owned().unwrap());
    let write = |offset, byte| file.write_all_at(&[byte], offset).unwrap();
    for (offset, byte) in [(0, 1), (128, 2), (256, 3), (384, 4), (512, 5), (640, 6)] {
        write(offset, byte);
    }
    for (offset, byte) in [(4096 + 64, 7), (4096 + 128, 8), (8192, 9)] {
        write(offset, byte);
    }
    let order = std::sync::atomic::Ordering::SeqCst;
    for (memory, first) in [(region.submissions(), 1), (region.completions(), 4)] {
        assert_eq!(memory.head().load(order), first);
        assert_eq!(memory.tail().load(order), first + 1);
        assert_eq!(memory.sleeping().load(order), first + 2);
    }
    assert_eq!(region.submissions().slot(3)[0].load(order), 7);
    assert_eq!(region.completions().slot(2)[0].load(order), 8);
    let arena = region.arena();
    assert_eq!(arena.words().len(), 512);
    assert_eq!(arena.words()[0].load(order), 9);
}

#[test]
fn a_region_takes_memory_only_where_it_was_touched() {
    let geometry = Geometry {
        ring_entries: 256,
        arena_bytes: MAX_ARENA_BYTES,
    };
    let region = Region::create(geometry).unwrap();
    assert_eq!(fstat(&region).unwrap().st_blocks, 0);
    let order = std::sync::atomic::Ordering::SeqCst;
    region.arena().words().last().unwrap().store(1, order);
    assert_eq!(fstat(&region).unwrap().st_blocks, 8);
}

#[test]
fn nobody_can_resize_a_region() {
    let region = Region::create(SMALL).unwrap();
    assert_eq!(ftruncate(&region, 0), Err(Errno::EPERM));
    assert_eq!(ftruncate(&region, 1 << 20), Err(Errno::EPERM));
    let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
    assert_eq!(fcntl(&region, seal), Err(Errno::EPERM));
}

#[test]
fn a_geometry_has_bounds() {
    for ring_entries in [0, 3, 2 * MAX_RING_ENTRIES, u32::MAX] {
        let geometry = Geometry {
            ring_entries,
            arena_bytes: 0,
        };
        assert_eq!(
            geometry.validate(),
            Err(RegionError::RingEntries(ring_entries))
        );
        assert_eq!(
            refusal(memfd(8192, SEALS), geometry),
            RegionError::RingEntries(ring_entries)
        );
    }
    for arena_bytes in [1, 4095, MAX_ARENA_BYTES + 4096, u32::MAX] {
        let geometry = Geometry {
            ring_entries: 1,
            arena_bytes,
        };
        assert_eq!(
            geometry.validate(),
            Err(RegionError::ArenaBytes(arena_bytes))
        );
    }
    let largest = Geometry {
        ring_entries: MAX_RING_ENTRIES,
        arena_bytes: MAX_ARENA_BYTES,
    };
    assert_eq!(largest.validate(), Ok(()));
}

#[test]
fn every_seal_must_be_there() {
    for missing in [
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_SEAL,
    ] {
        let seals = SEALS - missing;
        let error = refusal(memfd(12288, seals), SMALL);
        assert_eq!(
            error,
            RegionError::Seals(seals.bits()),
            "without {missing:?}"
        );
    }
    assert!(Region::attach(memfd(12288, SEALS), SMALL).is_ok());
}

#[test]
fn the_size_must_be_exact() {
    for bytes in [0, 4096, 12287, 12289, 16384] {
        let error = refusal(memfd(bytes, SEALS), SMALL);
        assert_eq!(
            error,
            RegionError::Size {
                expected: 12288,
                actual: bytes as u64
            }
        );
    }
}

#[test]
fn other_files_are_refused() {
    let directory = std::env::temp_dir();
    let file = File::open(directory).unwrap();
    assert_eq!(refusal(file.into(), SMALL), RegionError::NotMemfd);
    let (pipe, _) = std::io::pipe().unwrap();
    assert_eq!(refusal(pipe.into(), SMALL), RegionError::NotMemfd);
    let file = File::open("/dev/zero").unwrap();
    assert_eq!(refusal(file.into(), SMALL), RegionError::NotMemfd);
}

#[test]
fn a_region_sealed_against_writing_or_read_only_is_refused() {
    let seals = SEALS | SealFlag::F_SEAL_WRITE;
    let error = refusal(memfd(12288, seals), SMALL);
    assert_eq!(error, RegionError::System("mmap", Errno::EPERM));

    let region = Region::create(SMALL).unwrap();
    let path = format!("/proc/self/fd/{}", region.as_fd().as_raw_fd());
    let error = refusal(File::open(path).unwrap().into(), SMALL);
    assert_eq!(error, RegionError::System("mmap", Errno::EACCES));
}
