//! A policy as data, and its translation to a program for the kernel's packet filter machine.
//!
//! A program first refuses calls of other architectures, then finds the call by a binary search over its number, and
//! only then looks at arguments, for the few calls of which they matter. So most calls are decided by their number
//! alone, after few steps; the kernel notices those that are allowed so and keeps them in a bitmap (seccomp's constant
//! actions, Linux 5.11), and they cost next to nothing.
//!
//! The program is written from its end to its beginning. Jumps only ever lead forward in such a program, so where one
//! leads is always there already, and a jump that is longer than an instruction can say gets a helper in between.

use std::collections::HashMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use crate::arch::{ARCHITECTURE, FIRST_FOREIGN};

/// Offsets in `struct seccomp_data` (linux/seccomp.h). Arguments are 64 bits wide, the low half first.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
/// The most instructions of a program (`BPF_MAXINSNS`, linux/bpf_common.h).
const MAXIMUM_INSTRUCTIONS: usize = 4096;

/// What the kernel is to do with a call (seccomp(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Execute it.
    Allow,
    /// Let it fail with this error; with 0, let it do nothing and return 0.
    Errno(u16),
    /// Ask the listener.
    Notify,
    /// End the process as by SIGSYS, whatever it has said about that signal.
    KillProcess,
    /// Send the thread SIGSYS.
    Trap,
}

impl Verdict {
    fn to_kernel(self) -> u32 {
        match self {
            Verdict::Allow => libc::SECCOMP_RET_ALLOW,
            Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Verdict::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Verdict::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Verdict::Trap => libc::SECCOMP_RET_TRAP,
        }
    }

    pub(crate) fn from_kernel(value: u32) -> Option<Verdict> {
        let data = (value & libc::SECCOMP_RET_DATA) as u16;
        [
            Verdict::Allow,
            Verdict::Errno(data),
            Verdict::Notify,
            Verdict::KillProcess,
            Verdict::Trap,
        ]
        .into_iter()
        .find(|verdict| verdict.to_kernel() == value)
    }
}

/// What a process of one role may ask of the kernel. The files that these are made of, and their format:
/// `confinement/policies/`.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// For calls that no rule decides.
    pub default: Verdict,
    /// For calls of other architectures.
    pub foreign: Verdict,
    /// Names of lists that are filled in by [`Policy::compile`]'s caller.
    pub tables: &'static [&'static str],
    /// One for each call that is spoken of, in any order.
    pub rules: &'a [Rule<'a>],
}

/// What is said about one system call.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// Its number.
    pub number: u32,
    /// The first whose conditions hold decides; if none does, the policy's default.
    pub cases: &'a [Case<'a>],
}

/// One statement about a call.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub verdict: Verdict,
    /// All of them have to hold.
    pub conditions: &'a [Condition<'a>],
}

/// A condition on 32 bits of an argument, after `mask`.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// 0 to 5.
    pub argument: u32,
    /// Whether it is about the upper half of the argument, in place of the lower one.
    pub upper: bool,
    pub mask: u32,
    pub test: Test<'a>,
}

/// What is asked of an argument.
#[derive(Clone, Copy, Debug)]
pub enum Test<'a> {
    Equal(u32),
    Differs(u32),
    Below(u32),
    AtLeast(u32),
    OneOf(&'a [u32]),
    /// One of the numbers of a table, by the index of its name.
    InTable(usize),
}

/// A list of numbers for a policy that leaves them open.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// What the policy calls it.
    pub name: &'a str,
    /// In any order; the same number may come several times.
    pub numbers: &'a [u32],
}

/// Why a policy has no program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The policy names a table that was not given.
    #[error("the table {0} was not given")]
    Missing(&'static str),
    /// It would have this many instructions, more than the kernel accepts.
    #[error("a program of {0} instructions, of which the kernel takes {MAXIMUM_INSTRUCTIONS}")]
    TooLong(usize),
}

impl Policy<'_> {
    /// The policy's program, with `tables` for the lists that it leaves open.
    pub fn compile(&self, tables: &[Table<'_>]) -> Result<Vec<sock_filter>, Problem> {
        let tables: Vec<Vec<u32>> = self
            .tables
            .iter()
            .map(|name| {
                let table = tables.iter().find(|table| table.name == *name);
                let table = table.ok_or(Problem::Missing(name))?;
                Ok(in_order(table.numbers))
            })
            .collect::<Result<_, _>>()?;
        let program = Assembler::new(&tables).program(self);
        if program.len() > MAXIMUM_INSTRUCTIONS {
            return Err(Problem::TooLong(program.len()));
        }
        Ok(program)
    }

    /// What is done with calls by their number: where each piece begins, in order. The first begins at 0, the last goes
    /// on for ever, and neighbours differ.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let undecided = Action::Plain(self.default);
        let mut rules: Vec<&Rule<'_>> = self.rules.iter().collect();
        rules.sort_by_key(|rule| rule.number);
        let mut pieces = vec![Piece {
            begin: 0,
            action: undecided,
        }];
        for rule in rules {
            let action = match rule.cases {
                [
                    Case {
                        verdict,
                        conditions: [],
                    },
                ] => Action::Plain(*verdict),
                cases => Action::ByArguments(cases),
            };
            begin(&mut pieces, rule.number, action);
            begin(&mut pieces, rule.number + 1, undecided);
        }
        pieces
    }
}

/// System calls from one number on.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    begin: u32,
    action: Action<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Action<'a> {
    Plain(Verdict),
    ByArguments(&'a [Case<'a>]),
}

/// Lets a piece begin, at or after the beginning of the last one.
fn begin<'a>(pieces: &mut Vec<Piece<'a>>, begin: u32, action: Action<'a>) {
    if pieces.last().is_some_and(|last| last.begin == begin) {
        pieces.pop();
    }
    let goes_on = match (pieces.last(), action) {
        (
            Some(Piece {
                action: Action::Plain(last),
                ..
            }),
            Action::Plain(next),
        ) => *last == next,
        _ => false,
    };
    if !goes_on {
        pieces.push(Piece { begin, action });
    }
}

fn in_order(numbers: &[u32]) -> Vec<u32> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// An instruction that was written, counted from the program's end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Label(usize);

/// Writes a program from its end to its beginning.
struct Assembler<'a> {
    tables: &'a [Vec<u32>],
    written: Vec<sock_filter>,
    /// The last instruction written for each verdict.
    verdicts: HashMap<Verdict, Label>,
    /// The last jump written to each label that a branch could not reach.
    jumps: HashMap<Label, Label>,
}

impl<'a> Assembler<'a> {
    fn new(tables: &'a [Vec<u32>]) -> Assembler<'a> {
        Assembler {
            tables,
            written: Vec::new(),
            verdicts: HashMap::new(),
            jumps: HashMap::new(),
        }
    }

    fn program(mut self, policy: &Policy<'_>) -> Vec<sock_filter> {
        let decided = self.search(policy.default, &policy.pieces());
        let foreign = self.verdict(policy.foreign);
        let native = self.branch(BPF_JGE, FIRST_FOREIGN, foreign, decided);
        let number = self.load(NUMBER, native);
        let foreign = self.verdict(policy.foreign);
        let here = self.branch(BPF_JEQ, ARCHITECTURE, number, foreign);
        self.load(MACHINE, here);
        self.written.reverse();
        self.written
    }

    /// Finds the piece that the number in the accumulator belongs to, which is one of `pieces`.
    fn search(&mut self, default: Verdict, pieces: &[Piece<'_>]) -> Label {
        let (low, high) = pieces.split_at(pieces.len() / 2);
        match (low, high) {
            ([], []) => self.verdict(default),
            ([], [piece, ..]) => match piece.action {
                Action::Plain(verdict) => self.verdict(verdict),
                Action::ByArguments(cases) => self.cases(default, cases),
            },
            (low, [middle, ..]) => {
                let above = self.search(default, high);
                let below = self.search(default, low);
                self.branch(BPF_JGE, middle.begin, above, below)
            }
            (low, []) => self.search(default, low),
        }
    }

    fn cases(&mut self, default: Verdict, cases: &[Case<'_>]) -> Label {
        let mut otherwise = self.verdict(default);
        for case in cases.iter().rev() {
            let mut holds = self.verdict(case.verdict);
            for condition in case.conditions.iter().rev() {
                holds = self.condition(condition, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    fn condition(&mut self, condition: &Condition<'_>, holds: Label, otherwise: Label) -> Label {
        let tested = match condition.test {
            Test::Equal(value) => self.branch(BPF_JEQ, value, holds, otherwise),
            Test::Differs(value) => self.branch(BPF_JEQ, value, otherwise, holds),
            Test::Below(value) => self.branch(BPF_JGE, value, otherwise, holds),
            Test::AtLeast(value) => self.branch(BPF_JGE, value, holds, otherwise),
            Test::OneOf(values) => self.member(&in_order(values), holds, otherwise),
            Test::InTable(index) => {
                let tables = self.tables;
                let values = tables.get(index).map_or(&[][..], Vec::as_slice);
                self.member(values, holds, otherwise)
            }
        };
        let masked = match condition.mask {
            u32::MAX => tested,
            mask => self.statement(BPF_ALU | BPF_AND | BPF_K, mask, tested),
        };
        let argument = ARGUMENTS + ARGUMENT_BYTES * condition.argument;
        let half = if condition.upper {
            ARGUMENT_BYTES / 2
        } else {
            0
        };
        self.load(argument + half, masked)
    }

    /// Whether the accumulator is one of `values`, which are in order.
    fn member(&mut self, values: &[u32], holds: Label, otherwise: Label) -> Label {
        match values {
            [] => otherwise,
            [value] => self.branch(BPF_JEQ, *value, holds, otherwise),
            values => {
                let (low, high) = values.split_at(values.len() / 2);
                let above = self.member(high, holds, otherwise);
                let below = self.member(low, holds, otherwise);
                let middle = high.first().copied().unwrap_or_default();
                self.branch(BPF_JGE, middle, above, below)
            }
        }
    }

    fn verdict(&mut self, verdict: Verdict) -> Label {
        match self.verdicts.get(&verdict) {
            Some(label) if self.is_near(*label) => *label,
            _ => {
                let label = self.write(BPF_RET | BPF_K, verdict.to_kernel(), 0, 0);
                self.verdicts.insert(verdict, label);
                label
            }
        }
    }

    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.statement(BPF_LD | BPF_W | BPF_ABS, offset, next)
    }

    /// An instruction after which `next` follows.
    fn statement(&mut self, code: u32, constant: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            self.jump(next);
        }
        self.write(code, constant, 0, 0)
    }

    /// Compares the accumulator with `constant`.
    fn branch(&mut self, test: u32, constant: u32, holds: Label, otherwise: Label) -> Label {
        let holds = self.nearby(holds);
        let otherwise = self.nearby(otherwise);
        let [holds, otherwise] = [holds, otherwise].map(|label| self.distance(label) as u8);
        self.write(BPF_JMP | test | BPF_K, constant, holds, otherwise)
    }

    /// `label`, or a jump to it that a branch can reach.
    fn nearby(&mut self, label: Label) -> Label {
        if self.is_near(label) {
            return label;
        }
        match self.jumps.get(&label) {
            Some(jump) if self.is_near(*jump) => *jump,
            _ => {
                let jump = self.jump(label);
                self.jumps.insert(label, jump);
                jump
            }
        }
    }

    fn jump(&mut self, label: Label) -> Label {
        let distance = self.distance(label) as u32;
        self.write(BPF_JMP | BPF_JA, distance, 0, 0)
    }

    /// Whether a branch reaches `label`, even if another instruction gets in between.
    fn is_near(&self, label: Label) -> bool {
        self.distance(label) < usize::from(u8::MAX)
    }

    /// How many instructions the one written next has to skip to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.written.len() - 1 - label.0
    }

    fn write(&mut self, code: u32, constant: u32, holds: u8, otherwise: u8) -> Label {
        self.written.push(sock_filter {
            code: code as u16,
            jt: holds,
            jf: otherwise,
            k: constant,
        });
        Label(self.written.len() - 1)
    }
}

#[cfg(test)]
mod tests;
