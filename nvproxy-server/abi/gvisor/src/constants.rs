//! The constants of a Go package: numbers, and sets of capabilities.
//!
//! Only those that somebody asks for have to be understood. A constant of another form is an error when it is asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::tokens::{Cursor, Kind, Source, Token};

/// The constants that a package declares outside of its functions.
#[derive(Debug, Default)]
pub struct Constants {
    /// What each is said to be, if it is said: of a list with iota only the first has it.
    declared: BTreeMap<String, Option<Cursor>>,
}

/// How often constants may refer to others. Go's are never in a circle.
const MAXIMUM_DEPTH: usize = 16;

impl Constants {
    /// Reads the constants of a package's files.
    pub fn read(files: &[Source]) -> Result<Constants, Error> {
        let mut constants = Constants::default();
        for file in files {
            let mut cursor = file.cursor();
            while !cursor.at_end() {
                if ["(", "[", "{"].iter().any(|opening| cursor.is(opening)) {
                    cursor.block()?;
                } else if !cursor.accept("const") {
                    cursor.take()?;
                } else if cursor.is("(") {
                    let mut block = cursor.block()?;
                    while !block.at_end() {
                        constants.declare(&mut block)?;
                    }
                } else {
                    constants.declare(&mut cursor)?;
                }
            }
        }
        Ok(constants)
    }

    /// Takes one declaration: `NAME`, `NAME = VALUE` or `NAME TYPE = VALUE`.
    fn declare(&mut self, cursor: &mut Cursor) -> Result<(), Error> {
        let name = cursor.word()?;
        let already = format!("{} is declared twice", name.text);
        if !cursor.is("=") && !cursor.is(";") {
            cursor.word()?;
        }
        let mut value = None;
        if cursor.accept("=") {
            value = Some(cursor.until(&[";"])?);
        }
        // The last of a block on one line has none.
        if !cursor.at_end() {
            cursor.expect(";")?;
        }
        if name.text != "_" && self.declared.insert(name.text, value).is_some() {
            return Err(cursor.refuse(already));
        }
        Ok(())
    }

    /// What a name stands for. `at` is where it is used.
    fn value(&self, name: &str, at: &Cursor) -> Result<Cursor, Error> {
        let declared = self.declared.get(name);
        let declared =
            declared.ok_or_else(|| at.refuse(format_args!("there is no constant {name}")))?;
        let value = declared.clone();
        value.ok_or_else(|| at.refuse(format_args!("{name} has no value of its own")))
    }

    /// The number that a name stands for: another, or a sum or difference of others.
    pub fn number(&self, name: &str, at: &Cursor) -> Result<u32, Error> {
        self.number_within(name, at, MAXIMUM_DEPTH)
    }

    fn number_within(&self, name: &str, at: &Cursor, depth: usize) -> Result<u32, Error> {
        let depth = depth.checked_sub(1);
        let depth = depth.ok_or_else(|| at.refuse(format_args!("{name} leads too far")))?;
        let mut value = self.value(name, at)?;
        let mut sum = self.term(&mut value, depth)?;
        while !value.at_end() {
            let next = if value.accept("-") {
                sum.checked_sub(self.term(&mut value, depth)?)
            } else {
                value.expect("+")?;
                sum.checked_add(self.term(&mut value, depth)?)
            };
            sum =
                next.ok_or_else(|| value.refuse(format_args!("{name} is no number of 32 bits")))?;
        }
        Ok(sum)
    }

    fn term(&self, value: &mut Cursor, depth: usize) -> Result<u32, Error> {
        let is_number = value.peek().is_some_and(|token| token.kind == Kind::Number);
        if is_number {
            return value.number();
        }
        let name = value.word()?;
        self.number_within(&name.text, value, depth)
    }

    /// Takes a set of capabilities: `nvconf.NAME`, or a name for such a set, or several with `|` between them. Returns the
    /// names that nvconf has for them.
    pub fn capabilities(&self, cursor: &mut Cursor) -> Result<BTreeSet<String>, Error> {
        self.capabilities_within(cursor, MAXIMUM_DEPTH)
    }

    fn capabilities_within(
        &self,
        cursor: &mut Cursor,
        depth: usize,
    ) -> Result<BTreeSet<String>, Error> {
        let depth = depth.checked_sub(1);
        let depth = depth.ok_or_else(|| cursor.refuse("capabilities lead too far"))?;
        let mut set = BTreeSet::new();
        loop {
            let Token { text, .. } = cursor.word()?;
            if text == "nvconf" {
                cursor.expect(".")?;
                set.insert(cursor.word()?.text);
            } else {
                let mut value = self.value(&text, cursor)?;
                set.extend(self.capabilities_within(&mut value, depth)?);
                if !value.at_end() {
                    return Err(value.wrong("the end of a set of capabilities"));
                }
            }
            if !cursor.accept("|") {
                return Ok(set);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
package nvgpu

// A remark with const in it.
const MAGIC = uint32('F')

const (
	BASE              = 200
	NV_ESC_CARD_INFO  = BASE + 0
	LATER     ClassID = NV_ESC_CARD_INFO + 0x10 - 1
	CIRCLE            = CIRCLE
	COUNTED           = iota
	NEXT
)

const both = nvconf.CapCompute | nvconf.CapUtility

func f() { const BASE = 1 }
";

    fn constants() -> Constants {
        Constants::read(&[Source::new("x.go", SOURCE).expect("tokens")]).expect("constants")
    }

    fn number(name: &str) -> Result<u32, String> {
        let source = Source::new("use.go", "here").expect("tokens");
        let mut cursor = source.cursor();
        cursor.take().expect("a token");
        let number = constants().number(name, &cursor);
        number.map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_literals_names_and_sums() {
        assert_eq!(number("NV_ESC_CARD_INFO"), Ok(200));
        assert_eq!(number("LATER"), Ok(215));
    }

    #[test]
    fn other_forms_are_errors_that_name_the_place() {
        let failures = [
            ("ABSENT", "use.go:1: there is no constant ABSENT"),
            ("NEXT", "use.go:1: NEXT has no value of its own"),
            ("MAGIC", "x.go:5: there is no constant uint32"),
            ("CIRCLE", "x.go:11: CIRCLE leads too far"),
            ("COUNTED", "x.go:12: there is no constant iota"),
        ];
        for (name, text) in failures {
            assert_eq!(number(name), Err(text.to_owned()));
        }
    }

    #[test]
    fn a_constant_is_declared_once() {
        let source = Source::new("x.go", "const A = 1\nconst A = 2\n").expect("tokens");
        let error = Constants::read(&[source]).expect_err("twice");
        assert_eq!(error.to_string(), "x.go:2: A is declared twice");
    }

    #[test]
    fn capabilities_are_named_by_nvconf_or_by_other_names() {
        let source = Source::new("x.go", "both|nvconf.CapGraphics)").expect("tokens");
        let found = constants()
            .capabilities(&mut source.cursor())
            .expect("a set");
        let names: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(names, ["CapCompute", "CapGraphics", "CapUtility"]);
        let source = Source::new("x.go", "all(nvconf.CapGraphics)").expect("tokens");
        let error = constants()
            .capabilities(&mut source.cursor())
            .expect_err("no set");
        assert_eq!(error.to_string(), "x.go:1: there is no constant all");
    }
}
