//! A program whose requests a naive supervisor issues: what one would write first.
//!
//! For each request the supervisor takes a copy of the program's descriptor, looks at what it is, reads the argument out
//! of the program's memory, issues the request, writes the argument back, and answers. There is no table of requests
//! and so nothing is checked; it knows one pointer, that of NV_ESC_RM_CONTROL. It is for the GPU's driver only, and it
//! is no sandbox.

use std::io;
use std::os::fd::OwnedFd;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SYS_ioctl, sock_filter};
use nix::errno::Errno;
use nvproxy_abi::number::{NV_ESC_RM_CONTROL, parts};
use nvproxy_sim::structs::frontend::NVOS54_PARAMETERS;
use ringfence::guest::{Error, ioctl};
use ringfence_sentry::memory::{self, Write};
use ringfence_sentry::seccomp::listener::{Listener, Notification, Number};
use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use zerocopy::{FromBytes, IntoBytes};

use super::notification::{statement, supervised};
use super::{Outcome, requests};

/// Longer than the argument of any ioctl (14 bits).
type Argument = [u64; 2048];

/// Answers the question how long N requests of this kind take each.
pub fn serve(kind: &str) -> Outcome {
    supervised(&notifying_of_requests(), supervise, || {
        requests::serve(kind)
    })
}

fn supervise(listener: Listener) -> Outcome {
    let mut program = None;
    let mut argument: Box<Argument> = Box::new([0; 2048]);
    while let Some(notification) = listener.receive(Number::FIRST).map_err(io::Error::from)? {
        let process = match &program {
            Some(process) => process,
            None => program.insert(process(&notification)?),
        };
        let outcome = issue(process, &notification, &mut argument);
        listener.answer(&notification, outcome.map(i64::from));
    }
    Ok(())
}

fn process(notification: &Notification) -> Outcome<OwnedFd> {
    let process = Pid::from_raw(notification.task.as_raw()).ok_or("no process")?;
    Ok(pidfd_open(process, PidfdFlags::empty())?)
}

fn issue(
    process: &OwnedFd,
    notification: &Notification,
    argument: &mut Argument,
) -> Result<i32, Errno> {
    let [descriptor, command, address, ..] = notification.arguments;
    let system = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let file = pidfd_getfd(process, descriptor as i32, PidfdGetfdFlags::empty());
    let file = file.map_err(system)?;
    let kind = FileType::from_raw_mode(fstat(&file).map_err(system)?.st_mode);
    if kind != FileType::CharacterDevice {
        return Err(Errno::ENOTTY);
    }
    let (_, number, size) = parts(command as u32);
    let bytes = argument.as_mut_bytes();
    let bytes = bytes.get_mut(..size as usize).ok_or(Errno::EINVAL)?;
    memory::read(notification.task, address, bytes)?;

    // The parameters of a control command are where its argument points.
    let mut pointed: Option<(u64, Vec<u64>, usize)> = None;
    if number == NV_ESC_RM_CONTROL {
        let control = control(argument)?;
        let length = control.paramsSize as usize;
        let mut parameters = vec![0u64; length.div_ceil(8)];
        let bytes = parameters.as_mut_bytes();
        let bytes = bytes.get_mut(..length).ok_or(Errno::EINVAL)?;
        memory::read(notification.task, control.params, bytes)?;
        let own = parameters.as_ptr() as u64;
        pointed = Some((control.params, parameters, length));
        point_to(argument, own)?;
    }
    let result = ioctl(&file, command as u32, argument);
    if let Some((theirs, parameters, length)) = &pointed {
        let bytes = parameters.as_bytes().get(..*length).ok_or(Errno::EINVAL)?;
        write(notification, *theirs, bytes)?;
        point_to(argument, *theirs)?;
    }
    let bytes = argument.as_bytes();
    write(
        notification,
        address,
        bytes.get(..size as usize).ok_or(Errno::EINVAL)?,
    )?;
    result.map_err(|error| match error {
        Error::Errno(errno) => errno,
        Error::Status(_) => Errno::EIO,
    })
}

fn write(notification: &Notification, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    memory::write(notification.task, &[Write { address, bytes }])
}

fn control(argument: &Argument) -> Result<NVOS54_PARAMETERS, Errno> {
    let read = NVOS54_PARAMETERS::read_from_prefix(argument.as_bytes());
    read.map(|(control, _)| control).map_err(|_| Errno::EINVAL)
}

fn point_to(argument: &mut Argument, address: u64) -> Result<(), Errno> {
    let control = NVOS54_PARAMETERS {
        params: address,
        ..control(argument)?
    };
    let written = control.write_to_prefix(argument.as_mut_bytes());
    written.map_err(|_| Errno::EINVAL)
}

/// A filter that notifies of the requests of NVIDIA's driver, which are ioctls of the type 'F', and allows all else.
fn notifying_of_requests() -> [sock_filter; 7] {
    /// Where a filter sees the call's number and the lower half of its second argument (struct seccomp_data).
    const CALL: u32 = 0;
    const SECOND_ARGUMENT: u32 = 16 + 8;
    [
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, CALL),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_ioctl as u32),
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, SECOND_ARGUMENT),
        statement(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xff00),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, u32::from(b'F') << 8),
        statement(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF),
    ]
}

#[cfg(test)]
mod tests {
    use ringfence_confinement::Verdict;
    use ringfence_confinement::interpreter::{Call, run};

    use super::*;

    #[test]
    fn the_filter_stops_requests_and_nothing_else() {
        let verdict = |call: libc::c_long, command: u64| {
            let call = Call::native(call, [0, command, 0, 0, 0, 0]);
            run(&notifying_of_requests(), &call)
        };
        assert_eq!(verdict(SYS_ioctl, 0xc008_46d6), Some(Verdict::Notify));
        assert_eq!(verdict(SYS_ioctl, 0x5401), Some(Verdict::Allow));
        assert_eq!(verdict(libc::SYS_read, 0x4600), Some(Verdict::Allow));
    }
}
