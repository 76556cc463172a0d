#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sip::digest::fuzz::headers(data));
