//! What a task's filter says to the calls that matter.

use libc::c_long;
use ringfence_confinement::interpreter::{Call, run};
use ringfence_confinement::{Verdict, policies};

fn on(call: Call) -> Verdict {
    let program = policies::TASK.compile(&[]).expect("a program");
    run(&program, &call).expect("a verdict")
}

fn native(number: c_long, arguments: [u64; 6]) -> Verdict {
    on(Call::native(number, arguments))
}

const MISSING: Verdict = Verdict::Errno(libc::ENOSYS as u16);

#[test]
fn driver_ioctls_notify_and_others_run() {
    let ioctl = |request: u64| native(libc::SYS_ioctl, [3, request, 0x1000, 0, 0, 0]);
    // RM_CONTROL; the upper half of the register is not part of an ioctl's number.
    assert_eq!(ioctl(0xc020_462a), Verdict::Notify);
    assert_eq!(ioctl(0xffff_ffff_c020_462a), Verdict::Notify);
    assert_eq!(ioctl(0x3000_0001), Verdict::Notify);
    assert_eq!(ioctl(0x25), Verdict::Notify);
    assert_eq!(ioctl(libc::TCGETS), Verdict::Allow);
    assert_eq!(ioctl(libc::FIONREAD), Verdict::Allow);
}

#[test]
fn opens_for_reading_and_writing_notify() {
    let openat = |flags: i32| native(libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
    let open = |flags: i32| native(libc::SYS_open, [0, flags as u64, 0, 0, 0, 0]);
    assert_eq!(openat(libc::O_RDWR | libc::O_CLOEXEC), Verdict::Notify);
    assert_eq!(openat(libc::O_RDONLY), Verdict::Allow);
    assert_eq!(openat(libc::O_WRONLY | libc::O_CREAT), Verdict::Allow);
    assert_eq!(open(libc::O_RDWR), Verdict::Notify);
    assert_eq!(open(libc::O_RDONLY), Verdict::Allow);
    assert_eq!(native(libc::SYS_openat2, [0; 6]), Verdict::Notify);
    assert_eq!(native(libc::SYS_exit_group, [0; 6]), Verdict::Notify);
    assert_eq!(native(libc::SYS_exit, [0; 6]), Verdict::Allow);
}

#[test]
fn ways_around_are_missing() {
    assert_eq!(native(libc::SYS_io_uring_setup, [0; 6]), MISSING);
    assert_eq!(native(libc::SYS_io_uring_enter, [0; 6]), MISSING);
    assert_eq!(native(libc::SYS_getpid, [0; 6]), Verdict::Allow);
    let i386 = Call {
        machine: 0x4000_0003,
        number: 54,
        arguments: [0; 6],
    };
    assert_eq!(on(i386), MISSING, "i386 ioctl");
    assert_eq!(native(0x4000_0000 | 514, [0; 6]), MISSING, "x32 ioctl");
}
