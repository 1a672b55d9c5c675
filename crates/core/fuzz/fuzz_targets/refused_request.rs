#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthorn_core_fuzz::targets::refused_request::run(data));
