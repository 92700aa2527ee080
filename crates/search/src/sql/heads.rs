//! `classify(text, head)` and `entities(text, head)`: what a head says of rows that pass.

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
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};
use polylance_backend::{AnnotateInput, Annotation, LabelScore, Span};

use super::tables::{SameTables, Tables};

/// Rows that a head reads together.
const ROWS: usize = 64;

/// What a function asks of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    /// The best class: Struct label, score.
    Class,
    /// All entities: List of Struct label, score, start, end, text.
    Entities,
}

/// The functions of a session.
pub(crate) fn functions(tables: &Arc<Tables>) -> Vec<ScalarUDF> {
    let function = |asked| {
        let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
        let tables = SameTables(Arc::clone(tables));
        AsyncScalarUDF::new(Arc::new(Heads { asked, tables, signature })).into_scalar_udf()
    };
    vec![function(Asked::Class), function(Asked::Entities)]
}

/// Whether an expression is a call of one of them.
pub(crate) fn is_call(expression: &Expr) -> bool {
    let Expr::ScalarFunction(function) = expression else { return false };
    [Asked::Class, Asked::Entities].iter().any(|asked| asked.name() == function.func.name())
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Class => "classify",
            Self::Entities => "entities",
        }
    }

    fn fields(self) -> Fields {
        let field = |name, of| Field::new(name, of, true);
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
        let one = DataType::Struct(self.fields());
        match self {
            Self::Class => one,
            Self::Entities => DataType::List(Arc::new(Field::new_list_field(one, true))),
        }
    }

    /// One value a row; null where a text is, or where the head has nothing to say of it.
    fn array(self, rows: &[Option<Annotation>]) -> Result<ArrayRef> {
        let structs = || StructBuilder::from_fields(self.fields(), rows.len());
        match self {
            Self::Class => {
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
    for (at, place) in [(2, span.chars.start), (3, span.chars.end)] {
        if let Some(places) = structs.field_builder::<UInt64Builder>(at) {
            places.append_value(place);
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
struct Heads {
    asked: Asked,
    tables: SameTables,
    signature: Signature,
}

impl ScalarUDFImpl for Heads {
    fn name(&self) -> &str {
        self.asked.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.asked.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{} stands in SELECT or WHERE; elsewhere name it in a subquery first", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Heads {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(ROWS)
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
        // A text that the head refuses is null, as in an annotated column.
        let rows: Vec<Option<Annotation>> =
            (0..texts.len()).map(|row| if texts.is_null(row) { None } else { answers.next()?.ok() }).collect();
        Ok(ColumnarValue::Array(self.asked.array(&rows)?))
    }
}
