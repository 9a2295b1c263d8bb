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
    // The word may begin within another only by a capital (`chassisSerial`), and continue only as a number's name. What stands
    // between it and the colon is of the same line.
    (
        "(?i)((?:(?:^|[^a-z])(?:serial|guid)|(?-i:[a-z](?:Serial|Guid|GUID)))(?:number|num|no|id)?(?:[^a-z:>\\n][^:>\\n]*)?[:>][ \\t]*)[^\\s<]+",
        "${1}NUMBER",
    ),
];

/// Takes out what tells of this machine.
#[derive(Debug)]
pub struct Scrub {
    /// Folders, and what stands in their place, the longest first. They may have identifiers in them.
    folders: Vec<(String, &'static str)>,
    /// The machine's names, likewise. Identifiers may have them in themselves.
    hosts: Vec<(String, &'static str)>,
    patterns: Vec<(Regex, &'static str)>,
}

impl Scrub {
    /// For programs that run in the folder `work`.
    pub fn new(work: &Path) -> Result<Scrub, String> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let home = std::env::var_os("HOME").unwrap_or_default();
        let folders = [
            (&*work.to_string_lossy(), "FOLDER"),
            (&*home.to_string_lossy(), "~"),
        ];
        Scrub::of(&folders, &host.to_string_lossy())
    }

    fn of(folders: &[(&str, &'static str)], host: &str) -> Result<Scrub, String> {
        // In a network it may be called by its name without the domain.
        let hosts = [host, host.split('.').next().unwrap_or_default()];
        let compiled = PATTERNS.iter().map(|(pattern, stand_in)| {
            let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
            Ok((pattern, *stand_in))
        });
        Ok(Scrub {
            folders: longest_first(folders),
            hosts: longest_first(&hosts.map(|host| (host, "HOST"))),
            patterns: compiled.collect::<Result<_, String>>()?,
        })
    }

    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (folder, stand_in) in &self.folders {
            text = replace_word(&text, folder, stand_in);
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
        for (host, stand_in) in &self.hosts {
            text = replace_word(&text, host, stand_in);
        }
        text
    }
}

/// Those of the words that tell anything, and what is within another after that.
fn longest_first(words: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    let telling = words.iter().filter(|(word, _)| !matches!(*word, "" | "/"));
    let mut words: Vec<_> = telling
        .map(|(word, it)| ((*word).to_owned(), *it))
        .collect();
    words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    words
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
        let folders = [("/tmp/work", "FOLDER"), ("/root", "~")];
        let scrub = Scrub::of(&folders, "gpu-7.rack.example").expect("patterns");
        for (text, expected) in [
            ("/tmp/work/a /root/b", "FOLDER/a ~/b"),
            ("on gpu-7: gpu-70 gpu-7", "on HOST: gpu-70 HOST"),
            ("on gpu-7.rack.example", "on HOST"),
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
            (
                "<fabricGuid>0x9</fabricGuid>",
                "<fabricGuid>NUMBER</fabricGuid>",
            ),
            ("board_serial: 9, b: c", "board_serial: NUMBER b: c"),
            ("serialNumber: 9", "serialNumber: NUMBER"),
            ("NVIDIA H200, 580.159.04", "NVIDIA H200, 580.159.04"),
        ] {
            assert_eq!(scrub.text(text), expected);
        }
    }

    #[test]
    fn what_only_looks_like_a_serial_number_stays() {
        let scrub = Scrub::of(&[], "").expect("patterns");
        for text in [
            "serialization failed: x",
            "deserialize: x, misguided: y",
            "no serial\nreason: x",
            "serial:\nreason",
            "CUDA_LAUNCH_BLOCKING serializes kernels: slow",
        ] {
            assert_eq!(scrub.text(text), text);
        }
    }

    #[test]
    fn short_names_are_taken_out_as_well() {
        let folders = [("/w", "FOLDER"), ("/h", "~")];
        let scrub = Scrub::of(&folders, "a1").expect("patterns");
        for (text, expected) in [
            ("/w/b /h /who /w", "FOLDER/b ~ /who FOLDER"),
            ("a1: a10 ba1", "HOST: a10 ba1"),
            ("GPU 00000000:a1:00.0", "GPU PCI-ADDRESS"),
        ] {
            assert_eq!(scrub.text(text), expected);
        }
        // That is no place of somebody's.
        let scrub = Scrub::of(&[("/", "~"), ("", "FOLDER")], "").expect("patterns");
        assert_eq!(scrub.text("a / b"), "a / b");
    }
}
