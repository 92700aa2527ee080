//! What other people's messages say without the machine they were made on.

use polylance_schema::without_source_locations;

/// A message of Lance or DataFusion without addresses and without places in their sources.
pub(crate) fn public_text(text: &str) -> String {
    let text = without_addresses(text);
    without_source_locations(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With `…` for what stands behind `uri=`, where plans tell what they read, and for the folders of this process.
pub(crate) fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("uri=") {
        let (before, after) = rest.split_at(at + "uri=".len());
        out.push_str(before);
        out.push('…');
        let end = after.find([',', ' ', '\n', '"', '\\', ']', ')']).unwrap_or(after.len());
        rest = &after[end..];
    }
    out.push_str(rest);
    for folder in folders() {
        out = out.replace(&folder, "…");
    }
    out
}

/// Folders that say something of this machine.
fn folders() -> Vec<String> {
    let folders = [std::env::current_dir().ok(), std::env::home_dir(), Some(std::env::temp_dir())];
    let folders = folders.into_iter().flatten().map(|folder| folder.display().to_string());
    // A root says nothing.
    folders.filter(|folder| folder.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sources_are_left_out() {
        let text = "no field named x, y., /registry/lance-14.0.2/src/scanner.rs:839:33";
        assert_eq!(public_text(text), "no field named x, y.");
        for text in ["a, b", "see job.rs:3", "docs.lance: 12:30:00, later", ""] {
            assert_eq!(public_text(text), text);
        }
    }

    #[test]
    fn a_plan_does_not_tell_where_it_reads() {
        let plan = "LanceRead: uri=home/me/docs.lance/data, projection=[a]\n  uri=b/data";
        assert_eq!(without_addresses(plan), "LanceRead: uri=…, projection=[a]\n  uri=…");
        let folder = std::env::current_dir().unwrap();
        assert_eq!(without_addresses(&format!("{}/x", folder.display())), "…/x");
    }
}
