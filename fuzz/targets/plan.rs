//! The planner, as the sentry and as the server walk it, with every release's tables; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("plan", data));
