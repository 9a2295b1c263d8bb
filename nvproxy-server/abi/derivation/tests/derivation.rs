//! What is derived from small catalogues, and what is refused.

use std::collections::BTreeMap;
use std::rc::Rc;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_catalogue::{Catalogue, Control, Copy, Count, Field, Ioctl, Release, Structure};
use nvproxy_abi_derivation::derive;
use nvproxy_abi_derivation::policy::{self, List};
use nvproxy_abi_derivation::rows::{
    Contents, Extent, Length, Naming, Reserved, Row, Size, Tables, Values,
};
use nvproxy_abi_derivation::rules;
use nvproxy_abi_effects::Effect;

const NO_RULES: &str = "frontend = []\ncontrol = []\nclass = []\nuvm = []\n[blocking]\n";

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

/// A command whose parameters are a count and a pointer to as many handles.
fn control(flags: &[&str]) -> Control {
    Control {
        id: 0x2080_0101,
        name: Some("NV2080_CTRL_CMD_LIST".into()),
        method: "subdeviceCtrlCmdList".into(),
        structure: Some("NV2080_CTRL_LIST_PARAMS".into()),
        size: 16,
        flags: flags.iter().map(|flag| Rc::from(*flag)).collect(),
        access_rights: 0,
        copies: vec![Copy {
            pointer: "handles".into(),
            count: Count::Field("count".into()),
            element: 4,
            copied_in: true,
            copied_out: true,
        }],
    }
}

fn release(patch: u8, control: Control) -> Release {
    let parameters = Structure {
        size: 16,
        fields: vec![
            field("count", 0, 4, "NvU32"),
            field("handles", 8, 8, "NvP64"),
        ],
    };
    let initialize = Structure {
        size: 16,
        fields: vec![
            field("flags", 0, 8, "NvU64"),
            field("rmStatus", 8, 4, "NV_STATUS"),
        ],
    };
    Release {
        version: DriverVersion::new(580, 1, Some(patch)),
        frontend: Vec::new(),
        uvm: vec![Rc::new(Ioctl {
            number: 0x3000_0001,
            name: "UVM_INITIALIZE".into(),
        })],
        controls: vec![Rc::new(control)],
        classes: Vec::new(),
        structures: BTreeMap::from([
            (Rc::from("NV2080_CTRL_LIST_PARAMS"), Rc::new(parameters)),
            (Rc::from("UVM_INITIALIZE_PARAMS"), Rc::new(initialize)),
        ]),
    }
}

fn catalogue(releases: Vec<Release>) -> Catalogue {
    Catalogue { releases }
}

fn compute(text: &str) -> List {
    policy::parse(text).expect("a list")
}

fn derived(catalogue: &Catalogue, rules: &str, policies: &[List]) -> Result<Tables, Vec<String>> {
    derive(catalogue, &rules::parse(rules).expect("rules"), policies)
}

fn only_row(tables: &Tables) -> &Row {
    match tables.rows.as_slice() {
        [row] => row,
        rows => panic!("not one row: {rows:?}"),
    }
}

#[test]
fn a_command_is_derived_with_its_buffers() {
    let catalogue = catalogue(vec![release(1, control(&["NON_PRIVILEGED"]))]);
    let tables = derived(
        &catalogue,
        NO_RULES,
        &[compute("control = ['NV2080_CTRL_CMD_LIST']")],
    )
    .expect("tables");
    let row = only_row(&tables);
    assert_eq!(
        (row.id, row.size, row.reserved),
        (0x2080_0101, Size::Exactly(16), None)
    );
    let [pointer] = row.pointers.as_slice() else {
        panic!("{row:?}");
    };
    assert_eq!(pointer.place.at, 8);
    let Length::Field { count, scale: 4 } = &pointer.length else {
        panic!("{pointer:?}");
    };
    assert_eq!((count.at, &pointer.contents), (0, &Contents::Bytes));
}

#[test]
fn releases_that_agree_share_their_rows() {
    let catalogue = catalogue(vec![
        release(1, control(&["NON_PRIVILEGED"])),
        release(2, control(&["NON_PRIVILEGED", "API_LOCK_READONLY"])),
    ]);
    let tables = derived(
        &catalogue,
        NO_RULES,
        &[compute("control = ['NV2080_CTRL_CMD_LIST']")],
    )
    .expect("tables");
    only_row(&tables);
    assert_eq!(tables.releases.len(), 2);
    assert!(
        tables
            .releases
            .iter()
            .all(|release| release.rows.control == [0])
    );
}

#[test]
fn what_the_driver_reserves_is_marked() {
    for (flags, reserved) in [
        (&["PRIVILEGED"][..], Reserved::Privileged),
        (&[], Reserved::Privileged),
        (&["NON_PRIVILEGED", "PRIVILEGED"], Reserved::Privileged),
        (&["INTERNAL"], Reserved::Internal),
    ] {
        let catalogue = catalogue(vec![release(1, control(flags))]);
        let tables = derived(
            &catalogue,
            NO_RULES,
            &[compute("control = ['NV2080_CTRL_CMD_LIST']")],
        );
        assert_eq!(
            only_row(&tables.expect("tables")).reserved,
            Some(reserved),
            "{flags:?}"
        );
    }
}

#[test]
fn commands_without_an_entry_are_allowed_by_number() {
    let catalogue = catalogue(vec![release(1, control(&[]))]);
    let list = "[[unlisted]]\ncommand = 0x20808159\nsize = 332\nneeded_by = 'a test'\n\
                [[unlisted]]\ncommand = 0x20810110\nsize = 1\nneeded_by = 'a test'\n\
                [[unlisted]]\ncommand = 0x20800101\nsize = 16\nneeded_by = 'a test'\n";
    let tables = derived(&catalogue, NO_RULES, &[compute(list)]).expect("tables");
    let rows: Vec<_> = tables.rows.iter().map(|row| (row.id, row.size)).collect();
    // The last has an entry, and so goes by name or not at all.
    let exactly = Size::Exactly;
    assert_eq!(
        rows,
        [(0x2080_8159, exactly(332)), (0x2081_0110, exactly(1))]
    );
}

/// The size of what the firmware takes holds where it was seen: the releases here are of the branch 580. The driver's own
/// commands are described by the list alone.
#[test]
fn commands_of_the_firmwares_are_bounded_where_their_size_is_not_known() {
    let mut with_entry = release(2, control(&[]));
    Rc::make_mut(&mut with_entry.controls[0]).id = 0x2080_a083;
    let catalogue = catalogue(vec![release(1, control(&[])), with_entry]);
    let list = "[[unlisted]]\ncommand = 0x20808159\nsize = 332\nbranches = [595]\nneeded_by = 'a test'\n\
                [[unlisted]]\ncommand = 0x20810110\nsize = 1\nbranches = [580, 595]\nneeded_by = 'a test'\n\
                [[unlisted]]\ncommand = 0x20803406\nsize = 1\nbranches = [595]\nneeded_by = 'a test'\n\
                [[unlisted]]\ncommand = 0x2080c159\nsize = 8\nneeded_by = 'nobody: it is for administrators'\n";
    let tables = derived(&catalogue, NO_RULES, &[compute(list)]).expect("tables");
    let rows = tables.rows.iter();
    let rows: Vec<_> = rows.map(|row| (row.id, row.size, row.reserved)).collect();
    assert_eq!(
        rows,
        [
            (0x2080_3406, Size::Exactly(1), None),
            (0x2080_8159, Size::Bounded, None),
            (0x2080_c159, Size::Exactly(8), Some(Reserved::Privileged)),
            (0x2081_0110, Size::Exactly(1), None),
        ]
    );
    assert_eq!(Vec::from_iter(tables.published), [0x2080_a083]);
}

#[test]
fn a_uvm_request_takes_the_structure_of_its_name() {
    let catalogue = catalogue(vec![release(1, control(&[]))]);
    let rules = "frontend = []\ncontrol = []\nclass = []\n[blocking]\nuvm = ['UVM_INITIALIZE']\n\
                 [[uvm]]\nname = 'UVM_INITIALIZE'\nset_bits = { field = 'flags', bits = 2 }\n";
    let tables =
        derived(&catalogue, rules, &[compute("uvm = ['UVM_INITIALIZE']")]).expect("tables");
    let row = only_row(&tables);
    assert_eq!(row.status.as_ref().map(|place| place.at), Some(8));
    assert_eq!(
        row.forced_bits
            .as_ref()
            .map(|(place, bits)| (place.at, bits.set, bits.cleared)),
        Some((0, 2, 0))
    );
    assert!(row.may_block);
}

#[test]
fn clients_have_to_be_accounted_for() {
    let mut release = release(1, control(&["NON_PRIVILEGED"]));
    let parameters = Structure {
        size: 24,
        fields: vec![
            field("count", 0, 4, "NvU32"),
            field("hClientTarget", 4, 4, "NvHandle"),
            field("handles", 8, 8, "NvP64"),
        ],
    };
    let name = Rc::from("NV2080_CTRL_LIST_PARAMS");
    release.structures.insert(name, Rc::new(parameters));
    let catalogue = catalogue(vec![release]);
    let policy = [compute("control = ['NV2080_CTRL_CMD_LIST']")];
    let errors = derived(&catalogue, NO_RULES, &policy).expect_err("an error");
    let expected = "NV2080_CTRL_CMD_LIST: has hClientTarget, which looks like a pointer, a descriptor, a client, \
                    a GPU or a process: no rule says what it is (driver 580.01.01)";
    assert_eq!(errors, [expected]);
    let rules = "frontend = []\nclass = []\nuvm = []\n[blocking]\n[[control]]\nname = 'NV2080_CTRL_CMD_LIST'\n\
                 clients = [{ field = 'hClientTarget', absent = 'NV_ERR_INVALID_CLIENT' }]\n\
                 effect = { hold = { field = 'hClientTarget' } }\n";
    let tables = derived(&catalogue, rules, &policy).expect("tables");
    let row = only_row(&tables);
    let [client] = row.clients.as_slice() else {
        panic!("{row:?}");
    };
    assert_eq!((client.place.at, &client.extent), (4, &Extent::One));
    let Some(Effect::Hold(held)) = &row.effect else {
        panic!("{row:?}");
    };
    let held = &held.field;
    assert_eq!((held.place.at, held.stride, held.most), (4, 4, 1));
}

/// A release whose only command takes these fields.
fn with_fields(patch: u8, size: u32, fields: Vec<Field>) -> Release {
    let mut release = release(patch, control(&["NON_PRIVILEGED"]));
    let name = Rc::from("NV2080_CTRL_LIST_PARAMS");
    let parameters = Structure { size, fields };
    release.structures.insert(name, Rc::new(parameters));
    let control = Rc::make_mut(&mut release.controls[0]);
    (control.size, control.copies) = (size, Vec::new());
    release
}

/// A release that calls a field something else, and one whose command takes nothing any more.
#[test]
fn what_a_request_does_has_to_be_known_of_every_release() {
    let with = |patch, name: &str| with_fields(patch, 4, vec![field(name, 0, 4, "NvHandle")]);
    let mut bare = with(3, "hMemory");
    let command = Rc::make_mut(&mut bare.controls[0]);
    (command.structure, command.size) = (None, 0);
    let catalogue = catalogue(vec![with(1, "hMemory"), with(2, "hObject"), bare]);
    let policy = [compute("control = ['NV2080_CTRL_CMD_LIST']")];
    let of = |said: &str| {
        let rule = "frontend = []\nclass = []\nuvm = []\n[blocking]\n[[control]]\nname = 'NV2080_CTRL_CMD_LIST'\n";
        derived(&catalogue, &format!("{rule}{said}"), &policy)
    };
    let lacks = "NV2080_CTRL_CMD_LIST: lacks hMemory, which its rule is about (driver 580.01.02)";
    let without = "NV2080_CTRL_CMD_LIST: has no structure with hMemory, which its rule is about (driver 580.01.03)";
    for (said, expected) in [
        (
            "effect = { hold = { field = 'hMemory' } }",
            &[without, lacks][..],
        ),
        ("set_bits = { field = 'hMemory', bits = 1 }", &[lacks]),
        (
            "memory_list = { field = 'hMemory', count = 'hMemory' }",
            &[lacks],
        ),
        ("variants = { field = 'hMemory', classes = [] }", &[lacks]),
    ] {
        assert_eq!(of(said).expect_err(said), expected, "{said}");
    }
    // What a rule only accounts for may be missing.
    assert!(of("inert = ['hMemory']").is_ok());
}

#[test]
fn gpus_and_processes_have_to_be_accounted_for() {
    let fields = vec![
        field("count", 0, 4, "NvU32"),
        field("gpuId", 4, 4, "NvU32"),
        Field {
            elements: 2,
            ..field("gpuIds", 8, 8, "NvU32")
        },
        field("procId", 16, 4, "NvU32"),
    ];
    let catalogue = catalogue(vec![with_fields(1, 24, fields)]);
    let policy = [compute("control = ['NV2080_CTRL_CMD_LIST']")];
    let errors = derived(&catalogue, NO_RULES, &policy).expect_err("errors");
    let expected = ["gpuId", "gpuIds[]", "procId"].map(|field| {
        format!(
            "NV2080_CTRL_CMD_LIST: has {field}, which looks like a pointer, a descriptor, a client, a GPU or a process: no \
             rule says what it is (driver 580.01.01)"
        )
    });
    assert_eq!(errors, expected);
    let rules = "frontend = []\nclass = []\nuvm = []\n[blocking]\n[[control]]\nname = 'NV2080_CTRL_CMD_LIST'\n\
                 gpus = [{ field = 'gpuId', absent = 'NV_ERR_INVALID_ARGUMENT' }]\n\
                 gpu_lists = [{ field = 'gpuIds', count = 'count', fill = 255 }]\n\
                 cleared = [{ field = 'procId' }]\npassed = [{ field = 'count', most = 2, status = 'NV_ERR_NOT_SUPPORTED' }]\n";
    let tables = derived(&catalogue, rules, &policy).expect("tables");
    let row = only_row(&tables);
    let ([gpu], [list], [cleared], [passed]) = (
        row.gpus.as_slice(),
        row.gpu_lists.as_slice(),
        row.cleared.as_slice(),
        row.passed.as_slice(),
    ) else {
        panic!("{row:?}");
    };
    assert_eq!((gpu.place.at, &gpu.naming), (4, &Naming::Id));
    assert_eq!(
        (list.place.at, list.stride, list.most, list.fill),
        (8, 4, Some(2), 255)
    );
    assert_eq!(
        (cleared.place.at, cleared.length, cleared.count),
        (16, 4, 1)
    );
    assert_eq!(
        (passed.place.at, passed.width, &passed.values),
        (0, 4, &Values::AtMost(2))
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let follows_nothing = Control {
        copies: Vec::new(),
        ..control(&["NON_PRIVILEGED"])
    };
    let counted_otherwise = Control {
        copies: vec![Copy {
            count: Count::Other("pParams->count * 2".into()),
            ..control(&[]).copies[0].clone()
        }],
        ..control(&["NON_PRIVILEGED"])
    };
    let allowed = "control = ['NV2080_CTRL_CMD_LIST']";
    let unused = "frontend = []\nclass = []\nuvm = []\n[blocking]\n[[control]]\nname = 'NV2080_CTRL_CMD_OTHER'\n";
    let misspelt = "frontend = []\nclass = []\nuvm = []\n[blocking]\n[[control]]\nname = 'NV2080_CTRL_CMD_LIST'\n\
                    refused_flags = { field = 'flag', bits = 1, status = 'NV_ERR_NOT_SUPPORTED' }\n";
    for (control, rules, policy, expected) in [
        (
            control(&["NON_PRIVILEGED"]),
            misspelt,
            allowed,
            "the rule for NV2080_CTRL_CMD_LIST is about flag, which no release has",
        ),
        (
            control(&["NON_PRIVILEGED"]),
            NO_RULES,
            "control = ['NV2080_CTRL_CMD_LISP']",
            "the policy names NV2080_CTRL_CMD_LISP, which no release knows",
        ),
        (
            control(&["NON_PRIVILEGED"]),
            unused,
            allowed,
            "the rule for NV2080_CTRL_CMD_OTHER is used by no release",
        ),
        (
            follows_nothing,
            NO_RULES,
            allowed,
            "NV2080_CTRL_CMD_LIST: has handles, which looks like a pointer, a descriptor, a client, a GPU or a process: no rule \
             says what it is (driver 580.01.01)",
        ),
        (
            counted_otherwise,
            NO_RULES,
            allowed,
            "NV2080_CTRL_CMD_LIST: follows handles, counted by `pParams->count * 2`: a rule has to say how long that is \
             (driver 580.01.01)",
        ),
    ] {
        let catalogue = catalogue(vec![release(1, control)]);
        let errors = derived(&catalogue, rules, &[compute(policy)]).expect_err("an error");
        assert_eq!(errors, [expected]);
    }
}

/// An ioctl's words are its number with the sizes of its structures in all releases, and every ioctl has to be spoken of.
#[test]
fn capabilities_are_numbered_from_nought() {
    let named = |numbers: &[(&str, u8)]| {
        let list = |(name, number): &(&str, u8)| {
            let text = format!("number = {number}");
            ((*name).to_owned(), policy::parse(&text).expect("a list"))
        };
        let lists: BTreeMap<String, List> = numbers.iter().map(list).collect();
        let names = policy::in_order(&lists);
        names.map(|names| names.join(","))
    };
    assert_eq!(named(&[("a", 1), ("b", 0)]), Ok("b,a".to_owned()));
    let refused = "the numbers are not those from 0 on, each once, below 8: ";
    for (numbers, said) in [
        ([("a", 0), ("b", 0)], "a = 0, b = 0"),
        ([("a", 2), ("b", 0)], "b = 0, a = 2"),
    ] {
        assert_eq!(named(&numbers), Err(format!("{refused}{said}")));
    }
}

#[test]
fn what_a_capability_adds_to_is_enough_alone() {
    let lists = |texts: [&str; 3]| -> BTreeMap<String, List> {
        let named = ["a", "b", "c"].into_iter().zip(texts);
        let list =
            |(name, text): (&str, &str)| (name.to_owned(), policy::parse(text).expect("a list"));
        named.map(list).collect()
    };
    let foundations = |texts| policy::foundations(&lists(texts), &["a", "b", "c"]);
    assert_eq!(
        foundations(["", "", "adds_to = ['b', 'a']"]),
        Ok(vec![0, 0, 3])
    );
    for (texts, name) in [
        (["", "adds_to = ['a']", "adds_to = ['b']"], "b"),
        (["", "", "adds_to = ['d']"], "d"),
    ] {
        let refused =
            format!("adds_to names '{name}', which is no capability that is enough alone");
        assert_eq!(foundations(texts), Err(refused));
    }
}

#[test]
fn words_are_those_of_all_releases_and_none_is_forgotten() {
    let sized = |patch, size| {
        let mut release = release(patch, control(&["NON_PRIVILEGED"]));
        release.frontend = vec![Rc::new(Ioctl {
            number: 0x4a,
            name: "NV_ESC_RM_VID_HEAP_CONTROL".into(),
        })];
        let fields = Vec::new();
        let structure = Structure { size, fields };
        release
            .structures
            .insert("NVOS32_PARAMETERS".into(), Rc::new(structure));
        release
    };
    let catalogue = catalogue(vec![sized(1, 176), sized(2, 184)]);
    let derived = |said: &str| {
        let rules = format!("{NO_RULES}\n{said}");
        derived(
            &catalogue,
            &rules,
            &[compute("control = ['NV2080_CTRL_CMD_LIST']")],
        )
    };
    let of = |said: &str| {
        derived(&format!(
            "[[intercepted]]\nname = 'NV_ESC_RM_VID_HEAP_CONTROL'\n{said}"
        ))
    };
    let words = of("structures = ['NVOS32_PARAMETERS']")
        .expect("tables")
        .words;
    assert_eq!(Vec::from_iter(words.sized), [0xb0_004a, 0xb8_004a]);
    assert_eq!(Vec::from_iter(words.uvm), [0x3000_0001]);
    let words = of("any_size = true").expect("tables").words;
    assert_eq!(Vec::from_iter(words.any_size), [0x4a]);
    let mistakes = [
        (
            derived(""),
            "nothing says by which sizes the driver reads NV_ESC_RM_VID_HEAP_CONTROL",
        ),
        (
            of("unread = true\nany_size = true"),
            "of NV_ESC_RM_VID_HEAP_CONTROL exactly one of structures, any_size and unread is to be said",
        ),
        (
            of("structures = ['NVOS33_PARAMETERS']"),
            "NV_ESC_RM_VID_HEAP_CONTROL takes NVOS33_PARAMETERS, which no release has",
        ),
        (
            of("unread = true\n[[intercepted]]\nname = 'NV_ESC_NONE'\nunread = true"),
            "NV_ESC_NONE is intercepted, and no release knows it",
        ),
    ];
    for (outcome, mistake) in mistakes {
        assert_eq!(outcome.err(), Some(vec![mistake.to_owned()]));
    }
}
