//! Nodes of NVIDIA's that no sandbox has: why, and what to do instead.
//!
//! The idea: what a program asks of the driver is checked against tables, request by request, or is not asked at all. A node of
//! another driver takes requests that no table has, and one by which a program shows that it may do something for the whole
//! machine grants just that. Who asks for such a node is told so: by `--bind`, and in a container by the nodes in its specification.

use std::path::Path;

/// Nodes that are withheld for one reason.
#[derive(Debug)]
pub struct Withheld {
    /// How their paths begin.
    prefix: &'static str,
    /// What they are.
    pub reason: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// The first row that fits holds.
const TABLE: &[Withheld] = &[
    Withheld {
        prefix: "/dev/nvidia-modeset",
        reason: "it sets modes of displays, for the whole GPU, by requests of another kernel module that no table has",
        remedy: "leave it out: what computes, and EGL and Vulkan without a display, need none",
    },
    Withheld {
        prefix: "/dev/dri",
        reason: "its nodes take requests of other kernel modules (nvidia-drm and the kernel's own DRM) that no table has",
        remedy: "leave it out, and have EGL and Vulkan use NVIDIA's own nodes, without a display",
    },
    Withheld {
        prefix: "/dev/nvidia-uvm-tools",
        reason: "it shows and counts what other processes do with unified memory",
        remedy: "leave it out",
    },
    Withheld {
        prefix: "/dev/nvidia-caps-imex-channels",
        reason: "whoever has a channel reaches memory that others export by it, on this machine and on others, which no limit counts \
                 and --gpus does not bound",
        remedy: "leave NVIDIA_IMEX_CHANNELS out",
    },
    Withheld {
        prefix: "/dev/nvidia-caps",
        reason: "a node there is for a part of a GPU (MIG), or for who divides GPUs and looks after them all",
        remedy: "choose parts by --gpus, as in 0/1/0, or in a container by their nodes or names",
    },
    Withheld {
        prefix: "/dev/nvidia-nvswitch",
        reason: "it is for who administers the machine's network of GPUs",
        remedy: "leave it out",
    },
    Withheld {
        prefix: "/dev/nvidia-nvlink",
        reason: "it is for who administers the machine's network of GPUs",
        remedy: "leave it out",
    },
    Withheld {
        prefix: "/dev/nvidia-fs",
        reason: "by it other devices reach the memory of GPUs around the sandbox",
        remedy: "leave it out",
    },
    Withheld {
        prefix: "/dev/gdrdrv",
        reason: "by it the memory of GPUs is mapped around the sandbox",
        remedy: "leave it out",
    },
];

/// Why the node at this path, from the root, is withheld, if it is. A directory of such nodes is, too.
pub fn of(path: &Path) -> Option<&'static Withheld> {
    let path = path.to_str()?;
    TABLE.iter().find(|row| path.starts_with(row.prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_by_how_their_paths_begin() {
        let reason = |path: &str| of(Path::new(path)).map(|row| row.prefix);
        for (path, expected) in [
            ("/dev/dri", Some("/dev/dri")),
            ("/dev/dri/renderD128", Some("/dev/dri")),
            ("/dev/nvidia-modeset", Some("/dev/nvidia-modeset")),
            ("/dev/nvidia-caps/nvidia-cap1", Some("/dev/nvidia-caps")),
            (
                "/dev/nvidia-caps-imex-channels/channel0",
                Some("/dev/nvidia-caps-imex-channels"),
            ),
            ("/dev/nvidia0", None),
            ("/dev/nvidiactl", None),
            ("/dev/nvidia-uvm", None),
            ("/dev", None),
            ("/dri", None),
        ] {
            assert_eq!(reason(path), expected, "{path}");
        }
    }
}
