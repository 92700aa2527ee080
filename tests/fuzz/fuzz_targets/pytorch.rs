#![no_main]
use polylance_hostile::Target;
// A panic that the product catches and returns as an error does not count: only a panic that unwinds out of it does.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| { Target::Pytorch.run(bytes); });
