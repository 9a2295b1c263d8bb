//! Releases, capabilities, GPUs and nodes, read from text; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("version", data));
