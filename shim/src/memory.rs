//! The program's memory: what a request's pointers lead to, if anything.
//!
//! The driver answers a bad pointer by an error, and a signal would not do instead. So before memory is touched here, the
//! kernel is asked whether it can be written, page by page, by an operation that changes nothing
//! ([`system::is_writable`]). That takes a fraction of what process_vm_readv(2) does. What cannot be written, be it that
//! it can be read, is left to the trap.
//!
//! Memory that another thread takes away meanwhile ends the program; with the driver it would have been an error.

#![allow(unsafe_code)]

use std::ptr;

use crate::system;

const PAGE: usize = 4096;
/// Pages that are remembered.
const REMEMBERED: usize = 4;

/// What is known of the program's memory for the length of one request.
pub struct Memory {
    /// Addresses of pages that can be written.
    writable: [usize; REMEMBERED],
    /// The place for the next.
    next: usize,
}

impl Memory {
    /// Knows the page that this variable is in: near the end of the stack it has the requests of many callers, too.
    pub fn around<T>(variable: &T) -> Memory {
        let mut writable = [0; REMEMBERED];
        writable[0] = ptr::from_ref(variable) as usize & !(PAGE - 1);
        Memory { writable, next: 1 }
    }

    /// Fills `buffer` from `address`, if all of it can be read and written.
    pub fn read(&mut self, address: u64, buffer: &mut [u8]) -> Option<Place> {
        let start = usize::try_from(address).ok()?;
        let end = start.checked_add(buffer.len())?;
        let first = start & !(PAGE - 1);
        if !(first..end)
            .step_by(PAGE)
            .all(|page| self.is_writable(page))
        {
            return None;
        }
        // SAFETY: the program's memory from `start` to `end` was there a moment ago, and the buffer is this library's own,
        // so the two do not overlap. Bytes that change meanwhile are as good as others: nothing rests on them.
        unsafe { ptr::copy_nonoverlapping(start as *const u8, buffer.as_mut_ptr(), buffer.len()) };
        Some(Place {
            start,
            length: buffer.len(),
        })
    }

    fn is_writable(&mut self, page: usize) -> bool {
        if self.writable.contains(&page) && page != 0 {
            return true;
        }
        let is_writable = system::is_writable(page);
        if is_writable && let Some(place) = self.writable.get_mut(self.next % REMEMBERED) {
            *place = page;
            self.next += 1;
        }
        is_writable
    }
}

/// Memory of the program's that was read, and can be written.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    start: usize,
    length: usize,
}

impl Place {
    /// How many words of 8 bytes it has, the last of which may be cut short.
    pub fn words(&self) -> usize {
        self.length.div_ceil(8)
    }

    /// Writes the word with this number, or as much of it as there is.
    pub fn write_word(&self, index: usize, bytes: [u8; 8]) {
        let offset = index.saturating_mul(8);
        let length = self.length.saturating_sub(offset).min(bytes.len());
        // SAFETY: these bytes lie in the program's memory that was there when the request was read, and the program wants
        // them written. It cannot overflow, because they do.
        unsafe {
            let place = self.start.wrapping_add(offset) as *mut u8;
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, length);
        }
    }
}
