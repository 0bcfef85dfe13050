#![no_main]

// The content shows what it is; the seeds are archives.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moe_fuzz::read(bytes, None));
