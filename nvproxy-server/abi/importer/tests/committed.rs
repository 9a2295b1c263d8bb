//! The committed catalogue, as far as it can be checked without the driver's source.

use std::collections::BTreeSet;
use std::path::Path;

use nvproxy_abi_catalogue::{Catalogue, Count, Privilege, Release};

fn bytes() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/releases.bin");
    std::fs::read(path).expect("the file is there")
}

fn catalogue() -> Catalogue {
    Catalogue::decode(&bytes()).expect("it is valid")
}

fn release<'a>(catalogue: &'a Catalogue, version: &str) -> &'a Release {
    let version = version.parse().expect("a version");
    catalogue.release(&version).expect("the release is there")
}

#[test]
fn it_is_encoded_as_this_version_of_the_format_encodes_it() {
    assert!(
        catalogue().encode() == bytes(),
        "write it anew with the importer"
    );
}

#[test]
fn it_has_every_release_that_was_published_with_source() {
    let catalogue = catalogue();
    assert!(
        catalogue.releases.len() >= 193,
        "{}",
        catalogue.releases.len()
    );
    assert_eq!(catalogue.releases[0].version.to_string(), "515.43.04");
    release(&catalogue, "595.45.04");
}

#[test]
fn what_a_release_refers_to_is_in_it() {
    for release in catalogue().releases {
        let version = release.version;
        let flags = |flags: &[_]| flags.is_sorted();
        assert!(release.controls.iter().all(|control| flags(&control.flags)));
        assert!(release.classes.iter().all(|class| flags(&class.flags)));
        for control in &release.controls {
            let Some(name) = &control.structure else {
                assert_eq!(control.size, 0, "{version} {control:?}");
                continue;
            };
            if let Some(structure) = release.structures.get(name) {
                assert_eq!(structure.size, control.size, "{version} {name}");
            }
            for copy in &control.copies {
                assert_eq!(
                    release.locate(name, &copy.pointer).map(|found| found.size),
                    Some(8),
                    "{version} {name} {}",
                    copy.pointer
                );
                if let Count::Field(count) = &copy.count {
                    assert!(
                        release.locate(name, count).is_some(),
                        "{version} {name} {count}"
                    );
                }
            }
        }
        for structure in release.structures.values() {
            for field in &structure.fields {
                assert!(
                    field.offset + field.size <= structure.size,
                    "{version} {field:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_known_of_580_142_is_in_it() {
    let catalogue = catalogue();
    let release = release(&catalogue, "580.142");
    assert_eq!(release.controls.len(), 1348);
    let offset = |structure, path| release.locate(structure, path).map(|found| found.offset);
    assert_eq!(
        offset("nv_ioctl_nvos02_parameters_with_fd", "params.status"),
        Some(40)
    );
    assert_eq!(offset("NVOS54_PARAMETERS", "params"), Some(16));
    assert_eq!(release.structures["NVOS64_PARAMETERS"].size, 48);

    let class_list = release
        .control(0x800201)
        .expect("NV0080_CTRL_CMD_GPU_GET_CLASSLIST");
    assert_eq!(
        class_list.name.as_deref(),
        Some("NV0080_CTRL_CMD_GPU_GET_CLASSLIST")
    );
    assert_eq!(class_list.privilege(), Privilege::NonPrivileged);
    let [copy] = &class_list.copies[..] else {
        panic!("one nested buffer: {class_list:?}");
    };
    assert_eq!((&*copy.pointer, copy.element), ("classList", 4));
    assert_eq!(copy.count, Count::Field("numClasses".into()));

    let event = release.class(0x79).expect("NV01_EVENT_OS_EVENT");
    assert_eq!(event.structure.as_deref(), Some("NV0005_ALLOC_PARAMETERS"));
    let initialize = release
        .uvm
        .iter()
        .find(|ioctl| &*ioctl.name == "UVM_INITIALIZE");
    assert_eq!(initialize.map(|ioctl| ioctl.number), Some(0x30000001));
}

#[test]
fn what_changed_between_two_releases_is_seen() {
    let catalogue = catalogue();
    let (old, new) = (
        release(&catalogue, "570.86.15"),
        release(&catalogue, "580.65.06"),
    );
    let changed: BTreeSet<&str> = old
        .structures
        .iter()
        .filter(|(name, structure)| {
            new.structures
                .get(*name)
                .is_some_and(|other| other != *structure)
        })
        .map(|(name, _)| &**name)
        .collect();
    for name in ["NV_VASPACE_ALLOCATION_PARAMETERS", "NVOS46_PARAMETERS"] {
        assert!(changed.contains(name), "{name}");
    }
    for name in [
        "NVOS54_PARAMETERS",
        "NVOS64_PARAMETERS",
        "NV0005_ALLOC_PARAMETERS",
    ] {
        assert!(!changed.contains(name), "{name}");
    }
}
