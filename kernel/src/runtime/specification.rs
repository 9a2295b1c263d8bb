//! The specification of a container: the `config.json` of its bundle.
//!
//! The idea: it is kept as JSON, and never as types of our own. Engines write fields that came later than any type
//! here, and they have to reach the low-level runtime. The functions read what the front asks about, and take what has
//! an unexpected form for absent: the low-level runtime says what is wrong with it.
//!
//! The engine writes the file, and is trusted. So a name is looked for as the OCI specification writes it, and once,
//! although runc takes `LINUX` for `linux`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ringfence_sentry::failure::Failure;
use serde_json::Value;

/// The lists of `hooks`, all that there are.
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A specification, as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Specification(pub Value);

impl Specification {
    /// Reads the file at `path`. `None` if there is none, or none that can be read: then the low-level runtime says so. What
    /// that might understand and this does not is refused, since it could hold GPUs.
    pub fn read(path: &Path) -> Result<Option<Specification>, Failure> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if is_for_low_level(error.kind()) => return Ok(None),
            Err(error) => {
                return Err(Failure::setup(format!(
                    "specification {}: {error}",
                    path.display()
                )));
            }
        };
        let value = serde_json::from_slice(&text).map_err(|error| {
            Failure::setup(format!(
                "specification {}: it is no JSON: {error}: have the engine write it again",
                path.display()
            ))
        })?;
        Ok(Some(Specification(value)))
    }

    fn list(&self, pointer: &str) -> &[Value] {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// `linux.devices`: nodes that are made in the container.
    pub fn devices(&self) -> &[Value] {
        self.list("/linux/devices")
    }

    /// `linux.resources.devices`: which devices the container's cgroup lets it open, the last rule that fits.
    pub fn device_rules(&self) -> &[Value] {
        self.list("/linux/resources/devices")
    }

    /// `mounts`
    pub fn mounts(&self) -> &[Value] {
        self.list("/mounts")
    }

    /// `linux.namespaces`
    pub fn namespaces(&self) -> &[Value] {
        self.list("/linux/namespaces")
    }

    /// The names of the capabilities that the container can ever have.
    pub fn bounding_capabilities(&self) -> impl Iterator<Item = &str> {
        let names = self.list("/process/capabilities/bounding");
        names.iter().filter_map(Value::as_str)
    }

    /// The hooks of all lists.
    pub fn hooks(&self) -> impl Iterator<Item = &Value> {
        let lists = HOOKS.iter();
        lists.flat_map(|list| self.list(&format!("/hooks/{list}")))
    }

    /// The variables of the program's environment: name and value, in their order.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.list("/process/env").iter();
        variables.filter_map(|variable| variable.as_str()?.split_once('='))
    }
}

fn is_for_low_level(kind: ErrorKind) -> bool {
    use ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(
        kind,
        NotFound | NotADirectory | PermissionDenied | IsADirectory
    )
}

/// A text that an object has.
pub fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

/// A device's number that an object has. Engines write -1 for any.
pub fn number(object: &Value, name: &str) -> Option<u32> {
    object.get(name)?.as_u64()?.try_into().ok()
}

/// The bundle that a container was made from, as its state names it (`state` in the OCI specification).
pub fn bundle_of(state: &Value) -> Option<PathBuf> {
    text(state, "bundle").map(PathBuf::from)
}
