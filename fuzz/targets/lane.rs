//! A lane, while a task writes anywhere in it and the server answers what it takes; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("lane", data));
