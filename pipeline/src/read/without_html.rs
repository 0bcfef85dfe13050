//! Web pages in a program built without the feature `html`.

use super::Cause;

/// Reports that the text cannot be extracted.
///
/// # Errors
/// Always.
pub(super) fn text(_: &str) -> Result<String, Cause> {
    Err(Cause::BuiltWithoutHtml)
}
