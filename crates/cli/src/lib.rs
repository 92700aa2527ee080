//! Commands, output and jobs of the `polylance` binary.
