#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sip::sdp::fuzz::session_description(data));
