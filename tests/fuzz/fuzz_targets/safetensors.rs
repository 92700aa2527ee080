#![no_main]
use polylance_hostile::Target;
// A panic that the product catches and tells as an error is none: only what unwinds out of it counts.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| { Target::Safetensors.run(bytes); });
