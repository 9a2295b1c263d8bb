//! NVIDIA's driver on this machine: whether there are tables for it, which GPUs it has, and whether this user may open
//! their nodes. All that `--driver auto` looks at, and each thing that it would stop at.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::support::{Basis, Support, support};
use nvproxy_abi::version::DriverVersion;
use ringfence_sentry::failure::{Attempt, Failure};

use super::report::{Finding, Outcome};
use crate::driver::{
    self, Gpu, Kind, device_directory, host_gpus, host_nodes, host_version, may_open, may_read,
    series_for,
};
use crate::mig::{self, Capability};

/// One finding for the driver, one for each GPU and one for each node.
pub fn examine() -> Vec<Finding> {
    let Some(version) = host_version() else {
        let detail = "none (/sys/module/nvidia/version is missing): run simulates one";
        let remedy = "to use a GPU, load the module nvidia";
        return vec![Finding::plain("NVIDIA driver", Outcome::Note, detail).with_remedy(remedy)];
    };
    let mut findings = vec![driver(&version)];
    let mut nodes = vec![Node::Control, Node::Uvm];
    match host_gpus() {
        Ok(gpus) => {
            findings.extend(of_gpus(&gpus));
            nodes.extend(gpus.iter().map(|gpu| Node::Gpu(gpu.minor)));
        }
        Err(failure) => findings.push(
            Finding::plain("GPUs", Outcome::Missing, failure.message).with_remedy(
                "in a container, let /proc/driver/nvidia be seen; else use --driver sim",
            ),
        ),
    }
    let devices = device_directory();
    findings.extend(nodes.into_iter().map(|node| of_node(&devices, node)));
    let open_only = series_for(Capabilities::ALL).flat_map(host_nodes);
    findings.extend(open_only.map(|node| of_open_only(&devices, node)));
    let parts = driver::parts(Kind::Host).into_iter();
    findings.extend(parts.map(|part| of_part(&devices, part)));
    findings
}

fn driver(version: &str) -> Finding {
    match tables(version) {
        Ok(support) => {
            let tables = support.tables;
            let detail = match support.basis {
                Basis::Exact => format!("{version}, which the tables have"),
                Basis::Inferred(_) => format!("{version}, for which the tables of {tables} serve"),
            };
            Finding::plain("NVIDIA driver", Outcome::Ok, detail)
        }
        Err(failure) => {
            let remedy = "install a release that ringfence drivers list shows, or see --driver-abi of ringfence run";
            Finding::plain("NVIDIA driver", Outcome::Missing, failure.message).with_remedy(remedy)
        }
    }
}

/// The tables that serve this release with the capabilities that a sandbox has by default.
fn tables(version: &str) -> Result<Support, Failure> {
    let parsed = DriverVersion::from_str(version).attempt(format_args!("'{version:.40}'"))?;
    support(&parsed, Capabilities::default()).map_err(|error| Failure::setup(error.to_string()))
}

fn of_gpus(gpus: &[Gpu]) -> Vec<Finding> {
    if gpus.is_empty() {
        let detail = "the driver has none; a program finds none";
        let remedy = "see what the kernel's log says of NVRM";
        return vec![Finding::plain("GPUs", Outcome::Weakness, detail).with_remedy(remedy)];
    }
    let findings = gpus.iter().enumerate().map(|(index, gpu)| {
        let detail = format!("{}, {}", gpu.model, gpu.uuid);
        Finding::plain(format!("GPU {index}"), Outcome::Ok, detail)
    });
    findings.collect()
}

/// `devices` is where the nodes lie.
fn of_node(devices: &Path, node: Node) -> Finding {
    let path = devices.join(node.file_name());
    let finding =
        |outcome, detail: &str| Finding::plain(path.display().to_string(), outcome, detail);
    let missing = |detail: &str| finding(Outcome::Missing, detail);
    let create = "create it with nvidia-modprobe -c 0 -u; in a container, pass it in";
    match may_open(&path) {
        Err(Errno::ENOENT) => missing("does not exist").with_remedy(create),
        Err(Errno::EACCES | Errno::EPERM) => missing("this user may not read and write it")
            .with_remedy("run as a user who may; in a container, allow the device"),
        Err(errno) => missing(errno.desc()).with_remedy(create),
        Ok(()) if is_character_device(&path) => finding(Outcome::Ok, "can be read and written"),
        Ok(()) => missing("is no device").with_remedy(create),
    }
}

/// A sandbox has an open-only node if its user may open it.
fn of_open_only(devices: &Path, node: Node) -> Finding {
    let path = devices.join(node.file_name());
    let finding = |outcome, detail| Finding::plain(path.display().to_string(), outcome, detail);
    match may_read(&path) {
        Ok(()) if is_character_device(&path) => finding(Outcome::Ok, "can be read".to_owned()),
        outcome => {
            let reason = match outcome {
                Ok(()) => "is no device",
                Err(Errno::ENOENT) => "does not exist",
                Err(errno) => errno.desc(),
            };
            finding(Outcome::Note, format!("{reason}, so no sandbox has it"))
        }
    }
}

/// The node of a part of a GPU (MIG).
fn of_part(devices: &Path, Capability { part, node }: Capability) -> Finding {
    let finding = of_open_only(devices, node);
    let remedy = format!(
        "create it with nvidia-modprobe -f {}",
        mig::file_of(part).display()
    );
    let detail = format!("{part}: {}", finding.detail);
    match finding.outcome {
        Outcome::Ok => Finding { detail, ..finding },
        _ => Finding { detail, ..finding }.with_remedy(remedy),
    }
}

fn is_character_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use nvproxy_abi::node;

    use super::*;

    #[test]
    fn only_releases_with_tables_will_do() {
        for (version, expected) in [
            ("580.142", "580.142, which the tables have"),
            (
                "580.130",
                "580.130, for which the tables of 580.126.20 serve",
            ),
        ] {
            let expected = Finding::plain("NVIDIA driver", Outcome::Ok, expected);
            assert_eq!(driver(version), expected);
        }
        assert_eq!(driver("999.10").outcome, Outcome::Missing);
        assert_eq!(driver("nonsense").outcome, Outcome::Missing);
    }

    #[test]
    fn gpus_are_numbered_in_their_order() {
        let gpu = |minor, uuid: &str| Gpu {
            minor,
            uuid: uuid.to_owned(),
            model: "H100".to_owned(),
        };
        assert_eq!(
            of_gpus(&[gpu(1, "GPU-a"), gpu(0, "GPU-b")]),
            [
                Finding::plain("GPU 0", Outcome::Ok, "H100, GPU-a"),
                Finding::plain("GPU 1", Outcome::Ok, "H100, GPU-b"),
            ]
        );
        assert_eq!(of_gpus(&[])[0].outcome, Outcome::Weakness);
    }

    #[test]
    fn nodes_have_to_be_devices() {
        let devices = std::env::temp_dir().join(format!("ringfence-doctor-{}", std::process::id()));
        fs::create_dir(&devices).unwrap();
        std::os::unix::fs::symlink("/dev/null", devices.join("nvidiactl")).unwrap();
        fs::write(devices.join("nvidia0"), "").unwrap();
        let found = |node| {
            let finding = of_node(&devices, node);
            (finding.outcome, finding.detail)
        };
        let device = found(Node::Control);
        let file = found(Node::Gpu(0));
        let nothing = found(Node::Uvm);
        let open_only = of_open_only(&devices, node::of_part(1).unwrap());
        fs::create_dir(devices.join("nvidia-caps")).unwrap();
        let part = devices.join("nvidia-caps/nvidia-cap12");
        std::os::unix::fs::symlink("/dev/null", part).unwrap();
        let parts = mig::simulated();
        let [instance, compute] = [&parts[0], &parts[1]].map(|part| of_part(&devices, *part));
        fs::remove_dir_all(&devices).unwrap();
        assert_eq!(instance.outcome, Outcome::Ok);
        assert_eq!(instance.detail, "gpu0/mig/gi1: can be read");
        assert_eq!(compute.outcome, Outcome::Note);
        let create = "create it with nvidia-modprobe -f /proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access";
        assert_eq!(compute.remedy.as_deref(), Some(create));
        assert_eq!(device, (Outcome::Ok, "can be read and written".to_owned()));
        assert_eq!(file, (Outcome::Missing, "is no device".to_owned()));
        assert_eq!(nothing, (Outcome::Missing, "does not exist".to_owned()));
        let expected = (
            Outcome::Note,
            "does not exist, so no sandbox has it".to_owned(),
        );
        assert_eq!((open_only.outcome, open_only.detail), expected);
    }
}
