//! That nothing which arrives leaves a descriptor behind.

use std::os::fd::AsRawFd;

use nix::unistd::dup;

/// Does something, and panics if a descriptor is open afterwards that was not open before. Nothing else
/// in the process may open any meanwhile.
pub fn none_left_behind(check: impl FnOnce()) {
    let before = lowest_free();
    check();
    assert_eq!(lowest_free(), before, "a descriptor was left open");
}

/// The number that the next descriptor gets.
fn lowest_free() -> i32 {
    dup(std::io::stdin()).expect("a descriptor").as_raw_fd()
}
