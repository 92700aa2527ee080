//! Keys of a table's configuration that say how it is best searched.

/// Partitions of the vector index that are searched. Decimal.
pub const NPROBES: &str = "polylance.search.nprobes";
/// Candidates per hit whose exact distance decides. Decimal.
pub const REFINE: &str = "polylance.search.refine";
/// Candidates that a graph keeps while it is walked. Decimal.
pub const EF: &str = "polylance.search.ef";

/// A row's place on the table's map, from the left. Float32, null for rows that came after the map.
pub const MAP_X: &str = "map_x";
/// A row's place on the table's map, from below. Float32, null for rows that came after the map.
pub const MAP_Y: &str = "map_y";
/// The field metadata that marks the map's columns: how the map was drawn.
pub const MAP_METADATA_KEY: &str = "polylance.map";
