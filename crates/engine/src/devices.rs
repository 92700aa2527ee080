//! Selects the devices of a job or a query, and their dtype.

use polylance_schema::{Contract, Dtype};
use polylance_worker::{Machine, Selection};

use crate::EngineError;

/// The named devices of this machine, and their dtype: the given one, else the fastest one of the devices. Both are
/// logged.
///
/// # Errors
/// [`EngineError::Pool`] for devices that do not exist or cannot be combined.
pub fn select(devices: &[String], dtype: Option<Dtype>) -> Result<Selection, EngineError> {
    let selection = polylance_worker::resolve(devices, dtype, Machine::this())?;
    selection.log();
    Ok(selection)
}

/// The devices and the dtype for queries of a table.
///
/// # Errors
/// As [`select`], and [`EngineError::Model`] for a dtype that this version does not know.
pub fn select_for_queries(devices: &[String], contract: &Contract) -> Result<Selection, EngineError> {
    let selection = polylance_worker::resolve_query(devices, contract.dtype.parse()?, Machine::this())?;
    selection.log();
    Ok(selection)
}
