//! The names by which clients choose a model: those of the models, and those of the tables.

use polylance_schema::Contract;

use crate::{columns::model_name, error::ApiError, tables::Snapshot};

/// All names, each once: of the models whose vectors are made in one way only, then of the tables.
pub(super) fn names(snapshot: &Snapshot) -> Vec<String> {
    let tables = || snapshot.iter().filter_map(|(name, table)| Some((name, table.contract()?)));
    let models =
        tables().map(|(_, contract)| model_name(contract)).filter(|name| contract(snapshot, Some(name)).is_ok());
    let mut names: Vec<String> = Vec::new();
    for name in models.chain(tables().map(|(name, _)| name)) {
        if !name.is_empty() && !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The contract of the table with this name, of the model with this name, or the only one.
pub(super) fn contract<'s>(snapshot: &'s Snapshot, name: Option<&str>) -> Result<&'s Contract, ApiError> {
    let name = name.unwrap_or_default();
    let of_table = snapshot.iter().find(|(table, _)| *table == name).map(|(_, table)| table.contract());
    if let Some(Some(contract)) = of_table {
        return Ok(contract);
    }
    let is_named = |contract: &&Contract| name.is_empty() || name == contract.model || name == model_name(contract);
    let mut all: Vec<&Contract> = snapshot.iter().filter_map(|(_, table)| table.contract()).collect();
    all.dedup();
    let mut found = all.iter().copied().filter(is_named);
    match (found.next(), found.next()) {
        (Some(contract), None) => Ok(contract),
        (Some(first), Some(other)) if first == other && found.all(|another| another == first) => Ok(first),
        (Some(_), Some(_)) => {
            let error = ApiError::bad("ambiguous_model", "tables use this model in different ways");
            Err(error.hint("pass the name of a table as the model").param("model"))
        }
        (None, _) => {
            let names: Vec<&str> = all.iter().map(|contract| model_name(contract)).collect();
            let error = ApiError::not_found("model_not_found", "no table has a model with this name");
            Err(error.hint(format!("the models are {}", names.join(", "))).param("model"))
        }
    }
}
