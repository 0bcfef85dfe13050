//! Words as spaCy's English tokenizer (3.8, `spacy.blank("en")`) finds them, which the rules of datatrove are defined on: a chunk
//! between white space loses marks at its edges, then it is an exception (`can't` is two words), a URL, or cut where a mark
//! stands between letters. The order of the steps is that of spaCy's `Tokenizer`.
//!
//! The data was made by asking spaCy about every code point and for its exceptions (MIT license, Copyright ExplosionAI GmbH).

mod affixes;
mod characters;

use std::sync::LazyLock;

use affixes::{infixes, is_url, prefix_len, suffix_len};

static ENGLISH: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// The tokenizer for English.
pub fn english() -> &'static Tokenizer {
    &ENGLISH
}

/// Splits chunks between white space into words.
#[derive(Debug)]
pub struct Tokenizer {
    /// By [`bucket`], so that few chunks are compared with exceptions.
    buckets: Vec<Vec<Exception>>,
    /// Bytes of the longest exception that is reassembled.
    longest_joined: usize,
}

/// A chunk with a special split.
#[derive(Debug)]
struct Exception {
    whole: String,
    /// Where its words end.
    ends: Vec<usize>,
    /// Ends of the words that the punctuation rules would make, if several: where such words
    /// are adjacent inside a chunk, they become the exception's words.
    joins: Option<Vec<usize>>,
}

const N_BUCKETS: usize = 1 << 12;

/// From the length, the edges and the middle.
fn bucket(chunk: &str) -> usize {
    let bytes = chunk.as_bytes();
    let at = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    let (first, last, middle) = (at(bytes.first()), at(bytes.last()), at(bytes.get(bytes.len() / 2)));
    (first * 37 + last * 7 + middle * 331 + bytes.len() * 19) % N_BUCKETS
}

/// White space as Python's `str.isspace` sees it.
#[inline]
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

impl Tokenizer {
    fn new() -> Tokenizer {
        let mut tokenizer =
            Tokenizer { buckets: (0..N_BUCKETS).map(|_| Vec::new()).collect(), longest_joined: 0 };
        let exceptions = include_str!("exceptions.txt").lines().map(|pieces| {
            let whole = pieces.replace(' ', "");
            let mut end = 0;
            let ends = pieces.split(' ').map(|piece| {
                end += piece.len();
                end
            });
            let ends = ends.collect();
            // Without known exceptions, this is the result of the punctuation rules.
            let mut words = Vec::new();
            tokenizer.split(&whole, &mut |word| words.push(word.len()));
            let joins = (words.len() > 1).then(|| {
                words
                    .iter()
                    .scan(0, |end, len| {
                        *end += len;
                        Some(*end)
                    })
                    .collect()
            });
            Exception { whole, ends, joins }
        });
        let exceptions: Vec<Exception> = exceptions.collect();
        for exception in exceptions {
            if exception.joins.is_some() {
                tokenizer.longest_joined = tokenizer.longest_joined.max(exception.whole.len());
            }
            tokenizer.buckets[bucket(&exception.whole)].push(exception);
        }
        tokenizer
    }

    fn exception(&self, chunk: &str) -> Option<&Exception> {
        self.buckets[bucket(chunk)].iter().find(|exception| exception.whole == chunk)
    }

    /// Passes the words of a text to `each`, in order; white space is skipped.
    pub fn words<'t>(&self, text: &'t str, each: &mut impl FnMut(&'t str)) {
        for chunk in text.split(is_space).filter(|chunk| !chunk.is_empty()) {
            self.split(chunk, each);
        }
    }

    /// Passes the words of a chunk without white space to `each`, in order. They are parts of it.
    pub fn split<'t>(&self, chunk: &'t str, each: &mut impl FnMut(&'t str)) {
        if let Some(exception) = self.exception(chunk) {
            exception.cut(chunk, each);
            return;
        }
        // Most chunks are only letters, which no rule splits.
        if chunk.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            if !chunk.is_empty() {
                each(chunk);
            }
            return;
        }
        let mut words = Vec::new();
        self.split_affixes(chunk, &mut |word| words.push(word));
        match words.len() {
            1 => each(chunk),
            _ => self.join(chunk, &words, each),
        }
    }

    fn split_affixes<'t>(&self, chunk: &'t str, each: &mut impl FnMut(&'t str)) {
        let mut rest = chunk;
        let mut suffixes = Vec::new();
        while !rest.is_empty() && self.exception(rest).is_none() {
            let prefix = prefix_len(rest);
            let without_prefix = &rest[prefix..];
            if prefix > 0 && self.exception(without_prefix).is_some() {
                each(&rest[..prefix]);
                rest = without_prefix;
                break;
            }
            let suffix = suffix_len(without_prefix);
            let without_suffix = &rest[..rest.len() - suffix];
            if suffix > 0 && self.exception(without_suffix).is_some() {
                suffixes.push(&rest[without_suffix.len()..]);
                rest = without_suffix;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                each(&rest[..prefix]);
            }
            if suffix > 0 {
                suffixes.push(&rest[without_suffix.len()..]);
            }
            rest = &without_suffix[prefix..];
        }
        match self.exception(rest) {
            Some(exception) => exception.cut(rest, each),
            None => split_infixes(rest, each),
        }
        suffixes.into_iter().rev().for_each(each);
    }

    /// Reassembles the exceptions among the words of a chunk, longest first: `x-Mr.` ends in `Mr.`.
    fn join<'t>(&self, chunk: &'t str, words: &[&'t str], each: &mut impl FnMut(&'t str)) {
        let mut ends = Vec::with_capacity(words.len());
        let mut end = 0;
        for word in words {
            end += word.len();
            ends.push(end);
        }
        let start_of = |word: usize| if word == 0 { 0 } else { ends[word - 1] };
        let mut found: Vec<(usize, usize, &Exception)> = Vec::new();
        for first in 0..words.len() {
            let start = start_of(first);
            for last in first + 1..words.len() {
                let whole = &chunk[start..ends[last]];
                if whole.len() > self.longest_joined {
                    break;
                }
                let joins = |exception: &&Exception| {
                    let ends = ends[first..=last].iter().map(|end| end - start);
                    exception.joins.as_ref().is_some_and(|joins| joins.iter().copied().eq(ends))
                };
                found.extend(self.exception(whole).filter(joins).map(|exception| (first, last, exception)));
            }
        }
        found.sort_by_key(|(first, last, _)| (std::cmp::Reverse(last - first), *first));
        let mut taken = vec![false; words.len()];
        let mut joined = vec![None; words.len()];
        for (first, last, exception) in found {
            if !taken[first] && !taken[last] {
                joined[first] = Some((last, exception));
            }
            taken[first..=last].fill(true);
        }
        let mut at = 0;
        while at < words.len() {
            match joined[at] {
                Some((last, exception)) => {
                    exception.cut(&chunk[start_of(at)..ends[last]], each);
                    at = last + 1;
                }
                None => {
                    each(words[at]);
                    at += 1;
                }
            }
        }
    }
}

impl Exception {
    fn cut<'t>(&self, chunk: &'t str, each: &mut impl FnMut(&'t str)) {
        let mut start = 0;
        for end in &self.ends {
            each(&chunk[start..*end]);
            start = *end;
        }
    }
}

/// The rest of a chunk between its affixes: a URL, or words around infixes.
fn split_infixes<'t>(text: &'t str, each: &mut impl FnMut(&'t str)) {
    if text.is_empty() {
        return;
    }
    let mut infixes = infixes(text).peekable();
    if infixes.peek().is_none() || is_url(text) {
        each(text);
        return;
    }
    let mut start = 0;
    for (at, len) in infixes {
        // A match at the very start is skipped, as spaCy does.
        if at == 0 {
            continue;
        }
        if at > start {
            each(&text[start..at]);
        }
        each(&text[at..at + len]);
        start = at + len;
    }
    if start < text.len() {
        each(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        english().words(text, &mut |word| words.push(word));
        words
    }

    /// Each line is a text as spaCy 3.8.18 splits it.
    #[test]
    fn words_are_those_of_spacy() {
        let golden = include_str!("golden.txt");
        for line in golden.lines() {
            let mut pieces = line.split('\t');
            let text = pieces.next().unwrap();
            assert_eq!(words(text), pieces.collect::<Vec<_>>(), "{text}");
        }
        assert!(golden.lines().count() > 200);
    }

    #[test]
    fn footnote_marks_belong_to_the_word_before_them() {
        assert_eq!(words("the bay.[1][2] It"), ["the", "bay.[1][2", "]", "It"]);
        assert_eq!(words("a/-b [12] x-Mr."), ["a/-b", "[", "12", "]", "x", "-", "Mr."]);
        assert_eq!(words(" \u{1c}\t"), [""; 0]);
    }
}
