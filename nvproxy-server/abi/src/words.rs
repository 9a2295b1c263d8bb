//! By what command words the driver reads anything: what must never be executed on a descriptor of its nodes unseen.
//!
//! The driver looks at the number and the size in a word and at nothing else of it, neither the type nor the direction
//! (`nvidia_ioctl`, kernel-open/nvidia/nv.c, in all releases). Before it compares the size it has copied as many bytes
//! from the caller and afterwards it copies them back, unchanged. So a word is harmless if its size is none that the
//! driver accepts for its number. A few numbers are read whatever the size, 0 included (rules.toml says which, and why):
//! the driver does not compare it, or did not in some release. UVM looks at the whole word (`uvm_ioctl`,
//! kernel-open/nvidia-uvm/uvm.c).
//!
//! These are the words of all releases together, whichever is loaded, those included that no sandbox is granted.

use crate::number;
use crate::tables;

/// The bits of a word that the driver looks at: the number and the size.
pub const READ_BITS: u32 = 0x3fff_00ff;

/// UVM's words are below this number, but for those of [`uvm_beyond`]. The highest is 0x13a
/// (`UVM_TEST_IOCTL_BASE(114)`, kernel-open/nvidia-uvm/uvm_test_ioctl.h, 595.45.04); no program has a use for the rest
/// on other descriptors.
pub const UVM_BOUND: u32 = 0x200;

/// Numbers and sizes, in the places that they have in a word.
pub fn sized() -> &'static [u32] {
    tables::SIZED_WORDS
}

/// Numbers that are read whatever the size.
pub fn any_size() -> &'static [u32] {
    tables::ANY_SIZE_WORDS
}

/// UVM's words that are not below [`UVM_BOUND`].
pub fn uvm_beyond() -> impl Iterator<Item = u32> {
    let words = tables::UVM_WORDS.iter().copied();
    words.filter(|word| *word >= UVM_BOUND)
}

/// Whether UVM of some release reads anything by this word.
pub fn is_read_by_uvm(word: u32) -> bool {
    word < UVM_BOUND || uvm_beyond().any(|known| known == word)
}

/// The word of the same request as programs write it: what the driver does not look at is as in the driver's own
/// headers.
pub const fn canonical(word: u32) -> u32 {
    let (_, number, size) = number::parts(word);
    number::ioctl_word(number, size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::*;
    use crate::policy::Capabilities;
    use crate::table::Family;
    use crate::{Abi, releases};

    /// Whether the driver of some release reads anything by this word.
    fn is_read_by_driver(word: u32) -> bool {
        let read = word & READ_BITS;
        sized().binary_search(&read).is_ok() || any_size().binary_search(&(read & 0xff)).is_ok()
    }

    #[test]
    fn every_row_of_every_release_is_read() {
        for version in releases() {
            let abi = Abi::new(&version, Capabilities::ALL).expect("tables");
            for row in abi.rows(Family::Frontend) {
                let sizes = match row.only_size() {
                    None => vec![1, 72, 4096],
                    Some(size) => vec![size],
                };
                for size in sizes {
                    let word = ioctl_word(row.id, size as usize);
                    assert!(is_read_by_driver(word), "{version}: {}", row.name);
                    assert!(
                        is_read_by_driver(word & READ_BITS),
                        "{version}: {}",
                        row.name
                    );
                }
            }
            for row in abi.rows(Family::Uvm) {
                assert!(is_read_by_uvm(row.id), "{version}: {}", row.name);
            }
        }
        assert!(uvm_beyond().any(|word| word == UVM_INITIALIZE));
        assert!(uvm_beyond().any(|word| word == UVM_DEINITIALIZE));
    }

    /// What the driver reads and no sandbox is granted, and what it reads whatever its size.
    #[test]
    fn what_is_refused_is_read_all_the_same() {
        // NV_ESC_IOCTL_XFER_CMD, NV_ESC_RM_ALLOC_OBJECT, NV_ESC_RM_I2C_ACCESS.
        for (number, size) in [(0xd3, 16), (0x28, 20), (0x39, 32)] {
            assert!(is_read_by_driver(size << 16 | number), "{number:#x}");
            assert!(!is_read_by_driver((size + 1) << 16 | number), "{number:#x}");
            assert!(!is_read_by_driver(number), "{number:#x}");
        }
        // NV_ESC_RM_LOCKLESS_DIAGNOSTIC and others.
        for number in [0x5f, 0xc8, 0xd4, 0xd5, 0xda] {
            for size in [0, 1, 16383] {
                assert!(is_read_by_driver(size << 16 | number), "{number:#x}");
            }
        }
    }

    /// What terminals, sockets and pipes are asked, and what the kernel's file layer consumes (`do_vfs_ioctl`, fs/ioctl.c)
    /// but for FIGETBSZ and FIBMAP.
    #[test]
    fn what_programs_ask_of_other_files_is_not_read() {
        let ordinary = [
            0x5401,
            0x5402,
            0x5403,
            0x5404,
            0x5405,
            0x540b,
            0x540e,
            0x540f,
            0x5410,
            0x5411,
            0x5413,
            0x5414,
            0x541b,
            0x5421,
            0x5422,
            0x5429,
            0x5450,
            0x5451,
            0x5452,
            0x5460,
            0x802c_542a,
            0x402c_542b,
            0x8004_5430,
            0x4004_5431,
            0x8004_5432,
            0x8004_5438,
            0x8004_5439,
            0x8004_5440,
            0x5441,
            0x8901,
            0x8906,
            0x8907,
            0x8910,
            0x8912,
            0x8913,
            0x8927,
            0x8933,
            0x8946,
            0x4004_9409,
            0x4020_940d,
            0xc018_9436,
            0xc020_660b,
            0x8008_6601,
            0x4008_6602,
            0x801c_581f,
            0x401c_5820,
            0x1260,
            0x1268,
            0x8008_1272,
        ];
        for word in ordinary {
            assert!(
                !is_read_by_driver(word) && !is_read_by_uvm(word),
                "{word:#x}"
            );
        }
    }

    #[test]
    fn a_word_of_another_type_is_the_same_request() {
        for word in [0xc020_462a, 0x0020_002a, 0x4020_ff2a, 0x8020_472a] {
            assert_eq!(canonical(word), 0xc020_462a);
        }
    }
}
