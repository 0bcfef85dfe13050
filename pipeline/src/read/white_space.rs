//! The white space of a page as a browser shows it (CSS Text 3, section 4.1): in running text any run of blanks and line
//! ends of the source is one blank, and only the boundaries of blocks end lines. The extractor keeps the line ends of the source,
//! so they are changed before it sees the page.

/// Elements whose start and end are the ends of lines.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "main",
    "nav",
    "ol",
    "p",
    "section",
    "summary",
    "table",
    "title",
    "tr",
    "ul",
];
/// Elements that only separate words here, since the extractor itself ends lines at them.
const SEPARATORS: &[&str] = &["br", "li", "option", "td", "th"];
/// Elements whose content stays as it is.
const VERBATIM: &[&str] = &["pre", "textarea", "listing", "xmp", "script", "style"];

/// How far quotes in a tag are followed; without a limit a page of open quotes would take quadratic time.
const MAX_TAG_BYTES: usize = 4096;

/// A tag at the start of a text that starts with `<`.
pub(super) struct Tag<'p> {
    /// In lower case.
    pub name: String,
    pub is_end: bool,
    /// Whether it says `/>`.
    pub is_closed: bool,
    /// All of it.
    pub source: &'p str,
}

impl<'p> Tag<'p> {
    /// `None` for a `<` that starts no tag.
    pub fn at(text: &'p str) -> Option<Tag<'p>> {
        let bytes = text.as_bytes();
        let is_end = bytes.get(1) == Some(&b'/');
        let rest = &bytes[if is_end { 2 } else { 1 }..];
        let n = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
        if n == 0 || !rest[0].is_ascii_alphabetic() {
            return None;
        }
        // Values of attributes may hold `>`.
        let mut quote = None;
        let end = bytes.iter().take(MAX_TAG_BYTES).position(|&b| {
            match quote {
                Some(open) if b == open => quote = None,
                Some(_) => {}
                None if b == b'"' || b == b'\'' => quote = Some(b),
                None => return b == b'>',
            }
            false
        });
        // If quotes do not close or the tag is long, the first `>` has to do.
        let end = end.or_else(|| memchr::memchr(b'>', bytes)).map_or(bytes.len(), |end| end + 1);
        let name = String::from_utf8_lossy(&rest[..n]).to_ascii_lowercase();
        Some(Tag { name, is_end, is_closed: bytes[..end].ends_with(b"/>"), source: &text[..end] })
    }

    /// Bytes from the start of this tag to that of its end tag, for an element whose contents are skipped.
    pub fn content_end(&self, text: &str) -> usize {
        let (bytes, name) = (text.as_bytes(), self.name.as_bytes());
        let mut ends = memchr::memmem::find_iter(bytes, b"</");
        let is_ours =
            |at: &usize| bytes.get(at + 2..at + 2 + name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name));
        ends.find(is_ours).unwrap_or(text.len())
    }
}

/// Separators between two pieces of text, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Blank,
    Line,
}

/// The page with its white space collapsed.
pub(super) fn collapse(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let (mut at, mut gap) = (0, Gap::None);
    while at < page.len() {
        let rest = &page[at..];
        if !rest.starts_with('<') {
            let n = memchr::memchr(b'<', &rest.as_bytes()[1..]).map_or(rest.len(), |n| n + 1);
            // The search may begin inside a character of several bytes; none of them is `<`.
            text(&rest[..n], &mut gap, &mut out);
            at += n;
            continue;
        }
        let n = if rest.starts_with("<!--") {
            rest.find("-->").map_or(rest.len(), |n| n + 3)
        } else if rest.starts_with("<!") || rest.starts_with("<?") {
            rest.find('>').map_or(rest.len(), |n| n + 1)
        } else if let Some(tag) = Tag::at(rest) {
            let is_any = |names: &[&str]| names.contains(&tag.name.as_str());
            if is_any(VERBATIM) && !tag.is_end {
                if tag.name != "script" && tag.name != "style" {
                    gap = Gap::Line;
                }
                put(&mut gap, &mut out);
                let n = tag.content_end(rest);
                out.push_str(&rest[..n]);
                at += n;
                continue;
            }
            let own = match () {
                () if is_any(BLOCKS) || is_any(&VERBATIM[..4]) => Gap::Line,
                () if is_any(SEPARATORS) => Gap::Blank,
                () => Gap::None,
            };
            // Inside an element, a gap is before its start tag and after its end tag, as in hand-written pages.
            if own != Gap::None && !tag.is_end {
                gap = gap.max(own);
            }
            if own == Gap::None || !tag.is_end {
                put(&mut gap, &mut out);
            } else {
                gap = Gap::None;
            }
            out.push_str(tag.source);
            if own != Gap::None && (tag.is_end || tag.name == "br" || tag.name == "hr") {
                gap = own;
            }
            at += tag.source.len();
            continue;
        } else {
            text("<", &mut gap, &mut out);
            at += 1;
            continue;
        };
        out.push_str(&rest[..n]);
        at += n;
    }
    out
}

fn put(gap: &mut Gap, out: &mut String) {
    match std::mem::replace(gap, Gap::None) {
        Gap::None => {}
        Gap::Blank => out.push(' '),
        Gap::Line => out.push('\n'),
    }
}

/// Appends running text.
fn text(text: &str, gap: &mut Gap, out: &mut String) {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}');
    let mut rest = text;
    loop {
        let word = rest.trim_start_matches(is_blank);
        if word.len() < rest.len() {
            *gap = (*gap).max(Gap::Blank);
        }
        if word.is_empty() {
            return;
        }
        put(gap, out);
        let end = word.find(is_blank).unwrap_or(word.len());
        out.push_str(&word[..end]);
        rest = &word[end..];
    }
}

/// An extractor's result, without trailing blanks and runs of empty lines.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut n_empty = 0;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() {
            n_empty += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if n_empty > 0 { "\n\n" } else { "\n" });
        }
        n_empty = 0;
        out.push_str(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_white_space_are_one_blank_and_blocks_end_lines() {
        for (page, expected) in [
            ("<p>line one\n          line two</p>", "\n<p>line one line two</p>"),
            ("<p>a</p><p>b</p>\n\n<p>c</p>", "\n<p>a</p>\n<p>b</p>\n<p>c</p>"),
            ("<ul>\n  <li>a\n  <li>b\n</ul>", "\n<ul> <li>a <li>b</ul>"),
            ("a<br>\n b <b>c\n</b> d", "a <br> b <b>c </b> d"),
            ("<pre>\n  x\n    y</pre>\n z", "\n<pre>\n  x\n    y</pre>\nz"),
            ("<script> if (a < b)\n  c() </script>d", "<script> if (a < b)\n  c() </script>d"),
            ("<!-- a\n\n b -->x  <  y", "<!-- a\n\n b -->x < y"),
            ("<a title='x > y'\n href=z>é\u{a0}\n</a>", "<a title='x > y'\n href=z>é\u{a0} </a>"),
            ("<td>1</td><td>2</td>", " <td>1</td> <td>2</td>"),
            ("<p class=\"open>x</p>", "\n<p class=\"open>x</p>"),
        ] {
            assert_eq!(collapse(page), expected, "{page}");
        }
    }

    #[test]
    fn texts_are_tidied() {
        assert_eq!(tidy("\n\na \n\n\n\nb\nc\n"), "a\n\nb\nc");
    }
}
