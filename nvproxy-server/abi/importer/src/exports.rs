//! The control commands that the driver exports: the tables in `src/nvidia/generated/g_*_nvoc.c`.
//!
//! NVIDIA's generator (NVOC) writes one entry for each command and internal class, always in the same form. The scanner
//! takes that form only, and the number of entries is checked against the number of `methodId=` in the file, so that a
//! change of the form is an error and never a missing command.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::source::Tree;

const DIRECTORY: &str = "src/nvidia/generated";

/// One exported control command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Export {
    pub id: u32,
    /// The bits, whose meaning differs between releases.
    pub flags: u32,
    pub access_rights: u32,
    /// The type of the parameters; `None` if there are none.
    pub parameters: Option<String>,
    pub method: String,
}

/// Every control command of a release, by number.
///
/// A command that several internal classes implement is listed once, with the method that is first in alphabetical
/// order.
///
/// # Errors
/// A table is not of the known form, or two internal classes disagree on a command's flags or parameters.
pub fn exports(tree: &Tree) -> Result<BTreeMap<u32, Export>, Error> {
    let mut exports: BTreeMap<u32, Export> = BTreeMap::new();
    let is_table = |name: &str| name.starts_with("g_") && name.ends_with("_nvoc.c");
    for path in tree.files(DIRECTORY, is_table)? {
        let table = scan(&tree.read(&path)?).map_err(|error| error.within(&path))?;
        for export in table {
            let Some(known) = exports.get_mut(&export.id) else {
                exports.insert(export.id, export);
                continue;
            };
            let method = known.method.clone().min(export.method.clone());
            let agreed = Export {
                method: known.method.clone(),
                ..export.clone()
            } == *known;
            if !agreed {
                return Err(Error::new(format!(
                    "{path}: control command {:#x} is exported twice and not alike: {known:?} and {export:?}. The \
                     catalogue has one entry for a command: decide which of them a client meets",
                    export.id
                )));
            }
            known.method = method;
        }
    }
    Ok(exports)
}

/// The entries of one file, in its order.
fn scan(text: &str) -> Result<Vec<Export>, Error> {
    let entries = text
        .split("/*flags=*/")
        .skip(1)
        .map(|entry| {
            let mut cursor = Cursor { rest: entry };
            cursor.entry().ok_or_else(|| {
                let start: String = entry.chars().take(200).collect();
                Error::new(format!(
                    "an entry is not of the known form; nvproxy-abi-importer's scanner (exports.rs) has to learn it: \
                     /*flags=*/{start}"
                ))
            })
        })
        .collect::<Result<Vec<Export>, Error>>()?;
    let expected = text.matches("methodId=").count();
    if entries.len() != expected {
        return Err(Error::new(format!(
            "found {} entries, but the file has {expected} of methodId=",
            entries.len()
        )));
    }
    Ok(entries)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// What follows `/*flags=*/`.
    fn entry(&mut self) -> Option<Export> {
        let flags = self.number()?;
        self.expect(",")?;
        self.expect("/*accessRight=*/")?;
        let access_rights = self.number()?;
        self.expect(",")?;
        self.expect("/*methodId=*/")?;
        let id = self.number()?;
        self.expect(",")?;
        self.expect("/*paramSize=*/")?;
        let parameters = if self.expect("sizeof(").is_some() {
            let name = self.identifier()?.to_owned();
            self.expect(")")?;
            Some(name)
        } else {
            self.expect("0")?;
            // The generator remarks on commands whose parameters are a single value that it dropped.
            let _ = self.expect("/* Singleton parameter list */");
            None
        };
        self.expect(",")?;
        self.expect("/*pClassInfo=*/")?;
        let (_, rest) = self.rest.split_once(",")?;
        self.rest = rest;
        self.expect("#if NV_PRINTF_STRINGS_ALLOWED")?;
        self.expect("/*func=*/")?;
        self.expect("\"")?;
        let method = self.identifier()?.to_owned();
        self.expect("\"")?;
        Some(Export {
            id,
            flags,
            access_rights,
            parameters,
            method,
        })
    }

    /// Goes past white space and this text.
    fn expect(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(text)?;
        Some(())
    }

    /// A hexadecimal number as in `0x50au`.
    fn number(&mut self) -> Option<u32> {
        self.expect("0x")?;
        let digits = self.take(|character| character.is_ascii_hexdigit());
        self.rest = self.rest.strip_prefix('u')?;
        u32::from_str_radix(digits, 16).ok()
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let name = self.take(|character| character.is_ascii_alphanumeric() || character == '_');
        (!name.is_empty()).then_some(name)
    }

    fn take(&mut self, accepts: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !accepts(character));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
    {               /*  [0] */
        /*pFunc=*/      (void (*)(void)) &subdeviceCtrlCmdGpuGetInfoV2_IMPL,
        /*flags=*/      0x50au,
        /*accessRight=*/0x2u,
        /*methodId=*/   0x20800102u,
        /*paramSize=*/  sizeof(NV2080_CTRL_GPU_GET_INFO_V2_PARAMS),
        /*pClassInfo=*/ &(__nvoc_class_def_Subdevice.classInfo),
#if NV_PRINTF_STRINGS_ALLOWED
        /*func=*/       "subdeviceCtrlCmdGpuGetInfoV2"
#endif
    },
    {               /*  [1] */
        /*flags=*/      0x0u,
        /*accessRight=*/0x0u,
        /*methodId=*/   0xff80u,
        /*paramSize=*/  0 /* Singleton parameter list */,
        /*pClassInfo=*/ &(__nvoc_class_def_Subdevice.classInfo),
#if NV_PRINTF_STRINGS_ALLOWED
        /*func=*/       "subdeviceCtrlCmdNothing"
#endif
    },
"#;

    #[test]
    fn a_table_is_read() {
        assert_eq!(
            scan(TABLE).expect("a table"),
            [
                Export {
                    id: 0x20800102,
                    flags: 0x50a,
                    access_rights: 2,
                    parameters: Some("NV2080_CTRL_GPU_GET_INFO_V2_PARAMS".to_owned()),
                    method: "subdeviceCtrlCmdGpuGetInfoV2".to_owned(),
                },
                Export {
                    id: 0xff80,
                    flags: 0,
                    access_rights: 0,
                    parameters: None,
                    method: "subdeviceCtrlCmdNothing".to_owned(),
                },
            ]
        );
    }

    #[test]
    fn another_form_is_an_error_and_no_missing_entry() {
        for (from, to) in [
            ("0x50au", "0x50a"),
            ("sizeof(", "size("),
            ("0 /* Singleton parameter list */", "1"),
            ("/*accessRight=*/0x2u", "/*rights=*/0x2u"),
            ("/*flags=*/      0x0u", "/*Flags=*/      0x0u"),
            ("\"subdeviceCtrlCmdNothing\"", "\"\""),
        ] {
            let altered = TABLE.replacen(from, to, 1);
            assert_ne!(altered, TABLE);
            assert!(scan(&altered).is_err(), "{to}");
        }
    }
}
