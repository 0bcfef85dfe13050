//! Opaque tasks as a function of SQL: `moe_task(task)` does a task and is its answer.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::parquet::arrow::ArrowWriter;

use crate::error::Error;

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Another try, perhaps on another machine, may do better.
    Passing(String),
    /// Another try would fail as well.
    Lasting(String),
}

/// Does a task.
pub type TaskFn = Arc<dyn Fn(&str) -> std::result::Result<String, TaskError> + Send + Sync>;

pub(crate) const FUNCTION: &str = "moe_task";
pub(crate) const TABLE: &str = "tasks";
const NUMBER: &str = "number";
const TASK: &str = "task";

/// The function as executors have it.
pub(crate) fn function(run: TaskFn) -> ScalarUDF {
    let work = move |arguments: &[ColumnarValue]| {
        let tasks = cast(&arguments[0].clone().into_array(1)?, &DataType::Utf8)?;
        let answers = tasks.as_string::<i32>().iter().map(|task| {
            run(task.unwrap_or_default()).map_err(|error| match error {
                // Only errors of this kind are tried again.
                TaskError::Passing(reason) => DataFusionError::IoError(io::Error::other(reason)),
                TaskError::Lasting(reason) => DataFusionError::Execution(reason),
            })
        });
        let answers: StringArray = answers.collect::<Result<Vec<String>>>()?.into();
        Ok(ColumnarValue::Array(Arc::new(answers)))
    };
    // Volatile, or the planner would run it or reuse its answers.
    create_udf(FUNCTION, vec![DataType::Utf8], DataType::Utf8, Volatility::Volatile, Arc::new(work))
}

/// The same for planning alone: drivers run no task.
pub(crate) fn planned_function() -> ScalarUDF {
    function(Arc::new(|_| Err(TaskError::Lasting("a driver runs no task; this is a bug".to_owned()))))
}

pub(crate) fn schema() -> SchemaRef {
    let number = Field::new(NUMBER, DataType::Int64, false);
    Arc::new(Schema::new(vec![number, Field::new(TASK, DataType::Utf8, false)]))
}

/// Writes each task into a file of its own in `folder`, which makes it a partition of its own.
pub(crate) fn write(folder: &Path, tasks: &[String]) -> std::result::Result<(), Error> {
    for (i, task) in tasks.iter().enumerate() {
        let path = folder.join(format!("{i:06}.parquet"));
        let write = || -> Result<()> {
            let number: ArrayRef = Arc::new(Int64Array::from(vec![i as i64]));
            let task: ArrayRef = Arc::new(StringArray::from(vec![task.as_str()]));
            let batch = RecordBatch::try_new(schema(), vec![number, task])?;
            let mut writer = ArrowWriter::try_new(File::create(&path)?, schema(), None)?;
            writer.write(&batch)?;
            writer.close()?;
            Ok(())
        };
        write().map_err(|e| Error::Write { path: path.clone(), source: io::Error::other(e) })?;
    }
    Ok(())
}

/// The query that runs all tasks.
pub(crate) fn query() -> String {
    format!("SELECT {NUMBER}, {FUNCTION}({TASK}) FROM {TABLE}")
}

/// Puts the answers of a batch where they belong.
pub(crate) fn collect(batch: &RecordBatch, answers: &mut [Option<String>]) -> std::result::Result<(), Error> {
    let numbers = cast(batch.column(0), &DataType::Int64).map_err(DataFusionError::from)?;
    let texts = cast(batch.column(1), &DataType::Utf8).map_err(DataFusionError::from)?;
    let numbers = numbers.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
    for (number, text) in numbers.values().iter().zip(texts.as_string::<i32>()) {
        let place = usize::try_from(*number).ok().and_then(|number| answers.get_mut(number));
        match (place, text) {
            (Some(place), Some(text)) if place.is_none() => *place = Some(text.to_owned()),
            _ => return Err(Error::Failed(format!("answer {number} came twice or to no task"))),
        }
    }
    Ok(())
}
