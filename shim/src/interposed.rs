//! The functions that take the place of the C library's: `ioctl`, and those after which a descriptor number means
//! something else.
//!
//! Where the C library's have variable arguments, these have as many as there can be. On x86-64 the two are called alike,
//! and an argument that was not given is passed on as whatever it is, to be ignored again.
//!
//! Most are system calls and nothing else, which are made here. But a thread can be cancelled in `close` and `fcntl`
//! (pthreads(7)), and is then unwound. So these two end with a jump to the function that comes next in the order in which
//! the dynamic linker searches, which returns to the program, and leave nothing on the stack. That function is looked up
//! when the library is loaded, because it cannot be done in a signal handler; until then it is the system call.

#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::ffi::{CStr, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::memory::Memory;
use crate::request::attempt;
use crate::state::State;

/// What `close` and `fcntl` jump to.
static NEXT_CLOSE: AtomicPtr<c_void> = AtomicPtr::new(close_at_once as *mut c_void);
static NEXT_FCNTL: AtomicPtr<c_void> = AtomicPtr::new(fcntl_at_once as *mut c_void);

extern "C" fn close_at_once(descriptor: c_int) -> c_int {
    // SAFETY: the program's own call, which is the kernel's to check.
    unsafe { libc::syscall(libc::SYS_close, descriptor) as c_int }
}

extern "C" fn fcntl_at_once(descriptor: c_int, command: c_int, argument: c_long) -> c_int {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_fcntl, descriptor, command, argument) as c_int }
}

/// Run by the dynamic linker when the library is loaded, before the program.
extern "C" fn load() {
    look_up(&NEXT_CLOSE, c"close");
    look_up(&NEXT_FCNTL, c"fcntl");
    // So that the state is that of this process, whichever of its children makes the first request.
    if let Some(state) = State::get() {
        state.is_own();
    }
}

fn look_up(next: &AtomicPtr<c_void>, name: &CStr) {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if !found.is_null() {
        next.store(found, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;

/// The same as the C library's, which sets `errno`.
#[unsafe(no_mangle)]
pub extern "C" fn ioctl(descriptor: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    // SAFETY: the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. What is done meanwhile may fail, and the program must not see it.
    let before = unsafe { *errno };
    // The kernel looks at the lower half of the request, and so does this.
    let returned = attempt(
        descriptor,
        request as u32,
        argument,
        Memory::around(&before),
    );
    let (value, after) = match returned {
        None => {
            // SAFETY: the program's own call, which is the kernel's to check.
            unsafe {
                *errno = before;
                return libc::syscall(libc::SYS_ioctl, descriptor, request, argument) as c_int;
            }
        }
        Some(returned) if returned < 0 => (-1, -returned as c_int),
        Some(returned) => (returned as c_int, before),
    };
    // SAFETY: as above.
    unsafe { *errno = after };
    value
}

extern "C" fn forget(descriptor: c_int) {
    if let Some(state) = State::known() {
        state.descriptors.forget(descriptor);
    }
}

fn forget_all(first: c_uint, last: c_uint) {
    if let Some(state) = State::known() {
        state.descriptors.forget_all(first, last);
    }
}

/// Forgets the descriptor first: another thread may be given its number as soon as it is closed.
///
/// # Safety
///
/// As of the C library's.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    // The push keeps the argument, and aligns the stack.
    naked_asm!(
        "push rdi",
        "call {forget}",
        "pop rdi",
        "jmp qword ptr [rip + {next}]",
        forget = sym forget,
        next = sym NEXT_CLOSE,
    )
}

/// # Safety
///
/// As of the C library's.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(descriptor: c_int, command: c_int, argument: c_long) -> c_int {
    naked_asm!(
        "cmp esi, {duplicate}",
        "je 2f",
        "cmp esi, {duplicate_for_exec}",
        "je 2f",
        "jmp qword ptr [rip + {next}]",
        "2:",
        "jmp {made_here}",
        duplicate = const libc::F_DUPFD,
        duplicate_for_exec = const libc::F_DUPFD_CLOEXEC,
        made_here = sym duplicate,
        next = sym NEXT_FCNTL,
    )
}

/// The same under the name that programs with large files use.
///
/// # Safety
///
/// As of the C library's.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(descriptor: c_int, command: c_int, argument: c_long) -> c_int {
    naked_asm!("jmp {fcntl}", fcntl = sym fcntl)
}

/// `fcntl` with a command that makes a descriptor. It does not wait, so no thread is cancelled in it.
extern "C" fn duplicate(descriptor: c_int, command: c_int, lowest: c_long) -> c_int {
    let made = fcntl_at_once(descriptor, command, lowest);
    forget(made);
    made
}

/// The same as the C library's, as all that follow.
#[unsafe(no_mangle)]
pub extern "C" fn dup(old: c_int) -> c_int {
    // SAFETY: the program's own call, which is the kernel's to check.
    let made = unsafe { libc::syscall(libc::SYS_dup, old) as c_int };
    forget(made);
    made
}

#[unsafe(no_mangle)]
pub extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: as above.
    let made = unsafe { libc::syscall(libc::SYS_dup2, old, new) as c_int };
    forget(new);
    made
}

#[unsafe(no_mangle)]
pub extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: as above.
    let made = unsafe { libc::syscall(libc::SYS_dup3, old, new, flags) as c_int };
    forget(new);
    made
}

#[unsafe(no_mangle)]
pub extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    forget_all(first, last);
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) as c_int }
}

#[unsafe(no_mangle)]
pub extern "C" fn closefrom(lowest: c_int) {
    // It reports no errors.
    close_range(c_uint::try_from(lowest).unwrap_or(0), c_uint::MAX, 0);
}
