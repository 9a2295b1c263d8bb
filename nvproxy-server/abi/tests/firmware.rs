//! The firmware's own commands, of every number and in every release.

use nvproxy_abi::firmware::{UNNAMED, is_by_rule, is_of_firmware, is_privileged};
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::refusal::What;
use nvproxy_abi::table::{Family, Request, Reserved};
use nvproxy_abi::version::DriverVersion;
use nvproxy_abi::{Abi, releases};

/// Those for which some release has an entry.
const PUBLISHED: [u32; 3] = [0x2080_81ea, 0x2080_a083, 0x2080_a7d7];

fn tables(version: &DriverVersion, capabilities: Capabilities) -> [Abi; 2] {
    [FirmwareCommands::All, FirmwareCommands::Listed].map(|firmware_commands| {
        let granted = Granted {
            capabilities,
            firmware_commands,
        };
        Abi::new(version, granted).expect("tables")
    })
}

/// Every number of the two classes whose commands are the firmware's, and of some others.
fn numbers() -> impl Iterator<Item = u32> {
    let classes = [
        0x2080, 0x2081, 0, 0x0080, 0x2082, 0x83de, 0x90e7, 0xc36f, 0xffff,
    ];
    classes
        .into_iter()
        .flat_map(|class| (0..1 << 16).map(move |low| class << 16 | low))
}

#[test]
fn what_no_list_has_is_passed_if_it_is_the_firmwares_and_for_everybody() {
    for version in ["515.43.04", "535.54.03", "580.142", "595.45.04"] {
        let version = version.parse().expect("a version");
        let [all, listed] = tables(&version, Capabilities::COMPUTE);
        let mut by_rule = 0;
        for command in numbers() {
            let (all, listed) = (all.control(command), listed.control(command));
            let is_listed = all.is_ok_and(|row| !is_by_rule(row));
            if !is_of_firmware(command) || is_privileged(command) || PUBLISHED.contains(&command) {
                assert_eq!(all, listed, "{version}: {command:#x}");
                assert!(
                    !(is_of_firmware(command) && is_listed),
                    "{version}: {command:#x}"
                );
            } else if !is_listed {
                let row = all.expect("passed");
                assert_eq!(row.name, UNNAMED);
                assert!(
                    row.accepts(0) && row.accepts(Request::MOST) && !row.accepts(Request::MOST + 1)
                );
                assert!(row.traits.may_block && row.pointers.is_empty());
                let name = None;
                let (family, id) = (Family::Control, command);
                assert_eq!(listed, Err(What::Unknown { family, id, name }));
                by_rule += 1;
            }
        }
        // Half of the subdevice's with bit 15, and half of the other class's.
        let all = (1 << 14) + (1 << 15);
        assert!(by_rule > all - 100 && by_rule < all, "{version}: {by_rule}");
    }
}

#[test]
fn what_is_for_administrators_is_answered_as_the_driver_answers_others() {
    let version = "580.142".parse().expect("a version");
    for abi in tables(&version, Capabilities::ALL) {
        for command in [0x2080_c000, 0x2080_ffff, 0x2081_4001, 0x2081_c107] {
            let expected = What::Reserved {
                family: Family::Control,
                id: command,
                name: UNNAMED,
                reserved: Reserved::Privileged,
            };
            assert_eq!(abi.control(command), Err(expected));
        }
    }
}

/// Another list's command is no more than one of no list, and as large as is known of it.
#[test]
fn what_another_list_has_is_passed_in_its_size() {
    let version = "580.142".parse().expect("a version");
    let [all, listed] = tables(&version, Capabilities::COMPUTE);
    let row = all.control(0x2080_852a).expect("nvidia-smi's");
    assert_eq!((row.size, row.capabilities), (1784, Capabilities::UTILITY));
    assert!(matches!(
        listed.control(0x2080_852a),
        Err(What::NotGranted { .. })
    ));
    let [all, listed] = tables(&version, Capabilities::NONE);
    for command in [0x2080_852a, 0x2080_a06d] {
        assert!(all.control(command).is_err());
        assert_eq!(all.control(command), listed.control(command));
    }
}

/// As nobody else looks: no command of the firmware's has parameters of any size, in no release.
#[test]
fn every_command_of_the_firmwares_has_a_size_or_a_bound() {
    for version in releases() {
        let [abi, _] = tables(&version, Capabilities::ALL);
        let rows = abi.rows(Family::Control);
        for row in rows.filter(|row| is_of_firmware(row.id)) {
            let what = format!("{version}: {:#x} {}", row.id, row.name);
            match row.size {
                Request::ANY => panic!("{what}"),
                Request::BOUNDED => assert_ne!((version.branch(), row.id), (580, 0x2080_8159)),
                exactly => assert!(exactly <= Request::MOST, "{what}"),
            }
            assert!(row.traits.may_block && row.reserved.is_none(), "{what}");
        }
        let of_cuda = abi.control(0x2080_8159).expect("every CUDA program's");
        let expected = match version.branch() {
            580 => 332,
            _ => Request::BOUNDED,
        };
        assert_eq!(of_cuda.size, expected, "{version}");
    }
}
