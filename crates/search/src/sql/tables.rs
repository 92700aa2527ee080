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

use super::{models::ModelSource, named_read::NamedRead, waiting};
use crate::{SearchTable, table::LIMITED_ROWS};

/// Tables, and where their models are.
#[derive(Debug)]
pub(crate) struct Tables {
    by_name: BTreeMap<String, Arc<SearchTable>>,
    models: Arc<dyn ModelSource>,
}

impl Tables {
    pub(crate) fn new(by_name: BTreeMap<String, Arc<SearchTable>>, models: Arc<dyn ModelSource>) -> Self {
        Self { by_name, models }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<SearchTable>)> {
        self.by_name.iter()
    }

    pub(crate) fn models(&self) -> &Arc<dyn ModelSource> {
        &self.models
    }

    pub(crate) fn get(&self, name: &str) -> Result<(Arc<SearchTable>, Arc<dyn ModelSource>)> {
        let Some(table) = self.by_name.get(name) else {
            let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            return plan_err!("there is no table named `{name}`: there are {}", names.join(", "));
        };
        Ok((Arc::clone(table), Arc::clone(&self.models)))
    }

    /// The contract by which `embed` works: the only one that the tables have.
    pub(crate) fn contract(&self) -> Result<&Contract> {
        let mut contracts = self.by_name.values().filter_map(|table| table.contract());
        let Some(first) = contracts.next() else {
            return plan_err!("embed works by a table's contract, and no table here has one");
        };
        if contracts.any(|other| other != first) {
            return plan_err!("the tables were made by different contracts: open one of them to use embed");
        }
        Ok(first)
    }
}

/// Two functions are the same when they are of the same session.
#[derive(Debug)]
pub(crate) struct SameTables(pub(crate) Arc<Tables>);

impl PartialEq for SameTables {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SameTables {}

impl std::hash::Hash for SameTables {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// A table as SQL reads it. The optimizer knows it again by its type.
#[derive(Debug)]
pub(crate) struct Readable {
    pub(crate) table: Arc<SearchTable>,
    rows: LanceTableProvider,
}

impl Readable {
    pub(crate) fn new(table: Arc<SearchTable>) -> Self {
        let rows = LanceTableProvider::new(Arc::clone(table.dataset()), false, false);
        let rows = if table.is_limited() { rows.with_batch_size(LIMITED_ROWS) } else { rows };
        Self { table, rows }
    }
}

#[async_trait]
impl TableProvider for Readable {
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
        Ok(Arc::new(NamedRead::new(self.table.uri().into(), rows)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What waits for a model cannot run inside a scan.
        let waits = |filter: &Expr| filter.exists(|part| Ok(waiting::is_call(part)));
        let pushdown = |filter: &&Expr| {
            Ok(if waits(filter)? {
                TableProviderFilterPushDown::Unsupported
            } else {
                TableProviderFilterPushDown::Exact
            })
        };
        filters.iter().map(pushdown).collect()
    }
}
