//! The table: what Ringfence needs of this machine, what it loses without, and how to get it.

use ringfence_confinement::linux::Feature;
use ringfence_sentry::failure::Failure;
use ringfence_sentry::remedies;

use super::order;
use super::probes;
use super::report::{Finding, Outcome};

/// What `ringfence run` is without the thing that a check is about.
enum Without {
    /// It cannot work.
    Unusable,
    /// It works, and loses this.
    Loses(&'static str),
    /// What the table of Linux's versions says of this, which also has the version to use.
    Lacks(Feature),
}

/// One need.
pub struct Check {
    name: &'static str,
    /// Says what was found, or why it was not.
    probe: fn() -> Result<String, Failure>,
    without: Without,
    /// What to do; after the version to use, if it is a matter of that.
    remedy: &'static str,
}

impl Check {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What there is to say if it is not tried, because of another that is missing.
    pub fn left_out(&self, cause: &Finding) -> Finding {
        let detail = format!("not tried, because this is missing: {}", cause.name);
        Finding::plain(self.name, Outcome::Untried, detail)
    }

    /// Tries it.
    pub fn perform(&self) -> Finding {
        let failure = match (self.probe)() {
            Ok(detail) => return Finding::plain(self.name, Outcome::Ok, detail),
            Err(failure) => failure.message,
        };
        // What is known to help against this very error helps more than what may help against any.
        let (failure, known) = remedies::apart(&failure);
        let lost = match self.without {
            Without::Unusable => None,
            Without::Loses(what) => Some(what),
            Without::Lacks(feature) => feature.row().without.lost(),
        };
        let finding = match lost {
            None => Finding::plain(self.name, Outcome::Missing, failure),
            Some(what) => {
                Finding::plain(self.name, Outcome::Weakness, format!("{failure}; {what}"))
            }
        };
        finding.with_remedy(match (known, &self.without) {
            (Some(known), _) => known.to_owned(),
            (None, Without::Lacks(feature)) => {
                let since = feature.row().since;
                format!("use Linux {since} or later{}", self.remedy)
            }
            (None, _) => self.remedy.to_owned(),
        })
    }
}

/// Of something that a version of Linux brought.
const fn brought(
    feature: Feature,
    probe: fn() -> Result<String, Failure>,
    remedy: &'static str,
) -> Check {
    Check {
        name: feature.row().name,
        probe,
        without: Without::Lacks(feature),
        remedy,
    }
}

const STARTED_WITH_LANDLOCK: &str =
    ", started with landlock among its security modules (lsm=landlock,...)";

/// Every need of the kernel, each before those that build on it.
pub static ALL: [Check; 31] = [
    Check {
        name: "architecture",
        probe: probes::architecture,
        without: Without::Unusable,
        remedy: "use an x86-64 machine and an x86-64 ringfence",
    },
    Check {
        name: order::PROC,
        probe: probes::own_processes,
        without: Without::Unusable,
        remedy: "mount -t proc proc /proc; for a chroot, mount --bind /proc DIR/proc before you enter it",
    },
    Check {
        name: order::OUTSIDE,
        probe: probes::outside,
        without: Without::Unusable,
        remedy: "leave the sandbox; a container runtime can have a seccomp profile that notifies, too",
    },
    Check {
        name: "user namespaces",
        probe: probes::user_namespace,
        without: Without::Unusable,
        remedy: "leave a chroot, where the kernel makes none; sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0, raise \
                 user.max_user_namespaces; in a container, a seccomp profile that permits unshare and, for root, the \
                 capabilities SETUID, SETGID and SETFCAP",
    },
    Check {
        name: "process namespaces and /proc",
        probe: probes::process_namespace,
        without: Without::Unusable,
        remedy: "raise user.max_pid_namespaces; in a container, do not mask /proc (docker run --security-opt \
                 systempaths=unconfined) and permit mount",
    },
    Check {
        name: "mounts and mount_setattr",
        probe: probes::mounts,
        without: Without::Unusable,
        remedy: "use Linux 5.12 or later; in a container, a seccomp and an AppArmor profile that permit mount",
    },
    Check {
        name: "a file system of its own",
        probe: probes::file_system,
        without: Without::Unusable,
        remedy: "use Linux 5.12 or later; in a container, a seccomp and an AppArmor profile that permit mount",
    },
    Check {
        name: "network namespaces",
        probe: probes::network,
        without: Without::Loses(
            "ringfence run works with --net only, and programs have the network",
        ),
        remedy: "raise user.max_net_namespaces; use a kernel with CONFIG_NET_NS",
    },
    brought(
        Feature::KillableWaits,
        probes::notification,
        " with CONFIG_SECCOMP_FILTER, and leave any sandbox that has a seccomp listener of its own",
    ),
    Check {
        name: "seccomp descriptor injection",
        probe: probes::injection,
        without: Without::Unusable,
        remedy: "mend seccomp notification; use Linux 5.9 or later (SECCOMP_IOCTL_NOTIF_ADDFD)",
    },
    Check {
        name: "kcmp",
        probe: probes::kcmp,
        without: Without::Unusable,
        remedy: "use a kernel with CONFIG_KCMP; in a container, a seccomp profile that permits kcmp",
    },
    Check {
        name: "pidfd_getfd",
        probe: probes::descriptor_copy,
        without: Without::Unusable,
        remedy: "sysctl kernel.yama.ptrace_scope below 3; in a container, a seccomp profile that permits pidfd_getfd",
    },
    brought(
        Feature::ThreadDescriptors,
        probes::descriptor_copy_of_thread,
        "",
    ),
    Check {
        name: "process_vm_readv, _writev",
        probe: probes::task_memory,
        without: Without::Unusable,
        remedy: "sysctl kernel.yama.ptrace_scope below 3; in a container, a seccomp profile that permits both",
    },
    Check {
        name: "ptrace",
        probe: probes::ptrace,
        without: Without::Unusable,
        remedy: "sysctl kernel.yama.ptrace_scope below 3; in a container, a seccomp profile that permits ptrace",
    },
    brought(Feature::TracedDispatch, probes::traced_dispatch, ""),
    brought(
        Feature::RingFutexes,
        probes::io_uring,
        ", sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that permits io_uring",
    ),
    Check {
        name: "sealed memory files",
        probe: probes::sealed_memory,
        without: Without::Unusable,
        remedy: "sysctl vm.memfd_noexec below 2; use a kernel with CONFIG_MEMFD_CREATE",
    },
    brought(
        Feature::SecretMemory,
        probes::secret_memory,
        " with CONFIG_SECRETMEM, or an older one started with secretmem.enable=1; in a container, a seccomp profile that \
         permits memfd_secret",
    ),
    Check {
        name: "locked memory",
        probe: probes::locked_memory,
        without: Without::Loses("requests that pin memory fail with ENOMEM"),
        remedy: "raise the limit of locked memory (ulimit -l) to 8 KiB at least",
    },
    Check {
        name: "inotify",
        probe: probes::inotify,
        without: Without::Unusable,
        remedy: "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches",
    },
    Check {
        name: "Landlock",
        probe: probes::landlock_files,
        without: Without::Loses(
            "a program can write named pipes, devices and files without a name that it inherited to be read, if the user may",
        ),
        remedy: "start the kernel with landlock among its security modules (lsm=landlock,...)",
    },
    brought(
        Feature::LandlockTruncate,
        probes::landlock_truncate,
        STARTED_WITH_LANDLOCK,
    ),
    brought(
        Feature::LandlockTcp,
        probes::landlock_tcp,
        STARTED_WITH_LANDLOCK,
    ),
    brought(
        Feature::LandlockIoctlDev,
        probes::landlock_ioctl_dev,
        STARTED_WITH_LANDLOCK,
    ),
    brought(
        Feature::LandlockScopes,
        probes::landlock_scopes,
        STARTED_WITH_LANDLOCK,
    ),
    Check {
        name: "core dumps",
        probe: probes::core_dumps,
        without: Without::Loses(
            "who is started or told then, outside of the sandbox, gets a program's memory and a name that it chose",
        ),
        remedy: "raise the hard limit of core files (ulimit -Hc) to 1 at least, or name a file by sysctl kernel.core_pattern",
    },
    brought(Feature::RefusedExecution, probes::refused_execution, ""),
    brought(Feature::PeerDescriptors, probes::peer_descriptors, ""),
    Check {
        name: "self-confinement",
        probe: probes::confinement,
        without: Without::Unusable,
        remedy: "use a root file system that pivot_root(2) accepts; in a container, seccomp and AppArmor profiles that \
                 permit mount, umount and pivot_root",
    },
    Check {
        name: "a sandbox",
        probe: probes::sandbox,
        without: Without::Unusable,
        remedy: "mend what else is missing; if nothing is, this is a defect of Ringfence",
    },
];

#[cfg(test)]
mod tests {
    use ringfence_confinement::linux;

    use super::*;

    fn check(probe: fn() -> Result<String, Failure>, without: Without) -> Finding {
        let check = Check {
            name: "thing",
            probe,
            without,
            remedy: "buy one",
        };
        check.perform()
    }

    #[test]
    fn what_was_found_needs_no_remedy() {
        let found = check(|| Ok("there".to_owned()), Without::Unusable);
        assert_eq!(found, Finding::plain("thing", Outcome::Ok, "there"));
    }

    #[test]
    fn what_a_version_brought_comes_with_that_version() {
        let absent = || Err(Failure::setup("gone"));
        let row = Feature::RefusedExecution.row();
        let lost = row.without.lost().expect("a loss");
        assert_eq!(
            check(absent, Without::Lacks(row.feature)),
            Finding::plain("thing", Outcome::Weakness, format!("gone; {lost}"))
                .with_remedy(format!("use Linux {} or laterbuy one", row.since))
        );
        let needed = check(absent, Without::Lacks(Feature::KillableWaits));
        assert_eq!(needed.outcome, Outcome::Missing);
    }

    #[test]
    fn everything_that_a_version_brought_is_tried() {
        for row in &linux::TABLE {
            let is_tried = |check: &Check| {
                check.name == row.name
                    && matches!(check.without, Without::Lacks(feature) if feature == row.feature)
            };
            assert!(ALL.iter().any(is_tried), "{row:?}");
        }
    }

    #[test]
    fn what_was_not_found_comes_with_its_cost_and_remedy() {
        let absent = || Err(Failure::setup("gone"));
        assert_eq!(
            check(absent, Without::Unusable),
            Finding::plain("thing", Outcome::Missing, "gone").with_remedy("buy one")
        );
        assert_eq!(
            check(absent, Without::Loses("a wall less")),
            Finding::plain("thing", Outcome::Weakness, "gone; a wall less").with_remedy("buy one")
        );
    }
}
