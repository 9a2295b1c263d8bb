//! What launcher, sentry, init and servers hear of one another, from a peer that sends any bytes; the check itself is in
//! `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("messages", data));
