//! The handshake of the channel and parcels, against a peer that sends any bytes; the check itself is in `fuzz/checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_checks::check("handshake", data));
