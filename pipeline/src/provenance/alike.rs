//! Documents of one source with the same name. Audit tables know documents by source and name only, so rows about
//! one of several are distinguished by their measurements: bytes, and the text that was cut or found.

use super::Found;
use super::audit::AuditRow;

/// Whether a row of an audit table can be about this document, not just one of the same name.
pub(super) fn is_about(row: &AuditRow, document: &Found) -> bool {
    let number = |column: &str| row.get(column).and_then(serde_json::Value::as_u64);
    let text = |column: &str| row.get(column).and_then(serde_json::Value::as_str);
    // Text cut before a document was dropped is not counted in its row.
    let as_read = number("raw_bytes").is_none_or(|bytes| bytes <= u64::from(document.raw_bytes));
    let normalized = number("removed_bytes").is_none_or(|bytes| bytes == document.text.len() as u64);
    let in_place = match (number("start"), text("text")) {
        (Some(start), Some(sample)) => {
            document.text.get(start as usize..).is_some_and(|rest| rest.starts_with(sample))
        }
        _ => true,
    };
    as_read && normalized && in_place
}
