//! What this executable is when the launcher has started it as a server.
//!
//! Which backends there are is known here alone: the server's crate has the real driver, and neither the simulated nor the
//! recorded one.
//!
//! `unsafe` is here because descriptors are inherited as bare numbers.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nvproxy_protocol::driver::Kind;
use nvproxy_protocol::options::Options;
use nvproxy_server::backend::BackendFactory;
use nvproxy_server::{nvidia, process};
use ringfence_sentry::failure::{Failure, SETUP};
use ringfence_sentry::log;

use crate::launch::servers::COMMAND;
use crate::launch::title;
use crate::replay::recorded;

/// Serves, if this is the command line of a server. Returns only if it could not.
pub fn if_asked(mut arguments: impl Iterator<Item = OsString>) -> Option<Result<u8, Failure>> {
    let is_asked = arguments.nth(1)? == COMMAND[1];
    is_asked.then(|| {
        title::call(title::SERVER);
        let options = Options::from_arguments(arguments).map_err(failure);
        options.and_then(|options| serve(&options))
    })
}

fn failure(reason: impl fmt::Display) -> Failure {
    Failure {
        status: SETUP,
        message: format!("server: {reason}"),
    }
}

fn serve(options: &Options) -> Result<u8, Failure> {
    let left = &options.left;
    // SAFETY: the launcher left it open for this process, which takes it over here and nowhere else.
    let file = left
        .log
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    match &options.naming.container {
        Some(name) => {
            log::stderr_is_log_of(name);
            log::write_for_container(name);
        }
        None => log::write_to(file),
    }
    log::confirm();
    let factory = factory(options)?;
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    let control =
        control.map_err(|error| Failure::setup(format!("the control socket: {error}")))?;
    let given = process::Given {
        input: control,
        // SAFETY: the launcher left it open for this process, which takes it over here and nowhere else.
        supervision: unsafe { OwnedFd::from_raw_fd(left.supervision) },
    };
    match process::run(options, &*factory, given) {
        Ok(never) => match never {},
        Err(error) => Err(failure(error)),
    }
}

/// The way to the driver that the sandbox has.
fn factory(options: &Options) -> Result<Box<dyn BackendFactory>, Failure> {
    let driver = &options.driver;
    Ok(match driver.kind {
        Kind::Host => Box::new(nvidia::Factory {
            driver: driver.clone(),
        }),
        Kind::Simulated => Box::new(nvproxy_sim::Factory {
            version: driver.version,
            gpus: driver.minors(),
            open_only: driver.open_only(),
        }),
        Kind::Recorded => {
            let replay = options.replay.clone();
            Box::new(recorded::Factory(
                replay.ok_or_else(|| failure("no recording to answer from"))?,
            ))
        }
    })
}
