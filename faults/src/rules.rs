//! The rules of `RINGFENCE_FAULTS`: read once by each process, and counted by each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use crate::{Act, Point, Role, arch, process};

/// The environment variable.
pub const VARIABLE: &str = "RINGFENCE_FAULTS";

static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
static ROLE: AtomicU8 = AtomicU8::new(Role::Launcher as u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Leave,
    KillTask,
    Delay(Duration),
    Busy(Duration),
    Block,
    AwaitSigcont,
    Descriptors(usize),
    Exhaust,
    EachErrno,
    Tell(Act),
}

#[derive(Debug)]
struct Rule {
    role: Role,
    point: Point,
    /// The first and the last passage that it is about, from 1.
    first: u32,
    last: u32,
    action: Action,
    passed: AtomicU32,
}

/// From now on this process obeys the rules of `role`.
pub fn act_as(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// Counts the passage for every rule about this point, and does what the first says that is about this passage.
pub fn pass(point: Point, task: i32) -> Option<Act> {
    let role = ROLE.load(Ordering::Relaxed);
    let mut due = None;
    for rule in RULES.get_or_init(read) {
        if rule.point != point || !rule.is_for(role) {
            continue;
        }
        let passage = rule.passed.fetch_add(1, Ordering::Relaxed) + 1;
        if (rule.first..=rule.last).contains(&passage) {
            due = due.or(Some((rule.action, passage - rule.first + 1)));
        }
    }
    let (action, nth) = due?;
    match action {
        Action::Kill => arch::execute_nothing_defined(),
        Action::Leave => process::leave(),
        Action::KillTask => process::kill_task(task),
        Action::Delay(time) => process::wait(Some(time)),
        Action::Busy(time) => process::run(time),
        Action::Block => process::wait(None),
        Action::AwaitSigcont => process::wait_for_sigcont(),
        Action::Descriptors(left) => process::exhaust_descriptors(left),
        Action::Exhaust => process::exhaust_memory(),
        Action::EachErrno => return Some(Act::Errno(nth as i32)),
        Action::Tell(act) => return Some(act),
    }
    None
}

impl Rule {
    /// Whether a process of the role with this number obeys it.
    fn is_for(&self, role: u8) -> bool {
        let stands_for_all = self.role == Role::Sentry && self.point != Point::Step;
        self.role as u8 == role || stands_for_all && role != Role::Server as u8
    }
}

/// The variable, if it is set.
pub fn environment() -> Vec<String> {
    let text = std::env::var(VARIABLE).ok();
    let set = text.map(|text| format!("{VARIABLE}={text}"));
    set.into_iter().collect()
}

fn read() -> Vec<Rule> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let rules = text.split_whitespace().map(|rule| {
        parse(rule).unwrap_or_else(|| {
            eprintln!("{VARIABLE}: '{rule}' is no rule");
            std::process::exit(125)
        })
    });
    rules.collect()
}

fn parse(text: &str) -> Option<Rule> {
    let (place, action) = text.split_once('=')?;
    let (place, passages) = match place.split_once('@') {
        Some((place, passages)) => (place, Some(passages)),
        None => (place, None),
    };
    let (role, point) = place.split_once('.')?;
    let (first, last) = match passages {
        None => (1, u32::MAX),
        Some(passages) => match passages.strip_suffix('+') {
            Some(first) => (first.parse().ok()?, u32::MAX),
            None => (passages.parse().ok()?, passages.parse().ok()?),
        },
    };
    Some(Rule {
        role: Role::ALL
            .iter()
            .copied()
            .find(|known| known.name() == role)?,
        point: Point::ALL
            .iter()
            .copied()
            .find(|known| known.name() == point)?,
        first,
        last,
        action: parse_action(action)?,
        passed: AtomicU32::new(0),
    })
}

fn parse_action(text: &str) -> Option<Action> {
    let words: Vec<&str> = text.split(':').collect();
    Some(match words[..] {
        ["kill"] => Action::Kill,
        ["leave"] => Action::Leave,
        ["kill-task"] => Action::KillTask,
        ["delay", time] => Action::Delay(Duration::from_millis(number(time)?)),
        ["busy", time] => Action::Busy(Duration::from_millis(number(time)?)),
        ["block"] => Action::Block,
        ["await-sigcont"] => Action::AwaitSigcont,
        ["exhaust-descriptors", left] => Action::Descriptors(left.parse().ok()?),
        ["exhaust-memory"] => Action::Exhaust,
        ["errno", "each"] => Action::EachErrno,
        ["errno", errno] => Action::Tell(Act::Errno(errno.parse().ok()?)),
        ["value", value] => Action::Tell(Act::Value(number(value)?)),
        ["garbage"] => Action::Tell(Act::Garbage),
        ["drop"] => Action::Tell(Act::Drop),
        ["duplicate"] => Action::Tell(Act::Duplicate),
        ["replay"] => Action::Tell(Act::Replay),
        ["reorder"] => Action::Tell(Act::Reorder),
        ["torn"] => Action::Tell(Act::Torn),
        ["word", index, value] => Action::Tell(Act::Word(index.parse().ok()?, number(value)?)),
        ["skip", entries] => Action::Tell(Act::Skip(entries.parse().ok()?)),
        _ => return None,
    })
}

/// A number, in hexadecimal if it starts with `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = parse("server.call@3+=word:3:0xffffffff00000000").unwrap();
        assert_eq!((rule.role, rule.point), (Role::Server, Point::Call));
        assert_eq!((rule.first, rule.last), (3, u32::MAX));
        let word = Act::Word(3, 0xffff_ffff_0000_0000);
        assert_eq!(rule.action, Action::Tell(word));
        let rule = parse("sentry.pin-held@2=kill-task").unwrap();
        assert_eq!((rule.first, rule.last), (2, 2));
        assert_eq!(rule.action, Action::KillTask);
        let rule = parse("sentry.submit=errno:each").unwrap();
        assert_eq!((rule.first, rule.last), (1, u32::MAX));
    }

    #[test]
    fn what_is_no_rule_is_not_read() {
        for wrong in [
            "",
            "kill",
            "call=kill",
            "task.call=kill",
            "server.nowhere=kill",
            "server.call@=kill",
            "server.call@x=kill",
            "server.call=",
            "server.call=delay",
            "server.call=delay:soon",
            "server.call=kill:2",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_point_has_a_name_of_its_own() {
        for point in Point::ALL {
            let named = Point::ALL
                .iter()
                .filter(|other| other.name() == point.name());
            assert_eq!(named.count(), 1, "{}", point.name());
        }
    }
}
