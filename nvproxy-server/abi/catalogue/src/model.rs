//! The model: releases, and the requests and structures of each.
//!
//! The parts of a release are behind `Rc`. Successive releases mostly agree, and what they agree on is held once: a
//! decoded catalogue has one allocation for each distinct part, however many releases share it.
//!
//! The order of the parts of a release is fixed by `Ord` of their types, which compares the identifying number (or
//! name) first. The file format relies on it.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::version::DriverVersion;

/// Every release that was imported, sorted by version, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    pub releases: Vec<Release>,
}

impl Catalogue {
    /// The release of exactly this version.
    pub fn release(&self, version: &DriverVersion) -> Option<&Release> {
        let at = self
            .releases
            .binary_search_by(|release| release.version.cmp(version));
        self.releases.get(at.ok()?)
    }
}

/// The request ABI of one release of the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    pub version: DriverVersion,
    /// The escapes of `/dev/nvidiactl` and `/dev/nvidia*` (`NV_ESC_*`), sorted by number, then name.
    pub frontend: Vec<Rc<Ioctl>>,
    /// The requests of `/dev/nvidia-uvm` (`UVM_*`), sorted by number, then name.
    pub uvm: Vec<Rc<Ioctl>>,
    /// The control commands that the driver exports, sorted by id, each id once.
    pub controls: Vec<Rc<Control>>,
    /// The classes that can be allocated, sorted by id, each id once.
    pub classes: Vec<Rc<Class>>,
    /// By name: that of a typedef, else `struct TAG` or `union TAG`. The anonymous structure that an array `MEMBER` of
    /// structure `NAME` is made of is called `NAME::MEMBER`.
    pub structures: BTreeMap<Rc<str>, Rc<Structure>>,
}

/// Where a member lies in a structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Bytes, of all elements if it is an array.
    pub size: u32,
    pub type_name: Rc<str>,
}

impl Release {
    /// The control command of this number.
    pub fn control(&self, id: u32) -> Option<&Rc<Control>> {
        let at = self
            .controls
            .binary_search_by_key(&id, |control| control.id);
        self.controls.get(at.ok()?)
    }

    /// The class of this number.
    pub fn class(&self, id: u32) -> Option<&Rc<Class>> {
        let at = self.classes.binary_search_by_key(&id, |class| class.id);
        self.classes.get(at.ok()?)
    }

    /// Finds a member by its dotted path, also where the path leads through members that are named structures:
    /// `params.status` of `nv_ioctl_nvos02_parameters_with_fd`. It does not lead through arrays or pointers.
    pub fn locate(&self, structure: &str, path: &str) -> Option<Located> {
        let mut structure = self.structures.get(structure)?;
        let mut rest = path;
        let mut base = 0u32;
        // A path has as many steps as it has names, so this ends even if structures name each other in a circle.
        loop {
            if let Some(field) = structure.field(rest) {
                return Some(Located {
                    offset: base.checked_add(field.offset)?,
                    size: field.size,
                    type_name: field.type_name.clone(),
                });
            }
            // A field's own path may have dots, where a structure without a name was flattened.
            let (field, after) = rest
                .match_indices('.')
                .find_map(|(dot, _)| Some((structure.field(&rest[..dot])?, &rest[dot + 1..])))?;
            if field.elements != 1 {
                return None;
            }
            base = base.checked_add(field.offset)?;
            structure = self.structures.get(&field.type_name)?;
            rest = after;
        }
    }
}

/// The number of an `ioctl` request.
///
/// Of an escape it is the low byte of the request, which is made by `_IOWR` from it and the size of the parameters.
/// Of UVM it is the whole request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ioctl {
    pub number: u32,
    pub name: Rc<str>,
}

/// A control command that the driver exports (`src/nvidia/generated/g_*_nvoc.c`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Control {
    pub id: u32,
    /// The macro of the SDK headers; `None` if no header names the command.
    pub name: Option<Rc<str>>,
    /// The function behind it, as in `subdeviceCtrlCmdGpuGetInfoV2`.
    pub method: Rc<str>,
    /// The structure of its parameters; `None` if it has none.
    pub structure: Option<Rc<str>>,
    /// Bytes of the structure, 0 if there is none.
    pub size: u32,
    /// Names without `RMCTRL_FLAGS_`, sorted. The values of flags differ between releases, so the names are kept.
    pub flags: Vec<Rc<str>>,
    /// `accessRight` as it stands in the table.
    pub access_rights: u32,
    /// The nested buffers that the driver copies from and to the caller (`embedded_param_copy.c`).
    pub copies: Vec<Copy>,
}

/// Who may issue a control command, as the driver marks it.
#[derive(Clone, std::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Privilege {
    /// Only the kernel itself.
    Kernel,
    /// Administrators.
    Privileged,
    /// Every program.
    NonPrivileged,
}

impl Control {
    /// Who may issue the command. `RMCTRL_FLAGS_KERNEL_PRIVILEGED` is 0: a command has it that has neither of the
    /// other two. Where a command has both of them, the stricter holds.
    pub fn privilege(&self) -> Privilege {
        if self.has_flag("PRIVILEGED") {
            Privilege::Privileged
        } else if self.has_flag("NON_PRIVILEGED") {
            Privilege::NonPrivileged
        } else {
            Privilege::Kernel
        }
    }

    /// Whether the command is one that the parts of the driver issue to each other.
    pub fn is_internal(&self) -> bool {
        self.has_flag("INTERNAL")
    }

    fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| &**flag == name)
    }
}

/// A buffer behind a pointer in the parameters of a control command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Copy {
    /// Path of the pointer in the parameters: `pChannelList`, `transData.edidData.pMessage`.
    pub pointer: Rc<str>,
    pub count: Count,
    /// Bytes of one element.
    pub element: u32,
    /// Whether the driver reads the buffer.
    pub copied_in: bool,
    /// Whether the driver writes the buffer.
    pub copied_out: bool,
}

/// How many elements a nested buffer has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Count {
    Constant(u32),
    /// The value of the field at this path in the parameters.
    Field(Rc<str>),
    /// C text of another form. It needs a reviewed rule.
    Other(Rc<str>),
}

/// A class that a client can allocate objects of (`src/nvidia/src/kernel/rmapi/resource_list.h`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Class {
    pub id: u32,
    /// The external class, as in `NV01_ROOT_CLIENT`.
    pub name: Rc<str>,
    /// The internal class, as in `RmClientResource`.
    pub internal: Rc<str>,
    /// The type of the allocation's parameters: a structure, or a basic type such as `NvHandle`. `None` if there are
    /// none.
    pub structure: Option<Rc<str>>,
    /// Bytes of the parameters, 0 if there are none.
    pub size: u32,
    /// Whether the parameters have to be given (`RS_REQUIRED`).
    pub required: bool,
    /// Names without `RS_FLAGS_`, sorted.
    pub flags: Vec<Rc<str>>,
    /// The access right that the parent has to have, as text: `RS_ACCESS_NONE`.
    pub access: Rc<str>,
}

/// The layout of a structure, or of a union, whose fields then overlap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Structure {
    /// Bytes, padding at the end included.
    pub size: u32,
    /// In the order of declaration.
    pub fields: Vec<Field>,
}

impl Structure {
    /// The field of this path.
    pub fn field(&self, path: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.path == path)
    }
}

/// A member of a structure. The members of structures without a name are members of the one around them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Field {
    /// The member's name, after those of the structures without a name that it is in: `info.fd`.
    pub path: Rc<str>,
    /// Bytes from the start of the structure; of a bit field, to the unit that its bits are counted in.
    pub offset: u32,
    /// Bytes, of all elements if it is an array; of a bit field, of the unit that its bits are counted in.
    pub size: u32,
    /// The type as declared: `NvU32`, `NvP64`, `NvHandle`, `NV_STATUS`, a structure's name, `void *`. Of an array, that
    /// of an element.
    pub type_name: Rc<str>,
    /// 1, or the elements of an array, of all its dimensions together. 0 if its length is left open.
    pub elements: u32,
    pub bit_field: Option<BitField>,
}

/// Which bits of its unit a bit field has.
#[derive(Clone, std::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BitField {
    /// The lowest one.
    pub first: u32,
    pub bits: u32,
}
