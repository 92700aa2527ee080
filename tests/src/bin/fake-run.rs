//! Runs the whole job over synthetic rows with the fake device, and prints the summary with its own peak memory.
//!
//! `fake-run FOLDER ROWS`
