//! Functions whose output may be much larger than their input, with bounds on its size and on the time that they take.
//!
//! An upper bound on a function's output for each row is known before it runs. The function is called for a few rows at a
//! time, so that a value beyond the limit is found before the memory for it is used.

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

use super::{
    refusal::too_large,
    sizes::{ELEMENT_TEXT_BYTES, RowSizes, bytes},
};

/// Maximum size of a value, in bytes.
pub(super) const MAX_VALUE_BYTES: u64 = 16 << 20;
/// Maximum size of a value that is computed only from constants of the statement, in bytes.
const MAX_CONSTANT_BYTES: u64 = 64 << 10;
/// Maximum size of the values of one batch together, in bytes.
pub(super) const MAX_BATCH_BYTES: u64 = 64 << 20;
/// Bound on the output of one call of the function, unless a single row has a larger one.
const MAX_CALL_BYTES: u64 = 16 << 20;
/// Maximum number of pairs of characters or elements that the rows of one batch compare.
const MAX_PAIRS: u64 = 1 << 28;

/// How the size of a function's output follows from the sizes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SizeRule {
    /// The sum of all arguments, multiplied.
    Sum { times: u64 },
    /// All arguments but the first, with the first between them.
    Separated,
    /// The elements of the first as texts, with the others between them.
    Join,
    /// The first, with the third in place of the second.
    Replace,
    /// The first, with the third, which may repeat parts of the first, in place of each match of a pattern.
    Substitute,
    /// Parts of the first, one for each group of the pattern.
    Captures,
    /// A small value, after comparing each part of the first with each part of the second.
    Product,
}

impl SizeRule {
    fn bound(self, sizes: &[RowSizes], row: usize) -> u64 {
        let size = |at: usize| sizes.get(at).map_or(0, |sizes| sizes.at(row));
        let sum = |from: usize| (from..sizes.len()).map(size).sum::<u64>();
        let count = sizes.len() as u64;
        match self {
            Self::Sum { times } => sum(0).saturating_add(16 * count).saturating_mul(times),
            Self::Separated => sum(1).saturating_add(size(0).saturating_mul(count)),
            Self::Join => {
                // The size of a list includes a constant for each element.
                let elements = size(0) / ELEMENT_TEXT_BYTES + 1;
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
    rule: SizeRule,
    /// The function's own, but volatile: the planner, which cannot be stopped, then leaves the call to the execution.
    signature: Signature,
}

impl Bounded {
    pub(super) fn function(inner: Arc<ScalarUDF>, rule: SizeRule) -> ScalarUDF {
        let signature = Signature { volatility: Volatility::Volatile, ..inner.signature().clone() };
        ScalarUDF::new_from_impl(Self { inner, rule, signature })
    }

    fn compare(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [first, second, ..] = args.args.as_slice() {
            let (first, second) = (RowSizes::lengths(first)?, RowSizes::lengths(second)?);
            let pairs = (0..args.number_rows).map(|row| first.at(row).saturating_mul(second.at(row)));
            if pairs.fold(0_u64, u64::saturating_add) > MAX_PAIRS {
                return Err(too_large(format!("`{}` would compare texts or lists that are too long", self.name())));
            }
        }
        self.inner.invoke_with_args(args)
    }

    /// Calls the function for a few rows at a time.
    fn invoke_in_slices(&self, args: &ScalarFunctionArgs, bounds: &[u64]) -> Result<ColumnarValue> {
        let mut outputs: Vec<ArrayRef> = Vec::new();
        let (mut first, mut total_bytes) = (0, 0_u64);
        while first < bounds.len() {
            let mut rows = 0;
            let mut bound = 0_u64;
            while let Some(next) = bounds.get(first + rows).filter(|next| rows == 0 || bound + **next <= MAX_CALL_BYTES)
            {
                bound += next;
                rows += 1;
            }
            if bound > MAX_BATCH_BYTES {
                return Err(self.exceeds(MAX_VALUE_BYTES));
            }
            let output = self.inner.invoke_with_args(slice_rows(args, first, rows))?.into_array(rows)?;
            total_bytes += check_values(&output, self.name())?;
            if total_bytes > MAX_BATCH_BYTES {
                return Err(self.exceeds(MAX_BATCH_BYTES));
            }
            outputs.push(output);
            first += rows;
        }
        let outputs: Vec<&dyn Array> = outputs.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&outputs)?))
    }

    fn exceeds(&self, max_bytes: u64) -> DataFusionError {
        too_large(format!("`{}` would make more than {} MiB", self.name(), max_bytes >> 20))
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
        if self.rule == SizeRule::Product {
            return self.compare(args);
        }
        let constant = args.args.iter().all(|values| matches!(values, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let sizes = args.args.iter().map(RowSizes::bytes).collect::<Result<Vec<_>>>()?;
        let bounds: Vec<u64> = (0..rows).map(|row| self.rule.bound(&sizes, row)).collect();
        let max_bytes = if constant { MAX_CONSTANT_BYTES } else { MAX_CALL_BYTES };
        if bounds.iter().fold(0_u64, |sum, bound| sum.saturating_add(*bound)) <= max_bytes {
            return self.inner.invoke_with_args(args);
        }
        if !constant {
            return self.invoke_in_slices(&args, &bounds);
        }
        if bounds[0] > MAX_BATCH_BYTES {
            return Err(self.exceeds(MAX_VALUE_BYTES));
        }
        let value = self.inner.invoke_with_args(args)?;
        check_constant(&value, self.name())?;
        Ok(value)
    }
}

/// The arguments of some of the rows.
fn slice_rows(args: &ScalarFunctionArgs, first: usize, rows: usize) -> ScalarFunctionArgs {
    let slice = |values: &ColumnarValue| match values {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
    };
    ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: rows, ..args.clone() }
}

/// The size of all values together; an error if one is beyond the limit.
pub(super) fn check_values(values: &ArrayRef, name: &str) -> Result<u64> {
    let sizes = bytes(values);
    if sizes.iter().any(|size| *size > MAX_VALUE_BYTES) {
        return Err(too_large(format!("`{name}` would make a value of more than {} MiB", MAX_VALUE_BYTES >> 20)));
    }
    Ok(sizes.iter().sum())
}

/// Checks the size of a value that is computed from constants.
pub(super) fn check_constant(value: &ColumnarValue, name: &str) -> Result<()> {
    if bytes(&value.to_array(1)?).iter().any(|size| *size > MAX_CONSTANT_BYTES) {
        let kib = MAX_CONSTANT_BYTES >> 10;
        return Err(too_large(format!("`{name}` would make a value of more than {kib} KiB of constants")));
    }
    Ok(())
}
