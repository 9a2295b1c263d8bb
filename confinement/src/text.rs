//! The format of a policy file, and its translation to Rust.
//!
//! A file is a list of statements, one a line; an indented line continues the one above, and `#` starts a comment. Under
//! `on ARCHITECTURE:` statements are indented, and what continues one is indented further.
//!
//! ```text
//! default VERDICT              what is answered to a call that no statement decides
//! foreign VERDICT              ... and to the calls of other architectures, whose numbers differ
//! let NAME = VALUE             a number that the crate libc does not name
//! table NAME                   a list of numbers that the program fills in when it starts
//! CALL...: VERDICT             what is answered to these system calls
//! CALL...: VERDICT if CONDITION [and CONDITION]...
//! on ARCHITECTURE:             begins statements that are for this one of [`ARCHITECTURES`] alone
//! ```
//!
//! VERDICT is `allow`, `do-nothing`, `errno NAME`, `notify` or `kill-process`. Of several statements about one call the first whose
//! conditions hold decides. CONDITION is about the lower 32 bits of an argument:
//!
//! ```text
//! [upper] argN [& VALUE] == VALUE      also != and <
//! [upper] argN [& VALUE] in {VALUE, VALUE}
//! [upper] argN [& VALUE] in TABLE
//! ```
//!
//! Of arguments that are `int` or `unsigned int` in the kernel it ignores the upper halves, too. What is asked of a pointer, whether
//! it is null, is asked of both halves: `upper` means the other one. VALUE is a number, a name, or
//! several of them joined by `|`. There are no spaces within a VALUE.
//!
//! What is wrong with a file is said in a sentence: whoever changes a policy reads it, when the build fails.

use std::collections::BTreeMap;

/// Those that a file may speak of, as Rust names them. Another is added here when `arch/` has a file for it.
pub const ARCHITECTURES: [&str; 1] = ["x86_64"];

/// A file that was read, with its names and values as Rust expressions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct File {
    default: Option<String>,
    foreign: Option<String>,
    definitions: BTreeMap<String, String>,
    tables: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    call: String,
    cases: Vec<Case>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Case {
    verdict: String,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    argument: u8,
    upper: bool,
    mask: String,
    test: String,
}

/// Reads a file, as it is meant for `architecture`. Fails with a sentence that names the line.
pub fn parse(text: &str, architecture: &str) -> Result<File, String> {
    let mut file = File::default();
    for Statement { line, on, text } in statements(text) {
        let added = match on {
            Some(name) if !ARCHITECTURES.contains(&name) => {
                Err(format!("`{name}` is no architecture that is known"))
            }
            Some(name) if name != architecture => Ok(()),
            _ => file.add(&text),
        };
        added.map_err(|reason| format!("line {line}: {reason}: {text}"))?;
    }
    match file {
        File { default: None, .. } => Err("there is no `default` statement".to_owned()),
        File { foreign: None, .. } => Err("there is no `foreign` statement".to_owned()),
        file => Ok(file),
    }
}

/// A statement, put on one line.
struct Statement<'a> {
    /// The number of the line that it starts on.
    line: usize,
    /// The one architecture that it is for.
    on: Option<&'a str>,
    text: String,
}

fn statements(text: &str) -> Vec<Statement<'_>> {
    let mut statements: Vec<Statement<'_>> = Vec::new();
    // Whose statements these are, and, from the first on, how far they are indented.
    let mut block: Option<(&str, Option<usize>)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let words: Vec<&str> = line.split_whitespace().collect();
        let indentation = line.len() - line.trim_start().len();
        let begins = match &mut block {
            _ if words.is_empty() => continue,
            Some((_, statement)) if indentation > 0 => {
                indentation <= *statement.get_or_insert(indentation)
            }
            _ => indentation == 0,
        };
        if indentation == 0 {
            let name = line.strip_prefix("on ");
            block = name.and_then(|name| Some((name.strip_suffix(':')?, None)));
            if block.is_some() {
                continue;
            }
        }
        match statements.last_mut() {
            Some(statement) if !begins => {
                statement.text.push(' ');
                statement.text.push_str(&words.join(" "));
            }
            _ => statements.push(Statement {
                line: index + 1,
                on: block.map(|(name, _)| name),
                text: words.join(" "),
            }),
        }
    }
    statements
}

impl File {
    fn add(&mut self, statement: &str) -> Result<(), String> {
        let words: Vec<&str> = statement.split(' ').collect();
        match words[..] {
            ["default", ref verdict @ ..] => once(&mut self.default, self::verdict(verdict)?),
            ["foreign", ref verdict @ ..] => once(&mut self.foreign, self::verdict(verdict)?),
            ["let", name, "=", value] => {
                let value = self.value(value)?;
                match self.definitions.insert(name.to_owned(), value) {
                    None => Ok(()),
                    Some(_) => Err("the name has a meaning already".to_owned()),
                }
            }
            ["table", name] => {
                self.tables.push(name.to_owned());
                Ok(())
            }
            _ => self.add_rules(statement),
        }
    }

    fn add_rules(&mut self, statement: &str) -> Result<(), String> {
        let (calls, decision) = statement
            .split_once(": ")
            .ok_or("neither a statement that is known nor `CALL: VERDICT`")?;
        let (verdict, conditions) = match decision.split_once(" if ") {
            Some((verdict, conditions)) => (verdict, conditions.split(" and ").collect()),
            None => (decision, Vec::new()),
        };
        let case = Case {
            verdict: self::verdict(&verdict.split(' ').collect::<Vec<_>>())?,
            conditions: conditions
                .into_iter()
                .map(|condition| self.condition(condition))
                .collect::<Result<_, _>>()?,
        };
        for call in calls.split(' ') {
            self.add_case(call, case.clone())?;
        }
        Ok(())
    }

    fn add_case(&mut self, call: &str, case: Case) -> Result<(), String> {
        let call = match self.definitions.get(call) {
            Some(number) => number.clone(),
            None => format!("libc::SYS_{}", name(call)?),
        };
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.call == call) else {
            let cases = vec![case];
            self.rules.push(Rule { call, cases });
            return Ok(());
        };
        if rule.cases.iter().any(|case| case.conditions.is_empty()) {
            return Err(format!("{call} was decided above, whatever its arguments"));
        }
        rule.cases.push(case);
        Ok(())
    }

    fn condition(&self, text: &str) -> Result<Condition, String> {
        let (upper, text) = match text.strip_prefix("upper ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (argument, rest) = text.split_once(' ').ok_or("a condition without a test")?;
        let argument = argument
            .strip_prefix("arg")
            .and_then(|number| number.parse().ok())
            .filter(|number| *number < 6)
            .ok_or("a condition starts with an argument, arg0 to arg5")?;
        let (mask, test) = match rest.strip_prefix("& ") {
            Some(rest) => {
                let (mask, test) = rest.split_once(' ').ok_or("a mask without a test")?;
                (self.value(mask)?, test)
            }
            None => ("u32::MAX".to_owned(), rest),
        };
        let (operator, operand) = test.split_once(' ').ok_or("a test without a value")?;
        let test = match operator {
            "==" => format!("Test::Equal({})", self.value(operand)?),
            "!=" => format!("Test::Differs({})", self.value(operand)?),
            "<" => format!("Test::Below({})", self.value(operand)?),
            "in" => self.set(operand)?,
            _ => return Err("a test is one of ==, !=, < and in".to_owned()),
        };
        Ok(Condition {
            argument,
            upper,
            mask,
            test,
        })
    }

    /// What stands behind `in`.
    fn set(&self, text: &str) -> Result<String, String> {
        let Some(list) = text.strip_prefix('{') else {
            let index = self.tables.iter().position(|table| table == text);
            let index = index.ok_or("neither a list nor the name of a table")?;
            return Ok(format!("Test::InTable({index})"));
        };
        let list = list.strip_suffix('}').ok_or("a list without its end")?;
        let values: Vec<String> = list
            .split(',')
            .map(|value| self.value(value.trim()))
            .collect::<Result<_, _>>()?;
        Ok(format!("Test::OneOf(&[{}])", values.join(", ")))
    }

    /// A value as an expression of type u32.
    fn value(&self, text: &str) -> Result<String, String> {
        let parts: Vec<String> = text
            .split('|')
            .map(|part| self.part(part))
            .collect::<Result<_, _>>()?;
        Ok(parts.join(" | "))
    }

    fn part(&self, text: &str) -> Result<String, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let number = match text.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => text.parse(),
            };
            let number = number.map_err(|_| "a number is at most 0xffffffff")?;
            return Ok(format!("{number:#x}"));
        }
        if let Some(value) = self.definitions.get(text) {
            return Ok(value.clone());
        }
        Ok(format!("libc::{} as u32", name(text)?))
    }

    /// The file as an expression of type `Policy`.
    pub fn to_rust(&self) -> String {
        let verdict = |verdict: &Option<String>| verdict.clone().unwrap_or_default();
        let rules: Vec<String> = self.rules.iter().map(Rule::to_rust).collect();
        format!(
            "Policy {{ default: {}, foreign: {}, tables: &{:?}, rules: &[\n{}\n] }}",
            verdict(&self.default),
            verdict(&self.foreign),
            self.tables,
            rules.join(",\n")
        )
    }
}

impl Rule {
    fn to_rust(&self) -> String {
        let cases: Vec<String> = self.cases.iter().map(Case::to_rust).collect();
        format!(
            "Rule {{ number: {} as u32, cases: &[{}] }}",
            self.call,
            cases.join(", ")
        )
    }
}

impl Case {
    fn to_rust(&self) -> String {
        let conditions: Vec<String> = self
            .conditions
            .iter()
            .map(|condition| {
                let Condition {
                    argument,
                    upper,
                    mask,
                    test,
                } = condition;
                format!("Condition {{ argument: {argument}, upper: {upper}, mask: {mask}, test: {test} }}")
            })
            .collect();
        format!(
            "Case {{ verdict: {}, conditions: &[{}] }}",
            self.verdict,
            conditions.join(", ")
        )
    }
}

fn once(place: &mut Option<String>, verdict: String) -> Result<(), String> {
    match place.replace(verdict) {
        None => Ok(()),
        Some(_) => Err("it is said twice".to_owned()),
    }
}

fn verdict(words: &[&str]) -> Result<String, String> {
    match words {
        ["allow"] => Ok("Verdict::Allow".to_owned()),
        ["notify"] => Ok("Verdict::Notify".to_owned()),
        ["do-nothing"] => Ok("Verdict::Errno(0)".to_owned()),
        ["kill-process"] => Ok("Verdict::KillProcess".to_owned()),
        ["errno", errno] => Ok(format!("Verdict::Errno(libc::{} as u16)", name(errno)?)),
        _ => Err(
            "a verdict is one of allow, do-nothing, errno NAME, notify and kill-process".to_owned(),
        ),
    }
}

/// `text`, if it can be part of a name in Rust.
fn name(text: &str) -> Result<&str, String> {
    let is_name = |text: &str| {
        text.chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    if !text.is_empty() && is_name(text) {
        Ok(text)
    } else {
        Err(format!("`{text}` is no name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "default errno EPERM\nforeign kill-process\n";

    fn parsed(statements: &str) -> Result<String, String> {
        parse(&format!("{HEAD}{statements}"), "x86_64").map(|file| file.to_rust())
    }

    fn with_rules(rules: &str) -> String {
        format!(
            "Policy {{ default: Verdict::Errno(libc::EPERM as u16), foreign: Verdict::KillProcess, tables: &[], \
             rules: &[\n{rules}\n] }}"
        )
    }

    /// Of a call that is allowed whatever its arguments.
    fn allowed(call: &str) -> String {
        format!(
            "Rule {{ number: libc::SYS_{call} as u32, cases: &[Case {{ verdict: Verdict::Allow, conditions: &[] }}] }}"
        )
    }

    #[test]
    fn a_call_that_libc_does_not_name_has_a_number() {
        let rule = "Rule { number: 0x1c9 as u32, cases: &[Case { verdict: Verdict::Allow, conditions: &[] }] }";
        let text = "let statmount = 457\nstatmount: allow\n";
        assert_eq!(parsed(text), Ok(with_rules(rule)));
    }

    #[test]
    fn a_statement_may_go_on_and_name_several_calls() {
        let text = "# a comment\nread # another\n    write:\n    allow\n";
        let rules = ["read", "write"].map(allowed).join(",\n");
        assert_eq!(parsed(text), Ok(with_rules(&rules)));
    }

    #[test]
    fn statements_may_be_for_one_architecture() {
        let text = "read: allow\non x86_64:\n  open\n    creat: allow # so far\n\n  poll: allow\nwrite: allow\n";
        let everywhere = ["read", "write"].map(allowed).join(",\n");
        let here = ["read", "open", "creat", "poll", "write"];
        let here = here.map(allowed).join(",\n");
        assert_eq!(parsed(text), Ok(with_rules(&here)));
        let elsewhere = parse(&format!("{HEAD}{text}"), "aarch64").map(|file| file.to_rust());
        assert_eq!(elsewhere, Ok(with_rules(&everywhere)));
        assert_eq!(
            parsed("on x86-64:\n    open: allow"),
            Err("line 4: `x86-64` is no architecture that is known: open: allow".to_owned())
        );
    }

    #[test]
    fn conditions_are_kept_in_order() {
        let text = "let BIG = 0x10|O_RDWR\nopen: notify if arg1 & BIG|3 == O_RDWR and upper arg0 in {1, BIG}\nopen: allow";
        let rule = "Rule { number: libc::SYS_open as u32, cases: &[\
            Case { verdict: Verdict::Notify, conditions: &[\
            Condition { argument: 1, upper: false, mask: 0x10 | libc::O_RDWR as u32 | 0x3, test: Test::Equal(libc::O_RDWR as u32) }, \
            Condition { argument: 0, upper: true, mask: u32::MAX, test: Test::OneOf(&[0x1, 0x10 | libc::O_RDWR as u32]) }] }, \
            Case { verdict: Verdict::Allow, conditions: &[] }] }";
        assert_eq!(parsed(text), Ok(with_rules(rule)));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let mistakes = [
            (
                "reed write",
                "neither a statement that is known nor `CALL: VERDICT`",
            ),
            (
                "read: perhaps",
                "a verdict is one of allow, do-nothing, errno NAME, notify and kill-process",
            ),
            ("re-ad: allow", "`re-ad` is no name"),
            (
                "read: allow if arg6 == 1",
                "a condition starts with an argument, arg0 to arg5",
            ),
            (
                "read: allow if arg1 > 1",
                "a test is one of ==, !=, < and in",
            ),
            (
                "read: allow if arg1 in requests",
                "neither a list nor the name of a table",
            ),
            ("read: allow if arg1 in {1, 2", "a list without its end"),
            ("read: allow if arg1 & 1", "a mask without a test"),
            ("default allow", "it is said twice"),
            ("let A = 0x123456789", "a number is at most 0xffffffff"),
        ];
        for (statement, reason) in mistakes {
            let expected = format!("line 3: {reason}: {statement}");
            assert_eq!(parsed(statement), Err(expected));
        }
        assert_eq!(
            parsed("read: allow\nread: notify"),
            Err(
                "line 4: libc::SYS_read was decided above, whatever its arguments: read: notify"
                    .to_owned()
            )
        );
        assert_eq!(
            parse("default allow", "x86_64"),
            Err("there is no `foreign` statement".to_owned())
        );
    }
}
