use super::*;
use crate::model::{BitField, Copy, Count, Field, Located, Privilege};

fn field(path: &str, offset: u32, size: u32, type_name: &str) -> Field {
    Field {
        path: path.into(),
        offset,
        size,
        type_name: type_name.into(),
        elements: 1,
        bit_field: None,
    }
}

fn ioctl(number: u32, name: &str) -> Rc<Ioctl> {
    Rc::new(Ioctl {
        number,
        name: name.into(),
    })
}

fn control(id: u32, size: u32, flags: &[&str]) -> Rc<Control> {
    Rc::new(Control {
        id,
        name: (size != 0).then(|| "NV2080_CTRL_CMD_CE_GET_CAPS".into()),
        method: "subdeviceCtrlCmdCeGetCaps".into(),
        structure: (size != 0).then(|| "NV2080_CTRL_CE_GET_CAPS_PARAMS".into()),
        size,
        flags: flags.iter().map(|flag| Rc::from(*flag)).collect(),
        access_rights: 4,
        copies: [
            Count::Constant(7),
            Count::Field("capsTblSize".into()),
            Count::Other("a * b".into()),
        ]
        .into_iter()
        .map(|count| Copy {
            pointer: "capsTbl".into(),
            count,
            element: 1,
            copied_in: false,
            copied_out: true,
        })
        .collect(),
    })
}

fn release(version: &str) -> Release {
    let outer = Structure {
        size: 40,
        fields: vec![
            field("params", 0, 32, "Inner"),
            field("info.fd", 32, 4, "int"),
            Field {
                bit_field: Some(BitField { first: 3, bits: 5 }),
                ..field("flag", 36, 4, "NvU32")
            },
        ],
    };
    let inner = Structure {
        size: 32,
        fields: vec![
            field("status", 28, 4, "NV_STATUS"),
            Field {
                elements: 2,
                ..field("list", 0, 16, "Inner")
            },
        ],
    };
    Release {
        version: version.parse().expect("a version"),
        frontend: vec![ioctl(42, "NV_ESC_RM_CONTROL"), ioctl(43, "NV_ESC_RM_ALLOC")],
        uvm: vec![ioctl(0x30000001, "UVM_INITIALIZE")],
        controls: vec![
            control(0x20802a01, 16, &["NON_PRIVILEGED"]),
            control(0x20802a02, 0, &["INTERNAL"]),
        ],
        classes: vec![Rc::new(Class {
            id: 0,
            name: "NV01_ROOT".into(),
            internal: "RmClientResource".into(),
            structure: Some("NvHandle".into()),
            size: 4,
            required: true,
            flags: vec!["ACQUIRE_GPUS_LOCK".into()],
            access: "RS_ACCESS_NONE".into(),
        })],
        structures: [("Inner", inner), ("Outer", outer)]
            .map(|(name, structure)| (name.into(), Rc::new(structure)))
            .into(),
    }
}

fn catalogue() -> Catalogue {
    let mut third = release("580.65.06");
    third.controls[0] = control(0x20802a01, 24, &["NON_PRIVILEGED", "PRIVILEGED"]);
    third.uvm.clear();
    let mut fourth = release("580.142");
    fourth.uvm.push(ioctl(0x30000002, "UVM_DEINITIALIZE"));
    Catalogue {
        releases: vec![release("515.43.04"), release("570.86.15"), third, fourth],
    }
}

/// Seals a body that was altered, so that its checksum is right.
fn with_body(alter: impl FnOnce(&mut Vec<u8>)) -> Result<Catalogue, DecodeError> {
    let mut body = unseal(&catalogue().encode()).expect("a valid file");
    alter(&mut body);
    Catalogue::decode(&seal(&body))
}

#[test]
fn a_catalogue_is_read_as_it_was_written() {
    let bytes = catalogue().encode();
    assert_eq!(Catalogue::decode(&bytes), Ok(catalogue()));
    assert_eq!(
        Catalogue::decode(&bytes).map(|read| read.encode()),
        Ok(bytes)
    );
    let none = Catalogue::default();
    assert_eq!(Catalogue::decode(&none.encode()), Ok(none));
}

#[test]
fn releases_share_what_they_agree_on() {
    let read = Catalogue::decode(&catalogue().encode()).expect("a valid file");
    let [first, second, third, fourth] = &read.releases[..] else {
        panic!("four releases");
    };
    assert!(Rc::ptr_eq(&first.controls[0], &second.controls[0]));
    assert!(!Rc::ptr_eq(&second.controls[0], &third.controls[0]));
    assert!(Rc::ptr_eq(&second.controls[0], &fourth.controls[0]));
    assert!(Rc::ptr_eq(
        &first.structures["Outer"],
        &fourth.structures["Outer"]
    ));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = catalogue().encode();
    for length in 0..bytes.len() {
        assert!(Catalogue::decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = catalogue().encode();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = Catalogue::decode(&bytes).expect_err("damaged");
        match bit / 8 {
            0..8 => assert_eq!(error, DecodeError::NotACatalogue),
            8..12 => assert!(matches!(error, DecodeError::FormatVersion(_))),
            _ => assert_eq!(error, DecodeError::Checksum),
        }
    }
}

/// A right checksum is no proof of right contents.
#[test]
fn altered_contents_with_a_right_checksum_are_taken_without_panic() {
    let body = unseal(&catalogue().encode()).expect("a valid file");
    let mut refused = 0;
    for at in 0..body.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            refused += usize::from(with_body(|body| body[at] = value).is_err());
        }
        let cut = with_body(|body| body.truncate(at));
        assert!(matches!(cut, Err(DecodeError::Malformed(_))), "{at}");
    }
    assert!(refused > body.len(), "{refused}");
    assert_eq!(
        with_body(|body| body.push(0)),
        Err(DecodeError::Malformed(
            "the body is longer than its contents"
        ))
    );
}

#[test]
fn a_body_that_declares_another_length_is_refused() {
    for (declared, what) in [
        (MAXIMUM_BODY as u32 + 1, "the body is too long"),
        (3, "the body cannot be decompressed"),
        (5, "the body is shorter than declared"),
    ] {
        let mut bytes = seal(b"four");
        bytes[12..16].copy_from_slice(&declared.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Catalogue::decode(&bytes), Err(DecodeError::Malformed(what)));
    }
}

/// A release that changes nothing takes seven bytes, but has all entries of the one before it.
#[test]
fn a_small_file_cannot_unfold_without_bound() {
    let entries: Vec<u32> = (0..8192).collect();
    let releases = 1 + MAXIMUM_ENTRIES / entries.len();
    let mut writer = Writer::default();
    let pool = entries.iter().copied().collect();
    writer.pool(pool, |writer, number| {
        writer.ioctl(&Ioctl {
            number,
            name: "NV_ESC".into(),
        });
    });
    for _empty_pool in 0..4 {
        writer.length(0);
    }
    writer.length(releases);
    for release in 0..releases {
        writer.string(&format!("{}.{:02}", 1 + release / 99, 1 + release % 99));
        let before = if release == 0 { &[][..] } else { &entries };
        writer.changes(before, &entries);
        for _empty_pool in 0..4 {
            writer.changes(&[], &[]);
        }
    }
    let bytes = seal(&writer.finish());
    assert!(bytes.len() < 1 << 16, "{}", bytes.len());
    assert_eq!(
        Catalogue::decode(&bytes),
        Err(DecodeError::Malformed("the releases have too many entries"))
    );
}

#[test]
fn releases_out_of_order_are_refused() {
    let mut reversed = catalogue();
    reversed.releases.reverse();
    assert_eq!(
        Catalogue::decode(&reversed.encode()),
        Err(DecodeError::Malformed("the releases are out of order"))
    );
}

#[test]
fn members_are_found_by_path() {
    let release = release("580.142");
    let located = |offset, size, type_name: &str| {
        Some(Located {
            offset,
            size,
            type_name: type_name.into(),
        })
    };
    assert_eq!(release.locate("Outer", "params"), located(0, 32, "Inner"));
    assert_eq!(
        release.locate("Outer", "params.status"),
        located(28, 4, "NV_STATUS")
    );
    assert_eq!(release.locate("Outer", "info.fd"), located(32, 4, "int"));
    for path in [
        "",
        ".",
        "info",
        "info.",
        "params.",
        "params.none",
        "params.list.status",
        "info.fd.x",
    ] {
        assert_eq!(release.locate("Outer", path), None, "{path}");
    }
    assert_eq!(release.locate("None", "params"), None);
}

#[test]
fn privilege_follows_from_the_flags() {
    for (flags, privilege, internal) in [
        (&["NON_PRIVILEGED"][..], Privilege::NonPrivileged, false),
        (
            &["NO_GPUS_LOCK", "PRIVILEGED"],
            Privilege::Privileged,
            false,
        ),
        (
            &["NON_PRIVILEGED", "PRIVILEGED"],
            Privilege::Privileged,
            false,
        ),
        (
            &["INTERNAL", "PRIVILEGED_IF_RS_ACCESS_DISABLED"],
            Privilege::Kernel,
            true,
        ),
        (&[], Privilege::Kernel, false),
    ] {
        let control = control(1, 0, flags);
        assert_eq!(control.privilege(), privilege, "{flags:?}");
        assert_eq!(control.is_internal(), internal, "{flags:?}");
    }
}

#[test]
fn releases_and_parts_are_found_by_key() {
    let catalogue = catalogue();
    let version = "580.65.06".parse().expect("a version");
    let release = catalogue.release(&version).expect("it is there");
    assert_eq!(release.version, version);
    assert_eq!(
        release.control(0x20802a01).map(|control| control.size),
        Some(24)
    );
    assert_eq!(release.control(0x20802a03), None);
    assert_eq!(release.class(0).map(|class| class.size), Some(4));
    assert_eq!(release.class(1), None);
    assert_eq!(
        catalogue.release(&"580.66.06".parse().expect("a version")),
        None
    );
}
