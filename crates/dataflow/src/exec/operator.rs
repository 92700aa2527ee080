//! What the operators of this crate share: one partition, in the order of the input.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::SchemaRef,
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_expr::EquivalenceProperties,
    physical_plan::{
        ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
    },
};
use polylance_backend::{Backend, BackendHandle};

/// Properties of an operator that streams one partition.
pub(crate) fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// The devices of the session.
pub(crate) fn backend(context: &TaskContext) -> Result<Arc<dyn Backend>> {
    let handle = context.session_config().get_extension::<BackendHandle>();
    let missing = || DataFusionError::Plan("the session has no backend: set a `BackendHandle` as an extension".into());
    Ok(Arc::clone(&handle.ok_or_else(missing)?.0))
}

/// The one child of an operator, or an error that names it.
pub(crate) fn only_child(name: &str, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.is_empty()) {
        (Some(child), true) => Ok(child),
        _ => Err(DataFusionError::Plan(format!("{name} has one input"))),
    }
}

/// Refuses an input of another schema, naming both.
pub(crate) fn expect_schema(name: &str, input: &SchemaRef, expected: &SchemaRef) -> Result<()> {
    if input.fields() == expected.fields() {
        return Ok(());
    }
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    Err(DataFusionError::Plan(format!("{name} expects the columns {}, found {}", names(expected), names(input))))
}
