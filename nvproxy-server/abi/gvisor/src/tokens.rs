//! Go source as a list of tokens, and a cursor that walks it.
//!
//! Only what gVisor's tables are written in is known: words, numbers, strings and the marks between them. A line's end is
//! a `;` where Go puts one, so that a reader sees where a statement ends. Comments are left out.

use std::rc::Rc;

use crate::error::Error;

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    Number,
    /// A string or a character; the text is what stands between the quotes, as it is written.
    Text,
    Mark,
}

/// One token, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
}

/// The tokens of a file.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: Rc<str>,
    pub tokens: Rc<[Token]>,
}

/// Marks of more than one character, the longest first.
const LONG_MARKS: &[&str] = &[
    "<<=", ">>=", "&^=", "...", ":=", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "&^", "+=",
    "-=", "*=", "/=", "|=", "&=", "++", "--", "<-",
];

/// Marks of one character.
const MARKS: &str = "+-*/%&|^<>=!()[]{},;.:~";

/// Words after which a line's end ends no statement.
const OPEN_WORDS: &[&str] = &[
    "case",
    "chan",
    "const",
    "default",
    "defer",
    "else",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

impl Source {
    /// Splits `text`, the contents of `file`.
    pub fn new(file: &str, text: &str) -> Result<Source, Error> {
        let mut scanner = Scanner {
            file,
            rest: text,
            line: 1,
            tokens: Vec::new(),
        };
        while scanner.step()? {}
        scanner.end_line();
        Ok(Source {
            file: file.into(),
            tokens: scanner.tokens.into(),
        })
    }

    /// A cursor before the first token.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            source: self.clone(),
            at: 0,
        }
    }

    /// A cursor after the one place outside of all braces where these tokens stand.
    pub fn after(&self, wanted: &str) -> Result<Cursor, Error> {
        let wanted = Source::new("", wanted)?;
        // The `;` of the line's end is none of what is looked for.
        let wanted: Vec<&str> = wanted.tokens.iter().map(|token| &*token.text).collect();
        let wanted = wanted.strip_suffix(&[";"]).unwrap_or(&wanted);
        let mut depth = 0_usize;
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let here = self.tokens.get(at..).unwrap_or_default();
            let matches = here.len() >= wanted.len()
                && here
                    .iter()
                    .zip(wanted)
                    .all(|(token, text)| token.text == *text);
            if depth == 0 && matches {
                found.push(at + wanted.len());
            }
            match (token.kind, &*token.text) {
                (Kind::Mark, "{") => depth += 1,
                (Kind::Mark, "}") => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let text = wanted.join(" ");
        match found[..] {
            [at] => Ok(Cursor {
                source: self.clone(),
                at,
            }),
            [] => Err(Error::new(format!("{}: there is no `{text}`", self.file))),
            [..] => Err(Error::new(format!(
                "{}: there are several of `{text}`",
                self.file
            ))),
        }
    }
}

struct Scanner<'a> {
    file: &'a str,
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl<'a> Scanner<'a> {
    /// Takes what comes next, and says whether there was anything.
    fn step(&mut self) -> Result<bool, Error> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(false);
        };
        if first == '\n' {
            self.end_line();
            self.skip(1);
        } else if first.is_ascii_whitespace() {
            self.skip(1);
        } else if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            let end = self
                .rest
                .find("*/")
                .ok_or_else(|| self.unknown("a comment without an end"))?;
            if self.rest[..end].contains('\n') {
                self.end_line();
            }
            self.skip(end + 2);
        } else if matches!(first, '"' | '\'' | '`') {
            self.quoted(first)?;
        } else if first.is_ascii_digit() {
            let end = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
            self.take(Kind::Number, self.rest.find(end));
        } else if first.is_alphabetic() || first == '_' {
            let end = |it: char| !(it.is_alphanumeric() || it == '_');
            self.take(Kind::Word, self.rest.find(end));
        } else if let Some(mark) = LONG_MARKS.iter().find(|mark| self.rest.starts_with(**mark)) {
            self.take(Kind::Mark, Some(mark.len()));
        } else if MARKS.contains(first) {
            self.take(Kind::Mark, Some(1));
        } else {
            return Err(self.unknown(format_args!("the character {first:?} is not understood")));
        }
        Ok(true)
    }

    fn take(&mut self, kind: Kind, length: Option<usize>) {
        let length = length.unwrap_or(self.rest.len());
        let text = self.rest.get(..length).unwrap_or_default().to_owned();
        self.tokens.push(Token {
            kind,
            text,
            line: self.line,
        });
        self.skip(length);
    }

    /// A string, or a character. Only one between backquotes may go on over lines.
    fn quoted(&mut self, quote: char) -> Result<(), Error> {
        let raw = quote == '`';
        let mut escaped = false;
        let mut end = None;
        for (at, character) in self.rest.char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' if !raw => escaped = true,
                '\n' if !raw => break,
                _ if character == quote => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.ok_or_else(|| self.unknown("a string without an end"))?;
        self.tokens.push(Token {
            kind: Kind::Text,
            text: self.rest.get(1..end).unwrap_or_default().to_owned(),
            line: self.line,
        });
        self.skip(end + 1);
        Ok(())
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    /// Go's rule for where a line's end is a `;`.
    fn end_line(&mut self) {
        let ends = self.tokens.last().is_some_and(|last| match last.kind {
            Kind::Word => !OPEN_WORDS.contains(&&*last.text),
            Kind::Number | Kind::Text => true,
            Kind::Mark => matches!(&*last.text, ")" | "]" | "}" | "++" | "--"),
        });
        if ends {
            self.tokens.push(Token {
                kind: Kind::Mark,
                text: ";".to_owned(),
                line: self.line,
            });
        }
    }

    fn unknown(&self, text: impl std::fmt::Display) -> Error {
        Error::at(self.file, self.line, text)
    }
}

/// A place in a source.
#[derive(Clone, Debug)]
pub struct Cursor {
    source: Source,
    at: usize,
}

impl Cursor {
    /// The token that comes next.
    pub fn peek(&self) -> Option<&Token> {
        self.source.tokens.get(self.at)
    }

    /// Whether the token that comes next is this one.
    pub fn is(&self, text: &str) -> bool {
        let next = self.peek();
        next.is_some_and(|token| token.kind != Kind::Text && token.text == text)
    }

    /// Takes the token that comes next, if it is this one.
    pub fn accept(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    /// Takes these tokens, which are separated by blanks; fails if others come.
    pub fn expect(&mut self, texts: &str) -> Result<(), Error> {
        for text in texts.split(' ') {
            if !self.accept(text) {
                return Err(self.wrong(format_args!("`{text}`")));
            }
        }
        Ok(())
    }

    /// Takes any token.
    pub fn take(&mut self) -> Result<Token, Error> {
        let token = self.peek().cloned();
        let token = token.ok_or_else(|| self.wrong("more"))?;
        self.at += 1;
        Ok(token)
    }

    /// Takes a name.
    pub fn word(&mut self) -> Result<Token, Error> {
        self.of_kind(Kind::Word, "a name")
    }

    /// Takes a string.
    pub fn text(&mut self) -> Result<Token, Error> {
        self.of_kind(Kind::Text, "a string")
    }

    /// Takes a number: decimal, octal as Go writes it, or hexadecimal.
    pub fn number(&mut self) -> Result<u32, Error> {
        let token = self.of_kind(Kind::Number, "a number")?;
        let text = &*token.text;
        let value = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8),
            None => text.parse(),
        };
        value.map_err(|_| {
            Error::at(
                &self.source.file,
                token.line,
                format_args!("the number {text} is not understood"),
            )
        })
    }

    fn of_kind(&mut self, kind: Kind, what: &str) -> Result<Token, Error> {
        if self.peek().is_some_and(|token| token.kind == kind) {
            self.take()
        } else {
            Err(self.wrong(what))
        }
    }

    /// Skips what stands between brackets, from the opening one, which comes next, over the closing one. Returns it.
    pub fn block(&mut self) -> Result<Cursor, Error> {
        let begin = self.at;
        let mut open = Vec::new();
        loop {
            let token = self.take()?;
            match (token.kind, &*token.text) {
                (Kind::Mark, "(") => open.push(")"),
                (Kind::Mark, "[") => open.push("]"),
                (Kind::Mark, "{") => open.push("}"),
                (Kind::Mark, closing @ (")" | "]" | "}")) if open.pop() != Some(closing) => {
                    self.at -= 1;
                    return Err(self.wrong("another bracket"));
                }
                _ => {}
            }
            // What does not begin with a bracket ends at once, and is none.
            if open.is_empty() {
                return self.between(begin + 1, self.at - 1);
            }
        }
    }

    /// Takes all up to a mark that is outside of all brackets, which stays.
    pub fn until(&mut self, marks: &[&str]) -> Result<Cursor, Error> {
        let begin = self.at;
        while !marks.iter().any(|mark| self.is(mark)) {
            if ["(", "[", "{"].iter().any(|opening| self.is(opening)) {
                self.block()?;
            } else {
                self.take()?;
            }
        }
        self.between(begin, self.at)
    }

    fn between(&self, begin: usize, end: usize) -> Result<Cursor, Error> {
        let tokens = self.source.tokens.get(begin..end);
        let tokens = tokens.ok_or_else(|| self.wrong("a bracket"))?;
        Ok(Cursor {
            source: Source {
                file: self.source.file.clone(),
                tokens: tokens.into(),
            },
            at: 0,
        })
    }

    /// What is left, with nothing between the tokens.
    pub fn rest(&self) -> String {
        let rest = self.source.tokens.get(self.at..).unwrap_or_default();
        rest.iter().map(|token| &*token.text).collect()
    }

    /// Whether nothing is left.
    pub fn at_end(&self) -> bool {
        self.peek().is_none()
    }

    /// That something else was expected than what comes next.
    pub fn wrong(&self, expected: impl std::fmt::Display) -> Error {
        let last = self.source.tokens.last();
        let line = self.peek().or(last).map_or(1, |token| token.line);
        let found = match self.peek() {
            Some(token) if token.text == ";" => "the end of the statement".to_owned(),
            Some(token) => format!("`{}`", token.text),
            None => "the end".to_owned(),
        };
        Error::at(
            &self.source.file,
            line,
            format_args!("{expected} was expected, and {found} found"),
        )
    }

    /// An error at what was taken last.
    pub fn refuse(&self, text: impl std::fmt::Display) -> Error {
        let before = self
            .at
            .checked_sub(1)
            .and_then(|at| self.source.tokens.get(at));
        Error::at(
            &self.source.file,
            before.map_or(1, |token| token.line),
            text,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        let source = Source::new("x.go", source).expect("tokens");
        source
            .tokens
            .iter()
            .map(|token| token.text.clone())
            .collect()
    }

    #[test]
    fn lines_end_statements_where_go_says_so() {
        assert_eq!(
            texts("a := b(\n\tc, // a remark\n)\nreturn abi\n"),
            [
                "a", ":=", "b", "(", "c", ",", ")", ";", "return", "abi", ";"
            ]
        );
        assert_eq!(texts("a /* 1\n2 */ b"), ["a", ";", "b", ";"]);
        assert_eq!(
            texts("x &^ `a\nb` \"c\\\"d\""),
            ["x", "&^", "a\nb", "c\\\"d", ";"]
        );
    }

    #[test]
    fn places_are_told() {
        let error = Source::new("x.go", "a\nb # c\n").expect_err("no mark");
        assert_eq!(
            error.to_string(),
            "x.go:2: the character '#' is not understood"
        );
        let error = Source::new("x.go", "\n\n\"open\n").expect_err("no end");
        assert_eq!(error.to_string(), "x.go:3: a string without an end");
        let source = Source::new("x.go", "f(1)\ng(08)\n").expect("tokens");
        let mut cursor = source.cursor();
        let error = cursor.expect("f [").expect_err("a parenthesis");
        assert_eq!(error.to_string(), "x.go:1: `[` was expected, and `(` found");
        cursor.expect("( 1 ) ; g (").expect("tokens");
        let error = cursor.number().expect_err("no octal digit");
        assert_eq!(error.to_string(), "x.go:2: the number 08 is not understood");
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let source = Source::new("x.go", "05 9 0x2a 010").expect("tokens");
        let mut cursor = source.cursor();
        let numbers = [(); 4].map(|()| cursor.number().expect("a number"));
        assert_eq!(numbers, [5, 9, 42, 8]);
    }

    #[test]
    fn blocks_are_skipped_whole() {
        let source = Source::new("x.go", "{ a(1, {2}) } b").expect("tokens");
        let mut cursor = source.cursor();
        assert_eq!(cursor.block().expect("a block").rest(), "a(1,{2})");
        assert_eq!(cursor.rest(), "b;");
        let source = Source::new("x.go", "{ a )").expect("tokens");
        assert!(source.cursor().block().is_err());
        let source = Source::new("x.go", "(a").expect("tokens");
        assert!(source.cursor().block().is_err());
    }

    #[test]
    fn what_is_looked_for_has_to_be_there_once_and_outside() {
        let source =
            Source::new("x.go", "func g() { func f() {} }\nfunc f() { a }\n").expect("tokens");
        assert_eq!(source.after("func f()").expect("it").rest(), "{a};");
        let error = source.after("func h()").expect_err("none");
        assert_eq!(error.to_string(), "x.go: there is no `func h ( )`");
        assert!(source.after("func").is_err());
    }
}
