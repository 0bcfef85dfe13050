//! Equal keys over many tables. A table is a Parquet file of unsigned 64-bit numbers: the columns `key…` together are the key,
//! `order…` say which row of a key comes first, and `id`, the last, is what a row is known by.

use std::fs::File;
use std::path::Path;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::Error;

pub(crate) const TABLE: &str = "rows";

/// What a partition of a shuffle has, about: it is sorted at once, within the memory of an executor or by way of its disk.
const PARTITION_BYTES: u64 = 128 << 20;
/// More partitions than this are more files than a shuffle should have.
const MAX_PARTITIONS: u64 = 4096;

/// The columns of a table.
pub(crate) fn schema(table: &Path) -> Result<SchemaRef, Error> {
    let read = || -> Result<SchemaRef, DataFusionError> {
        Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(table)?)?.schema().clone())
    };
    read().map_err(|e| Error::Failed(format!("{}: {e}", table.display())))
}

/// Partitions for tables of so many bytes on so many cores.
pub(crate) fn n_partitions(n_bytes: u64, n_cores: usize) -> usize {
    (n_bytes / PARTITION_BYTES + 1).max(n_cores as u64).min(MAX_PARTITIONS) as usize
}

/// The query for all pairs of the first row of a key with another one: in the order of key and row, or each pair once.
///
/// With `ROWS` the window is computed in a stream, so a key of any number of rows needs no memory.
pub(crate) fn query(schema: &SchemaRef, in_order: bool) -> String {
    let columns = |kind: &str| -> Vec<&str> {
        schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .filter(|name| name.starts_with(kind))
            .collect()
    };
    let keys = columns("key").join(", ");
    let order = [columns("order"), vec!["id"]].concat().join(", ");
    let window = format!(
        "first_value(id) OVER (PARTITION BY {keys} ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    );
    match in_order {
        true => format!(
            "SELECT least, id FROM (SELECT {keys}, {order}, {window} AS least FROM {TABLE}) WHERE least <> id ORDER BY {keys}, {order}"
        ),
        false => format!(
            "SELECT DISTINCT least, id FROM (SELECT id, {window} AS least FROM {TABLE}) WHERE least <> id"
        ),
    }
}

/// Hands on the pairs of a batch.
pub(crate) fn each<E>(
    batch: &RecordBatch,
    pair: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let [least, id] = [0, 1].map(|i| batch.column(i).as_primitive::<UInt64Type>().values());
    least.iter().zip(id).try_for_each(|(&least, &id)| pair(least, id))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, UInt64Array};
    use datafusion::execution::context::SessionContext;
    use datafusion::physical_plan::displayable;

    use super::*;

    fn table(columns: &[(&str, &[u64])]) -> RecordBatch {
        let column = |(name, values): &(&'static str, &[u64])| {
            (*name, Arc::new(UInt64Array::from(values.to_vec())) as ArrayRef)
        };
        let names = ["key0", "key1", "order0", "id"];
        let columns: Vec<_> = names
            .into_iter()
            .filter_map(|name| columns.iter().find(|(other, _)| *other == name).map(|(_, v)| (name, *v)))
            .collect();
        RecordBatch::try_from_iter(columns.iter().map(column)).unwrap()
    }

    async fn pairs(table: RecordBatch, in_order: bool) -> (Vec<(u64, u64)>, String) {
        let context = SessionContext::new();
        let query = query(&table.schema(), in_order);
        context.register_batch(TABLE, table).unwrap();
        let frame = context.sql(&query).await.unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        let mut found = Vec::new();
        for batch in frame.collect().await.unwrap() {
            each::<()>(&batch, &mut |least, id| {
                found.push((least, id));
                Ok(())
            })
            .unwrap();
        }
        (found, displayable(plan.as_ref()).indent(false).to_string())
    }

    #[tokio::test]
    async fn the_first_row_of_a_key_is_paired_with_each_other_one() {
        let rows = table(&[
            ("key0", &[7, 7, 1, 7, 1]),
            ("key1", &[0, 0, 5, 1, 5]),
            ("order0", &[2, 1, 4, 0, 3]),
            ("id", &[10, 11, 12, 13, 14]),
        ]);
        let (found, plan) = pairs(rows, true).await;
        assert_eq!(found, [(14, 12), (11, 10)]);
        assert!(plan.contains("BoundedWindowAggExec"), "{plan}");
    }

    #[tokio::test]
    async fn a_pair_with_several_keys_in_common_is_one() {
        let rows = table(&[("key0", &[1, 1, 2, 2, 3]), ("id", &[4, 9, 9, 4, 4])]);
        assert_eq!(pairs(rows, false).await.0, [(4, 9)]);
    }

    #[test]
    fn partitions_grow_with_the_tables_and_use_all_cores() {
        assert_eq!(n_partitions(0, 3), 3);
        assert_eq!(n_partitions(10 * PARTITION_BYTES, 3), 11);
        assert_eq!(n_partitions(u64::MAX, 3), 4096);
    }
}
