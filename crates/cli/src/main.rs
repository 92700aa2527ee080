//! The `polylance` binary.

fn main() {}
