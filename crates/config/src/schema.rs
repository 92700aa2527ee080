//! The JSON Schema of the format, for editors and for the checks in this crate.

use schemars::schema_for;
use serde_json::Value;

use crate::Pipeline;

/// The JSON Schema of [`Pipeline`].
pub(crate) fn schema() -> Value {
    schema_for!(Pipeline).to_value()
}

/// The JSON Schema of the pipeline file, with the formatting of `schemas/pipeline.schema.json`.
pub fn json_schema_text() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn committed_schema_matches_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/pipeline.schema.json");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == json_schema_text(),
            "schemas/pipeline.schema.json is stale: run `polylance schema --write schemas`"
        );
    }
}
