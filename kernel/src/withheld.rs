//! Nodes of NVIDIA's that no sandbox has: why, and what to do instead.
//!
//! The idea: what a program asks of the driver is checked against tables, request by request, or is not asked at all. A node of
//! another driver takes requests that no table has, and one by which a program shows that it may do something for the whole
//! machine grants just that. Who asks for such a node is told so: by `--bind`, and in a container by the nodes in its specification.

use std::path::Path;

use crate::text::name_in_devices;

/// Nodes that are withheld for one reason.
#[derive(Debug)]
pub struct Withheld {
    /// What the node, or the directory of nodes, is called in `/dev`. Several of a kind have a number behind it.
    name: &'static str,
    /// What they are.
    pub reason: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const TABLE: &[Withheld] = &[
    Withheld {
        name: "nvidia-modeset",
        reason: "it sets modes of displays, for the whole GPU, by requests of another kernel module that no table has",
        remedy: "leave it out: what computes, and EGL and Vulkan without a display, need none",
    },
    Withheld {
        name: "dri",
        reason: "its nodes take requests of other kernel modules (nvidia-drm and the kernel's own DRM) that no table has",
        remedy: "leave it out, and have EGL and Vulkan use NVIDIA's own nodes, without a display",
    },
    Withheld {
        name: "nvidia-uvm-tools",
        reason: "it shows and counts what other processes do with unified memory",
        remedy: "leave it out",
    },
    Withheld {
        name: "nvidia-caps-imex-channels",
        reason: "whoever has a channel reaches memory that others export by it, on this machine and on others, which no limit counts \
                 and --gpus does not bound",
        remedy: "leave NVIDIA_IMEX_CHANNELS out",
    },
    Withheld {
        name: "nvidia-caps",
        reason: "a node there is for a part of a GPU (MIG), or for who divides GPUs and looks after them all",
        remedy: "choose parts by --gpus, as in 0/1/0, or in a container by their nodes or names",
    },
    Withheld {
        name: "nvidia-nvswitch",
        reason: "it is for who administers the machine's network of GPUs",
        remedy: "leave it out",
    },
    Withheld {
        name: "nvidia-nvswitchctl",
        reason: "it is for who administers the machine's network of GPUs",
        remedy: "leave it out",
    },
    Withheld {
        name: "nvidia-nvlink",
        reason: "it is for who administers the machine's network of GPUs",
        remedy: "leave it out",
    },
    Withheld {
        name: "nvidia-fs",
        reason: "by it other devices reach the memory of GPUs around the sandbox",
        remedy: "leave it out",
    },
    Withheld {
        name: "gdrdrv",
        reason: "by it the memory of GPUs is mapped around the sandbox",
        remedy: "leave it out",
    },
];

/// Why the node at this path, from the root, is withheld, if it is. A directory of such nodes is, too.
pub fn of(path: &Path) -> Option<&'static Withheld> {
    let path = name_in_devices(path.to_str()?)?;
    let name = path.split('/').next()?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    TABLE
        .iter()
        .find(|row| name.strip_prefix(row.name).is_some_and(is_digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_by_their_names_or_their_directorys() {
        let row = |path: &str| of(Path::new(path)).map(|row| row.name);
        for (path, expected) in [
            ("/dev/dri", Some("dri")),
            ("/dev/dri/renderD128", Some("dri")),
            ("/dev/nvidia-modeset", Some("nvidia-modeset")),
            ("//dev/nvidia-modeset", Some("nvidia-modeset")),
            ("/dev/.//nvidia-modeset/", Some("nvidia-modeset")),
            ("/dev/nvidia-caps/nvidia-cap1", Some("nvidia-caps")),
            (
                "/dev/nvidia-caps-imex-channels/channel0",
                Some("nvidia-caps-imex-channels"),
            ),
            ("/dev/nvidia-fs", Some("nvidia-fs")),
            ("/dev/nvidia-fs15", Some("nvidia-fs")),
            ("/dev/nvidia-nvswitch0", Some("nvidia-nvswitch")),
            ("/dev/nvidia-nvswitchctl", Some("nvidia-nvswitchctl")),
            ("/dev/nvidia-fsomething", None),
            ("/dev/drift", None),
            ("/dev/x/dri", None),
            ("/dev/nvidia0", None),
            ("/dev/nvidiactl", None),
            ("/dev/nvidia-uvm", None),
            ("/dev", None),
            ("/dri", None),
        ] {
            assert_eq!(row(path), expected, "{path}");
        }
    }
}
