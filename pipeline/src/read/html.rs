//! The main text of a web page, without navigation and other furniture. The work is done by libraries that meet
//! the worst pages of the web here, so their input is bounded, and a panic in them costs one document. If the first finds much less
//! than the second, or nothing, the second's text is used; lines of furniture left by either are removed.

use dom_smoothie::{Config, Readability, TextMode};
use rs_trafilatura::Options;

use super::white_space::{self, Tag};
use super::{Cause, furniture, guard};

/// Longer pages are refused: the library's time grows faster than the page.
pub(super) const MAX_HTML_BYTES: usize = 2 << 20;
/// Deeper pages are refused: the library recurses into elements.
pub(super) const MAX_DEPTH: usize = 512;
/// The first library's text is used unless it is shorter than this share of the second's.
const LEAST_OF_SECOND: f64 = 0.6;
/// Stack for a page of that depth, with a large margin; only used pages take memory.
const STACK_BYTES: usize = 64 << 20;

/// The main text of a page.
pub(super) fn text(page: &str) -> Result<String, Cause> {
    if page.len() > MAX_HTML_BYTES || depth(page) > MAX_DEPTH {
        return Err(Cause::HtmlFailed);
    }
    let page = white_space::collapse(page);
    let extract = || {
        let first = guard::caught(|| rs_trafilatura::extract_with_options(&page, &Options::default()));
        let first = first.and_then(Result::ok).map(|found| found.content_text);
        fuller(first, guard::caught(|| readable(&page)).flatten())
    };
    let on_large_stack = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("html".to_owned()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, extract).ok().map(|thread| thread.join().ok().flatten())
    });
    // Without another thread, the current stack has to do.
    match on_large_stack.unwrap_or_else(extract) {
        Some(found) if found.trim().is_empty() => Err(Cause::EmptyText),
        Some(found) => Ok(white_space::tidy(&furniture::removed(&found))),
        None => Err(Cause::HtmlFailed),
    }
}

/// The first text, or the second if the first is missing or much shorter.
fn fuller(first: Option<String>, second: Option<String>) -> Option<String> {
    let len = |text: &Option<String>| text.as_ref().map_or(0, |text| text.trim().len()) as f64;
    let takes_second = second.is_some() && (first.is_none() || len(&first) < LEAST_OF_SECOND * len(&second));
    if takes_second { second } else { first }
}

/// The main text according to the other library, if any.
fn readable(page: &str) -> Option<String> {
    let config = Config { text_mode: TextMode::Formatted, ..Config::default() };
    let article = Readability::new(page, None, Some(config)).and_then(|mut reader| reader.parse());
    article.ok().map(|article| article.text_content.to_string())
}

/// Approximate nesting depth of a page's elements: opening tags minus closing tags. Void elements and
/// those that end where another of their kind starts are left out, since pages rarely close them; pages that nest those too deeply still meet
/// the large stack.
fn depth(page: &str) -> usize {
    const LEFT_OUT: [&str; 24] = [
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
        "track", "wbr", "p", "li", "td", "th", "tr", "dt", "dd", "option", "tbody", "thead",
    ];
    const RAW: [&str; 3] = ["script", "style", "textarea"];
    /// Inside these, `/>` ends an element, as in XML.
    const FOREIGN: [&str; 2] = ["svg", "math"];
    let (mut depth, mut deepest, mut foreign, mut at) = (0usize, 0, 0usize, 0);
    while let Some(next) = memchr::memchr(b'<', &page.as_bytes()[at..]) {
        at += next;
        let Some(tag) = Tag::at(&page[at..]) else {
            at += 1;
            continue;
        };
        let is_any = |names: &[&str]| names.contains(&tag.name.as_str());
        if !tag.is_end && is_any(&RAW) {
            // Everything inside is text, up to the end tag.
            at = page.len().min(at + tag.content_end(&page[at..]) + 2);
            continue;
        }
        at += tag.source.len();
        let is_foreign = is_any(&FOREIGN);
        if is_any(&LEFT_OUT) || tag.is_closed && (foreign > 0 || is_foreign) {
            continue;
        }
        let step = |n: usize| if tag.is_end { n.saturating_sub(1) } else { n + 1 };
        depth = step(depth);
        deepest = deepest.max(depth);
        if is_foreign {
            foreign = step(foreign);
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENTENCE: &str =
        "This sentence is long enough to be taken for the content of a page by any extractor. ";

    #[test]
    fn depth_counts_what_stays_open() {
        for (page, expected) in [
            ("", 0),
            ("a < b <3 </", 0),
            ("<html><body><div>x</div><div><b>y</b></div></body></html>", 4),
            ("<ul><li>a<li>b</ul><br><p>c<p>d", 1),
            ("<div><script>if (a<b) s = '<div><div><div>'</SCRIPT></div>", 1),
            ("<script><div>", 0),
            ("<DIV><div><Div>", 3),
            // The slash means something inside foreign elements only.
            ("<svg><path d='a>b'/><g><path/><path/></g></svg><div/><div/>", 2),
        ] {
            assert_eq!(depth(page), expected, "{page}");
        }
    }

    #[test]
    fn the_second_text_is_taken_where_the_first_is_much_shorter() {
        let text = |n: usize| Some("x".repeat(n));
        for (first, second, expected) in [
            (text(60), text(100), text(60)),
            (text(59), text(100), text(100)),
            (text(100), text(9), text(100)),
            (None, text(3), text(3)),
            (text(3), None, text(3)),
            (Some(" ".to_owned()), text(1), text(1)),
            (None, None, None),
        ] {
            assert_eq!(fuller(first, second), expected);
        }
    }

    #[test]
    fn white_space_is_as_a_browser_shows_it() {
        let page = format!(
            "<!DOCTYPE html><html><body><article><h1>The mill</h1>\n<p>{SENTENCE}</p>\n<p>line one\n          line two</p><p>{SENTENCE}\n\n {SENTENCE}</p><p>{SENTENCE}</p></article></body></html>"
        );
        let found = text(&page).unwrap();
        let lines: Vec<&str> = found.lines().filter(|line| !line.is_empty()).collect();
        assert!(lines.contains(&"line one line two"), "{found}");
        assert_eq!(lines.iter().filter(|line| line.starts_with(SENTENCE.trim())).count(), 3, "{found}");
    }

    #[test]
    fn a_page_with_many_paths_of_a_picture_is_read() {
        let paths = "<path d='M0 0'/>".repeat(MAX_DEPTH + 100);
        let page = format!(
            "<html><body><article><svg>{paths}</svg><p>{}</p></article></body></html>",
            SENTENCE.repeat(5)
        );
        assert!(text(&page).is_ok());
    }

    #[test]
    fn pages_up_to_the_limit_of_depth_are_read() {
        for tag in ["div", "span", "b", "blockquote", "ul", "table", "section", "a", "font", "svg", "form"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let page = format!(
                "<html><body>{}<p>{}</p>{}</body></html>",
                open.repeat(MAX_DEPTH - 2),
                SENTENCE.repeat(5),
                close.repeat(MAX_DEPTH - 2)
            );
            // The stack must not overflow; finding the text is up to the library.
            let result = text(&page);
            assert!(result.is_ok() || matches!(result, Err(Cause::EmptyText | Cause::HtmlFailed)), "{tag}");
        }
        let left_out = format!("<html><body>{}{}", "<p><td><li>".repeat(5_000), SENTENCE.repeat(5));
        text(&left_out).ok();
        let deep = format!("<html><body>{}{}", "<div>".repeat(MAX_DEPTH), SENTENCE);
        assert_eq!(text(&deep), Err(Cause::HtmlFailed));
        let long = format!("<html><body><p>{}", SENTENCE.repeat(MAX_HTML_BYTES / SENTENCE.len() + 1));
        assert_eq!(text(&long), Err(Cause::HtmlFailed));
        assert_eq!(text("<html><body></body></html>"), Err(Cause::EmptyText));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_page_gives_a_text_or_a_cause(
            parts in prop::collection::vec(
                prop_oneof![
                    "</?(div|p|table|tr|td|ul|li|a|b|svg|math|template|form|select|script|article|br|h1|pre)( [a-z]{1,5}=.{0,5})?>",
                    "(<!--|-->|<!|<\\?|]]>|<!\\[CDATA\\[|&[a-z]{1,5};|&#x?[0-9a-f]{1,7};)",
                    ".{0,30}",
                    Just(SENTENCE.to_owned()),
                ],
                0..40,
            ),
        ) {
            let found = text(&parts.concat());
            prop_assert!(found.is_err() || found.is_ok_and(|text| !text.trim().is_empty()));
        }
    }
}
