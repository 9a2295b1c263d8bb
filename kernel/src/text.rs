//! What is read out of text that others have written: paths, numbers, and fields of the driver's files.
//!
//! The idea: one thing can be written in several ways, and who compares has to know which of them mean the same. A path may have
//! slashes and dots that change nothing. A number may not: what Rust reads as one (`+1`) is no number in a name.

use std::str::FromStr;

/// A path from the root, without slashes and dots that change nothing.
pub fn plain_path(path: &str) -> String {
    let parts = path.split('/');
    let parts = parts.filter(|part| !part.is_empty() && *part != ".");
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// What a path names in `/dev`, as it is called from there.
pub fn name_in_devices(path: &str) -> Option<String> {
    let path = plain_path(path);
    path.strip_prefix("/dev/").map(str::to_owned)
}

/// A number of decimal digits alone.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_one = text.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| text.parse().ok())?
}

/// A field of one of the driver's files, which are lines of `Key: value` (kernel-open/nvidia/nv-procfs.c and nv-caps.c, 580.142).
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_nothing_in_a_path_is_passed_over() {
        for (path, expected) in [
            ("/dev/nvidia0", Some("nvidia0")),
            (
                "//dev/./nvidia-caps//nvidia-cap1/",
                Some("nvidia-caps/nvidia-cap1"),
            ),
            ("dev/nvidia0", Some("nvidia0")),
            ("/dev/", None),
            ("/devices/nvidia0", None),
            ("", None),
        ] {
            assert_eq!(name_in_devices(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_number_is_digits() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("255"), Some(255_u8));
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "256", "one"] {
            assert_eq!(number::<u8>(text), None, "{text}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Model: \t x\nDevice Minor: \t 4\nBus: 0000:01\n";
        assert_eq!(field(text, "Device Minor"), Some("4"));
        assert_eq!(field(text, "Bus"), Some("0000:01"));
        assert_eq!(field(text, "Minor"), None);
    }
}
