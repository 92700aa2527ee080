//! Which keys a commit writes, so that no commit passes over another that writes one of them.
//!
//! Lance lets a commit that touches no fragment of another's pass over it, although both may bring the same document.
//! With the keys in the transaction it refuses: whoever is later looks at what the other has written and starts over.
//! So one version never has a document twice, not even for a moment. Lance's own merge insert says in this way which
//! keys of the primary key it brings, and a commit that says nothing (an append of another program) is passed over by
//! none that does.

use lance::Dataset;
use lance_table::format::key_existence::{FilterType, KeyExistenceFilter};

/// Bits of a key's hash: six bytes in the transaction. Of two windows with a hundred thousand keys each, one pair in a
/// hundred is taken for a conflict that is none, and tries again.
const BITS: u32 = 40;

/// The keys that a commit writes into the columns `columns`, which are the same for all writers of a kind.
pub(crate) fn written<Key: AsRef<[u8]>>(
    dataset: &Dataset,
    columns: &[&str],
    keys: impl Iterator<Item = Key>,
) -> KeyExistenceFilter {
    let field_ids = columns.iter().filter_map(|column| dataset.schema().field(column)).map(|field| field.id).collect();
    KeyExistenceFilter { field_ids, filter: FilterType::ExactSet(keys.map(|key| hash(key.as_ref())).collect()) }
}

/// The same on every machine and in every version: writers compare them.
fn hash(key: &[u8]) -> u64 {
    let bytes = blake3::hash(key).as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    bytes & ((1 << BITS) - 1)
}
