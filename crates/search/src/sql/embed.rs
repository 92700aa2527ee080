//! `embed(text [, kind])`: a text's vector, under the tables' contract.
//!
//! Constant texts are embedded in one batch before the plan is optimized, so that such a call is allowed anywhere in a
//! statement and the optimizer sees the vector. Calls on a column run with the query.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array},
    compute::cast,
    datatypes::{DataType, Field, FieldRef},
};
use async_trait::async_trait;
use datafusion::{
    common::{
        exec_err, plan_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
        expr::ScalarFunction,
        expr_rewriter::NamePreserver,
    },
    scalar::ScalarValue,
};

use super::{
    model_calls::EMBED,
    tables::{SessionTables, TableRegistry},
};
use crate::{InputKind, embed};

/// Rows of a column that are embedded together.
const BATCH_ROWS: usize = 64;

/// The function of a session.
pub(super) fn function(tables: &Arc<TableRegistry>) -> ScalarUDF {
    let signature = Signature::one_of(
        vec![
            datafusion::logical_expr::TypeSignature::Exact(vec![DataType::Utf8]),
            datafusion::logical_expr::TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]),
        ],
        Volatility::Immutable,
    );
    AsyncScalarUDF::new(Arc::new(EmbedUdf { tables: SessionTables(Arc::clone(tables)), signature })).into_scalar_udf()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct EmbedUdf {
    tables: SessionTables,
    signature: Signature,
}

impl ScalarUDFImpl for EmbedUdf {
    fn name(&self) -> &'static str {
        EMBED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeList(item(), self.tables.0.contract()?.dim as i32))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("embed of a column is allowed in SELECT and WHERE; elsewhere select it in a subquery first")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for EmbedUdf {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(BATCH_ROWS)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
        let kind = args.args.get(1).map_or(Ok(InputKind::Query), |kind| kind_of(&kind.to_array(1)?))?;
        let present: Vec<String> = texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        let vectors = vectors(&self.tables.0, present, kind).await?;
        let dim = self.tables.0.contract()?.dim;
        // The vector of a null text is null.
        let mut next = vectors.chunks_exact(dim);
        let mut values = Vec::with_capacity(texts.len() * dim);
        for row in 0..texts.len() {
            match if texts.is_null(row) { None } else { next.next() } {
                Some(vector) => values.extend_from_slice(vector),
                None => values.resize(values.len() + dim, 0.0),
            }
        }
        let values = Arc::new(Float32Array::from(values));
        let lists = FixedSizeListArray::try_new(item(), dim as i32, values, texts.nulls().cloned())?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Float32, true))
}

fn kind_of(kind: &ArrayRef) -> Result<InputKind> {
    let kind = cast(kind, &DataType::Utf8)?;
    match kind.as_string::<i32>().iter().next().flatten() {
        Some("query") => Ok(InputKind::Query),
        Some("passage") => Ok(InputKind::Passage),
        other => exec_err!("embed takes 'query' or 'passage', not {other:?}"),
    }
}

/// The vectors of texts in order, in one array.
async fn vectors(tables: &TableRegistry, texts: Vec<String>, kind: InputKind) -> Result<Vec<f32>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let external = |error| DataFusionError::External(Box::new(error));
    let contract = tables.contract()?;
    let models = tables.models().models(contract).await.map_err(external)?;
    let Some(backend) = models.embedder else { return plan_err!("no model is loaded to embed texts with") };
    Ok(embed(texts, kind, contract, &backend).await.map_err(external)?.values)
}

/// The plan with a vector in place of each call on constants.
pub(super) async fn embed_constants(plan: LogicalPlan, tables: &TableRegistry) -> Result<LogicalPlan> {
    let mut calls: Vec<(String, InputKind)> = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                if let Some(call) = constant_call(expression)?.filter(|call| !calls.contains(call)) {
                    calls.push(call);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if calls.is_empty() {
        return Ok(plan);
    }
    let mut embedded: HashMap<(String, bool), ScalarValue> = HashMap::new();
    let dim = tables.contract()?.dim;
    for kind in [InputKind::Query, InputKind::Passage] {
        let texts: Vec<String> = calls.iter().filter(|call| call.1 == kind).map(|call| call.0.clone()).collect();
        let values = vectors(tables, texts.clone(), kind).await?;
        for (text, vector) in texts.into_iter().zip(values.chunks_exact(dim)) {
            let values = Arc::new(Float32Array::from(vector.to_vec()));
            let list = FixedSizeListArray::try_new(item(), dim as i32, values, None)?;
            embedded.insert((text, kind == InputKind::Query), ScalarValue::FixedSizeList(Arc::new(list)));
        }
    }
    let replaced = plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let expression = expression.transform_up(|expression| {
                let call = constant_call(&expression)?;
                let vector = call.and_then(|(text, kind)| embedded.get(&(text, kind == InputKind::Query)).cloned());
                Ok(vector.map_or_else(
                    || Transformed::no(expression),
                    |vector| Transformed::yes(Expr::Literal(vector, None)),
                ))
            })?;
            Ok(expression.update_data(|expression| name.restore(expression)))
        })
    })?;
    Ok(replaced.data)
}

/// The text and kind of a call of `embed` on constants.
fn constant_call(expression: &Expr) -> Result<Option<(String, InputKind)>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expression else { return Ok(None) };
    if func.name() != EMBED {
        return Ok(None);
    }
    let literal = |argument: &Expr| match argument {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let Some(text) = args.first().and_then(literal) else { return Ok(None) };
    let kind = match args.get(1).map(literal) {
        None => InputKind::Query,
        Some(kind) => match kind.as_deref() {
            Some("query") => InputKind::Query,
            Some("passage") => InputKind::Passage,
            _ => return plan_err!("embed takes 'query' or 'passage' as its second argument"),
        },
    };
    Ok(Some((text, kind)))
}
