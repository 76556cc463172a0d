#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sip::conference_info::fuzz::document(data));
