//! A function that returns its first argument, if its arguments pass a check.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

use super::{
    bounded::{self, BATCH, too_large},
    unnest,
};

/// The name in a plan.
pub(super) const NAME: &str = "checked";

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Check {
    /// What `||` made: it adds the sizes of two values at most, so it is checked after it.
    Concatenation,
    /// What `unnest` would make of the first argument, with the others repeated.
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
        NAME
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
            Check::Unnest => unnest::check(&args)?,
        }
        Ok(args.args[0].clone())
    }
}

fn check_concatenation(args: &ScalarFunctionArgs) -> Result<()> {
    let name = "||";
    if matches!(args.args[0], ColumnarValue::Scalar(_)) {
        return bounded::constant_is_small(&args.args[0], name);
    }
    if bounded::checked(&args.args[0].to_array(args.number_rows)?, name)? > BATCH {
        return Err(too_large(format!("`{name}` would make more than {} MiB", BATCH >> 20)));
    }
    Ok(())
}
