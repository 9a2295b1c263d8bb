//! The engine's own seccomp profile (`linux.seccomp`), where a container has GPUs.
//!
//! The idea: the low-level runtime installs the profile before it executes the container's first process, and that is the
//! sentry here, which needs calls that profiles refuse (`needed.rs`). So these calls are opened in the profile that the low-level
//! runtime gets, and closed again in a filter that the program gets last, exactly as the engine wrote it. Of several filters the
//! kernel takes what is strictest (seccomp(2)), so it does not matter what else Ringfence's own policy says of the same call. A call that
//! the profile simply allows, and every call that is not needed, is decided by the profile alone, as it was written.
//!
//! A profile says of a call: these actions under these conditions, else the default one (runtime-spec,
//! config-linux.md, "Seccomp"). Conditions of one rule all have to hold, unless two are on one argument. Values are 64 bits wide.

use ringfence_confinement::{Case, Condition, Rule, Test, Verdict};
use ringfence_sentry::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::needed;

/// How an action of a profile fails a call that has none of its own number (runtime-spec: `EPERM`).
const DEFAULT_ERRNO: u64 = libc::EPERM as u64;

/// What is done with a call; a [`Verdict`] that travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    Allow,
    Errno(u16),
    KillProcess,
    Trap,
}

impl From<Done> for Verdict {
    fn from(done: Done) -> Verdict {
        match done {
            Done::Allow => Verdict::Allow,
            Done::Errno(errno) => Verdict::Errno(errno),
            Done::KillProcess => Verdict::KillProcess,
            Done::Trap => Verdict::Trap,
        }
    }
}

/// How a value is compared (seccomp_rule_add(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    Equal,
    Differs,
    Below,
    AtLeast,
    /// The argument, masked by the value, equals this.
    Masked(u64),
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// 0 to 5.
    pub argument: u32,
    pub value: u64,
    pub comparison: Comparison,
}

/// What the engine's profile says of a call that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub number: u32,
    /// The first whose conditions all hold decides.
    pub cases: Vec<(Vec<Asked>, Done)>,
    /// What is done if none does.
    pub otherwise: Done,
}

impl Closed {
    /// Whether the profile lets the call through, whatever its arguments.
    fn is_allowed(&self) -> bool {
        match self.cases.first() {
            Some((conditions, done)) if conditions.is_empty() => *done == Done::Allow,
            Some(_) => false,
            None => self.otherwise == Done::Allow,
        }
    }
}

/// Opens in `profile` what the sentry needs, and returns what is to be closed again. Fails where that cannot be said in a filter
/// of the program's.
pub fn open(profile: &mut Value) -> Result<Vec<Closed>, Failure> {
    let default = action(
        text(profile, "defaultAction").unwrap_or_default(),
        profile.get("defaultErrnoRet"),
    )?;
    let rules = profile.get("syscalls").and_then(Value::as_array);
    let rules = rules.cloned().unwrap_or_default();
    if let Some(rule) = rules
        .iter()
        .find(|rule| text(rule, "action") == Some("SCMP_ACT_NOTIFY"))
    {
        let names = rule.get("names").map(Value::to_string);
        return Err(refused(format!(
            "has another process decide calls (SCMP_ACT_NOTIFY of {}), and the kernel knows one such process",
            names.unwrap_or_default()
        )));
    }
    let mut closed = Vec::new();
    let mut opened = Vec::new();
    for (name, number) in needed::calls() {
        let call = Closed {
            number: number as u32,
            cases: cases_of(name, &rules)?,
            otherwise: default,
        };
        if !call.is_allowed() {
            closed.push(call);
            opened.push(name);
        }
    }
    let kept = rules.into_iter();
    let kept: Vec<Value> = kept.filter_map(|rule| without(rule, &opened)).collect();
    let is_opening_said = default != Done::Allow && !opened.is_empty();
    let opened = is_opening_said.then(|| json!({"names": opened, "action": "SCMP_ACT_ALLOW"}));
    let rules: Vec<Value> = opened.into_iter().chain(kept).collect();
    if let Some(profile) = profile.as_object_mut() {
        profile.insert("syscalls".to_owned(), rules.into());
    }
    Ok(closed)
}

/// A rule without these calls; `None` if it was about no others.
fn without(mut rule: Value, opened: &[&str]) -> Option<Value> {
    let names = rule.get_mut("names")?.as_array_mut()?;
    names.retain(|name| !opened.iter().any(|opened| name == opened));
    (!names.is_empty()).then_some(rule)
}

/// What the rules of a profile say of a call. A rule without conditions decides whatever else is said of the call.
fn cases_of(name: &str, rules: &[Value]) -> Result<Vec<(Vec<Asked>, Done)>, Failure> {
    let about = rules.iter().filter(|rule| {
        let names = rule.get("names").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|named| named == name))
    });
    let mut cases = Vec::new();
    for rule in about {
        let done = action(
            text(rule, "action").unwrap_or_default(),
            rule.get("errnoRet"),
        )?;
        let arguments = rule.get("args").and_then(Value::as_array);
        let arguments = arguments.map(Vec::as_slice).unwrap_or_default();
        if arguments.is_empty() {
            return Ok(vec![(Vec::new(), done)]);
        }
        let conditions = arguments.iter().map(condition);
        let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
        match names_one_twice(&conditions) {
            true => cases.extend(
                conditions
                    .into_iter()
                    .map(|condition| (vec![condition], done)),
            ),
            false => cases.push((conditions, done)),
        }
    }
    Ok(cases)
}

/// Whether two conditions are on one argument. The low-level runtimes take each condition of such a rule for a rule then (runc 1.5,
/// libcontainer/seccomp).
fn names_one_twice(conditions: &[Asked]) -> bool {
    let mut rest = conditions.iter();
    std::iter::from_fn(|| rest.next().map(|first| (first.argument, rest.clone())))
        .any(|(argument, mut rest)| rest.any(|other| other.argument == argument))
}

fn action(name: &str, errno: Option<&Value>) -> Result<Done, Failure> {
    let errno = || {
        let errno = errno.and_then(Value::as_u64).unwrap_or(DEFAULT_ERRNO);
        Done::Errno(errno.try_into().unwrap_or(u16::MAX))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => Done::Allow,
        "SCMP_ACT_ERRNO" => errno(),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_PROCESS" | "SCMP_ACT_KILL_THREAD" => Done::KillProcess,
        "SCMP_ACT_TRAP" => Done::Trap,
        // Nobody traces by it here, and the call fails so (seccomp(2)).
        "SCMP_ACT_TRACE" => Done::Errno(libc::ENOSYS as u16),
        other => {
            return Err(refused(format!(
                "has the action {other:?}, which is unknown"
            )));
        }
    })
}

fn condition(argument: &Value) -> Result<Asked, Failure> {
    let number = |name: &str| argument.get(name).and_then(Value::as_u64);
    let index = number("index").filter(|index| *index < 6);
    let (Some(index), Some(value)) = (index, number("value")) else {
        return Err(refused(format!(
            "has the condition {argument}, which is none"
        )));
    };
    let second = number("valueTwo").unwrap_or_default();
    let beyond = || value.checked_add(1);
    let (comparison, value) = match text(argument, "op").unwrap_or_default() {
        "SCMP_CMP_EQ" => (Comparison::Equal, value),
        "SCMP_CMP_NE" => (Comparison::Differs, value),
        "SCMP_CMP_LT" => (Comparison::Below, value),
        "SCMP_CMP_GE" => (Comparison::AtLeast, value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(second), value),
        // Nothing is above the highest value, and all are at most that.
        "SCMP_CMP_GT" => match beyond() {
            Some(value) => (Comparison::AtLeast, value),
            None => (Comparison::Below, 0),
        },
        "SCMP_CMP_LE" => match beyond() {
            Some(value) => (Comparison::Below, value),
            None => (Comparison::AtLeast, 0),
        },
        other => return Err(refused(format!("compares by {other:?}, which is unknown"))),
    };
    Ok(Asked {
        argument: index as u32,
        value,
        comparison,
    })
}

/// A text that an object has.
fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

fn refused(why: String) -> Failure {
    Failure::setup(format!(
        "the container's seccomp profile {why}: with GPUs it cannot be had: leave that out of the profile"
    ))
}

/// The conditions on 32 bits under which a condition on 64 holds: all of one of these lists.
fn halves(asked: &Asked) -> Vec<Vec<Condition<'static>>> {
    let (low, high) = (asked.value as u32, (asked.value >> 32) as u32);
    let on = |upper: bool, mask: u32, test: Test<'static>| Condition {
        argument: asked.argument,
        upper,
        mask,
        test,
    };
    let (lower, upper) = (
        |test| on(false, u32::MAX, test),
        |test| on(true, u32::MAX, test),
    );
    match asked.comparison {
        Comparison::Equal => vec![vec![lower(Test::Equal(low)), upper(Test::Equal(high))]],
        Comparison::Differs => vec![
            vec![lower(Test::Differs(low))],
            vec![upper(Test::Differs(high))],
        ],
        Comparison::Below => vec![
            vec![upper(Test::Below(high))],
            vec![upper(Test::Equal(high)), lower(Test::Below(low))],
        ],
        Comparison::AtLeast => {
            let above = high
                .checked_add(1)
                .map(|next| vec![upper(Test::AtLeast(next))]);
            let here = vec![upper(Test::Equal(high)), lower(Test::AtLeast(low))];
            above.into_iter().chain([here]).collect()
        }
        Comparison::Masked(value) => vec![vec![
            on(false, low, Test::Equal(value as u32)),
            on(true, high, Test::Equal((value >> 32) as u32)),
        ]],
    }
}

/// Statements of a filter that say what the engine's profile says of these calls.
pub struct Statements(Vec<(u32, Vec<Statement>)>);

/// What is done if all of these conditions hold.
type Statement = (Vec<Condition<'static>>, Verdict);

impl Statements {
    pub fn new(closed: &[Closed]) -> Statements {
        let statements = closed.iter().map(|closed| {
            let mut cases = Vec::new();
            for (conditions, done) in &closed.cases {
                // Each way in which all of them hold.
                let mut ways = vec![Vec::new()];
                for condition in conditions {
                    let halves = halves(condition);
                    ways = ways
                        .iter()
                        .flat_map(|way| halves.iter().map(|half| [&way[..], half].concat()))
                        .collect();
                }
                cases.extend(ways.into_iter().map(|way| (way, Verdict::from(*done))));
            }
            cases.push((Vec::new(), closed.otherwise.into()));
            (closed.number, cases)
        });
        Statements(statements.collect())
    }

    /// Calls `then` with them.
    pub fn with_rules<T>(&self, then: impl FnOnce(&[Rule<'_>]) -> T) -> T {
        let cases: Vec<Vec<Case<'_>>> = self
            .0
            .iter()
            .map(|(_, cases)| {
                let cases = cases.iter().map(|(conditions, verdict)| Case {
                    verdict: *verdict,
                    conditions,
                });
                cases.collect()
            })
            .collect();
        let numbers = self.0.iter().map(|(number, _)| *number);
        let rules = numbers
            .zip(&cases)
            .map(|(number, cases)| Rule { number, cases });
        then(&rules.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use ringfence_confinement::Policy;
    use ringfence_confinement::interpreter::{self, Call};

    use super::*;

    /// What a filter with these statements does with a call that has this first argument.
    fn done(closed: &[Closed], number: libc::c_long, argument: u64) -> Verdict {
        let call = Call::native(number, [argument, 0, 0, 0, 0, 0]);
        Statements::new(closed).with_rules(|rules| {
            let policy = Policy {
                default: Verdict::Allow,
                foreign: Verdict::KillProcess,
                tables: &[],
                rules,
            };
            let program = policy.compile(&[]).expect("a program");
            interpreter::run(&program, &call).expect("a verdict")
        })
    }

    #[test]
    fn what_was_opened_is_closed_as_it_was() {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["clone", "getpriority"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
                 "args": [{"index": 0, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_GE"}]},
                {"names": ["setns"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_LT"}]},
                {"names": ["chroot"], "action": "SCMP_ACT_TRAP",
                 "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_NE"}]},
            ],
        });
        let closed = open(&mut profile).expect("closed");
        let refused = Verdict::Errno(libc::EPERM as u16);
        for (number, argument, expected) in [
            (libc::SYS_clone, 0x11, Verdict::Allow),
            (libc::SYS_clone, 0x2000_0011, refused),
            (libc::SYS_kcmp, 1, Verdict::Allow),
            (libc::SYS_mount, 0, refused),
            (libc::SYS_setns, 4, Verdict::Allow),
            (libc::SYS_setns, 5, refused),
            (libc::SYS_setns, 0x1_0000_0004, refused),
            (libc::SYS_setns, 0x1_0000_0005, Verdict::Errno(38)),
            (libc::SYS_setns, 0x2_0000_0000, Verdict::Errno(38)),
            (libc::SYS_chroot, 7, refused),
            (libc::SYS_chroot, 0x1_0000_0007, Verdict::Trap),
            (libc::SYS_read, 0, refused),
            (libc::SYS_getpriority, 0, Verdict::Allow),
        ] {
            assert_eq!(
                done(&closed, number, argument),
                expected,
                "{number} {argument:#x}"
            );
        }
        // What the low-level runtime gets lets these through, and says of the others what it said.
        let names = |index: usize| profile["syscalls"][index]["names"].clone();
        let allowed = ["kcmp", "getpriority"];
        let opened = needed::calls().map(|(name, _)| name);
        let opened: Vec<&str> = opened.filter(|name| !allowed.contains(name)).collect();
        assert_eq!(names(0), json!(opened));
        assert_eq!(names(1), json!(["getpriority"]));
        assert_eq!(names(2), json!(["kcmp"]));
        assert_eq!(profile["syscalls"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_profile_with_a_listener_of_its_own_is_refused() {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mknod"], "action": "SCMP_ACT_NOTIFY"}],
        });
        let failure = open(&mut profile).expect_err("a failure");
        let start = "the container's seccomp profile has another process decide calls";
        assert!(failure.message.starts_with(start), "{failure}");
    }
}
