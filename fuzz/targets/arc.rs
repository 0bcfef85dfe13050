#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moe_fuzz::read(bytes, Some(moe_data::read::Format::Arc)));
