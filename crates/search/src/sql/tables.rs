//! The tables of a session by name.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{plan_err, tree_node::TreeNode},
    datasource::{TableProvider, TableType},
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::ExecutionPlan,
};
use lance::datafusion::LanceTableProvider;
use polylance_schema::Contract;

use super::{model_calls::is_model_call, models::ModelSource, named_read::NamedReadExec};
use crate::{SearchTable, table::LIMITED_BATCH_ROWS};

/// The tables of a session, and the source of their models.
#[derive(Debug)]
pub(super) struct TableRegistry {
    by_name: BTreeMap<String, Arc<SearchTable>>,
    models: Arc<dyn ModelSource>,
}

impl TableRegistry {
    pub(super) fn new(by_name: BTreeMap<String, Arc<SearchTable>>, models: Arc<dyn ModelSource>) -> Self {
        Self { by_name, models }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<SearchTable>)> {
        self.by_name.iter()
    }

    pub(super) fn models(&self) -> &Arc<dyn ModelSource> {
        &self.models
    }

    pub(super) fn get(&self, name: &str) -> Result<(Arc<SearchTable>, Arc<dyn ModelSource>)> {
        let Some(table) = self.by_name.get(name) else {
            let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            return plan_err!("there is no table named `{name}`: there are {}", names.join(", "));
        };
        Ok((Arc::clone(table), Arc::clone(&self.models)))
    }

    /// The contract of `embed`: the only one among the tables.
    pub(super) fn contract(&self) -> Result<&Contract> {
        let mut contracts = self.by_name.values().filter_map(|table| table.contract());
        let Some(first) = contracts.next() else {
            return plan_err!("embed needs a table's contract, and no table here has one");
        };
        if contracts.any(|other| other != first) {
            return plan_err!("the tables were made under different contracts: open one of them to use embed");
        }
        Ok(first)
    }
}

/// A registry that is compared by identity: two functions are equal when they belong to the same session.
#[derive(Debug)]
pub(super) struct SessionTables(pub(super) Arc<TableRegistry>);

impl PartialEq for SessionTables {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SessionTables {}

impl std::hash::Hash for SessionTables {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// A table as SQL reads it. The optimizer recognizes it by this type.
#[derive(Debug)]
pub(super) struct LanceReadTable {
    pub(super) table: Arc<SearchTable>,
    rows: LanceTableProvider,
}

impl LanceReadTable {
    pub(super) fn new(table: Arc<SearchTable>) -> Self {
        let rows = LanceTableProvider::new(Arc::clone(table.dataset()), false, false);
        let rows = if table.is_limited() { rows.with_batch_size(LIMITED_BATCH_ROWS) } else { rows };
        Self { table, rows }
    }
}

#[async_trait]
impl TableProvider for LanceReadTable {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.scan(state, projection, filters, limit).await?;
        Ok(Arc::new(NamedReadExec::new(self.table.uri().into(), rows)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // A call of a model cannot run inside a scan.
        let calls_model = |filter: &Expr| filter.exists(|part| Ok(is_model_call(part)));
        let pushdown = |filter: &&Expr| {
            Ok(if calls_model(filter)? {
                TableProviderFilterPushDown::Unsupported
            } else {
                TableProviderFilterPushDown::Exact
            })
        };
        filters.iter().map(pushdown).collect()
    }
}
