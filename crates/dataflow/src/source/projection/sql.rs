//! SQL over the columns of one row: parsed, checked and planned by DataFusion.

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    config::Dialect,
    error::DataFusionError,
    execution::{SessionStateBuilder, context::SessionConfig, session_state::SessionState},
    logical_expr::{
        Cast, Expr, ExprSchemable, TryCast, Volatility,
        simplify::SimplifyContext,
        utils::{conjunction, split_conjunction_owned},
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicate,
    sql::sqlparser::ast::{
        self as sql, BinaryOperator, ExprWithAlias, Ident, Value, ValueWithSpan, Visit, Visitor, visit_expressions_mut,
    },
};

/// DataFusion's planner of SQL. Names keep their case.
static PLANNER: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    SessionStateBuilder::new().with_config(config).with_default_features().build()
});

/// An expression whose columns are not known yet.
#[derive(Debug, Clone)]
pub(super) struct ParsedSql {
    expression: sql::Expr,
    /// The name after `AS`.
    pub(super) alias: Option<String>,
}

/// An expression over columns that exist.
#[derive(Debug, Clone)]
pub(super) struct ResolvedSql {
    expression: sql::Expr,
    /// The columns that it uses, each once.
    pub(super) columns: Vec<String>,
}

impl ParsedSql {
    /// Parses one expression, without queries and parameters. The error is the reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parsed = PLANNER.sql_to_expr_with_alias(text, &Dialect::Generic).map_err(reason)?;
        match parsed.expr.visit(&mut OneRow) {
            ControlFlow::Break(part) => Err(format!("`{part}` cannot be computed from the columns of one row")),
            ControlFlow::Continue(()) => {
                Ok(Self { expression: parsed.expr, alias: parsed.alias.map(|alias| alias.value) })
            }
        }
    }

    /// The word, if the expression is one without quotes and without another name.
    pub(super) fn plain_word(&self) -> Option<&str> {
        match &self.expression {
            sql::Expr::Identifier(name) if name.quote_style.is_none() && self.alias.is_none() => Some(&name.value),
            _ => None,
        }
    }

    /// Whether the expression is the name of a column.
    pub(super) fn is_column(&self) -> bool {
        matches!(self.expression, sql::Expr::Identifier(_))
    }

    /// The names in the expression, as written.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut expression = self.expression.clone();
        // Breaks nowhere.
        let _: ControlFlow<()> = visit_columns(&mut expression, |name| {
            names.push(name.value.clone());
            ControlFlow::Continue(())
        });
        names
    }

    /// Replaces each name by that of a column. A plain word also finds the only column that differs from it in case.
    pub(super) fn resolve(&self, columns: &[String]) -> Result<ResolvedSql, String> {
        resolve(self.expression.clone(), columns)
    }

    /// The conditions that `AND` joins.
    pub(super) fn conjuncts(&self) -> Vec<Self> {
        let mut conditions = Vec::new();
        split(&self.expression, &mut conditions);
        conditions.into_iter().map(|expression| Self { expression, alias: None }).collect()
    }
}

fn split(expression: &sql::Expr, conditions: &mut Vec<sql::Expr>) {
    match expression {
        sql::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split(left, conditions);
            split(right, conditions);
        }
        sql::Expr::Nested(inner) => split(inner, conditions),
        other => conditions.push(other.clone()),
    }
}

fn resolve(mut expression: sql::Expr, columns: &[String]) -> Result<ResolvedSql, String> {
    let mut used: Vec<String> = Vec::new();
    let resolved = visit_columns(&mut expression, |name| {
        if name.quote_style.is_none() && !columns.contains(&name.value) {
            let mut alike = columns.iter().filter(|column| column.eq_ignore_ascii_case(&name.value));
            if let (Some(column), None) = (alike.next(), alike.next()) {
                name.value.clone_from(column);
            }
        }
        if !columns.contains(&name.value) {
            return ControlFlow::Break(name.value.clone());
        }
        name.quote_style = Some('"');
        if !used.contains(&name.value) {
            used.push(name.value.clone());
        }
        ControlFlow::Continue(())
    });
    match resolved {
        ControlFlow::Continue(()) => Ok(ResolvedSql { expression, columns: used }),
        ControlFlow::Break(missing) => Err(format!(
            "there is no column `{missing}` (texts are in single quotes); the columns are {}",
            columns.join(", ")
        )),
    }
}

/// Calls `visit` with the name of each column.
fn visit_columns<B>(expression: &mut sql::Expr, mut visit: impl FnMut(&mut Ident) -> ControlFlow<B>) -> ControlFlow<B> {
    visit_expressions_mut(expression, |part| {
        match part {
            sql::Expr::Identifier(name) => visit(name)?,
            sql::Expr::CompoundIdentifier(names) => {
                if let Some(column) = names.first_mut() {
                    visit(column)?;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
}

/// Stops at a query and at a parameter.
struct OneRow;

impl Visitor for OneRow {
    type Break = String;

    fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<String> {
        ControlFlow::Break(query.to_string())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        match &value.value {
            Value::Placeholder(name) => ControlFlow::Break(name.clone()),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl ResolvedSql {
    /// The column of this name.
    pub(super) fn column_of(name: &str) -> Self {
        Self { expression: sql::Expr::Identifier(Ident::with_quote('"', name)), columns: vec![name.to_owned()] }
    }

    /// The column, if the expression is one.
    pub(super) fn column(&self) -> Option<&str> {
        match &self.expression {
            sql::Expr::Identifier(name) => Some(&name.value),
            _ => None,
        }
    }

    /// Plans the expression over these columns, and returns it with its type. The error is DataFusion's, or the part
    /// that has not the same value for a row in every run.
    pub(super) fn plan(&self, columns: &Schema) -> Result<(Arc<dyn PhysicalExpr>, DataType), String> {
        let schema = Arc::new(DFSchema::try_from(columns.clone()).map_err(reason)?);
        let simplified = simplified(self.logical(&schema)?, &schema).map_err(reason)?;
        let physical = PLANNER.create_physical_expr(simplified, &schema).map_err(reason)?;
        let data_type = physical.data_type(columns).map_err(reason)?;
        Ok((physical, data_type))
    }

    /// The part of a condition by which row groups are skipped: it depends on columns of the files alone, and keeps
    /// their order where it casts them. `None` if there is no such part.
    pub(super) fn pruning(&self, columns: &Schema, of_files: &[String]) -> Option<PruningPredicate> {
        let schema = Arc::new(DFSchema::try_from(columns.clone()).ok()?);
        let logical = self.logical(&schema).ok()?;
        let simplified = simplified(logical, &schema).ok()?;
        let in_files = |part: &Expr| part.column_refs().iter().all(|column| of_files.contains(&column.name));
        let can_prune = |part: &Expr| in_files(part) && keeps_order(part, &schema);
        let parts = split_conjunction_owned(simplified).into_iter().filter(can_prune);
        let physical = PLANNER.create_physical_expr(conjunction(parts)?, &schema).ok()?;
        let predicate = PruningPredicate::try_new(physical, Arc::new(columns.clone())).ok()?;
        (!predicate.always_true()).then_some(predicate)
    }

    fn logical(&self, schema: &DFSchema) -> Result<Expr, String> {
        let parsed = ExprWithAlias { expr: self.expression.clone(), alias: None };
        let planned = PLANNER.create_logical_expr_from_sql_expr(parsed, schema).map_err(reason)?;
        check_parts(&planned)?;
        Ok(planned)
    }
}

/// Simplifies an expression: a few functions, such as `coalesce`, cannot be computed as they are written.
fn simplified(expression: Expr, schema: &Arc<DFSchema>) -> Result<Expr, DataFusionError> {
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(schema)).build());
    simplifier.simplify(simplifier.coerce(expression, schema)?)
}

/// Checks that every part is computed from one row and has the same value in every run.
fn check_parts(planned: &Expr) -> Result<(), String> {
    let mut wrong = None;
    let walked = planned.apply(|part| {
        wrong = match part {
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some(format!("`{part}` is computed from many rows, and an expression of the source from one"))
            }
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("`{}` has not the same value in every run", call.func.name()))
            }
            Expr::ScalarVariable(..)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::ScalarSubquery(_)
            | Expr::GroupingSet(_)
            | Expr::Placeholder(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::Unnest(_) => Some(format!("`{part}` cannot be computed from the columns of one row")),
            _ => None,
        };
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(reason)?;
    wrong.map_or(Ok(()), Err)
}

/// Whether every cast in a part of a condition keeps the order of values, so that the bounds of a column bound the cast
/// values too. A time of day does not keep it, because it begins again every day; nor do local times of a zone, which
/// may be set back. A date as a timestamp may overflow.
fn keeps_order(part: &Expr, schema: &DFSchema) -> bool {
    let any_other = part.exists(|part| {
        let (Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })) = part else {
            return Ok(false);
        };
        Ok(!match (expr.get_type(schema)?, field.data_type()) {
            (DataType::Timestamp(_, from), DataType::Timestamp(_, to)) => from.is_some() == to.is_some(),
            (
                DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, None),
                DataType::Date32 | DataType::Date64,
            ) => true,
            (from, to) => from == *to || from.is_numeric() && to.is_numeric(),
        })
    });
    any_other.is_ok_and(|any_other| !any_other)
}

/// DataFusion's message without its backtrace, on one line.
pub(super) fn reason(error: DataFusionError) -> String {
    error.strip_backtrace().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn columns() -> Schema {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        Schema::new(vec![text("title"), text("Body"), Field::new("n", DataType::Int64, true), text("odd name")])
    }

    fn plan(text: &str) -> Result<DataType, String> {
        let names: Vec<String> = columns().fields().iter().map(|field| field.name().clone()).collect();
        Ok(ParsedSql::parse(text)?.resolve(&names)?.plan(&columns())?.1)
    }

    #[test]
    fn an_expression_has_a_type_over_the_columns_of_its_row() {
        for (text, expected) in [
            ("title || E'\\n\\n' || body", DataType::Utf8),
            ("upper(Body)", DataType::Utf8),
            ("\"odd name\" = 'x' AND n > 3", DataType::Boolean),
            ("n + 1", DataType::Int64),
            ("CAST(title AS BIGINT)", DataType::Int64),
        ] {
            assert_eq!(plan(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn only_immutable_expressions_over_one_row_are_planned() {
        for (text, expected) in [
            ("count(n)", "many rows"),
            ("sum(n) OVER ()", "many rows"),
            ("now()", "`now` has not the same value in every run"),
            ("uuid()", "`uuid` has not the same value in every run"),
            ("(SELECT 1)", "`SELECT 1` cannot be computed from the columns of one row"),
            ("n IN (SELECT n FROM t)", "cannot be computed from the columns of one row"),
            ("n = $1", "`$1` cannot be computed from the columns of one row"),
            (
                "heading || 'x'",
                "there is no column `heading` (texts are in single quotes); the columns are title, Body",
            ),
            ("n >", "Expected"),
            ("n 1", "Expected"),
            ("nothing(n)", "nothing"),
        ] {
            let found = plan(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn a_condition_is_split_at_its_conjunctions() {
        let parsed = ParsedSql::parse("a = 1 AND (b = 2 AND (c = 3 OR d = 4))").unwrap();
        let names: Vec<Vec<String>> = parsed.conjuncts().iter().map(ParsedSql::names).collect();
        assert_eq!(names, [vec!["a"], vec!["b"], vec!["c", "d"]]);
    }
}
