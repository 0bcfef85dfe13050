//! Text from elsewhere on a terminal. Names, texts, tensor names and answers of servers may hold control
//! sequences that move the cursor, hide what was said, or give orders to the terminal; both programs show them
//! escaped. The escapes are those of JSON, so that the same function serves JSON and text.

use std::borrow::Cow;

/// Text with everything escaped that a terminal would not show as a character: control characters except line end
/// and tab, marks that change the direction of writing, and characters without width. `\u001b` stands for escape.
///
/// JSON stays JSON with the same meaning, since such characters can only stand in its strings.
///
/// ```
/// assert_eq!(moe_shards::terminal::escape("a\u{1b}[31mb\n"), "a\\u001b[31mb\n");
/// ```
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, is_hidden)
}

/// As [`escape`], for what must stay on its line: names, ids, paths. Line ends and tabs are escaped too.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    replace(text, |c| c.is_control() || is_hidden(c))
}

fn replace(text: &str, is_wrong: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_wrong) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_wrong(c) {
            let mut units = [0; 2];
            shown.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Arabic letter mark; zero width, joiners, left-to-right and right-to-left marks; line and paragraph
        // separator, embeddings and overrides; word joiner, invisible operators, isolates; byte-order mark;
        // tags, with which text can be hidden in text.
        '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_escaped() {
        for (text, shown) in [
            ("plain, tab\tand line\n", "plain, tab\tand line\n"),
            ("héllo 漢字 😀", "héllo 漢字 😀"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("a\rb\u{8}c\u{7f}", "a\\u000db\\u0008c\\u007f"),
            ("\u{9b}31m\u{85}", "\\u009b31m\\u0085"),
            ("a\u{202e}b\u{2066}c\u{2069}\u{200e}\u{61c}", "a\\u202eb\\u2066c\\u2069\\u200e\\u061c"),
            ("a\u{200b}b\u{200d}\u{feff}", "a\\u200bb\\u200d\\ufeff"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(escape(text), shown);
        }
        assert_eq!(escape_line("id\nerror: no\t"), "id\\u000aerror: no\\u0009");
    }
}
