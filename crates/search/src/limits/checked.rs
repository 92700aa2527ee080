//! A function that checks its arguments and returns the first one.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

use super::{
    bounded::{self, MAX_BATCH_BYTES},
    refusal::too_large,
    sizes::RowSizes,
};

/// The function's name in a plan.
pub(super) const CHECKED: &str = "checked";

/// The check of a [`Checked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Check {
    /// The size of the output of `||`, which adds at most the sizes of two values: it is checked afterwards.
    Concatenation,
    /// The size of the output of `unnest` for the first argument, with the others repeated for each element.
    Unnest,
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    signature: Signature,
    check: Check,
}

impl Checked {
    pub(super) fn function(check: Check) -> ScalarUDF {
        let signature = match check {
            Check::Concatenation => Signature::any(1, Volatility::Volatile),
            Check::Unnest => Signature::variadic_any(Volatility::Immutable),
        };
        ScalarUDF::new_from_impl(Self { signature, check })
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        CHECKED
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args[0].schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[0]))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.check {
            Check::Concatenation => check_concatenation(&args)?,
            Check::Unnest => check_unnest(&args)?,
        }
        Ok(args.args[0].clone())
    }
}

fn check_concatenation(args: &ScalarFunctionArgs) -> Result<()> {
    let name = "||";
    if matches!(args.args[0], ColumnarValue::Scalar(_)) {
        return bounded::check_constant(&args.args[0], name);
    }
    if bounded::check_values(&args.args[0].to_array(args.number_rows)?, name)? > MAX_BATCH_BYTES {
        return Err(too_large(format!("`{name}` would make more than {} MiB", MAX_BATCH_BYTES >> 20)));
    }
    Ok(())
}

/// Checks a row for each element of the first argument, a list, with all other arguments.
fn check_unnest(args: &ScalarFunctionArgs) -> Result<()> {
    let lists = RowSizes::lengths(&args.args[0])?;
    let others = args.args[1..].iter().map(RowSizes::bytes).collect::<Result<Vec<_>>>()?;
    let row = |row: usize| {
        let repeated: u64 = others.iter().map(|sizes| sizes.at(row)).sum();
        lists.at(row).saturating_mul(repeated.saturating_add(8))
    };
    if (0..args.number_rows).map(row).fold(0, u64::saturating_add) > MAX_BATCH_BYTES {
        let mib = MAX_BATCH_BYTES >> 20;
        return Err(too_large(format!("`unnest` would make more than {mib} MiB: select fewer columns")));
    }
    Ok(())
}
