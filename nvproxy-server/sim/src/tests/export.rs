//! Objects that travel by descriptor.

use super::*;
use crate::structs::control::*;

/// Two clients through two descriptions, each with a device, and a description to be filled.
fn parties(driver: &Simulator) -> ((Open, u32), (Open, u32), Open, Open) {
    let (control, gpu, client) = device(driver);
    let other = open(driver, Node::Control);
    let theirs = other.client();
    other.device(theirs, 0x10, 0);
    (
        (control, client),
        (other, theirs),
        open(driver, Node::Control),
        gpu,
    )
}

pub(super) fn export_one(from: &(Open, u32), object: u32, fd: i32) -> u32 {
    let object = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
        r#type: 1,
        data: [0x10, 0x10, object],
    };
    let mut parameters = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS {
        object,
        fd,
        flags: 0,
    };
    from.0.control(
        from.1,
        from.1,
        NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD,
        &mut parameters,
    )
}

pub(super) fn import_one(to: &(Open, u32), parent: u32, object: u32, fd: i32) -> (u32, u32) {
    let object = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
        r#type: 1,
        data: [0x10, parent, object],
    };
    let mut parameters = NV0000_CTRL_OS_UNIX_IMPORT_OBJECT_FROM_FD_PARAMS { fd, object };
    let status = to.0.control(
        to.1,
        to.1,
        NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD,
        &mut parameters,
    );
    (status, parameters.object.data[2])
}

#[test]
fn an_object_is_exported_and_imported() {
    let driver = driver();
    let (from, to, parcel, gpu) = parties(&driver);
    assert_eq!(
        from.0
            .memory(from.1, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, MEMORY),
        NV_OK
    );
    assert_eq!(
        from.0.map(from.1, 0x10, 0x20, (0, 4096), gpu.number()).0,
        NV_OK
    );
    gpu.write(0, b"parcel");
    assert_eq!(
        import_one(&to, 0x10, 0x30, parcel.number()).0,
        NV_ERR_INVALID_PARAMETER
    );
    assert_eq!(
        export_one(&from, 0x99, parcel.number()),
        NV_ERR_OBJECT_NOT_FOUND
    );
    assert_eq!(
        export_one(&from, 0x11, parcel.number()),
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(
        export_one(&from, 0x20, gpu.number()),
        NV_ERR_INVALID_PARAMETER
    );
    assert_eq!(export_one(&from, 0x20, -1), NV_ERR_INVALID_PARAMETER);
    assert_eq!(export_one(&from, 0x20, parcel.number()), NV_OK);
    assert_eq!(
        export_one(&from, 0x20, parcel.number()),
        NV_ERR_STATE_IN_USE
    );
    // The memory lives in the description.
    drop(from);
    assert_eq!(
        to.0.memory(to.1, 0x10, 0x31, NV01_MEMORY_LOCAL_USER, 1),
        NV_ERR_NO_MEMORY
    );
    assert_eq!(
        import_one(&to, to.1, 0x30, parcel.number()).0,
        NV_ERR_INVALID_OBJECT_PARENT
    );
    assert_eq!(import_one(&to, 0x10, 0x30, parcel.number()), (NV_OK, 0x30));
    assert_eq!(
        import_one(&to, 0x10, 0, parcel.number()),
        (NV_OK, 0xcaf0_0000)
    );
    let target = open(&driver, Node::Gpu(0));
    assert_eq!(
        to.0.map(to.1, 0x10, 0x30, (0, 4096), target.number()).0,
        NV_OK
    );
    assert_eq!(target.read(0), *b"parcel");
    drop(parcel);
    assert_eq!(to.0.free(to.1, 0x30), NV_OK);
    assert_eq!(to.0.free(to.1, 0xcaf0_0000), NV_OK);
    assert_eq!(
        to.0.memory(to.1, 0x10, 0x31, NV01_MEMORY_LOCAL_USER, MEMORY),
        NV_OK
    );
}

#[test]
fn several_objects_are_exported_with_a_label() {
    let driver = driver();
    let (from, to, parcel, _gpu) = parties(&driver);
    assert_eq!(
        from.0
            .memory(from.1, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, 4096),
        NV_OK
    );
    assert_eq!(
        from.0.memory(from.1, 0x10, 0x21, NV01_MEMORY_SYSTEM, 4096),
        NV_OK
    );
    let mut info = NV0000_CTRL_OS_UNIX_GET_EXPORT_OBJECT_INFO_PARAMS::new_zeroed();
    info.fd = parcel.number();
    let ask = |info: &mut NV0000_CTRL_OS_UNIX_GET_EXPORT_OBJECT_INFO_PARAMS| {
        to.0.control(
            to.1,
            to.1,
            NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO,
            info,
        )
    };
    assert_eq!(ask(&mut info), NV_ERR_INVALID_PARAMETER);
    let mut exported = NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS::new_zeroed();
    (exported.fd, exported.hDevice, exported.maxObjects) = (parcel.number(), 0x10, 3);
    exported.metadata = [7; 64];
    exported.objects[0] = 0x99;
    exported.numObjects = 1;
    let export = |exported: &mut NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS| {
        from.0.control(
            from.1,
            from.1,
            NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD,
            exported,
        )
    };
    // A first export that fails leaves the description as it was.
    assert_eq!(export(&mut exported), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(ask(&mut info), NV_ERR_INVALID_PARAMETER);
    exported.objects[0] = 0x20;
    assert_eq!(export(&mut exported), NV_OK);
    exported.objects[0] = 0x21;
    exported.index = 3;
    assert_eq!(export(&mut exported), NV_ERR_OUT_OF_RANGE);
    exported.index = 2;
    assert_eq!(export(&mut exported), NV_OK);
    assert_eq!(ask(&mut info), NV_OK);
    assert_eq!(
        (info.maxObjects, info.deviceInstance, info.metadata),
        (3, 0, [7; 64])
    );

    let mut imported = NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS::new_zeroed();
    (imported.fd, imported.hParent, imported.numObjects) = (parcel.number(), 0x10, 3);
    imported.objects[..3].copy_from_slice(&[0x30, 0x31, 0x11]);
    let import = |imported: &mut NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS| {
        to.0.control(
            to.1,
            to.1,
            NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD,
            imported,
        )
    };
    // The third handle is taken, so that the first is not kept either.
    assert_eq!(import(&mut imported), NV_ERR_INSERT_DUPLICATE_NAME);
    imported.objects[2] = 0x32;
    assert_eq!(import(&mut imported), NV_OK);
    assert_eq!(imported.objectTypes[..3], [1, 0, 2]);
    imported.index = 1;
    assert_eq!(import(&mut imported), NV_ERR_OUT_OF_RANGE);
    imported.numObjects = 129;
    assert_eq!(import(&mut imported), NV_ERR_INVALID_PARAMETER);
}
