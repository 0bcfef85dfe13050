//! Fields that a recipe carries from the record to exported texts (`keep_fields`): a JSON object of those that a record has.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use serde_json::{Number, Value};

use super::dotted::{find, lookup};

/// The fields of a JSON object; empty when it has none of them.
pub(super) fn of_object(object: &mut Value, names: &[String]) -> String {
    let mut found = BTreeMap::new();
    for name in names {
        match lookup(object, name) {
            None | Some(Value::Null) => {}
            Some(value) => {
                found.insert(name.as_str(), value.clone());
            }
        }
    }
    written(&found)
}

fn written(found: &BTreeMap<&str, Value>) -> String {
    match found.is_empty() {
        true => String::new(),
        false => serde_json::json!(found).to_string(),
    }
}

/// The columns of these fields in one batch.
#[derive(Default)]
pub(super) struct KeptColumns(Vec<(String, ArrayRef)>);

impl KeptColumns {
    pub fn of(batch: &RecordBatch, names: &[String]) -> KeptColumns {
        KeptColumns(names.iter().filter_map(|name| Some((name.clone(), find(batch, name)?))).collect())
    }

    /// The fields of a row; empty when it has none of them.
    pub fn row(&self, row: usize) -> String {
        let values = self.0.iter().filter(|(_, column)| column.is_valid(row));
        written(&values.filter_map(|(name, column)| Some((name.as_str(), value(column, row)?))).collect())
    }
}

/// Numbers and booleans as themselves, everything else as text; `None` if Arrow has no text for it, such as a date out of range.
fn value(column: &ArrayRef, row: usize) -> Option<Value> {
    let text = array_value_to_string(column, row).ok()?;
    let kind = column.data_type();
    Some(match kind {
        DataType::Boolean => Value::Bool(text == "true"),
        _ if kind.is_integer() => serde_json::from_str(&text).ok()?,
        _ if kind.is_floating() => {
            text.parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
        }
        _ => Value::String(text),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_and_columns_give_the_same() {
        let names = ["n", "t", "m.b", "f", "none"].map(str::to_owned);
        let mut object = json!({ "n": 7, "t": "x", "m": { "b": true }, "f": 0.5, "none": null, "other": 1 });
        let expected = r#"{"f":0.5,"m.b":true,"n":7,"t":"x"}"#;
        assert_eq!(of_object(&mut object, &names), expected);
        assert_eq!(of_object(&mut json!({ "other": 1 }), &names), "");
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(Int64Array::from(vec![Some(7), None]))),
            ("t", Arc::new(StringArray::from(vec![Some("x"), None]))),
            ("m.b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("f", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let columns = KeptColumns::of(&batch, &names);
        assert_eq!((columns.row(0).as_str(), columns.row(1).as_str()), (expected, ""));
    }
}
