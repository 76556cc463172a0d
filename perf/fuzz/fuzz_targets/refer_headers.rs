#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sip::fuzz::refer_headers(data));
