//! Marks on ordinary files, of which locks are the same as on the driver's nodes.
//!
//! `unsafe` is here because mmap takes addresses.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{FcntlArg, fcntl};

use super::*;
use crate::locks::lock_of;

struct Node(tempfile::NamedTempFile);

impl Node {
    fn new() -> Node {
        Node(tempfile::NamedTempFile::new().expect("a file"))
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let file = File::options().read(true).write(true).open(self.0.path());
        Ok(file.expect("opened").into())
    }

    fn marked(&self, marks: &Marks) -> OwnedFd {
        let description = self.open().expect("opened");
        marks
            .mark(description.as_fd(), || self.open())
            .expect("marked");
        description
    }
}

#[test]
fn descriptions_are_told_apart_by_whichever_descriptor() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let descriptions = [(); 3].map(|()| node.marked(&marks));
    let names = descriptions
        .each_ref()
        .map(|description| marks.of(description.as_fd()).expect("a mark"));
    assert_eq!(BTreeSet::from(names), marks.marked());
    for (description, name) in descriptions.iter().zip(names) {
        let copy = description.try_clone().expect("a copy");
        assert_eq!(marks.of(copy.as_fd()), Some(name));
    }
    let stranger = node.open().expect("opened");
    assert_eq!(marks.of(stranger.as_fd()), None);
}

#[test]
fn a_description_has_ended_when_its_last_descriptor_is_closed() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let [first, second] = [(); 2].map(|()| node.marked(&marks));
    let names = [&first, &second].map(|one| marks.of(one.as_fd()).expect("a mark"));
    let copy = first.try_clone().expect("a copy");
    drop(first);
    let open = || unreachable!("there is a description already");
    assert!(marks.ended(&names, open).is_empty());
    drop(copy);
    assert_eq!(marks.ended(&names, open), [names[0]]);
    assert_eq!(marks.of(second.as_fd()), Some(names[1]));
    drop(second);
    assert_eq!(marks.ended(&names, open), names);
    // What is no mark never ends.
    assert!(marks.ended(&[0, 7, u64::MAX], open).is_empty());
}

#[test]
fn another_server_knows_them_too() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let description = node.marked(&marks);
    let name = marks.of(description.as_fd()).expect("a mark");
    let successor = Marks::of_uvm(marks.marked());
    drop(marks);
    assert!(successor.ended(&[name], || node.open()).is_empty());
    assert_eq!(successor.of(description.as_fd()), Some(name));
    drop(description);
    assert_eq!(successor.ended(&[name], || node.open()), [name]);
}

#[test]
fn a_lock_of_a_process_takes_no_mark_away_and_is_none() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let description = node.marked(&marks);
    let name = marks.of(description.as_fd()).expect("a mark");
    let hostile = node.open().expect("opened");
    let taken = || fcntl(&hostile, FcntlArg::F_SETLK(&lock_of(name))).is_ok();
    assert!(!taken());
    let unlock = libc::flock {
        l_type: libc::F_UNLCK as libc::c_short,
        l_start: 0,
        l_len: 0,
        ..lock_of(name)
    };
    for descriptor in [&description, &hostile] {
        fcntl(descriptor, FcntlArg::F_SETLK(&unlock)).expect("nothing of this process's");
    }
    assert_eq!(marks.of(description.as_fd()), Some(name));
    drop(description);
    assert!(taken());
    assert_eq!(marks.ended(&[name], || node.open()), [name]);
}

#[test]
fn where_all_is_locked_nothing_can_be_marked() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let hostile = node.open().expect("opened");
    let everything = libc::flock {
        l_start: 0,
        l_len: 0,
        ..lock_of(0)
    };
    fcntl(&hostile, FcntlArg::F_SETLK(&everything)).expect("locked");
    let description = node.open().expect("opened");
    let marked = marks.mark(description.as_fd(), || node.open());
    assert_eq!(marked, Err(Errno::EAGAIN));
    assert_eq!(marks.of(description.as_fd()), None);
}

#[test]
fn so_many_are_marked_and_room_is_made_where_some_have_ended() {
    let (node, marks) = (Node::new(), Marks::of_uvm(BTreeSet::new()));
    let mut descriptions: Vec<OwnedFd> = (0..MAXIMUM_MARKS).map(|_| node.marked(&marks)).collect();
    let one_more = node.open().expect("opened");
    let refused = marks.mark(one_more.as_fd(), || node.open());
    assert_eq!(refused, Err(Errno::ENOLCK));
    descriptions.pop();
    let marked = marks.mark(one_more.as_fd(), || node.open());
    assert_eq!(marked, Ok(()));
    assert_eq!(marks.marked().len(), MAXIMUM_MARKS);
}

#[test]
fn what_a_description_showed_has_ended_when_its_last_mapping_is_gone() {
    let (node, marks) = (Node::new(), Marks::of_control());
    let description = node.open().expect("opened");
    nix::unistd::ftruncate(&description, 4096).expect("a page");
    let names = [(); 2].map(|()| marks.place(description.as_fd()).expect("a mark"));
    let uvm = Marks::of_uvm(BTreeSet::new());
    let nothing = || unreachable!("none of these is of UVM");
    assert!(uvm.ended(&names, nothing).is_empty());
    let (length, protection) = (4096, libc::PROT_READ);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let mapped = unsafe {
        let (file, flags) = (description.as_raw_fd(), libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), length, protection, flags, file, 0)
    };
    assert_ne!(mapped, libc::MAP_FAILED);
    drop(description);
    assert!(marks.ended(&names, || node.open()).is_empty());
    // SAFETY: nobody else knows of the mapping.
    assert_eq!(unsafe { libc::munmap(mapped, length) }, 0);
    assert_eq!(marks.ended(&names, || node.open()), names);
}
