//! The functions that take the place of the C library's: `ioctl`, and those after which a descriptor number means
//! something else.
//!
//! Where the C library's have variable arguments, these have as many as there can be. On x86-64 the two are called alike,
//! and an argument that was not given is passed on as whatever it is, to be ignored again.
//!
//! But for `ioctl`, which is a system call and nothing else, they go on to the functions that come next in the order in
//! which the dynamic linker searches. These are looked up when the library is loaded, because that cannot be done in a
//! signal handler.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::request::attempt;
use crate::state::State;

/// A function that comes next.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Next {
        Next {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn look_up(&self) {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
    }
}

/// Run by the dynamic linker when the library is loaded, before the program.
extern "C" fn load() {
    for next in NEXT {
        next.look_up();
    }
    // So that the state is that of this process, whichever of its children makes the first request.
    if let Some(state) = State::get() {
        state.is_own();
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
    let returned = attempt(descriptor, request as u32, argument);
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

fn forget(descriptor: c_int) {
    if let Some(state) = State::known() {
        state.descriptors.forget(descriptor);
    }
}

fn forget_all(first: c_uint, last: c_uint) {
    if let Some(state) = State::known() {
        state.descriptors.forget_all(first, last);
    }
}

/// Defines a function that calls the next of its name, and before it has been looked up, makes a system call.
macro_rules! interposed {
    ($(fn $name:ident($($argument:ident: $type:ty),*) = $next:ident or ($call:expr $(, $passed:expr)*);
       before $before:expr; after |$result:ident| $after:expr;)*) => {
        $(
            static $next: Next = {
                // Names in this file have no zero byte.
                const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                };
                Next::new(NAME)
            };

            /// # Safety
            ///
            /// As of the C library's.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
                $before;
                let next = $next.found.load(Ordering::Relaxed);
                let $result = if next.is_null() {
                    // SAFETY: the program's own call, which is the kernel's to check.
                    unsafe { libc::syscall($call $(, $passed)*) as c_int }
                } else {
                    // SAFETY: the function of this name has this type; the arguments are the program's.
                    unsafe {
                        let next = transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(next);
                        next($($argument),*)
                    }
                };
                $after;
                $result
            }
        )*

        static NEXT: &[&Next] = &[$(&$next),*];
    };
}

interposed! {
    // What is forgotten only before could be noted again, and what is forgotten only after could be used by another thread
    // that was given the number meanwhile.
    fn close(descriptor: c_int) = CLOSE or (libc::SYS_close, descriptor);
    before forget(descriptor); after |result| forget(descriptor);

    fn close_range(first: c_uint, last: c_uint, flags: c_int) = CLOSE_RANGE
        or (libc::SYS_close_range, first, last, flags);
    before forget_all(first, last); after |result| forget_all(first, last);

    fn dup(old: c_int) = DUP or (libc::SYS_dup, old);
    before (); after |result| forget(result);

    fn dup2(old: c_int, new: c_int) = DUP2 or (libc::SYS_dup2, old, new);
    before (); after |result| forget(new);

    fn dup3(old: c_int, new: c_int, flags: c_int) = DUP3 or (libc::SYS_dup3, old, new, flags);
    before (); after |result| forget(new);

    fn fcntl(descriptor: c_int, command: c_int, argument: c_long) = FCNTL
        or (libc::SYS_fcntl, descriptor, command, argument);
    before (); after |result| forget_duplicate(command, result);

    fn fcntl64(descriptor: c_int, command: c_int, argument: c_long) = FCNTL64
        or (libc::SYS_fcntl, descriptor, command, argument);
    before (); after |result| forget_duplicate(command, result);

    // A number that is given anew was closed before, in whichever way.
    fn open(path: *const c_char, flags: c_int, mode: c_uint) = OPEN or (libc::SYS_open, path, flags, mode);
    before (); after |result| forget(result);

    fn open64(path: *const c_char, flags: c_int, mode: c_uint) = OPEN64 or (libc::SYS_open, path, flags, mode);
    before (); after |result| forget(result);

    fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) = OPENAT
        or (libc::SYS_openat, directory, path, flags, mode);
    before (); after |result| forget(result);

    fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) = OPENAT64
        or (libc::SYS_openat, directory, path, flags, mode);
    before (); after |result| forget(result);
}

fn forget_duplicate(command: c_int, result: c_int) {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        forget(result);
    }
}

/// Closes all descriptors from `lowest` on (closefrom(3)).
#[unsafe(no_mangle)]
pub extern "C" fn closefrom(lowest: c_int) {
    let first = c_uint::try_from(lowest).unwrap_or(0);
    // SAFETY: the program's own call; errors are not reported by this function.
    unsafe { close_range(first, c_uint::MAX, 0) };
}
