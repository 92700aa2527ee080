//! The table function `spans(table, column)`: one row per span.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, view::ViewTable},
    common::{Column, RecursionUnnestOption, UnnestOptions, plan_err},
    datasource::{TableProvider, provider_as_source},
    error::Result,
    functions::core::expr_fn::get_field,
    logical_expr::{LogicalPlanBuilder, col, ident},
};
use polylance_schema::columns::{CHUNK, DOC_ID};

use super::{
    search_functions::text,
    tables::{LanceReadTable, TableRegistry},
};

/// The column of a span before its fields become columns.
const SPAN: &str = "span";

/// The function of a session.
#[derive(Debug)]
pub(super) struct SpansFunction {
    pub(super) tables: Arc<TableRegistry>,
}

impl TableFunctionImpl for SpansFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [table, column] = args.exprs() else { return plan_err!("expected spans('table', 'column')") };
        let (table, column) = (text("spans", table)?, text("spans", column)?);
        let (rows, _) = self.tables.get(&table)?;
        let schema = rows.schema();
        let span = match schema.field_with_name(&column).map(Field::data_type) {
            Ok(DataType::List(item)) => item.data_type().clone(),
            _ => DataType::Null,
        };
        let DataType::Struct(fields) = span else {
            return plan_err!("`{column}` of `{table}` is not a column of spans: spans takes a list of structs");
        };
        let field = |name: &str| get_field(ident(SPAN), name).alias(name);
        let fields = fields.iter().map(|span_field| field(span_field.name()));
        // Under another name than the list's: DataFusion would look for a field in the list.
        let one_span = RecursionUnnestOption {
            input_column: Column::from_name(&column),
            output_column: Column::from_name(SPAN),
            depth: 1,
        };
        let options = UnnestOptions::new().with_preserve_nulls(false).with_recursions(one_span);
        let source = provider_as_source(Arc::new(LanceReadTable::new(rows)));
        let plan = LogicalPlanBuilder::scan(table.as_str(), source, None)?
            .project([col(DOC_ID), col(CHUNK), ident(&column)])?
            .unnest_column_with_options(Column::from_name(&column), options)?
            .project([col(DOC_ID), col(CHUNK)].into_iter().chain(fields))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}
