//! What tells of a machine and is taken out before anything is written: where its files are, what it is called, and what numbers
//! its GPUs alone have. Models, versions and requests tell of many machines and stay.

use std::path::Path;

use regex::{Captures, Regex};

/// Patterns of identifiers, and what stands in their place. `${1}` stays.
const PATTERNS: &[(&str, &str)] = &[
    (
        "(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "UUID",
    ),
    (
        "(?i)([0-9a-f]{8}|[0-9a-f]{4}):[0-9a-f]{2}:[0-9a-f]{2}\\.[0-9a-f]",
        "PCI-ADDRESS",
    ),
    ("(?i)((?:serial|guid)[^:>]*[:>]\\s*)[^\\s<]+", "${1}NUMBER"),
];

/// Takes out what tells of this machine.
#[derive(Debug)]
pub struct Scrub {
    /// Texts, and what stands in their place, the longest first.
    words: Vec<(String, &'static str)>,
    patterns: Vec<(Regex, &'static str)>,
}

impl Scrub {
    /// For programs that run in the folder `work`.
    pub fn new(work: &Path) -> Result<Scrub, String> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let home = std::env::var_os("HOME").unwrap_or_default();
        let words = [
            (work.to_string_lossy().into_owned(), "FOLDER"),
            (home.to_string_lossy().into_owned(), "~"),
            (host.to_string_lossy().into_owned(), "HOST"),
        ];
        Scrub::of(words.into())
    }

    fn of(mut words: Vec<(String, &'static str)>) -> Result<Scrub, String> {
        // Else much that is none of these would be replaced.
        words.retain(|(word, _)| word.len() > 3);
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let compiled = PATTERNS.iter().map(|(pattern, stand_in)| {
            let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
            Ok((pattern, *stand_in))
        });
        Ok(Scrub {
            words,
            patterns: compiled.collect::<Result<_, String>>()?,
        })
    }

    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, stand_in) in &self.words {
            text = replace_word(&text, word, stand_in);
        }
        for (pattern, stand_in) in &self.patterns {
            text = pattern
                .replace_all(&text, |captures: &Captures<'_>| {
                    let kept = captures.get(1).map_or("", |group| group.as_str());
                    match stand_in.strip_prefix("${1}") {
                        Some(rest) => format!("{kept}{rest}"),
                        None => (*stand_in).to_owned(),
                    }
                })
                .into_owned();
        }
        text
    }
}

/// Replaces a word where it is not a part of a longer one.
fn replace_word(text: &str, word: &str, stand_in: &str) -> String {
    let continues = |character: Option<char>| {
        character.is_some_and(|character| character.is_ascii_alphanumeric())
    };
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = found.get(word.len()..).unwrap_or_default();
        let before_it = before.chars().next_back().or(replaced.chars().next_back());
        replaced.push_str(before);
        let is_part = continues(before_it) || continues(after.chars().next());
        replaced.push_str(if is_part { word } else { stand_in });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_a_machine_is_replaced() {
        let words = [
            ("/tmp/work", "FOLDER"),
            ("/root", "~"),
            ("gpu-7", "HOST"),
            ("a", "LETTER"),
        ];
        let words = words.map(|(word, stand_in)| (word.to_owned(), stand_in));
        let scrub = Scrub::of(words.into()).expect("patterns");
        for (text, expected) in [
            ("/tmp/work/a /root/b", "FOLDER/a ~/b"),
            ("on gpu-7: gpu-70 gpu-7", "on HOST: gpu-70 HOST"),
            (
                "GPU 0: H200 (UUID: GPU-01234567-89ab-cdef-0123-456789abcdef)",
                "GPU 0: H200 (UUID: GPU-UUID)",
            ),
            (
                "GPU 00000000:A1:00.0 0000:a1:00.0",
                "GPU PCI-ADDRESS PCI-ADDRESS",
            ),
            ("Serial Number  : 1650123", "Serial Number  : NUMBER"),
            ("<serial>1650123</serial>", "<serial>NUMBER</serial>"),
            (
                "Chassis Serial Number : 9",
                "Chassis Serial Number : NUMBER",
            ),
            ("NVIDIA H200, 580.159.04", "NVIDIA H200, 580.159.04"),
        ] {
            assert_eq!(scrub.text(text), expected);
        }
    }
}
