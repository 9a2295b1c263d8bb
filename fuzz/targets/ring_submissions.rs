//! The ring of submissions, while a peer writes anywhere in the region; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("ring_submissions", data));
