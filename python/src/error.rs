//! Errors become exceptions with the same message. A panic, which would be a bug, becomes one, too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use moe_shards::Error;
use pyo3::prelude::*;

mod python {
    use pyo3::import_exception;

    import_exception!(moe_shards.errors, FormatError);
    import_exception!(moe_shards.errors, InternalError);
    import_exception!(moe_shards.errors, MissingError);
    import_exception!(moe_shards.errors, OutOfRangeError);
    import_exception!(moe_shards.errors, SystemRefusal);
}

/// The exception of an error.
pub fn exception(error: &Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Missing { .. } => python::MissingError::new_err(message),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            python::MissingError::new_err(message)
        }
        Error::Io { .. } => python::SystemRefusal::new_err(message),
        Error::OutOfRange { .. } | Error::PlanExhausted { .. } => python::OutOfRangeError::new_err(message),
        Error::Format { .. }
        | Error::Checksum { .. }
        | Error::Version { .. }
        | Error::Json { .. }
        | Error::Mismatch { .. }
        | Error::Order { .. }
        | Error::TokenRange { .. }
        | Error::Names(_)
        | Error::Quota(_) => python::FormatError::new_err(message),
    }
}

/// Runs `work` while other Python threads may run.
///
/// # Errors
/// Those of `work`, or that it panicked.
pub fn detached<T: Send>(py: Python<'_>, work: impl Send + FnOnce() -> moe_shards::Result<T>) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(|e| exception(&e)),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let message = format!(
                "{text}: this is a bug of moe-shards; `moe-data verify DIR` tells whether the files are whole"
            );
            Err(python::InternalError::new_err(message))
        }
    }
}

/// A number from Python that must be below `len`, such as sample `t` of a plan. Negative numbers do not count
/// from the end.
///
/// # Errors
/// It is negative, beyond 64 bits, or not an integer.
pub fn number(value: &Bound<'_, PyAny>, what: &str, len: u64) -> PyResult<u64> {
    if let Ok(number) = value.extract::<u64>() {
        return Ok(number);
    }
    let number = value.call_method0("__index__").map_err(|_| {
        let found =
            value.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
        pyo3::exceptions::PyTypeError::new_err(format!("{what}: expected an integer, found {found}"))
    })?;
    Err(out_of_range(what, number, len))
}

/// There is no such number.
pub fn out_of_range(what: &str, number: impl std::fmt::Display, len: u64) -> PyErr {
    python::OutOfRangeError::new_err(format!(
        "{what} {number} does not exist, there are {len}, numbered from 0"
    ))
}
