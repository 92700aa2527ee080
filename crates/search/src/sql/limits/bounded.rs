//! Functions that make large values of small ones, with a bound on what they make and on how long they take.
//!
//! What a function may make of a row is known before it runs. Rows are given to it in parts that make little, so that a
//! value beyond the bound is found before the memory for it is used.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef},
    compute::concat,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

use super::sizes::{Rows, bytes};
use crate::SearchError;

/// Bytes of one value.
pub(crate) const VALUE: u64 = 16 << 20;
/// Bytes of a value that is made of constants alone, which are in the statement.
const CONSTANT: u64 = 64 << 10;
/// Bytes that the values of one batch have together.
pub(super) const BATCH: u64 = 64 << 20;
/// Bytes that one call of the function may make, unless a single row makes more.
const PART: u64 = 16 << 20;
/// Pairs of characters or elements that the rows of one batch may compare.
const PAIRS: u64 = 1 << 28;

/// What a function makes of the sizes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// The sum of all arguments, multiplied.
    Sum { times: u64 },
    /// All arguments but the first, with the first between them.
    Separated,
    /// The elements of the first as texts, with the others between them.
    Join,
    /// The first with the third in the places of the second.
    Replace,
    /// The first with the third, which may repeat parts of the first, in places that a pattern describes.
    Substitute,
    /// Parts of the first, as many as the pattern has groups.
    Captures,
    /// A small value, after comparing each part of the first with each part of the second.
    Product,
}

impl Rule {
    fn bound(self, sizes: &[Rows], row: usize) -> u64 {
        let size = |at: usize| sizes.get(at).map_or(0, |sizes| sizes.at(row));
        let sum = |from: usize| (from..sizes.len()).map(size).sum::<u64>();
        let count = sizes.len() as u64;
        match self {
            Self::Sum { times } => sum(0).saturating_add(16 * count).saturating_mul(times),
            Self::Separated => sum(1).saturating_add(size(0).saturating_mul(count)),
            Self::Join => {
                // The sizes of lists have a constant for each element.
                let elements = size(0) / super::sizes::ELEMENT + 1;
                size(0).saturating_mul(2).saturating_add(elements.saturating_mul(sum(1)))
            }
            Self::Replace => {
                let places = size(0) / size(1).max(1) + 1;
                size(0).saturating_add(places.saturating_mul(size(2)))
            }
            Self::Substitute => (size(0) + 1).saturating_mul(size(2).saturating_mul(2).saturating_add(1)),
            Self::Captures => size(0).saturating_add(16).saturating_mul(size(1).saturating_add(1)),
            Self::Product => 0,
        }
    }
}

/// A function with bounds, under its own name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounded {
    inner: Arc<ScalarUDF>,
    rule: Rule,
    /// The function's own, but volatile: so the planner, which cannot be ended, leaves the call to the statement.
    signature: Signature,
}

impl Bounded {
    pub(super) fn function(inner: Arc<ScalarUDF>, rule: Rule) -> ScalarUDF {
        let signature = Signature { volatility: Volatility::Volatile, ..inner.signature().clone() };
        ScalarUDF::new_from_impl(Self { inner, rule, signature })
    }

    fn compare(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [first, second, ..] = args.args.as_slice() {
            let (first, second) = (Rows::lengths(first)?, Rows::lengths(second)?);
            let pairs = (0..args.number_rows).map(|row| first.at(row).saturating_mul(second.at(row)));
            if pairs.fold(0_u64, u64::saturating_add) > PAIRS {
                return Err(too_large(format!("`{}` would compare texts or lists that are too long", self.name())));
            }
        }
        self.inner.invoke_with_args(args)
    }

    fn in_parts(&self, args: &ScalarFunctionArgs, bounds: &[u64]) -> Result<ColumnarValue> {
        let mut made: Vec<ArrayRef> = Vec::new();
        let (mut first, mut all) = (0, 0_u64);
        while first < bounds.len() {
            let mut rows = 0;
            let mut bound = 0_u64;
            while let Some(next) = bounds.get(first + rows).filter(|next| rows == 0 || bound + **next <= PART) {
                bound += next;
                rows += 1;
            }
            if bound > BATCH {
                return Err(self.grows(VALUE));
            }
            let part = self.inner.invoke_with_args(rows_of(args, first, rows))?.into_array(rows)?;
            all += checked(&part, self.name())?;
            if all > BATCH {
                return Err(self.grows(BATCH));
            }
            made.push(part);
            first += rows;
        }
        let made: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&made)?))
    }

    fn grows(&self, most: u64) -> DataFusionError {
        too_large(format!("`{}` would make more than {} MiB", self.name(), most >> 20))
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.rule == Rule::Product {
            return self.compare(args);
        }
        let constant = args.args.iter().all(|values| matches!(values, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let sizes = args.args.iter().map(Rows::bytes).collect::<Result<Vec<_>>>()?;
        let bounds: Vec<u64> = (0..rows).map(|row| self.rule.bound(&sizes, row)).collect();
        let part = if constant { CONSTANT } else { PART };
        if bounds.iter().fold(0_u64, |sum, bound| sum.saturating_add(*bound)) <= part {
            return self.inner.invoke_with_args(args);
        }
        if !constant {
            return self.in_parts(&args, &bounds);
        }
        if bounds[0] > BATCH {
            return Err(self.grows(VALUE));
        }
        let value = self.inner.invoke_with_args(args)?;
        constant_is_small(&value, self.name())?;
        Ok(value)
    }
}

/// The arguments of some of the rows.
fn rows_of(args: &ScalarFunctionArgs, first: usize, rows: usize) -> ScalarFunctionArgs {
    let part = |values: &ColumnarValue| match values {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
    };
    ScalarFunctionArgs { args: args.args.iter().map(part).collect(), number_rows: rows, ..args.clone() }
}

/// The bytes of all values, each of which is within its bound.
pub(super) fn checked(values: &ArrayRef, name: &str) -> Result<u64> {
    let sizes = bytes(values);
    if sizes.iter().any(|size| *size > VALUE) {
        return Err(too_large(format!("`{name}` would make a value of more than {} MiB", VALUE >> 20)));
    }
    Ok(sizes.iter().sum())
}

pub(super) fn constant_is_small(value: &ColumnarValue, name: &str) -> Result<()> {
    if bytes(&value.to_array(1)?).iter().any(|size| *size > CONSTANT) {
        let most = CONSTANT >> 10;
        return Err(too_large(format!("`{name}` would make a value of more than {most} KiB of constants")));
    }
    Ok(())
}

pub(super) fn too_large(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(SearchError::TooLarge(message)))
}
