#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cfw::fuzz::dist_conf(data));
