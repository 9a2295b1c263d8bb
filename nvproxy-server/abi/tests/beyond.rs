//! The threat model's table of what reaches beyond a sandbox, held against the policy and the rules: people read the
//! table, and the server obeys the rules.

use std::collections::BTreeSet;

use nvproxy_abi::Abi;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::table::{Family, Request};

const THREAT_MODEL: &str = include_str!("../../../docs/THREAT_MODEL.md");
const HEADING: &str = "### What reaches beyond the sandbox\n";

/// The requests that the table names, in its order.
fn named() -> Vec<&'static str> {
    let (_, section) = THREAT_MODEL.split_once(HEADING).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    // The first row is the heads of the columns.
    let cells = rows.skip(1).filter_map(|row| row.split(" | ").next());
    cells
        .flat_map(|cell| cell.trim_start_matches("| ").split(", "))
        .collect()
}

/// What some release's policy allows to some sandbox.
fn allowed() -> Vec<&'static Request> {
    let releases = nvproxy_abi::releases();
    let tables = releases.map(|version| Abi::of_release(&version, Capabilities::ALL));
    let tables: Vec<&Abi> = tables.collect::<Result<_, _>>().expect("tables");
    let families = [
        Family::Frontend,
        Family::Control,
        Family::Alloc,
        Family::Uvm,
    ];
    let rows = tables
        .iter()
        .flat_map(|abi| families.map(|family| abi.granted(family)));
    rows.flatten()
        .filter(|row| row.reserved.is_none())
        .collect()
}

#[test]
fn what_the_table_names_is_allowed_and_named_once() {
    let allowed: BTreeSet<&str> = allowed().iter().map(|row| row.name).collect();
    let named = named();
    let unknown = named.iter().filter(|name| !allowed.contains(*name));
    assert_eq!(unknown.collect::<Vec<_>>(), [] as [&&str; 0]);
    let once: BTreeSet<&str> = named.iter().copied().collect();
    assert_eq!(once.len(), named.len());
    assert!(named.len() > 50, "{named:?}");
}

#[test]
fn what_is_checked_pinned_cleared_or_answered_is_in_the_table() {
    let concerns_others = |row: &&Request| {
        !(row.gpus.is_empty()
            && row.gpu_lists.is_empty()
            && row.cleared.is_empty()
            && row.passed.is_empty())
            || row.traits.answered
    };
    let allowed = allowed();
    let rows = allowed.into_iter().filter(concerns_others);
    let rows: BTreeSet<&str> = rows.map(|row| row.name).collect();
    let named: BTreeSet<&str> = named().into_iter().collect();
    let missing: Vec<&&str> = rows.difference(&named).collect();
    assert_eq!(missing, [] as [&&str; 0]);
    assert!(rows.len() > 20, "{rows:?}");
}

/// What is cleared lies in the parameters, never in a buffer that they point to. So each request with such a buffer was
/// looked at: these tell of the GPU that the object is of, of the driver's version, or of the client's own channels,
/// memory and GPUs that it names; NV2080_CTRL_CMD_GPU_EXEC_REG_OPS of counters, and is in the table.
const WITH_BUFFERS: &[&str] = &[
    "NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION",
    "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS",
    "NV0041_CTRL_CMD_GET_SURFACE_INFO",
    "NV0080_CTRL_CMD_FB_GET_CAPS",
    "NV0080_CTRL_CMD_FIFO_GET_CAPS",
    "NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST",
    "NV0080_CTRL_CMD_GPU_GET_CLASSLIST",
    "NV0080_CTRL_CMD_GR_GET_CAPS",
    "NV0080_CTRL_CMD_GR_GET_INFO",
    "NV0080_CTRL_CMD_HOST_GET_CAPS",
    "NV0080_CTRL_CMD_MSENC_GET_CAPS",
    "NV2080_CTRL_CMD_BIOS_GET_INFO",
    "NV2080_CTRL_CMD_BUS_GET_INFO",
    "NV2080_CTRL_CMD_FB_GET_INFO",
    "NV2080_CTRL_CMD_GPU_EXEC_REG_OPS",
    "NV2080_CTRL_CMD_GPU_GET_ENGINES",
    "NV2080_CTRL_CMD_GPU_GET_INFO",
    "NV2080_CTRL_CMD_GR_GET_INFO",
    "NV83DE_CTRL_CMD_DEBUG_READ_MEMORY",
    "NV83DE_CTRL_CMD_DEBUG_WRITE_MEMORY",
    "NV_ESC_RM_ALLOC",
    "NV_ESC_RM_CONTROL",
    "NV_ESC_RM_GET_EVENT_DATA",
    "NV_ESC_RM_IDLE_CHANNELS",
];

#[test]
fn what_answers_behind_a_pointer_was_looked_at() {
    let allowed = allowed().into_iter();
    let with_buffers = allowed.filter(|row| !row.pointers.is_empty());
    let with_buffers: BTreeSet<&str> = with_buffers.map(|row| row.name).collect();
    let looked_at: BTreeSet<&str> = WITH_BUFFERS.iter().copied().collect();
    let new: Vec<&&str> = with_buffers.difference(&looked_at).collect();
    assert_eq!(new, [] as [&&str; 0], "look at what they answer");
    let gone: Vec<&&str> = looked_at.difference(&with_buffers).collect();
    assert_eq!(gone, [] as [&&str; 0], "no release allows them");
}
