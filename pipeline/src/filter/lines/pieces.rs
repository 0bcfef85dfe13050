//! A text in pieces, each kept or taken out; white space at the ends of the rest is removed last.

use super::super::Rewriting;
use crate::spacy::is_space;

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Keep,
    /// Kept as `\n`, whatever it was.
    Newline,
    /// Taken out by a method.
    Take(usize),
}

/// The pieces of a text, in its order.
#[derive(Default)]
pub(super) struct Pieces<'t> {
    pieces: Vec<(&'t str, Fate)>,
}

impl<'t> Pieces<'t> {
    pub(super) fn keep(&mut self, piece: &'t str) {
        self.pieces.push((piece, Fate::Keep));
    }

    pub(super) fn take(&mut self, method: usize, piece: &'t str) {
        self.pieces.push((piece, Fate::Take(method)));
    }

    /// The end of a line that is kept, in any of its forms.
    pub(super) fn newline(&mut self, piece: &'t str) {
        self.pieces.push((piece, Fate::Newline));
    }

    /// Trims white space at both ends of the kept text.
    pub(super) fn trim(&mut self, method: usize) {
        let mut at = 0;
        while let Some(&(piece, fate)) = self.pieces.get(at) {
            let kept = if fate == Fate::Keep { piece.trim_start_matches(is_space) } else { "" };
            if !kept.is_empty() {
                if kept.len() < piece.len() {
                    self.pieces[at].0 = kept;
                    self.pieces.insert(at, (&piece[..piece.len() - kept.len()], Fate::Take(method)));
                }
                break;
            }
            self.drop_kept(at, method);
            at += 1;
        }
        let mut at = self.pieces.len();
        while let Some(&(piece, fate)) = at.checked_sub(1).and_then(|last| self.pieces.get(last)) {
            let kept = if fate == Fate::Keep { piece.trim_end_matches(is_space) } else { "" };
            if !kept.is_empty() {
                if kept.len() < piece.len() {
                    self.pieces[at - 1].0 = kept;
                    self.pieces.insert(at, (&piece[kept.len()..], Fate::Take(method)));
                }
                break;
            }
            self.drop_kept(at - 1, method);
            at -= 1;
        }
    }

    fn drop_kept(&mut self, at: usize, method: usize) {
        if !matches!(self.pieces[at].1, Fate::Take(_)) {
            self.pieces[at].1 = Fate::Take(method);
        }
    }

    /// Passes on all pieces, line ends other than `\n` as `method`.
    pub(super) fn write(&self, method: usize, out: &mut Rewriting) {
        for &(piece, fate) in &self.pieces {
            match fate {
                Fate::Keep => out.keep(piece),
                Fate::Newline if piece == "\n" => out.keep(piece),
                Fate::Newline => {
                    out.take(method, piece);
                    out.put("\n");
                }
                Fate::Take(method) => out.take(method, piece),
            }
        }
    }
}

/// Lines with their ends, as in Python's `str.splitlines`, which knows nine ends besides `\n`.
pub(super) fn python_lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest.find(is_line_end).unwrap_or(rest.len());
        let end = match &rest.as_bytes()[at..] {
            [] => 0,
            [b'\r', b'\n', ..] => 2,
            _ => rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        let line = (&rest[..at], &rest[at..at + end]);
        rest = &rest[at + end..];
        Some(line)
    })
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        let lines: Vec<_> = python_lines("a\r\n\nb\u{2028}c\u{b}\n").collect();
        assert_eq!(lines, [("a", "\r\n"), ("", "\n"), ("b", "\u{2028}"), ("c", "\u{b}"), ("", "\n")]);
        assert_eq!(python_lines("").count(), 0);
        assert_eq!(python_lines("a").collect::<Vec<_>>(), [("a", "")]);
    }
}
