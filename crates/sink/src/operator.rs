//! What the operators of this crate share: their times, and the methods of an operator without input. The rest is
//! `polylance_dataflow::operator`.

use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, Time};

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

pub(crate) use leaf_methods;
