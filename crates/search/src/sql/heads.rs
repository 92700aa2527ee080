//! `classify(text, head)` and `entities(text, head)`: a head's answers for the rows of a query.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Builder, ListBuilder, StringBuilder, StructBuilder, UInt64Builder},
    compute::cast,
    datatypes::{DataType, Field, Fields},
};
use async_trait::async_trait;
use datafusion::{
    common::exec_err,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};
use polylance_backend::{AnnotateInput, Annotation, LabelScore, Span};

use super::{
    model_calls::{CLASSIFY, ENTITIES},
    tables::{SessionTables, TableRegistry},
};

/// Rows in a batch of a head.
const BATCH_ROWS: usize = 64;

/// The functions that call a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum HeadFunction {
    /// The best class: Struct label, score.
    Classify,
    /// All entities: List of Struct label, score, start, end, text.
    Entities,
}

/// The functions of a session.
pub(super) fn functions(tables: &Arc<TableRegistry>) -> Vec<ScalarUDF> {
    let function = |function| {
        let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
        let tables = SessionTables(Arc::clone(tables));
        AsyncScalarUDF::new(Arc::new(HeadUdf { function, tables, signature })).into_scalar_udf()
    };
    vec![function(HeadFunction::Classify), function(HeadFunction::Entities)]
}

impl HeadFunction {
    fn name(self) -> &'static str {
        match self {
            Self::Classify => CLASSIFY,
            Self::Entities => ENTITIES,
        }
    }

    fn fields(self) -> Fields {
        let field = |name, data_type| Field::new(name, data_type, true);
        let mut fields = vec![field("label", DataType::Utf8), field("score", DataType::Float32)];
        if self == Self::Entities {
            fields.extend([
                field("start", DataType::UInt64),
                field("end", DataType::UInt64),
                field("text", DataType::Utf8),
            ]);
        }
        fields.into()
    }

    fn data_type(self) -> DataType {
        let item = DataType::Struct(self.fields());
        match self {
            Self::Classify => item,
            Self::Entities => DataType::List(Arc::new(Field::new_list_field(item, true))),
        }
    }

    /// One value per row; null for a null text, and where the head has no answer.
    fn array(self, rows: &[Option<Annotation>]) -> Result<ArrayRef> {
        let structs = || StructBuilder::from_fields(self.fields(), rows.len());
        match self {
            Self::Classify => {
                let mut classes = structs();
                for row in rows {
                    match row {
                        None => push_class(&mut classes, None),
                        Some(Annotation::Labels(labels)) => push_class(&mut classes, labels.first()),
                        Some(_) => return exec_err!("classify needs a head that yields classes"),
                    }
                }
                Ok(Arc::new(classes.finish()))
            }
            Self::Entities => {
                let mut lists = ListBuilder::new(structs());
                for row in rows {
                    let spans = match row {
                        None => None,
                        Some(Annotation::Spans(spans)) => Some(spans),
                        Some(_) => return exec_err!("entities needs a head that yields spans"),
                    };
                    for span in spans.into_iter().flatten() {
                        push_span(lists.values(), span);
                    }
                    lists.append(spans.is_some());
                }
                Ok(Arc::new(lists.finish()))
            }
        }
    }
}

/// Appends a class; null without one.
fn push_class(structs: &mut StructBuilder, class: Option<&LabelScore>) {
    push_label(structs, class.map(|class| (class.label.as_str(), class.score)));
    structs.append(class.is_some());
}

fn push_span(structs: &mut StructBuilder, span: &Span) {
    push_label(structs, Some((&span.label, span.score)));
    for (field, offset) in [(2, span.chars.start), (3, span.chars.end)] {
        if let Some(offsets) = structs.field_builder::<UInt64Builder>(field) {
            offsets.append_value(offset);
        }
    }
    if let Some(texts) = structs.field_builder::<StringBuilder>(4) {
        texts.append_value(&span.text);
    }
    structs.append(true);
}

/// The first two fields, which both kinds have.
fn push_label(structs: &mut StructBuilder, label: Option<(&str, f32)>) {
    if let Some(labels) = structs.field_builder::<StringBuilder>(0) {
        labels.append_option(label.map(|label| label.0));
    }
    if let Some(scores) = structs.field_builder::<Float32Builder>(1) {
        scores.append_option(label.map(|label| label.1));
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HeadUdf {
    function: HeadFunction,
    tables: SessionTables,
    signature: Signature,
}

impl ScalarUDFImpl for HeadUdf {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{} is allowed in SELECT and WHERE; elsewhere select it in a subquery first", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for HeadUdf {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(BATCH_ROWS)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let external = |error| DataFusionError::External(Box::new(error));
        let texts = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let name = cast(&args.args[1].to_array(1)?, &DataType::Utf8)?;
        let Some(name) = name.as_string::<i32>().iter().next().flatten() else {
            return exec_err!("{} takes the name of a head", self.name());
        };
        let head = self.tables.0.models().head(name).await.map_err(external)?;
        let inputs = texts.iter().flatten().map(|text| AnnotateInput { text: text.to_owned(), ..Default::default() });
        let answers = head.0.annotate(inputs.collect()).await;
        let mut answers = answers.map_err(|error| external(error.into()))?.into_iter();
        // A text that the head cannot read is null, as in an annotated column.
        let rows: Vec<Option<Annotation>> =
            (0..texts.len()).map(|row| if texts.is_null(row) { None } else { answers.next()?.ok() }).collect();
        Ok(ColumnarValue::Array(self.function.array(&rows)?))
    }
}
