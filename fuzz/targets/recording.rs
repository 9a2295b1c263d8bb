//! The reader of recordings, and what works on one that was read; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("recording", data));
