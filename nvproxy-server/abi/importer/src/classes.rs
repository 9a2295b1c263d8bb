//! The classes that clients can allocate: `src/nvidia/src/kernel/rmapi/resource_list.h`.
//!
//! The file is a list of `RS_ENTRY(...)`, made to be included with a definition of that macro for the purpose at hand.
//! Ours has the preprocessor write the arguments out as strings.

use crate::compiler::Compiler;
use crate::error::Error;

const LIST: &str = "src/nvidia/src/kernel/rmapi/resource_list.h";
const ENTRY: &str = "RINGFENCE_CLASS";
const DEFINITIONS: &str = "#define RS_ENTRY(external, internal, instances, parents, parameters, priority, flags, access) \
    RINGFENCE_CLASS #external #internal #parameters #flags #access";

/// A class as the list has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedClass {
    /// The macro of its number.
    pub name: String,
    pub internal: String,
    /// The type of the parameters and whether they are required; `None` if there are none.
    pub parameters: Option<(String, bool)>,
    /// Names without `RS_FLAGS_`, sorted.
    pub flags: Vec<String>,
    pub access: String,
}

/// Every class of the list.
pub fn listed_classes(compiler: &Compiler<'_>) -> Result<Vec<ListedClass>, Error> {
    let text = compiler.preprocess_file(LIST, DEFINITIONS)?;
    parse(&text).map_err(|error| error.within(LIST))
}

fn parse(text: &str) -> Result<Vec<ListedClass>, Error> {
    text.split(ENTRY)
        .skip(1)
        .map(|entry| {
            class(entry).ok_or_else(|| {
                Error::new(format!(
                    "an RS_ENTRY is not of the known form; nvproxy-abi-importer's reader (classes.rs) has to learn \
                     it: {}",
                    entry.trim()
                ))
            })
        })
        .collect()
}

/// Five strings.
fn class(entry: &str) -> Option<ListedClass> {
    let strings: Vec<&str> = entry.trim().split('"').collect();
    let [
        "",
        name,
        between,
        internal,
        _,
        parameters,
        _,
        flags,
        _,
        access,
        "",
    ] = strings[..]
    else {
        return None;
    };
    if !between.trim().is_empty() {
        return None;
    }
    let inside = |prefix| parameters.strip_prefix(prefix)?.strip_suffix(')');
    let parameters = match (inside("RS_REQUIRED("), inside("RS_OPTIONAL(")) {
        (Some(name), _) => Some((name.trim().to_owned(), true)),
        (_, Some(name)) => Some((name.trim().to_owned(), false)),
        _ if parameters == "RS_NONE" => None,
        _ => return None,
    };
    let mut flags = flags
        .split('|')
        .map(|flag| flag.trim().strip_prefix("RS_FLAGS_"))
        .collect::<Option<Vec<&str>>>()?;
    flags.retain(|flag| *flag != "NONE");
    flags.sort_unstable();
    flags.dedup();
    Some(ListedClass {
        name: name.to_owned(),
        internal: internal.to_owned(),
        parameters,
        flags: flags.into_iter().map(str::to_owned).collect(),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let text = r#"
RINGFENCE_CLASS "NV01_ROOT" "RmClientResource" "RS_OPTIONAL(NvHandle)" "RS_FLAGS_B | RS_FLAGS_A" "RS_ACCESS_NONE"
RINGFENCE_CLASS "MPS_COMPUTE" "MpsApi" "RS_NONE" "RS_FLAGS_NONE" "RS_ACCESS_NONE"
"#;
        let classes = parse(text).expect("entries");
        assert_eq!(
            classes,
            [
                ListedClass {
                    name: "NV01_ROOT".to_owned(),
                    internal: "RmClientResource".to_owned(),
                    parameters: Some(("NvHandle".to_owned(), false)),
                    flags: vec!["A".to_owned(), "B".to_owned()],
                    access: "RS_ACCESS_NONE".to_owned(),
                },
                ListedClass {
                    name: "MPS_COMPUTE".to_owned(),
                    internal: "MpsApi".to_owned(),
                    parameters: None,
                    flags: Vec::new(),
                    access: "RS_ACCESS_NONE".to_owned(),
                },
            ]
        );
    }

    #[test]
    fn another_form_is_an_error() {
        for entry in [
            r#"RINGFENCE_CLASS "A" "B" "RS_SOMETHING(C)" "RS_FLAGS_A" "D""#,
            r#"RINGFENCE_CLASS "A" "B" "RS_NONE" "0x4" "D""#,
            r#"RINGFENCE_CLASS "A" "B" "RS_NONE" "RS_FLAGS_A""#,
        ] {
            assert!(parse(entry).is_err(), "{entry}");
        }
    }
}
