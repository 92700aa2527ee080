//! `spans(table, column)`: one row a span.

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
    hits::text,
    tables::{Readable, Tables},
};

/// A span before it is taken apart.
const SPAN: &str = "span";

/// The function in a session.
#[derive(Debug)]
pub(crate) struct SpansFunction {
    pub(crate) tables: Arc<Tables>,
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
            return plan_err!("`{column}` of `{table}` is no column of spans: spans takes a list of structs");
        };
        let part = |name: &str| get_field(ident(SPAN), name).alias(name);
        let parts = fields.iter().map(|field| part(field.name()));
        // By another name than the list: a part that is read through the list's would be looked for in the list.
        let one = RecursionUnnestOption {
            input_column: Column::from_name(&column),
            output_column: Column::from_name(SPAN),
            depth: 1,
        };
        let options = UnnestOptions::new().with_preserve_nulls(false).with_recursions(one);
        let source = provider_as_source(Arc::new(Readable::new(rows)));
        let plan = LogicalPlanBuilder::scan(table.as_str(), source, None)?
            .project([col(DOC_ID), col(CHUNK), ident(&column)])?
            .unnest_column_with_options(Column::from_name(&column), options)?
            .project([col(DOC_ID), col(CHUNK)].into_iter().chain(parts))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}
