//! The tables of every release, made once: tables live as long as the process.

use std::sync::LazyLock;

use nvproxy_abi::Abi;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::version::DriverVersion;

/// By release: for a sandbox that may do everything that is listed, and for an ordinary one.
static TABLES: LazyLock<Vec<[&'static Abi; 2]>> = LazyLock::new(|| {
    nvproxy_abi::releases()
        .map(|version| {
            let ordinary = Granted {
                capabilities: Capabilities::default(),
                firmware_commands: FirmwareCommands::All,
            };
            [Capabilities::ALL.into(), ordinary]
                .map(|granted| Abi::of_release(&version, granted).expect("tables"))
        })
        .collect()
});

/// The tables that two bytes of an input mean: the place of the release among all, and whether the
/// sandbox is an ordinary one.
pub fn by_number(release: u8, ordinary: u8) -> &'static Abi {
    TABLES[usize::from(release) % TABLES.len()][usize::from(ordinary % 2)]
}

/// The tables of a release, for a sandbox that may do everything that is listed.
pub fn by_version(version: &DriverVersion) -> Option<&'static Abi> {
    let found = TABLES.iter().find(|[all, _]| all.version() == *version);
    found.map(|[all, _]| *all)
}
