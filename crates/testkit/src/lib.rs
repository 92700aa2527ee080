//! Fake device, corpora, conformance functions.
