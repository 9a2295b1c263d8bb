//! Control commands for which the driver's published source has no entry: what is known of them is their number, and what was
//! recorded.

use std::collections::BTreeSet;

use nvproxy_abi_catalogue::firmware::{UNNAMED, is_of_firmware, is_privileged};
use nvproxy_abi_catalogue::{Catalogue, Release};

use crate::policy::Recorded;
use crate::rows::{Reserved, Row, Size};

/// The row of a command for which the release has no entry. How many bytes one of the firmware's has is known of the branches
/// in which it was recorded: there it has as many, and elsewhere it is bounded.
pub(crate) fn row(release: &Release, command: u32, recorded: &Recorded) -> Row {
    let of_firmware = is_of_firmware(command);
    let is_known = !of_firmware || recorded.branches.contains(&release.version.branch());
    let is_reserved = of_firmware && is_privileged(command);
    Row {
        id: command,
        name: UNNAMED.to_owned(),
        size: if is_known {
            Size::Exactly(recorded.size)
        } else {
            Size::Bounded
        },
        may_block: of_firmware,
        reserved: is_reserved.then_some(Reserved::Privileged),
        ..Row::default()
    }
}

/// The commands with numbers of the firmware's for which some release has an entry.
pub(crate) fn published(catalogue: &Catalogue) -> BTreeSet<u32> {
    let releases = catalogue.releases.iter();
    let commands = releases.flat_map(|release| &release.controls);
    let commands = commands.map(|control| control.id);
    commands.filter(|id| is_of_firmware(*id)).collect()
}
