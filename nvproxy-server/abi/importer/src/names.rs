//! What the SDK's headers call the control commands.
//!
//! Another generator of NVIDIA's (FINN) writes a macro for each command, with the expression that it computed the number
//! from: `#define NV2080_CTRL_CMD_X (0x20800102U) /* finn: Evaluated from "(FINN_..._INTERFACE_ID << 8) | ..." */`.
//! The comment tells commands from all the other macros that happen to have such a value.

use std::collections::BTreeMap;

use crate::compiler::SDK;
use crate::error::Error;
use crate::source::Tree;

/// The name of each command that has one.
pub fn command_names(tree: &Tree) -> Result<BTreeMap<u32, String>, Error> {
    let mut candidates: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for path in tree.files(&format!("{SDK}/ctrl"), |name| name.ends_with(".h"))? {
        for (id, name) in commands(&tree.read(&path)?) {
            candidates.entry(id).or_default().push(name.to_owned());
        }
    }
    Ok(candidates
        .into_iter()
        .filter_map(|(id, names)| Some((id, best(id, names)?)))
        .collect())
}

/// The macros of a header that stand for commands.
fn commands(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("#define")?.trim_start().split_once(' ')?;
        let (value, comment) = rest.split_once("/* finn: Evaluated from")?;
        if !comment.contains("_INTERFACE_ID << 8") || name.ends_with("_MESSAGE_ID") {
            return None;
        }
        let value = value.trim().trim_matches(['(', ')']).trim_end_matches('U');
        let id = u32::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
        Some((id, name))
    })
}

/// Of several names the one of the command's own class, then one with `_CTRL_CMD_`, then the shortest, then the first
/// in alphabetical order.
fn best(id: u32, names: Vec<String>) -> Option<String> {
    let class = format!("NV{:04X}_CTRL_", id >> 16);
    names.into_iter().min_by_key(|name| {
        (
            !name.starts_with(&class),
            !name.contains("_CTRL_CMD_"),
            name.len(),
            name.clone(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_are_taken() {
        let header = r#"
#define NV2080_CTRL_CMD_GPU_GET_INFO_V2 (0x20800102U) /* finn: Evaluated from "(FINN_NV20_SUBDEVICE_0_GPU_INTERFACE_ID << 8) | 0x02" */
#define NV5080_CTRL_CMD_DEFERRED_API (0x50800101) /* finn: Evaluated from "(FINN_NV50_DEFERRED_INTERFACE_ID << 8) | X_MESSAGE_ID" */
#define NV0050_CTRL_CMD_MEMCOPY           (0x500102U) /* finn: Evaluated from "(FINN_NV_CE_UTILS_UTILS_INTERFACE_ID << 8 | X_MESSAGE_ID)" */
#define NV2080_CTRL_GPU_GET_INFO_V2_PARAMS_MESSAGE_ID (0x2U)
#define NV2080_CTRL_GPU_INFO_MAX (0x00000041U) /* finn: Evaluated from "NV2080_CTRL_GPU_INFO_INDEX" */
#define NV2080_CTRL_OTHER (0x20800103U)
"#;
        let found: Vec<_> = commands(header).collect();
        assert_eq!(
            found,
            [
                (0x20800102, "NV2080_CTRL_CMD_GPU_GET_INFO_V2"),
                (0x50800101, "NV5080_CTRL_CMD_DEFERRED_API"),
                (0x500102, "NV0050_CTRL_CMD_MEMCOPY"),
            ]
        );
    }

    #[test]
    fn the_best_name_does_not_depend_on_the_order() {
        let names = [
            "NV2080_CTRL_GPU_A",
            "NV2080_CTRL_CMD_GPU_LONGER",
            "NV2080_CTRL_CMD_GPU_B",
            "NV2080_CTRL_CMD_GPU_A",
            "NV0080_CTRL_CMD_A",
        ]
        .map(str::to_owned);
        let mut reversed = names.clone();
        reversed.reverse();
        for names in [names, reversed] {
            assert_eq!(
                best(0x20800102, names.into()).as_deref(),
                Some("NV2080_CTRL_CMD_GPU_A")
            );
        }
        assert_eq!(best(0x20800102, Vec::new()), None);
    }
}
