//! The check of the driver's version (NV_ESC_CHECK_VERSION_STR), made so that the driver does not write to the host's log.
//!
//! A program says which release its libraries are of, and the driver compares that with its own. Where they differ, it
//! writes six lines into the kernel's log each time, one of them the program's own text (`RmPerformVersionCheck`,
//! src/nvidia/arch/nvalloc/unix/src/osapi.c, alike from 515 to 595). The idea: a *query* has the driver tell its release
//! and compare nothing. So that is what is issued, and the comparison is made here, as the driver makes it, by what the
//! driver itself has said.
//!
//! The bytes are hostile on the way in and the driver's on the way out.

use nix::errno::Errno;
use nvproxy_abi::structs::nv_ioctl_rm_api_version_t;
use zerocopy::FromBytes;

/// The request, as the tables call it.
const NAME: &str = "NV_ESC_CHECK_VERSION_STR";

/// NV_RM_API_VERSION_CMD_* (kernel-open/common/inc/nv-ioctl.h). Every other number is a strict check.
const RELAXED: u32 = b'1' as u32;
const QUERY: u32 = b'2' as u32;

/// A check that was made a query, and what the program had asked.
pub struct Check(nv_ioctl_rm_api_version_t);

impl Check {
    /// Makes a query of the check in `payload`, of the request that the tables call `name`. None if that is another, or
    /// a query already.
    pub fn begin(name: &str, payload: &mut [u8]) -> Option<Check> {
        if name != NAME {
            return None;
        }
        let argument = argument(payload)?;
        let asked = Check(*argument);
        argument.cmd = QUERY;
        (asked.0.cmd != QUERY).then_some(asked)
    }

    /// Makes of the driver's answer to the query what it would have answered to the check.
    pub fn end(self, payload: &mut [u8], outcome: Result<i32, Errno>) -> Result<i32, Errno> {
        let Check(asked) = self;
        let Some(argument) = argument(payload) else {
            return outcome;
        };
        let told = std::mem::replace(argument, asked);
        let value = outcome?;
        argument.reply = told.reply;
        if agree(
            &asked.versionString,
            &told.versionString,
            asked.cmd == RELAXED,
        ) {
            return Ok(value);
        }
        argument.versionString = told.versionString;
        Err(Errno::EINVAL)
    }
}

/// Whether what a program says is the driver's release: all of it, or up to the first point.
fn agree(said: &[u8], own: &[u8], relaxed: bool) -> bool {
    let mut pairs = said.iter().zip(own).take_while(|(said, own)| said == own);
    pairs.any(|(said, _)| *said == 0 || (relaxed && *said == b'.'))
}

fn argument(payload: &mut [u8]) -> Option<&mut nv_ioctl_rm_api_version_t> {
    let argument = nv_ioctl_rm_api_version_t::mut_from_prefix(payload);
    argument.ok().map(|(argument, _)| argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_agree_as_the_driver_has_it() {
        for (said, relaxed, agrees) in [
            (&b"580.142\0"[..], false, true),
            (b"580.142\0anything", false, true),
            (b"580.14\0", false, false),
            (b"580.1420\0", false, false),
            (b"580.142.1\0", true, true),
            (b"580.99\0", true, true),
            (b"580.99\0", false, false),
            (b"580\0", true, false),
            (b"58.142\0", true, false),
            (b"\0", true, false),
            (b"", false, false),
        ] {
            let text = String::from_utf8_lossy(said);
            let own = b"580.142\0left over";
            assert_eq!(agree(said, own, relaxed), agrees, "{text:?} {relaxed}");
        }
        // Without an end on either side there is none to find.
        assert!(!agree(&[b'5'; 64], &[b'5'; 64], true));
    }
}
