//! Untrusted text on a terminal. Names, texts, tensor names and answers of servers may contain control
//! sequences that move the cursor, hide messages, or control the terminal; both programs show them escaped.
//! The escapes are those of JSON, so that the same function serves JSON and text.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};

/// To the alternate screen, which preserves this one; no cursor, no line wrapping.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Undoes all of this.
pub(crate) const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The stream whose alternate screen is in use: 1 for standard output, 2 for standard error; 0 for none.
static SCREEN: AtomicI32 = AtomicI32::new(0);

/// A stream that may be a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Switches to the alternate screen of a terminal. Call [`leave_screen`] before the process ends, however it
/// ends.
///
/// # Errors
/// The terminal cannot be written to.
pub fn enter_screen(stream: Stream) -> io::Result<()> {
    SCREEN.store(if stream == Stream::Output { 1 } else { 2 }, Ordering::SeqCst);
    draw(ENTER).map(drop)
}

/// Writes to the screen that was entered; returns whether there is one.
///
/// # Errors
/// The terminal cannot be written to.
pub fn draw(bytes: &[u8]) -> io::Result<bool> {
    match SCREEN.load(Ordering::SeqCst) {
        0 => return Ok(false),
        1 => write(&mut io::stdout(), bytes)?,
        _ => write(&mut io::stderr(), bytes)?,
    }
    Ok(true)
}

/// Restores what was on the terminal before, if the alternate screen is in use.
pub fn leave_screen() {
    // If it cannot be written, there is no terminal to restore.
    match SCREEN.swap(0, Ordering::SeqCst) {
        0 => {}
        1 => write(&mut io::stdout(), LEAVE).unwrap_or_default(),
        _ => write(&mut io::stderr(), LEAVE).unwrap_or_default(),
    }
}

/// The descriptor of the screen that was entered, which counts as left from now on: for a handler of signals,
/// which may not take a lock.
pub(crate) fn take_screen() -> Option<i32> {
    Some(SCREEN.swap(0, Ordering::SeqCst)).filter(|descriptor| *descriptor > 0)
}

fn write(stream: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).and_then(|()| stream.flush())
}

/// Text with everything escaped that a terminal would not show as a character: control characters except line
/// end and tab, direction marks, and zero-width characters. `\u001b` stands for escape.
///
/// JSON stays JSON with the same meaning, since such characters can only stand in its strings.
///
/// ```
/// assert_eq!(moe_shards::terminal::escape("a\u{1b}[31mb\n"), "a\\u001b[31mb\n");
/// ```
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, is_hidden)
}

/// As [`escape`], for text that must stay on its line: names, ids, paths. Line ends and tabs are escaped too.
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
