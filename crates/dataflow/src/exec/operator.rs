//! What operators of one partition share: properties, checks, display, statistics, and the methods of an operator
//! with one input.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::SchemaRef,
    common::stats::Precision,
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, Statistics,
        execution_plan::{Boundedness, EmissionType},
    },
};
use polylance_backend::{Backend, BackendHandle};

/// Properties of an operator that streams one partition.
pub fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// The only child of an operator with one input.
///
/// # Errors
/// A plan error that names the operator when there is another number of children.
pub fn only_child(name: &str, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.is_empty()) {
        (Some(child), true) => Ok(child),
        _ => Err(DataFusionError::Plan(format!("{name} has one input"))),
    }
}

/// Refuses an input with other fields than an operator expects.
///
/// # Errors
/// A plan error that names the operator and the columns of both.
pub fn expect_schema(name: &str, input: &SchemaRef, expected: &SchemaRef) -> Result<()> {
    if input.fields() == expected.fields() {
        return Ok(());
    }
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    Err(DataFusionError::Plan(format!("{name} expects the columns {}, found {}", names(expected), names(input))))
}

/// Writes an operator as `Name: key=value, key=value`, or in a tree one `key=value` per line, as
/// [`DisplayFormatType::TreeRender`] expects.
///
/// # Errors
/// When the formatter cannot be written to.
pub fn fmt_operator(
    format: DisplayFormatType,
    f: &mut fmt::Formatter<'_>,
    name: &str,
    fields: &[(&str, &dyn Display)],
) -> fmt::Result {
    if format == DisplayFormatType::TreeRender {
        return fields.iter().try_for_each(|(key, value)| writeln!(f, "{key}={value}"));
    }
    f.write_str(name)?;
    let mut separator = ": ";
    for (key, value) in fields {
        write!(f, "{separator}{key}={value}")?;
        separator = ", ";
    }
    Ok(())
}

/// Statistics of an operator about which only the number of rows is known, if that.
pub fn row_statistics(schema: &SchemaRef, rows: Precision<usize>) -> Arc<Statistics> {
    Arc::new(Statistics::new_unknown(schema).with_num_rows(rows))
}

/// The backend of the session.
pub(crate) fn backend(context: &TaskContext) -> Result<Arc<dyn Backend>> {
    let handle = context.session_config().get_extension::<BackendHandle>();
    let missing = || DataFusionError::Plan("the session has no backend: set a `BackendHandle` as an extension".into());
    Ok(Arc::clone(&handle.ok_or_else(missing)?.0))
}

/// The methods of `ExecutionPlan` that are the same in every operator with one input: `name`, `properties`,
/// `maintains_input_order`, `children`, `with_new_children` and `metrics`.
///
/// The operator keeps the order of its input, and has the fields `input`, `properties` and `metrics`. The closure
/// builds the operator over another input; it may take the operator as its first argument, and return early with `?`.
///
/// ```
/// use std::{fmt, sync::Arc};
///
/// use datafusion::{
///     error::Result,
///     execution::{SendableRecordBatchStream, TaskContext},
///     physical_plan::{
///         DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, displayable, empty::EmptyExec,
///         metrics::ExecutionPlanMetricsSet,
///     },
/// };
/// use polylance_dataflow::{operator, single_child_plan};
///
/// #[derive(Debug)]
/// struct PassExec {
///     input: Arc<dyn ExecutionPlan>,
///     properties: Arc<PlanProperties>,
///     metrics: ExecutionPlanMetricsSet,
/// }
///
/// impl PassExec {
///     fn new(input: Arc<dyn ExecutionPlan>) -> Self {
///         let properties = operator::properties(input.schema());
///         Self { input, properties, metrics: ExecutionPlanMetricsSet::new() }
///     }
/// }
///
/// impl DisplayAs for PassExec {
///     fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         operator::fmt_operator(format, f, "PassExec", &[("limit", &"none")])
///     }
/// }
///
/// impl ExecutionPlan for PassExec {
///     single_child_plan!(PassExec, |input| Self::new(input));
///
///     fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
///         self.input.execute(partition, context)
///     }
/// }
///
/// let empty = Arc::new(EmptyExec::new(Arc::new(datafusion::arrow::datatypes::Schema::empty())));
/// let plan: Arc<dyn ExecutionPlan> = Arc::new(PassExec::new(empty));
/// let child = Arc::clone(plan.children()[0]);
/// let plan = plan.with_new_children(vec![child])?;
/// assert!(displayable(plan.as_ref()).indent(false).to_string().starts_with("PassExec: limit=none"));
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
#[macro_export]
macro_rules! single_child_plan {
    ($operator:ident, |$input:ident| $rebuilt:expr) => {
        $crate::single_child_plan!($operator);

        fn with_new_children(
            self: ::std::sync::Arc<Self>,
            children: ::std::vec::Vec<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>>,
        ) -> ::datafusion::error::Result<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            let $input = $crate::operator::only_child(stringify!($operator), children)?;
            ::std::result::Result::Ok(::std::sync::Arc::new($rebuilt))
        }
    };
    ($operator:ident, |$this:ident, $input:ident| $rebuilt:expr) => {
        $crate::single_child_plan!($operator);

        fn with_new_children(
            self: ::std::sync::Arc<Self>,
            children: ::std::vec::Vec<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>>,
        ) -> ::datafusion::error::Result<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            let $this = self;
            let $input = $crate::operator::only_child(stringify!($operator), children)?;
            ::std::result::Result::Ok(::std::sync::Arc::new($rebuilt))
        }
    };
    ($operator:ident) => {
        fn name(&self) -> &'static str {
            stringify!($operator)
        }

        fn properties(&self) -> &::std::sync::Arc<::datafusion::physical_plan::PlanProperties> {
            &self.properties
        }

        fn maintains_input_order(&self) -> ::std::vec::Vec<bool> {
            ::std::vec![true]
        }

        fn children(&self) -> ::std::vec::Vec<&::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            ::std::vec![&self.input]
        }

        fn metrics(&self) -> ::std::option::Option<::datafusion::physical_plan::metrics::MetricsSet> {
            ::std::option::Option::Some(self.metrics.clone_inner())
        }
    };
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::{DisplayAs, empty::EmptyExec};

    use super::{super::testing::shown, *};

    struct FilesExec;

    impl DisplayAs for FilesExec {
        fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt_operator(format, f, "FilesExec", &[("files", &3), ("uri", &"a.csv")])
        }
    }

    #[test]
    fn fields_are_on_one_line_or_one_per_line_in_a_tree() {
        let (line, tree) = shown(&FilesExec);
        assert_eq!((line.as_str(), tree.as_str()), ("FilesExec: files=3, uri=a.csv", "files=3\nuri=a.csv\n"));
    }

    #[test]
    fn a_wrong_input_is_named() {
        let schema = |name: &str| Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, true)]));
        let error = expect_schema("AnExec", &schema("a"), &schema("b")).unwrap_err().to_string();
        assert!(error.contains("AnExec expects the columns b, found a"), "{error}");
        let child: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema("a")));
        assert!(only_child("AnExec", vec![Arc::clone(&child)]).is_ok());
        for children in [vec![], vec![Arc::clone(&child), child]] {
            assert!(only_child("AnExec", children).unwrap_err().to_string().contains("AnExec has one input"));
        }
    }
}
