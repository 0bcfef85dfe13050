//! Positions where a text may be cut so that its parts together have exactly the tokens
//! of the whole. Long documents are encoded in such parts, which bounds memory and keeps the fast
//! engine from starting threads of its own (it does for texts of 64 KiB and more).
//!
//! A position is used only if in every [`Family`](super::family::Family) a split ends there whatever
//! comes before and after, and no look-ahead sees across it:
//!
//! - before a space that follows a visible character: no split holds a visible character and then a
//!   space;
//! - between a single line break after a visible character and a visible character: a break at the
//!   end of punctuation belongs to it, one before white space to that, but after it always comes
//!   an end;
//! - between an ideograph or kana and a comma or period, for text without spaces: a run of
//!   letters ends at punctuation.
//!
//! NFC composes nothing across these places, as neither side of them combines.

/// Bytes of text for the fast engine in one call, below its own limit for threads.
pub(super) const PART_BYTES: usize = 48 << 10;
/// The same if NFC may turn one byte into three.
pub(super) const NFC_PART_BYTES: usize = 16 << 10;

/// Splits a part of at most `limit` bytes off the front of a text: the part and the rest. `None`
/// if there is no position to cut.
pub(super) fn part(text: &str, limit: usize) -> Option<(&str, &str)> {
    if text.len() <= limit {
        return Some((text, ""));
    }
    let bytes = text.as_bytes();
    let at = (1..=limit).rev().find(|&at| match bytes[at] {
        b' ' => before(text, at).is_some_and(is_visible),
        _ if !text.is_char_boundary(at) => false,
        _ if bytes[at - 1] == b'\n' => {
            // One family lets punctuation take line breaks and slashes.
            let follows = after(text, at).is_some_and(|c| is_visible(c) && c != '/');
            follows && before(text, at - 1).is_some_and(is_visible)
        }
        // The first bytes of the stops below.
        b',' | b'.' | 0xe3 | 0xef => {
            after(text, at).is_some_and(is_stop) && before(text, at).is_some_and(is_ideograph)
        }
        _ => false,
    })?;
    Some(text.split_at(at))
}

fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// A character that no regular expression treats as white space, in any Unicode version.
fn is_visible(c: char) -> bool {
    c.is_ascii_graphic() || (c >= '\u{a1}' && c.is_alphanumeric()) || is_stop(c)
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fa5}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}')
}

fn is_stop(c: char) -> bool {
    matches!(c, ',' | '.' | '、' | '。' | '，' | '．' | '！' | '？' | '；' | '：')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, limit: usize, expected: Option<&str>) {
        assert_eq!(part(text, limit).map(|(part, _)| part), expected, "{text:?}");
    }

    #[test]
    fn cuts_stand_where_a_split_ends() {
        check("short", 5, Some("short"));
        check("one two three", 8, Some("one two"));
        check("one two three", 7, Some("one two"));
        check("one two three", 6, Some("one"));
        check("ab.\ncd efgh", 5, Some("ab.\n"));
        check("ab.\n/d", 5, None);
        check("漢字。漢字漢", 12, Some("漢字"));
        check("aaaaaaaaaaa", 5, None);
    }

    #[test]
    fn white_space_is_not_cut() {
        for text in [
            "a\n\n\n\n\nb",
            "a\n \n \n \n",
            "\u{3000}\n\u{3000}\nab",
            "\u{180e} \u{180e} bc",
            "\u{301}\n\u{301} x",
        ] {
            check(text, text.len() - 1, None);
        }
        check("a   bcd", 4, Some("a"));
    }
}
