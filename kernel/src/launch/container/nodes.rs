//! The driver's nodes in a container where a hook has put some: each is made one that nothing can be opened by.
//!
//! The idea: NVIDIA's legacy hook binds nodes into the container's `/dev` after the low-level runtime has mounted what the specification says, and
//! opens what is in its way (libnvidia-container, `file_create` in `src/utils.c`): on a mount without devices it fails. So there
//! the specification has what can be opened in these places, and the inert nodes in [`PLACE`]. They are put over what the
//! hook has left, in the program's own view. What it has left besides is put over itself, without devices.
//!
//! The hook is trusted, and what it does is not: its configuration says which nodes it makes, and of GPUs that the sandbox has
//! not. The caller has a mount namespace of its own, in which nothing of the image's runs yet. No link is followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nvproxy_abi::node::IN_EVERY_NAME;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{Dir, Mode, OFlags, openat};

use super::covering::{cover, named};
use super::told::{PLACE, Told};
use crate::launch::mounts::{READ_ONLY, Tree};

/// Where nodes are.
const DEVICES: &str = "/dev";

/// Makes all nodes inert. [`PLACE`] is there still.
pub fn make_inert(told: &Told) -> Result<(), Failure> {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Inert) == Some(Act::Drop) {
        return Ok(());
    }
    for name in told.driver.inert().filter(|_| told.has_hook) {
        let own = Path::new(PLACE).join(name);
        let own = named(&own).attempt(own.display())?;
        let place = Path::new(DEVICES).join(name);
        cover(&place, |_| Tree::copy_named(own.as_fd()))?;
    }
    for path in others(told)? {
        cover(&path, |place| {
            Tree::copy_named(place)?.with_attributes(READ_ONLY)
        })?;
    }
    Ok(())
}

/// What there is in `/dev` with the names of NVIDIA's nodes, or of directories of them, that the sandbox has not.
fn others(told: &Told) -> Result<Vec<PathBuf>, Failure> {
    let own = |name: &str| told.driver.names().any(|own| own == name);
    // Of such a directory it can have some.
    let holds_own = |name: &str| {
        let mut all = told.driver.names();
        all.any(|own| {
            own.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let mut others = Vec::new();
    for name in entries("")? {
        if !name.starts_with(IN_EVERY_NAME) || own(&name) {
            continue;
        }
        match holds_own(&name) {
            true => others.extend(entries(&name)?.into_iter().filter(|name| !own(name))),
            false => others.push(name),
        }
    }
    let paths = others.iter().map(|name| Path::new(DEVICES).join(name));
    Ok(paths.collect())
}

/// What there is in a directory of `/dev`, each named from there.
fn entries(directory: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(DEVICES).join(directory);
    let names = listed(&path).attempt(path.display())?.into_iter();
    let names = names.filter_map(|name| {
        let name = Path::new(directory).join(name);
        Some(name.to_str()?.to_owned())
    });
    Ok(names.collect())
}

/// The names of what there is in this directory, to which no link leads.
fn listed(path: &Path) -> rustix::io::Result<Vec<OsString>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(named(path)?, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What the image has put in a directory's place leads to no other.
    #[test]
    fn no_link_is_followed_to_what_is_listed() {
        let place = std::env::temp_dir().join(format!("ringfence-nodes-{}", std::process::id()));
        let (own, link) = (place.join("own"), place.join("link"));
        fs::create_dir_all(own.join("nvidia-cap12")).unwrap();
        symlink(&own, &link).unwrap();
        let [of_own, of_link, below] =
            [&own, &link, &link.join("nvidia-cap12")].map(|path| listed(path));
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(of_own, Ok(vec!["nvidia-cap12".into()]));
        assert_eq!(of_link, Err(rustix::io::Errno::LOOP));
        assert_eq!(below, Err(rustix::io::Errno::LOOP));
    }
}
