//! The pipeline file: typed, versioned, unknown keys refused.
