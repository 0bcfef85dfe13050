//! Web pages in a program that was built without the feature `html`.

use super::Cause;

/// Says that there is no text to be had.
///
/// # Errors
/// Always.
pub(super) fn text(_: &str) -> Result<String, Cause> {
    Err(Cause::BuiltWithoutHtml)
}
