//! The main text of a web page, without navigation and other furniture. The work is done by a library that meets
//! the worst pages of the web here, so what it is given is bounded, and a panic in it costs one document.

use rs_trafilatura::Options;

use super::{Cause, guard};

/// Longer pages are refused: the library takes time that grows faster than the page.
pub(super) const MAX_HTML_BYTES: usize = 4 << 20;
/// Deeper pages are refused: the library goes into elements by recursion.
pub(super) const MAX_DEPTH: usize = 256;

/// The main text of a page.
pub(super) fn text(page: &str) -> Result<String, Cause> {
    if page.len() > MAX_HTML_BYTES || depth(page) > MAX_DEPTH {
        return Err(Cause::HtmlFailed);
    }
    let options = Options::default();
    let result = guard::caught(|| rs_trafilatura::extract_with_options(page, &options));
    match result {
        Some(Ok(found)) if found.content_text.trim().is_empty() => Err(Cause::EmptyText),
        Some(Ok(found)) => Ok(found.content_text),
        _ => Err(Cause::HtmlFailed),
    }
}

/// An upper bound of how deep the elements of a page are nested: tags that open and are not void, less those
/// that close. Elements that close by themselves count as open, so that the bound holds however they are read; real pages of that
/// kind are shallow enough.
fn depth(page: &str) -> usize {
    const VOID: [&str; 14] = [
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
        "track", "wbr",
    ];
    // These close themselves when another of their kind starts.
    const CLOSING: [&str; 10] = ["p", "li", "td", "th", "tr", "dt", "dd", "option", "tbody", "thead"];
    let bytes = page.as_bytes();
    let (mut depth, mut deepest) = (0usize, 0);
    for at in memchr::memchr_iter(b'<', bytes) {
        let rest = &bytes[at + 1..];
        let (is_end, rest) = rest.strip_prefix(b"/").map_or((false, rest), |rest| (true, rest));
        let n = rest.iter().take(12).take_while(|b| b.is_ascii_alphanumeric()).count();
        if n == 0 || !rest[0].is_ascii_alphabetic() {
            continue;
        }
        let name = rest[..n].to_ascii_lowercase();
        let is_any = |names: &[&str]| names.iter().any(|other| other.as_bytes() == name);
        if is_any(&VOID) || is_any(&CLOSING) {
            continue;
        }
        depth = if is_end { depth.saturating_sub(1) } else { depth + 1 };
        deepest = deepest.max(depth);
    }
    deepest
}
