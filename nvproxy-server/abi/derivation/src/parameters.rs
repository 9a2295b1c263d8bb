//! Reading one request's structure: where its fields are, and which of them somebody has to account for.

use nvproxy_abi_catalogue::{Field, Release, Structure};

use crate::rows::Place;

/// The parameters of one request in one release.
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    pub release: &'a Release,
    pub structure: &'a str,
}

/// A field of a structure, or of every element of an array in it: bytes, of which there are `size` at each of `count` places.
#[derive(Clone, Copy)]
pub struct Elements {
    pub at: u32,
    pub size: u32,
    pub stride: u32,
    pub count: u32,
}

impl<'a> Parameters<'a> {
    /// Bytes, if the release has the structure.
    pub fn size(&self) -> Option<u32> {
        self.release
            .structures
            .get(self.structure)
            .map(|structure| structure.size)
    }

    /// The field at `path` and its length in bytes, if this release's structure has it.
    pub fn place(&self, path: &str) -> Option<(Place, u32)> {
        let located = self.release.locate(self.structure, path)?;
        let at = u16::try_from(located.offset).ok()?;
        let path = path.to_owned();
        Some((Place { path, at }, located.size))
    }

    /// The same, of a field that this release's structure has to have.
    pub fn required(&self, path: &str) -> Result<(Place, u32), String> {
        self.place(path)
            .ok_or_else(|| format!("lacks {path}, which its rule is about"))
    }

    /// The field at `path`, or, where it leads through an array (`samples[].procId`), the field in each of its elements.
    pub fn elements(&self, path: &str) -> Option<Elements> {
        let Some((array, field)) = path.split_once("[].") else {
            let located = self.release.locate(self.structure, path)?;
            return Some(Elements {
                at: located.offset,
                size: located.size,
                stride: located.size,
                count: 1,
            });
        };
        let array = self.release.locate(self.structure, array)?;
        let stride = self.release.structures.get(&array.type_name)?.size;
        let field = self.release.locate(&array.type_name, field)?;
        Some(Elements {
            at: array.offset.checked_add(field.offset)?,
            size: field.size,
            stride,
            count: array.size.checked_div(stride)?,
        })
    }

    /// Whether this release's structure has a field at `path`, be it one in an array.
    pub fn has(&self, path: &str) -> bool {
        self.elements(path).is_some() || self.references().iter().any(|known| known == path)
    }

    /// Where the driver writes its NV_STATUS: the field that is called so in every ioctl that has one.
    pub fn status(&self) -> Option<Place> {
        ["status", "Status", "rmStatus", "params.status"]
            .into_iter()
            .find_map(|path| self.place(path))
            .filter(|(_, size)| *size == 4)
            .map(|(place, _)| place)
    }

    /// Paths of the fields that may refer to something outside the parameters: pointers, descriptor numbers, handles of
    /// clients, GPUs and processes, by their types and names. Those in elements of an array have no place of their own; their paths hold `[]`.
    pub fn references(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(structure) = self.release.structures.get(self.structure) {
            self.collect(structure, "", &mut found);
        }
        found
    }

    fn collect(&self, structure: &Structure, prefix: &str, found: &mut Vec<String>) {
        for field in &structure.fields {
            let index = if field.elements == 1 { "" } else { "[]" };
            let path = format!("{prefix}{}{index}", field.path);
            let refers = [is_pointer, is_descriptor, is_client, is_gpu, is_process];
            if refers.iter().any(|refers| refers(field)) {
                found.push(path);
            } else if let Some(inner) = self.release.structures.get(&field.type_name) {
                self.collect(inner, &format!("{path}."), found);
            }
        }
    }
}

fn is_pointer(field: &Field) -> bool {
    &*field.type_name == "NvP64" || field.type_name.ends_with('*')
}

fn is_client(field: &Field) -> bool {
    let name = field.path.rsplit('.').next().unwrap_or_default();
    let is_handle = matches!(&*field.type_name, "NvHandle" | "NvU32") && name.starts_with('h');
    is_handle && (name.contains("Client") || name == "hRoot")
}

fn is_gpu(field: &Field) -> bool {
    let name = field.path.rsplit('.').next().unwrap_or_default();
    let name = name.to_ascii_lowercase().replace('_', "");
    &*field.type_name == "NvProcessorUuid" || name.starts_with("gpuid") || name.contains("uuid")
}

fn is_process(field: &Field) -> bool {
    let name = field.path.rsplit('.').next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let parts = ["procid", "processid", "subproc", "ospid"];
    lower.starts_with("pid")
        || ["Pid", "Pids", "PID", "PIDs", "_pid"]
            .iter()
            .any(|end| name.ends_with(end))
        || parts.iter().any(|part| lower.contains(part))
}

fn is_descriptor(field: &Field) -> bool {
    let name = field.path.rsplit('.').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    name == "fd"
        || name.ends_with("descriptor")
        || (field.path.ends_with("Fd") || field.path.ends_with("FD") || name.ends_with("_fd"))
}
