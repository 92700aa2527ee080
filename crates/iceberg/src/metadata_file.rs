//! Which metadata file of a table's folder is the newest.
//!
//! Each commit writes one file: `v3.metadata.json`, or `00003-…uuid….metadata.json` where a catalog keeps the name of the
//! newest one. Its number counts the commits.

/// The part of a metadata file's name after its number. A compressed one ends in `.gz.metadata.json` or
/// `.metadata.json.gz`.
const METADATA: &str = ".metadata.json";

/// Whether an address is that of a metadata file.
pub fn is_metadata_file(address: &str) -> bool {
    let name = address.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.ends_with(METADATA) && number(name).is_some()
}

/// The number of the commit that wrote a metadata file.
fn number(name: &str) -> Option<u64> {
    let name = name.strip_prefix('v').unwrap_or(name);
    let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    name[..digits].parse().ok()
}

/// Two metadata files with the highest number: one is of a commit that failed, and only the catalog knows which.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` and `{1}` have the same number")]
pub struct AmbiguousMetadata(String, String);

/// The newest of the metadata files among these names; `None` if there is none.
///
/// # Errors
/// If two files have the highest number.
pub fn newest_metadata_file(names: impl IntoIterator<Item = String>) -> Result<Option<String>, AmbiguousMetadata> {
    let files = names.into_iter().filter(|name| is_metadata_file(name));
    let mut numbered: Vec<(u64, String)> = files.filter_map(|name| Some((number(&name)?, name))).collect();
    numbered.sort();
    let newest = numbered.pop();
    match (numbered.pop(), newest) {
        (Some((before, other)), Some((last, name))) if before == last => Err(AmbiguousMetadata(other, name)),
        (_, newest) => Ok(newest.map(|(_, name)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest_of(names: &[&str]) -> Option<String> {
        newest_metadata_file(names.iter().map(|name| (*name).to_owned())).unwrap()
    }

    #[test]
    fn the_file_with_the_highest_number_is_the_newest() {
        let names = ["v9.metadata.json", "v10.gz.metadata.json", "version-hint.text", "snap-99-1-a.avro"];
        assert_eq!(newest_of(&names).unwrap(), "v10.gz.metadata.json");
        let names = ["00010-b.metadata.json", "00009-f.metadata.json.gz"];
        assert_eq!(newest_of(&names).unwrap(), "00010-b.metadata.json");
        assert_eq!(newest_of(&["data.json", "x.metadata.json", "7-m0.avro"]), None);
    }

    #[test]
    fn two_files_of_one_number_are_refused() {
        let names = ["00003-a.metadata.json", "00003-b.metadata.json", "00002-c.metadata.json"].map(str::to_owned);
        let error = newest_metadata_file(names).unwrap_err().to_string();
        assert!(error.contains("`00003-a.metadata.json` and `00003-b.metadata.json`"), "{error}");
    }

    #[test]
    fn an_address_of_a_metadata_file_is_recognized() {
        assert!(is_metadata_file("s3://b/t/metadata/00003-a.metadata.json"));
        assert!(!is_metadata_file("s3://b/t/metadata") && !is_metadata_file("/t/x.json"));
    }
}
