//! The `polylance` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    polylance_cli::main()
}
