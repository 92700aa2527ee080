//! Schemas as Arrow Flight sends them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

/// The schema as it is sent: without metadata, which names the folders of models, and with types that the protocol's
/// encoder does not change, so that the rows have the announced schema. The encoder unpacks dictionaries, and supports
/// lists with 32-bit offsets only.
pub(super) fn wire_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(wire_field).collect::<Fields>())
}

fn wire_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), wire_type(field.data_type()), field.is_nullable()))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(wire_field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(wire_field(item), *length),
        DataType::ListView(item) => DataType::ListView(wire_field(item)),
        DataType::LargeListView(item) => DataType::LargeListView(wire_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            ArrayRef, DictionaryArray, LargeListArray, LargeStringArray, ListArray, RecordBatch, StringViewArray,
            StructArray,
        },
        buffer::OffsetBuffer,
        compute::cast,
        datatypes::{Int8Type, Int32Type, Int64Type},
    };
    use arrow_flight::{decode::FlightRecordBatchStream, encode::FlightDataEncoderBuilder};
    use futures::{TryStreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn columns_of_all_types_arrive_with_the_announced_schema() {
        let words: ArrayRef = Arc::new([Some("one"), None].into_iter().collect::<DictionaryArray<Int32Type>>());
        let tiny: ArrayRef = Arc::new([Some("one"), None].into_iter().collect::<DictionaryArray<Int8Type>>());
        let item = Arc::new(Field::new_list_field(tiny.data_type().clone(), true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), Arc::clone(&tiny), None);
        let fields = Fields::from(vec![Field::new("word", words.data_type().clone(), true)]);
        let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
        let columns: [(&str, ArrayRef); 7] = [
            ("words", Arc::clone(&words)),
            ("tiny", tiny),
            ("list", Arc::new(list)),
            ("struct", Arc::new(StructArray::new(fields, vec![words], None))),
            ("large", Arc::new(large)),
            ("view", Arc::new(StringViewArray::from(vec!["x", "a text that is longer than a view"]))),
            ("wide", Arc::new(LargeStringArray::from(vec!["x", "y"]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        let batch = batch.unwrap();
        let announced = Arc::new(wire_schema(batch.schema_ref()));
        let columns = batch.columns().iter().zip(announced.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
        let sent = RecordBatch::try_new(Arc::clone(&announced), columns).unwrap();
        let encoded = FlightDataEncoderBuilder::new().build(stream::iter([Ok(sent.clone())]));
        let arrived: Vec<RecordBatch> =
            FlightRecordBatchStream::new_from_flight_data(encoded).try_collect().await.unwrap();
        assert_eq!(arrived, [sent]);
    }
}
