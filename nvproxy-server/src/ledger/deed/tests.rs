//! What requests are taken to do, of which no model of the driver tells.

use zerocopy::IntoBytes;

use super::super::payload::Value;
use super::super::visible::tests::planned;
use super::*;

/// NV00E0_CTRL_CMD_IMPORT_MEM of three handles: as many objects of the client's, with memory that others are charged for.
#[test]
fn what_others_exported_is_imported_below_the_client() {
    let (index, count) = (2u16, 3u16);
    let mut parameters = vec![0; 1540];
    parameters[..4].copy_from_slice([index, count].as_bytes());
    parameters[4..16].copy_from_slice([7u32, 8, 9].as_bytes());
    let (plan, payload) = planned(0x00e0_0102, &parameters, &[]);
    let deed = Deed::of(&plan, &payload, None, || None);
    let Deed::Import {
        client,
        parent,
        from: None,
        objects,
        ..
    } = &deed
    else {
        panic!("{deed:?}");
    };
    assert_eq!((client, parent), (&0, &0));
    let handles: Vec<Handle> = Bytes(&payload).elements(objects).collect();
    assert_eq!(handles, [7, 8, 9]);
    assert_eq!(deed.objects(), 3);
}

#[test]
fn flags_say_where_memory_is() {
    const SIZE: u64 = 3 << 20;
    let what = |[flags, attr, attr2]: [u32; 3]| {
        let word = |value| Value { at: 0, value };
        What::by_flags(&Amount {
            size: Value {
                at: 88,
                value: SIZE,
            },
            alignment: Value { at: 0, value: 0 },
            flags: word(flags),
            attr: word(attr),
            attr2: word(attr2),
        })
    };
    let on_the_gpu = What::GpuMemory {
        bytes: 4 << 20,
        answer: 88,
    };
    assert_eq!(what([0, 0, 0]), on_the_gpu);
    for location in 1..4 {
        let on_the_host = What::HostMemory { bytes: SIZE };
        assert_eq!(what([0, location << 25 | 1 << 27, 0]), on_the_host);
    }
    // Addresses alone, wherever the rest says that memory is to be.
    for rest in [[0, 0], [1 << 25, 1 << 24]] {
        assert_eq!(what([0x8_0000, rest[0], rest[1]]), What::Other);
    }
    for attr in [0, 1 << 25] {
        assert_eq!(what([0, attr, 1 << 24]), What::Uncounted);
    }
}
