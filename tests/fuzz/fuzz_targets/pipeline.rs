#![no_main]
use polylance_hostile::Target;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(Target::Pipeline.run(bytes)));
