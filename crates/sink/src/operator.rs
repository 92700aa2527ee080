//! Code that the operators of this crate share: they have one partition and keep the order of their input.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use datafusion::{
    error::{DataFusionError, Result},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{ExecutionPlanMetricsSet, MetricBuilder, Time},
    },
};

/// Properties of an operator that streams one partition.
pub(crate) fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// The only child of an operator, or an error that names the operator.
pub(crate) fn only_child(name: &str, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.is_empty()) {
        (Some(child), true) => Ok(child),
        _ => Err(DataFusionError::Plan(format!("{name} has one input"))),
    }
}

/// Shows an operator with its settings: on one line, or one setting per line in a rendered tree, which adds the name.
pub(crate) fn display(
    name: &str,
    settings: &[(&str, &dyn Display)],
    format: DisplayFormatType,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if matches!(format, DisplayFormatType::TreeRender) {
        return settings.iter().try_for_each(|(key, value)| writeln!(f, "{key}={value}"));
    }
    write!(f, "{name}")?;
    let separators = std::iter::once(": ").chain(std::iter::repeat(", "));
    separators.zip(settings).try_for_each(|(separator, (key, value))| write!(f, "{separator}{key}={value}"))
}

/// How an operator spends its time.
#[derive(Debug, Clone)]
pub(crate) struct OperatorTimes {
    /// Its own work.
    pub(crate) elapsed_compute: Time,
    /// Waiting for the store and for Lance's readers and writers.
    pub(crate) wait_store: Time,
}

impl OperatorTimes {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        Self {
            elapsed_compute: MetricBuilder::new(metrics).elapsed_compute(partition),
            wait_store: MetricBuilder::new(metrics).subset_time("wait_store", partition),
        }
    }
}

/// The methods of `ExecutionPlan`, without `execute`, of an operator with the fields `input`, `target`, `properties`
/// and `metrics`.
macro_rules! single_input_methods {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn properties(&self) -> &::std::sync::Arc<::datafusion::physical_plan::PlanProperties> {
            &self.properties
        }

        fn required_input_distribution(&self) -> Vec<::datafusion::physical_plan::Distribution> {
            vec![::datafusion::physical_plan::Distribution::SinglePartition]
        }

        fn benefits_from_input_partitioning(&self) -> Vec<bool> {
            vec![false]
        }

        fn children(&self) -> Vec<&::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            vec![&self.input]
        }

        fn with_new_children(
            self: ::std::sync::Arc<Self>,
            children: Vec<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>>,
        ) -> ::datafusion::error::Result<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            let input = $crate::operator::only_child($name, children)?;
            Ok(::std::sync::Arc::new(Self::try_new(input, self.target.clone())?))
        }

        fn metrics(&self) -> Option<::datafusion::physical_plan::metrics::MetricsSet> {
            Some(self.metrics.clone_inner())
        }
    };
}

/// The methods of `ExecutionPlan`, without `execute`, of an operator without input, with the fields `properties` and
/// `metrics`.
macro_rules! leaf_methods {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn properties(&self) -> &::std::sync::Arc<::datafusion::physical_plan::PlanProperties> {
            &self.properties
        }

        fn children(&self) -> Vec<&::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            vec![]
        }

        fn with_new_children(
            self: ::std::sync::Arc<Self>,
            children: Vec<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>>,
        ) -> ::datafusion::error::Result<::std::sync::Arc<dyn ::datafusion::physical_plan::ExecutionPlan>> {
            if children.is_empty() {
                return Ok(self);
            }
            Err(::datafusion::error::DataFusionError::Plan(concat!($name, " has no input").to_owned()))
        }

        fn metrics(&self) -> Option<::datafusion::physical_plan::metrics::MetricsSet> {
            Some(self.metrics.clone_inner())
        }
    };
}

pub(crate) use {leaf_methods, single_input_methods};

#[cfg(test)]
mod tests {
    use super::*;

    struct Shown(DisplayFormatType);

    impl Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            display("ScanExec", &[("uri", &"t.lance"), ("version", &3)], self.0, f)
        }
    }

    #[test]
    fn settings_are_shown_on_one_line_or_one_per_line_in_a_tree() {
        assert_eq!(Shown(DisplayFormatType::Default).to_string(), "ScanExec: uri=t.lance, version=3");
        assert_eq!(Shown(DisplayFormatType::TreeRender).to_string(), "uri=t.lance\nversion=3\n");
    }
}
