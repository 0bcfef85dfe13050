//! The fields of a record that make a conversation, as one JSON object with the keys in their order.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use super::Cause;
use super::dotted::{as_text, find, lookup};

/// The object of values, verbatim.
pub(super) fn of_sources(sources: &[(String, String)]) -> String {
    let entries: Vec<String> =
        sources.iter().map(|(key, source)| format!("{}:{source}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", entries.join(","))
}

/// An object of those of these fields that another one has.
pub(super) fn of_object(object: &mut Value, names: Option<&[String]>) -> Result<String, Cause> {
    let mut found = Map::new();
    for name in names.unwrap_or_default() {
        if let Some(value) = lookup(object, name).filter(|value| !value.is_null()) {
            found.insert(name.clone(), value.clone());
        }
    }
    match found.is_empty() {
        true => Err(Cause::MissingText),
        false => Ok(Value::Object(found).to_string()),
    }
}

/// The columns of these fields in one batch.
pub(super) struct ConversationColumns(Vec<(String, ArrayRef)>);

impl ConversationColumns {
    pub fn of(batch: &RecordBatch, names: &[String]) -> ConversationColumns {
        ConversationColumns(
            names.iter().filter_map(|name| Some((name.clone(), find(batch, name)?))).collect(),
        )
    }

    /// The object of a row; `None` where it has none of the fields.
    pub fn row(&self, row: usize) -> Option<String> {
        let there = self.0.iter().filter(|(_, column)| column.is_valid(row));
        let sources: Vec<(String, String)> =
            there.map(|(name, column)| (name.clone(), json(column.as_ref(), row))).collect();
        (!sources.is_empty()).then(|| of_sources(&sources))
    }
}

/// A value as JSON; values that JSON lacks, such as dates, as text.
fn json(column: &dyn Array, row: usize) -> String {
    if !column.is_valid(row) {
        return "null".to_owned();
    }
    let items = |items: ArrayRef| {
        let items: Vec<String> = (0..items.len()).map(|i| json(items.as_ref(), i)).collect();
        format!("[{}]", items.join(","))
    };
    let kind = column.data_type();
    match kind {
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let entries: Vec<(String, String)> = (fields.iter().zip(columns))
                .map(|(field, column)| (field.name().clone(), json(column.as_ref(), row)))
                .collect();
            of_sources(&entries)
        }
        DataType::List(_) => items(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => items(column.as_fixed_size_list().value(row)),
        _ => {
            let text = match as_text(column.slice(row, 1)) {
                Some(texts) if texts.is_valid(0) => texts.value(0).to_owned(),
                _ => array_value_to_string(column, row).unwrap_or_default(),
            };
            let is_plain = matches!(kind, DataType::Boolean) || kind.is_integer() || kind.is_floating();
            // Only finite floats are JSON.
            match is_plain && serde_json::from_str::<Value>(&text).is_ok() {
                true => text,
                false => Value::from(text).to_string(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Fields};
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_have_the_fields_that_are_there() {
        let names = ["tools", "messages"].map(str::to_owned);
        let mut object = json!({ "messages": [{ "b": 1, "a": "x" }], "tools": null, "other": 1 });
        assert_eq!(of_object(&mut object, Some(&names)).unwrap(), r#"{"messages":[{"a":"x","b":1}]}"#);
        assert_eq!(of_object(&mut json!({ "other": 1 }), Some(&names)), Err(Cause::MissingText));
        let sources = [("a\"b".to_owned(), "[ 1]".to_owned())];
        assert_eq!(of_sources(&sources), r#"{"a\"b":[ 1]}"#);
    }

    #[test]
    fn lists_of_structs_become_lists_of_objects_in_the_order_of_their_fields() {
        let fields: Fields = vec![
            Field::new("role", DataType::Utf8, true),
            Field::new("content", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]
        .into();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["user", "assistant", "user"])),
            Arc::new(StringArray::from(vec![Some("\"hi\"\n"), None, Some("x")])),
            Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)])),
        ];
        let structs = StructArray::new(fields.clone(), columns, None);
        let field = Arc::new(Field::new("item", DataType::Struct(fields), true));
        let offsets = OffsetBuffer::new(vec![0, 2, 3].into());
        let lists: ArrayRef = Arc::new(ListArray::new(field, offsets, Arc::new(structs), None));
        let batch = RecordBatch::try_from_iter([("messages", lists)]).unwrap();
        let columns = ConversationColumns::of(&batch, &["messages".to_owned(), "tools".to_owned()]);
        let expected = r#"{"messages":[{"role":"user","content":"\"hi\"\n","n":7},{"role":"assistant","content":null,"n":null}]}"#;
        assert_eq!(columns.row(0).unwrap(), expected);
        assert_eq!(columns.row(1).unwrap(), r#"{"messages":[{"role":"user","content":"x","n":-1}]}"#);
    }
}
