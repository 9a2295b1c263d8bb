//! Releases of the driver: what is said of them, which of them are served, and what a sandbox may ask of one.

use std::process::{Command, Stdio};

use serde_json::Value;
use userland_tests::{Ended, finish, guest_with, ringfence_program, ringfence_run};

/// `ringfence ARGUMENTS…`
fn ringfence(arguments: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    finish(command.args(arguments).stdin(Stdio::null()))
}

fn json(arguments: &[&str]) -> Value {
    let ended = ringfence(arguments);
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// What changed about a structure between two releases.
fn changes<'a>(differences: &'a Value, structure: &str) -> Option<&'a Value> {
    let changes = differences["structures"].as_array().expect("a list");
    changes.iter().find(|change| change["name"] == structure)
}

/// The newest release that has tables.
fn last_release() -> String {
    let last = nvproxy_abi::releases().last().expect("releases");
    last.to_string()
}

#[test]
fn every_release_of_the_drivers_source_is_listed() {
    let versions = ringfence(&["nvproxy", "list-supported-drivers"]);
    let versions: Vec<&str> = versions.stdout.lines().collect();
    let known: Vec<String> = nvproxy_abi::releases()
        .map(|version| version.to_string())
        .collect();
    assert_eq!(versions, known);
    assert!(versions.contains(&"515.43.04") && versions.contains(&"595.45.04"));
    let listed = json(&["drivers", "list", "--json"]);
    let listed = listed.as_array().expect("a list");
    let is_exact = |version: &&str| {
        let entry = listed.iter().find(|entry| entry["version"] == **version);
        entry.is_some_and(|entry| entry["tables"] == "exact")
    };
    assert!(versions.iter().all(is_exact));
    let table = ringfence(&["drivers", "list"]).stdout;
    assert!(table.contains("580.142       580     exact"), "{table}");
}

#[test]
fn differences_are_what_changed_and_nothing_else() {
    let differences = json(&["drivers", "diff", "570.86.15", "580.65.06", "--json"]);
    let vaspace = changes(&differences, "NV_VASPACE_ALLOCATION_PARAMETERS").expect("a change");
    assert_eq!(
        vaspace["details"],
        serde_json::json!(["bytes: 48 -> 56", "+ pasid (at 48, 4 bytes, NvU32)"])
    );
    let mapping = changes(&differences, "NVOS46_PARAMETERS").expect("a change");
    assert_eq!(
        mapping["details"],
        serde_json::json!([
            "bytes: 56 -> 64",
            "~ dmaOffset (at 40, 8 bytes, NvU64 -> at 48, 8 bytes, NvU64)",
            "~ status (at 48, 4 bytes, NvV32 -> at 56, 4 bytes, NvV32)",
            "+ flags2 (at 36, 4 bytes, NvV32)",
            "+ kindOverride (at 40, 4 bytes, NvV32)"
        ])
    );
    // These have the same layout in both.
    for unchanged in [
        "NVOS54_PARAMETERS",
        "NVOS64_PARAMETERS",
        "NVOS47_PARAMETERS",
    ] {
        assert_eq!(changes(&differences, unchanged), None);
    }
    let same = ringfence(&["drivers", "diff", "580.142", "580.142"]);
    assert_eq!(
        same,
        Ended::printing(
            "580.142 -> 580.142\n\nrequests: 0 added, 0 removed, 0 changed\n\nstructures: 0 added, 0 removed, 0 changed\n"
        )
    );
}

#[test]
fn layouts_are_shown() {
    let layout = "NVOS47_PARAMETERS: 48 bytes\n\
                  \x20      0       4  hClient    NvHandle\n\
                  \x20      4       4  hDevice    NvHandle\n\
                  \x20      8       4  hDma       NvHandle\n\
                  \x20     12       4  hMemory    NvHandle\n\
                  \x20     16       4  flags      NvV32\n\
                  \x20     24       8  dmaOffset  NvU64\n\
                  \x20     32       8  size       NvU64\n\
                  \x20     40       4  status     NvV32\n";
    assert_eq!(
        ringfence(&["drivers", "show", "580.142", "NVOS47_PARAMETERS"]),
        Ended::printing(layout)
    );
    let by_name = ["drivers", "show", "580.142", "NV_ESC_RM_UNMAP_MEMORY_DMA"];
    let request = format!(
        "ioctl 0x58 NV_ESC_RM_UNMAP_MEMORY_DMA: parameters of 48 bytes\n\
         capabilities that allow it: graphics, video\n\n{layout}"
    );
    assert_eq!(ringfence(&by_name), Ended::printing(&request));
    let all = ringfence(&["drivers", "show", "580.142"]).stdout;
    let has = |line: &str| all.lines().any(|other| other == line);
    assert!(has(
        "ioctl            0x00000058      48  NV_ESC_RM_UNMAP_MEMORY_DMA  graphics,video"
    ));
    assert!(has(
        "ioctl            0x00000028       ?  NV_ESC_RM_ALLOC_OBJECT  no capability"
    ));
    let missing = "ringfence: driver 580.142 has no request or structure 'NVOS99': ringfence drivers show 580.142 \
                   lists its requests";
    assert_eq!(
        ringfence(&["drivers", "show", "580.142", "NVOS99"]),
        Ended::failing(125, missing)
    );
}

#[test]
fn what_is_no_version_is_refused() {
    let digits = "9".repeat(4096);
    // An option's value is cut where every argument is.
    let cut = format!("{}...", &digits[..200]);
    for (text, shown, of_option) in [
        ("999.1", "999.1", "999.1"),
        ("580", "580", "580"),
        ("abc", "abc", "abc"),
        ("", "", ""),
        (&digits, &digits[..40], &cut),
    ] {
        let reason = "not a driver version: expected digits as in 580.142 or 580.159.04";
        let expected = Ended::failing(125, &format!("ringfence: '{shown}': {reason}"));
        assert_eq!(ringfence(&["drivers", "show", text]), expected);
        assert_eq!(ringfence(&["drivers", "diff", "580.142", text]), expected);
        let run = finish(ringfence_run(&["--driver-abi", text]).arg("true"));
        let line = format!(
            "ringfence: invalid value '{of_option}' for '--driver-abi <VERSION>': {reason}"
        );
        assert_eq!(run, Ended::failing(125, &line));
    }
}

#[test]
fn a_release_of_an_unknown_branch_is_refused() {
    let last = last_release();
    let refused = format!(
        "ringfence: the tables do not have NVIDIA driver 999.10, and no release of the 999 branch: the nearest \
         that they have is {last}; --driver-abi {last} treats the driver as that one"
    );
    let run = finish(ringfence_run(&["--driver-abi", "999.10"]).arg("true"));
    assert_eq!(run, Ended::failing(125, &refused));
}

#[test]
fn a_refusal_offers_only_what_its_command_has() {
    let refused = format!(
        "ringfence: the tables do not have NVIDIA driver 999.10, and no release of the 999 branch: the nearest \
         that they have is {}",
        last_release()
    );
    let shown = ringfence(&["drivers", "show", "999.10"]);
    assert_eq!(shown, Ended::failing(125, &refused));
}

#[test]
fn the_simulator_refuses_branches_that_it_does_not_imitate() {
    let refused = "ringfence: the server refused the channel: the simulator: it imitates releases of the 580 branch, and \
                   570.86.15 is none: name one that is";
    let run = finish(ringfence_run(&["--driver-abi", "570.86.15"]).arg("true"));
    assert_eq!(run, Ended::failing(125, refused));
}

#[test]
fn a_release_that_is_inferred_is_served_with_one_warning() {
    // NVIDIA published none between its two neighbours.
    let run = finish(ringfence_run(&["--driver-abi", "580.130"]).arg("true"));
    let warning = " WARN the tables do not have NVIDIA driver 580.130: using those of 580.126.20, since 580.126.20 and \
                   580.142 agree in everything that is allowed";
    assert_eq!(run, Ended::failing(0, warning));
}

/// A release serves them without an entry in its tables, or only the GPU's firmware knows them.
#[test]
fn requests_that_the_drivers_tables_lack_are_shown_as_they_are_served() {
    let show = |request: &str| ringfence(&["drivers", "show", "580.142", request]);
    let converted = "control command 0x20801802 NV2080_CTRL_CMD_BUS_GET_INFO: parameters of 16 bytes\n\
                     capabilities that allow it: compute, utility, video\n\
                     the driver's tables do not have it: it converts it to a newer command\n\n\
                     NV2080_CTRL_BUS_GET_INFO_PARAMS: 16 bytes\n\
                     \x20      0       4  busInfoListSize  NvU32\n\
                     \x20      8       8  busInfoList      NvP64\n";
    for request in ["NV2080_CTRL_CMD_BUS_GET_INFO", "0x20801802", "545265666"] {
        assert_eq!(show(request), Ended::printing(converted));
    }
    let unlisted = "control command 0x80028b (not in the public headers): parameters of 1 bytes\n\
                    capabilities that allow it: compute, utility\n\
                    the driver's published source does not have it\n";
    assert_eq!(show("0x0080028b"), Ended::printing(unlisted));
    let all = ringfence(&["drivers", "show", "580.142"]).stdout;
    let line =
        "control command  0x20801802      16  NV2080_CTRL_CMD_BUS_GET_INFO  compute,utility,video";
    assert!(all.lines().any(|other| other == line), "{all}");
    let refused = "ringfence: driver 580.142 has no request or structure '0x20807fff': a program that asks for it is refused";
    assert_eq!(show("0x20807fff"), Ended::failing(125, refused));
}

/// How long the parameters of one are is known of the branch in which it was recorded.
#[test]
fn commands_of_the_firmwares_are_shown_as_they_are_passed() {
    let show = |release: &str, request: &str| ringfence(&["drivers", "show", release, request]);
    let expect = |release: &str, request: &str, size: &str, capabilities: &str, remark: &str| {
        let expected = format!(
            "control command {request} (not in the public headers): parameters of {size}\n\
             capabilities that allow it: {capabilities}\n{remark}\n"
        );
        assert_eq!(show(release, request), Ended::printing(&expected));
    };
    let bounded = "at most 262144 bytes";
    let listed = "the driver's tables do not have it: it hands it to the GPU's firmware as it is";
    expect("580.142", "0x20808159", "332 bytes", "compute", listed);
    expect("535.54.03", "0x20808159", bounded, "compute", listed);
    expect("595.45.04", "0x20808165", "1 bytes", "video", listed);
    expect("580.142", "0x20808165", bounded, "video", listed);
    let by_rule = "no list has it: it is passed as one of the firmware's own, but with --firmware-commands listed";
    for release in ["580.142", "535.54.03"] {
        for request in ["0x2080a06d", "0x20810107"] {
            expect(release, request, bounded, "compute, utility", by_rule);
        }
    }
    // One for administrators, and one for which another release has an entry.
    for request in ["0x2080ca06", "0x2080a083"] {
        let refused = format!(
            "ringfence: driver 580.142 has no request or structure '{request}': a program that asks for it is refused"
        );
        assert_eq!(show("580.142", request), Ended::failing(125, &refused));
    }
}

/// Its structure grew in 535. Before 545 the header that has it is the kernel module's alone.
#[test]
fn every_release_tells_of_memory_that_is_the_hosts() {
    for (release, bytes) in [
        ("515.43.04", 552),
        ("530.41.03", 552),
        ("535.43.02", 560),
        ("580.142", 560),
    ] {
        let shown = json(&["drivers", "show", release, "NV_ESC_NUMA_INFO", "--json"]);
        let request = &shown["request"];
        assert_eq!(
            (&request["number"], &request["size"]),
            (&Value::from(0xd7), &Value::from(bytes)),
            "{release}"
        );
        assert_eq!(
            request["capabilities"],
            serde_json::json!(["compute", "utility"])
        );
    }
    let lacks = |version: &nvproxy_abi::version::DriverVersion| {
        let abi =
            nvproxy_abi::Abi::new(version, nvproxy_abi::policy::Capabilities::ALL).expect("tables");
        abi.frontend(0xd7, 552).is_err() && abi.frontend(0xd7, 560).is_err()
    };
    let lacking: Vec<_> = nvproxy_abi::releases().filter(lacks).collect();
    assert_eq!(lacking, []);
}

/// Nothing could be asked of the driver.
#[test]
fn capabilities_that_add_to_others_are_refused_without_them() {
    for (list, name, others, first) in [
        ("graphics", "graphics", "compute", "compute"),
        ("utility,video", "video", "compute", "compute"),
        ("display", "display", "compute or utility", "compute"),
    ] {
        let run = |list: &str| finish(ringfence_run(&["--driver-capabilities", list]).arg("true"));
        let line = format!(
            "ringfence: --driver-capabilities {list}: {name} adds to {others} and is of no use without: write {first},{list}"
        );
        assert_eq!(run(list), Ended::failing(125, &line));
        assert_eq!(run(&format!("{first},{list}")), Ended::printing(""));
    }
}

#[test]
fn a_sandbox_gets_what_its_capabilities_allow() {
    let walk = |capabilities: &str| {
        finish(&mut guest_with(
            &["--driver-capabilities", capabilities],
            &["walk"],
        ))
    };
    assert_eq!(walk("compute").status, 0);
    assert_eq!(walk("all").status, 0);
    let refused = walk("utility");
    assert_eq!(refused.status, 1);
    assert_eq!(
        refused.stderr,
        " WARN nvproxy: class 0x40 (NV01_MEMORY_LOCAL_USER) needs a capability that the sandbox lacks: compute\n\
         guest: walk: NV_ERR_INVALID_CLASS\n"
    );
}
