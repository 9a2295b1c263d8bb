//! A compromised sentry's submissions, validated and answered by the simulated driver; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("requests", data));
