//! Vector search and SQL over Lance tables.
