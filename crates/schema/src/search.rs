//! Keys of a table's configuration: tuned search settings, and the coordinates of its map.

/// Number of partitions of the vector index to search. Decimal.
pub const NPROBES: &str = "polylance.search.nprobes";
/// Candidates per hit that are re-scored with exact distances. Decimal.
pub const REFINE: &str = "polylance.search.refine";
/// Candidates that the search of a graph (HNSW) keeps. Decimal.
pub const EF: &str = "polylance.search.ef";

/// A row's horizontal coordinate on the table's map. Float32, null for rows that were added after the map.
pub const MAP_X: &str = "map_x";
/// A row's vertical coordinate on the table's map. Float32, null for rows that were added after the map.
pub const MAP_Y: &str = "map_y";
/// The field metadata of the map's columns: the parameters of the projection.
pub const MAP_METADATA_KEY: &str = "polylance.map";
