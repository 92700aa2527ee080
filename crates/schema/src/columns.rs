//! Column names of the table, and of the batches between operators.
//!
//! A column whose name begins with an underscore exists only between operators and is never written to the table.

/// The document's id as text, unique in the corpus. Utf8, not null.
pub const DOC_ID: &str = "doc_id";
/// The chunk's position in its document, from 0. UInt32.
pub const CHUNK: &str = "chunk";
/// First character of the chunk in the document, in Unicode scalar values. UInt64.
pub const CHAR_START: &str = "char_start";
/// One past the last character of the chunk, in Unicode scalar values. UInt64.
pub const CHAR_END: &str = "char_end";
/// The document's text in a source batch, the chunk's text afterwards. Utf8.
pub const TEXT: &str = "text";
/// The number of tokens of the model's input, prefix and special tokens included. UInt32.
pub const N_TOKENS: &str = "n_tokens";
/// Whether text was cut off to fit the model. Boolean.
pub const TRUNCATED: &str = "truncated";
/// The vector. `FixedSizeList<Float32>[dim]`.
pub const EMBEDDING: &str = "embedding";
/// 128 bits of BLAKE3 over the document's text and kept columns. FixedSizeBinary(16).
pub const CONTENT_HASH: &str = "content_hash";
/// The run that wrote the row. Utf8.
pub const RUN_ID: &str = "run_id";

/// The source file or object of a row. Utf8.
pub const SOURCE: &str = "_source";
/// The row's position in its source file, from 0; a line number for text formats. UInt64.
pub const SOURCE_ROW: &str = "_row";
/// Why the row goes to the quarantine instead of the table; null for a good row. `Struct<stage, message>`.
pub const ERROR: &str = "_error";
/// Field of [`ERROR`]: the stage at which the row failed. Utf8.
pub const STAGE: &str = "stage";
/// Field of [`ERROR`]: the reason, in one line. Utf8.
pub const MESSAGE: &str = "message";
/// The token ids of one chunk, special tokens included. `List<UInt32>`, null in a row with an error.
pub const INPUT_IDS: &str = "_input_ids";
/// Lance's address of a row: fragment and offset. UInt64.
pub const ROW_ADDRESS: &str = "_rowaddr";

/// The names of the table's own columns, which a kept source column cannot have.
pub const RESERVED: [&str; 10] =
    [DOC_ID, CHUNK, CHAR_START, CHAR_END, TEXT, N_TOKENS, TRUNCATED, EMBEDDING, CONTENT_HASH, RUN_ID];
