//! The functions of vectors: `cosine_similarity`, `dot_product`, `l2_distance`, `truncate_embedding`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, Float32Builder, ListBuilder},
    compute::cast,
    datatypes::{DataType, Field, Float32Type},
};
use datafusion::{
    common::exec_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// A measure of similarity or distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Measure {
    Cosine,
    Dot,
    L2,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Cosine, Self::Dot, Self::L2];

    fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine_similarity",
            Self::Dot => "dot_product",
            Self::L2 => "l2_distance",
        }
    }

    /// The measure that the function of this name computes.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// `None` for the cosine of a vector of zeros, which has no direction.
    fn compute(self, a: &[f32], b: &[f32]) -> Option<f32> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        match self {
            Self::Dot => Some(dot(a, b)),
            Self::L2 => Some(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()),
            Self::Cosine => {
                let norms = (dot(a, a) * dot(b, b)).sqrt();
                (norms > 0.0).then(|| dot(a, b) / norms)
            }
        }
    }
}

/// All functions of this file.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let compare = Measure::ALL.map(|measure| {
        ScalarUDF::new_from_impl(Compare { measure, signature: Signature::any(2, Volatility::Immutable) })
    });
    let truncate = Truncate { signature: Signature::any(2, Volatility::Immutable) };
    compare.into_iter().chain([ScalarUDF::new_from_impl(truncate)]).collect()
}

/// A function of two vectors.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Compare {
    measure: Measure,
    signature: Signature,
}

impl ScalarUDFImpl for Compare {
    fn name(&self) -> &str {
        self.measure.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        for argument in arguments {
            check_vector(self.name(), argument)?;
        }
        Ok(DataType::Float32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [a, b] = args.args.as_slice() else { return exec_err!("{} takes two vectors", self.name()) };
        let (a, b) = (Vectors::of(a)?, Vectors::of(b)?);
        let rows = if a.is_constant && b.is_constant { 1 } else { args.number_rows };
        let mut measured = Float32Builder::with_capacity(rows);
        for row in 0..rows {
            match (a.get(row), b.get(row)) {
                (Some(a), Some(b)) if a.len() == b.len() => measured.append_option(self.measure.compute(a, b)),
                (Some(a), Some(b)) => {
                    let (a, b) = (a.len(), b.len());
                    return exec_err!("{} takes vectors of one length, not of {a} and {b} dimensions", self.name());
                }
                _ => measured.append_null(),
            }
        }
        result(Arc::new(measured.finish()), a.is_constant && b.is_constant)
    }
}

/// The first dimensions of a vector, normalized to length 1: for models whose first dimensions are trained as vectors of
/// their own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Truncate {
    signature: Signature,
}

impl ScalarUDFImpl for Truncate {
    fn name(&self) -> &'static str {
        "truncate_embedding"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if let Some(vector) = arguments.first() {
            check_vector(self.name(), vector)?;
        }
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [vectors, dims] = args.args.as_slice() else {
            return exec_err!("{} takes a vector and a number of dimensions", self.name());
        };
        let dims = cast(&dims.to_array(1)?, &DataType::UInt32)?;
        let dims = dims.as_primitive::<arrow::datatypes::UInt32Type>().iter().next().flatten().unwrap_or(0) as usize;
        let vectors = Vectors::of(vectors)?;
        let rows = if vectors.is_constant { 1 } else { args.number_rows };
        let mut truncated = ListBuilder::new(Float32Builder::new());
        for row in 0..rows {
            match vectors.get(row) {
                Some(vector) if dims == 0 || dims > vector.len() => {
                    return exec_err!("{} takes from 1 to {} dimensions, not {dims}", self.name(), vector.len());
                }
                Some(vector) => {
                    let kept = &vector[..dims];
                    let norm = kept.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                    truncated.values().append_slice(&kept.iter().map(|value| value / norm).collect::<Vec<_>>());
                    truncated.append(true);
                }
                None => truncated.append(false),
            }
        }
        result(Arc::new(truncated.finish()), vectors.is_constant)
    }
}

fn check_vector(function: &str, argument: &DataType) -> Result<()> {
    match argument {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)
            if item.data_type().is_numeric() || item.data_type().is_null() =>
        {
            Ok(())
        }
        DataType::Null => Ok(()),
        other => datafusion::common::plan_err!("{function} takes vectors, not {other}"),
    }
}

fn result(array: ArrayRef, is_constant: bool) -> Result<ColumnarValue> {
    if is_constant {
        return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// An argument as rows of f32.
struct Vectors {
    rows: ArrayRef,
    values: Float32Array,
    /// Whether one row stands for all.
    is_constant: bool,
}

impl Vectors {
    fn of(argument: &ColumnarValue) -> Result<Self> {
        let (array, is_constant) = match argument {
            ColumnarValue::Array(array) => (Arc::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, true),
        };
        let item = || Arc::new(Field::new_list_field(DataType::Float32, true));
        let rows = match array.data_type() {
            DataType::FixedSizeList(item, _) if item.data_type() == &DataType::Float32 => array,
            _ => cast(&array, &DataType::List(item()))?,
        };
        let values = match rows.data_type() {
            DataType::FixedSizeList(..) => rows.as_fixed_size_list().values(),
            _ => rows.as_list::<i32>().values(),
        };
        let values = values.as_primitive::<Float32Type>().clone();
        Ok(Self { rows, values, is_constant })
    }

    fn get(&self, row: usize) -> Option<&[f32]> {
        let row = if self.is_constant { 0 } else { row };
        if self.rows.is_null(row) {
            return None;
        }
        let range = if let DataType::FixedSizeList(_, dim) = self.rows.data_type() {
            let first = self.rows.as_fixed_size_list().value_offset(row) as usize;
            first..first + *dim as usize
        } else {
            let offsets = self.rows.as_list::<i32>().value_offsets();
            offsets[row] as usize..offsets[row + 1] as usize
        };
        self.values.values().get(range)
    }
}
