//! How a pin's request is issued: by the helper, on the parameters, and by nobody else (steps 4 to 6 of [`super`]).
//!
//! All others are held, and the caller is stopped. Whatever of this fails, what the driver may have done by then is known:
//! whether the call was let through, and what it has answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_protocol::requests::decode_result;
use ringfence_faults::{Act, Point, at_task};

use super::Pin;
use super::expected::{Expected, What};
use super::pages::{TRIES, expect_another, put_address, random_page, relocate};
use super::parameters::{Parameters, Secret};
use crate::system_calls::share_descriptors;
use crate::times::Phase;
use crate::tracee::{Helper, Issued, Stopped, Table};
use crate::warnings::warn_once;

/// A request's parameters as they lie in a page.
struct Placed {
    page: u64,
    bytes: Vec<u8>,
    /// The addresses that the program had in them, and where.
    originals: Vec<(usize, u64)>,
}

impl Placed {
    fn new(pin: &Pin<'_>, page: u64, payload: &[u8]) -> Placed {
        let mut bytes = payload.to_vec();
        let originals = relocate(&pin.marshalled.plan, page, &mut bytes);
        Placed {
            page,
            bytes,
            originals,
        }
    }

    fn request(&self, lent: &Arc<OwnedFd>) -> What {
        What::Request {
            bytes: self.bytes.clone(),
            lent: Arc::clone(lent),
        }
    }
}

impl Pin<'_> {
    /// Has the ioctl issued by a thread of its own, on `parameters`. `issued` is set as soon as the call
    /// has returned, whatever fails later; `payload` then holds what the driver left there.
    pub(super) fn issue(
        &self,
        stopped: &mut Stopped<'_>,
        lent: OwnedFd,
        parameters: &Arc<Parameters>,
        payload: &mut Vec<u8>,
        issued: &mut Option<Result<i32, Errno>>,
    ) -> Result<(), Errno> {
        let task = self.notification.task.as_raw();
        let mut helper = self.helper(stopped)?;
        at_task(Point::PinHelper, task);
        let code = self.map_code(&mut helper, parameters);
        let mut pages: Vec<u64> = code.ok().into_iter().collect();
        let lent = Arc::new(lent);
        let done = code.and_then(|_| {
            let done = match &**parameters {
                Parameters::Secret(secret) => {
                    let issuing = (&mut helper, &mut pages);
                    self.issue_in_one_go(issuing, &lent, (parameters, secret), payload, issued)
                }
                Parameters::Private => {
                    let page = self.map_parameters(stopped, &mut helper, parameters)?;
                    pages.push(page);
                    self.issue_at(&mut helper, &lent, (parameters, page), payload, issued)
                }
            };
            at_task(Point::PinIssued, task);
            done
        });
        end(helper)?;
        let are_parameters_left = pages.len() > 1 || done.is_err();
        self.unmap(stopped.calls(), code.ok(), &pages)?;
        // The process was not killed until here, so the helper has unmapped them before it ended.
        self.is_unmapped.set(!are_parameters_left);
        done
    }

    /// Has a thread made to issue the ioctl, with a descriptor table of its own.
    ///
    /// It leaves the program's table. With a copy it would close all that is in it at its end, which can take long: on FUSE
    /// and NFS, or with many record locks. It has a copy only where a filter of the program's does not let it leave.
    fn helper<'a>(&self, stopped: &mut Stopped<'a>) -> Result<Helper<'a>, Errno> {
        let task = self.notification.task.as_raw();
        let mut helper = Helper::new(stopped, Table::Shared)?;
        // A test has the caller's table used, to show that it would notice.
        if at_task(Point::PinTable, task) == Some(Act::Drop) {
            return Ok(helper);
        }
        helper.leave_table()?;
        // A test has it believed, to show that it would notice.
        let is_believed = at_task(Point::PinTableOwn, task) == Some(Act::Drop);
        if is_believed || !share_descriptors(stopped.calls().thread(), helper.calls().thread())? {
            return Ok(helper);
        }
        end(helper)?;
        Helper::new(stopped, Table::Copied)
    }

    /// Has the helper map the parameters, issue the ioctl on them, unmap them and end, all of it by code of the sentry's.
    fn issue_in_one_go(
        &self,
        (helper, pages): (&mut Helper<'_>, &mut Vec<u64>),
        lent: &Arc<OwnedFd>,
        (parameters, secret): (&Arc<Parameters>, &Secret),
        payload: &mut Vec<u8>,
        issued: &mut Option<Result<i32, Errno>>,
    ) -> Result<(), Errno> {
        let pins = &self.sentry.pins;
        let [descriptor, command, ..] = self.notification.arguments;
        at_task(Point::PinPage, self.notification.task.as_raw());
        let mapping = self.mapping_of(parameters);
        for _ in 0..TRIES {
            let page = random_page()?;
            let placed = Placed::new(self, page, payload);
            secret.write(&placed.bytes)?;
            secret.clear_result();
            self.expect(helper, parameters, page, placed.request(lent));
            at_task(Point::PinPrepared, self.notification.task.as_raw());
            self.end(Phase::Holding);
            // Until there is a result, it is the driver's time.
            let is_in_the_driver =
                || pins.was_let_through.load(Ordering::SeqCst) && secret.result().is_none();
            let mapping = mapping.at(page);
            let ended = helper
                .calls()
                .issue(mapping, descriptor, command, is_in_the_driver);
            self.end(Phase::Calling);
            let was_expected = pins.expected().take().is_some();
            // A test has who was killed in it taken for one that is through, to show that it would notice.
            let is_taken_for_through =
                at_task(Point::PinThrough, self.notification.task.as_raw()) == Some(Act::Drop);
            match (secret.result(), ended?) {
                (None, Issued::Otherwise(result)) if was_expected => expect_another(result)?,
                (result, ended) => {
                    let is_unmapped = matches!(ended, Issued::Through) || is_taken_for_through;
                    pages.extend((!is_unmapped).then_some(page));
                    let result = result.ok_or(Errno::ESRCH);
                    let from = (&**parameters, self.notification.task);
                    return self.conclude(result, from, placed, payload, issued);
                }
            }
        }
        Err(Errno::ENOMEM)
    }

    /// Has the helper issue the ioctl on the parameters, which are put to `page`.
    fn issue_at(
        &self,
        helper: &mut Helper<'_>,
        lent: &Arc<OwnedFd>,
        (parameters, page): (&Arc<Parameters>, u64),
        payload: &mut Vec<u8>,
        issued: &mut Option<Result<i32, Errno>>,
    ) -> Result<(), Errno> {
        let placed = Placed::new(self, page, payload);
        let thread = helper.calls().thread();
        parameters.write(thread, page, &placed.bytes)?;
        at_task(Point::PinPrepared, self.notification.task.as_raw());
        self.end(Phase::Holding);
        let result = self.have_called(helper, parameters, page, placed.request(lent));
        self.end(Phase::Calling);
        self.conclude(result, (parameters, thread), placed, payload, issued)
    }

    /// Takes what the driver has left in the parameters, if `result` is what it has answered.
    fn conclude(
        &self,
        result: Result<i64, Errno>,
        (parameters, thread): (&Parameters, Pid),
        placed: Placed,
        payload: &mut Vec<u8>,
        issued: &mut Option<Result<i32, Errno>>,
    ) -> Result<(), Errno> {
        let Placed {
            page,
            bytes: mut placed,
            originals,
        } = placed;
        // A test has the driver fail to write its answer.
        let result = match at_task(Point::PinWritten, self.notification.task.as_raw()) {
            Some(Act::Errno(errno)) => result.map(|_| -i64::from(errno)),
            _ => result,
        };
        // A test has it forgotten that it was let through, to show that it would notice.
        let was_let_through = &self.sentry.pins.was_let_through;
        if at_task(Point::PinAnswer, self.notification.task.as_raw()) == Some(Act::Drop) {
            was_let_through.store(false, Ordering::SeqCst);
        }
        // A test has it believed that it was, to show that it would notice.
        let is_believed =
            at_task(Point::PinBelieved, self.notification.task.as_raw()) == Some(Act::Drop);
        if !was_let_through.load(Ordering::SeqCst) && !is_believed {
            // Whatever came back is not the driver's answer: a filter of the program's kept the call from being made, or
            // the parameters were not the validated ones any more.
            return result.and(Err(Errno::EPERM));
        }
        // A test has it taken for an answer like others, to show that it would notice.
        let is_taken_at_its_word =
            at_task(Point::PinUnwritten, self.notification.task.as_raw()) == Some(Act::Drop);
        let answer = result.and_then(|result| {
            parameters.read(thread, page, &mut placed)?;
            match decode_result(result) {
                // It may have done all there was to do, and then not have been able to write the answer (nvidia_ioctl in
                // kernel-open/nvidia/nv.c, 580.142). So nobody knows.
                Err(Errno::EFAULT) if !is_taken_at_its_word => Err(Errno::EFAULT),
                answer => Ok(answer),
            }
        });
        let answer = answer.inspect_err(|_| {
            tracing::info!(
                "nobody saw what the driver answered to a process that pins memory: what it would have pinned is counted until its client is freed"
            );
        })?;
        *issued = Some(answer);
        for (at, address) in originals {
            put_address(&mut placed, at, address);
        }
        *payload = placed;
        Ok(())
    }

    /// Has the helper make the call, under the descriptor number that the task made it with.
    pub(super) fn have_called(
        &self,
        helper: &mut Helper<'_>,
        parameters: &Arc<Parameters>,
        page: u64,
        what: What,
    ) -> Result<i64, Errno> {
        let [descriptor, command, ..] = self.notification.arguments;
        self.expect(helper, parameters, page, what);
        let arguments = [descriptor, command, page, 0, 0, 0];
        let result = helper.calls().call(libc::SYS_ioctl, arguments);
        *self.sentry.pins.expected() = None;
        result
    }

    /// From now on the helper may make this call.
    fn expect(&self, helper: &mut Helper<'_>, parameters: &Arc<Parameters>, page: u64, what: What) {
        *self.sentry.pins.expected() = Some(Expected {
            helper: helper.calls().thread(),
            descriptor: self.descriptor(),
            command: self.notification.arguments[1] as u32,
            page,
            parameters: Arc::clone(parameters),
            what,
        });
    }
}

fn end(helper: Helper<'_>) -> Result<(), Errno> {
    helper.end().map_err(|errno| {
        warn_once(
            "a process that pinned memory was killed, because its seccomp filter lets no thread end",
            errno,
        );
        Errno::ESRCH
    })
}
