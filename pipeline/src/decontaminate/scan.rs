//! Looks for evaluation texts in a document: one pass of a rolling hash over its words, and work
//! only where a seed is found.

use super::index::{Index, SEED_WORDS, TextId, for_each_seed};
use super::words::Words;

/// An evaluation text in a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The evaluation text.
    pub text: TextId,
    /// First byte in the document.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
    /// Words of the evaluation text that were found.
    pub n_words: u32,
    /// Share of its weight, 0 to 1.
    pub score: f64,
}

/// Stretches of one text are added up in as many words of a document as this many times its own ...
const WINDOW_TIMES: usize = 2;
/// ... and so many more.
const WINDOW_WORDS: usize = 16;
/// Most stretches that are added up; in a window there are far fewer, unless it repeats itself.
const MAX_STRETCHES: usize = 64;

/// Looks for the texts of an index; its buffers live over many documents.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    words: Words,
    hits: Vec<Hit>,
    segments: Vec<Segment>,
    chains: Vec<Chain>,
    is_matched: Vec<bool>,
}

/// A seed that document and evaluation text share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    text: TextId,
    /// Position in the document minus position in the text: equal for aligned words.
    diagonal: i64,
    /// Word of the text.
    position: u32,
}

/// A stretch of both texts, aligned word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    /// Words of the document.
    start: usize,
    end: usize,
    /// First word of the text, and the one after the last.
    text_start: usize,
    text_end: usize,
}

/// Segments that follow each other in both texts.
#[derive(Clone, Debug)]
struct Chain {
    segments: Vec<Segment>,
    end: usize,
    text_end: usize,
}

impl Scanner {
    /// All evaluation texts of the index in a document, by text and place.
    pub fn scan(&mut self, index: &Index, document: &str) -> Vec<Found> {
        self.words.split(document);
        self.hits.clear();
        let hits = &mut self.hits;
        for_each_seed(self.words.hashes(), |word, key| {
            for (text, position) in index.places(key) {
                hits.push(Hit {
                    text: *text,
                    diagonal: word as i64 - i64::from(*position),
                    position: *position,
                });
            }
        });
        let mut found = Vec::new();
        if self.hits.is_empty() {
            return found;
        }
        self.hits.sort_unstable();
        let hits = std::mem::take(&mut self.hits);
        for of_text in hits.chunk_by(|a, b| a.text == b.text) {
            self.look_at(index, of_text[0].text, of_text, &mut found);
        }
        self.hits = hits;
        found
    }

    /// Words of the last document.
    pub fn n_words(&self) -> usize {
        self.words.hashes().len()
    }

    fn look_at(&mut self, index: &Index, id: TextId, hits: &[Hit], found: &mut Vec<Found>) {
        let settings = index.settings();
        let text = index.words(id);
        let document = self.words.hashes();
        let is_exact = text.len() < settings.ngram as usize;
        let max_misses = if is_exact { 0 } else { settings.max_misses as usize };
        self.segments.clear();
        let mut last: Option<(i64, usize)> = None;
        for hit in hits {
            let position = hit.position as usize;
            let floor = match last {
                Some((diagonal, end)) if diagonal == hit.diagonal => end,
                _ => 0,
            };
            if position < floor {
                continue;
            }
            let word = (hit.diagonal + i64::from(hit.position)) as usize;
            // Two seeds with one hash are distinguished here.
            if document.get(word..word + SEED_WORDS) != text.get(position..position + SEED_WORDS) {
                continue;
            }
            let segment = grow(document, text, word, position, floor, max_misses);
            last = Some((hit.diagonal, segment.text_end));
            self.segments.push(segment);
        }
        if is_exact {
            self.segments.retain(|segment| segment.text_end - segment.text_start == text.len());
        }
        self.segments.sort_unstable();
        // After an inserted word the next segment has grown back to it, so that the gap is what differs.
        let reach = max_misses;
        self.chains.clear();
        for i in 0..self.segments.len() {
            let segment = self.segments[i];
            let mut closed = Vec::new();
            self.chains.retain(|chain| {
                let is_open = segment.start <= chain.end + reach;
                if !is_open {
                    closed.push(chain.clone());
                }
                is_open
            });
            for chain in closed {
                found.extend(self.judge(index, id, &chain));
            }
            let follows = |chain: &&mut Chain| {
                !is_exact
                    && segment.text_start.abs_diff(chain.text_end) <= reach
                    && segment.text_end > chain.text_end
            };
            match self.chains.iter_mut().find(follows) {
                Some(chain) => {
                    chain.end = chain.end.max(segment.end);
                    chain.text_end = segment.text_end;
                    chain.segments.push(segment);
                }
                None => self.chains.push(Chain {
                    segments: vec![segment],
                    end: segment.end,
                    text_end: segment.text_end,
                }),
            }
        }
        let n_before = found.len();
        for chain in std::mem::take(&mut self.chains) {
            found.extend(self.judge(index, id, &chain));
        }
        let has_chain = n_before < found.len() || found.last().is_some_and(|found| found.text == id);
        if !is_exact && !has_chain && self.segments.len() > 1 {
            self.gather(index, id, found);
        }
    }

    /// Adds up the stretches in a window of the document, whatever is between them and in whatever order they
    /// are: a text with an advertisement in its middle, or with its sentences shuffled.
    fn gather(&mut self, index: &Index, id: TextId, found: &mut Vec<Found>) {
        let window = index.words(id).len() * WINDOW_TIMES + WINDOW_WORDS;
        let segments = std::mem::take(&mut self.segments);
        let mut first = 0;
        while first < segments.len() {
            let limit = segments[first].start + window;
            let inside = segments[first..].iter().take(MAX_STRETCHES).take_while(|s| s.end <= limit);
            let stretches: Vec<Segment> = inside.copied().collect();
            let end = stretches.iter().map(|segment| segment.end).max().unwrap_or(0);
            let n = stretches.len().max(1);
            let chain = Chain { segments: stretches, end, text_end: 0 };
            match self.judge(index, id, &chain) {
                Some(of_window) if n > 1 => {
                    found.push(of_window);
                    first += n;
                }
                _ => first += 1,
            }
        }
        self.segments = segments;
    }

    /// Whether a chain holds enough of the text.
    fn judge(&mut self, index: &Index, id: TextId, chain: &Chain) -> Option<Found> {
        let text = index.words(id);
        let document = self.words.hashes();
        self.is_matched.clear();
        self.is_matched.resize(text.len(), false);
        for segment in &chain.segments {
            let of_text = segment.text_start..segment.text_end;
            let beside = text[of_text.clone()].iter().zip(&document[segment.start..segment.end]);
            let matched = self.is_matched[of_text].iter_mut().zip(beside);
            matched.for_each(|(is_matched, (word, other))| *is_matched |= word == other);
        }
        let (weights, total) = index.weights(id);
        let matched = weights.iter().zip(&self.is_matched).filter(|(_, is_matched)| **is_matched);
        let (n_words, weight) =
            matched.fold((0, 0u64), |(n, sum), (weight, _)| (n + 1, sum + u64::from(*weight)));
        let score = weight as f64 / total.max(1) as f64;
        let first = self.words.places()[chain.segments.iter().map(|segment| segment.start).min()?];
        let last = self.words.places()[chain.end - 1];
        let found = Found { text: id, start: first.0, end: last.1, n_words, score };
        (score >= index.settings().threshold).then_some(found)
    }
}

/// Grows a seed in both directions, not below word `floor` of the text. A match continues after words that differ if
/// two words in a row are equal again, or the last one of the text is.
fn grow(
    document: &[u64],
    text: &[u64],
    word: usize,
    position: usize,
    floor: usize,
    max_misses: usize,
) -> Segment {
    let n_right = (document.len() - word).min(text.len() - position);
    let is_same = |i: usize| document[word + i] == text[position + i];
    let right = reach(SEED_WORDS, n_right, position + n_right == text.len(), max_misses, is_same);
    let n_left = word.min(position - floor);
    let is_same = |i: usize| document[word - 1 - i] == text[position - 1 - i];
    let left = reach(0, n_left, n_left == position, max_misses, is_same);
    Segment { start: word - left, end: word + right, text_start: position - left, text_end: position + right }
}

/// How far words stay equal, from `start` to at most `n`; `to_end` says that word `n - 1` is the outermost of the text.
fn reach(start: usize, n: usize, to_end: bool, max_misses: usize, is_same: impl Fn(usize) -> bool) -> usize {
    let (mut end, mut misses) = (start, 0);
    for i in start..n {
        let is_last = to_end && i + 1 == n;
        if is_same(i) && (misses == 0 || is_last || (i + 1 < n && is_same(i + 1))) {
            (end, misses) = (i + 1, 0);
        } else {
            misses += 1;
            if misses > max_misses {
                break;
            }
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::{IndexBuilder, Settings};
    use super::*;

    /// Fourteen words, each in this text alone, so that all weigh the same.
    const LONG: &str =
        "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november";
    const SHORT: &str = "oscar papa quebec romeo sierra tango";

    fn index(settings: Settings) -> Index {
        let mut builder = IndexBuilder::new(settings);
        builder.add(0, 0, 0, LONG);
        builder.add(0, 1, 0, SHORT);
        builder.finish()
    }

    fn found(document: &str) -> Vec<(TextId, String, u32, f64)> {
        let mut scanner = Scanner::default();
        let found = scanner.scan(&index(Settings::default()), document);
        found
            .into_iter()
            .map(|f| (f.text, document[f.start as usize..f.end as usize].to_owned(), f.n_words, f.score))
            .collect()
    }

    #[test]
    fn a_whole_text_is_found_where_it_stands() {
        let document = format!("Before it. {LONG}! And {SHORT}.");
        assert_eq!(found(&document), [(0, LONG.to_owned(), 14, 1.0), (1, SHORT.to_owned(), 6, 1.0)]);
        assert_eq!(found("nothing of the kind is in this document of ours"), []);
        assert_eq!(found(""), []);
    }

    #[test]
    fn words_may_differ_be_missing_or_be_inserted() {
        let changed = LONG.replace("hotel", "HOSTEL");
        assert_eq!(found(&changed), [(0, changed.clone(), 13, 13.0 / 14.0)]);
        let missing = LONG.replace("hotel ", "");
        assert_eq!(found(&missing), [(0, missing.clone(), 13, 13.0 / 14.0)]);
        let inserted = LONG.replace("hotel", "very nice hotel");
        assert_eq!(found(&inserted), [(0, inserted.clone(), 14, 1.0)]);
        // Three words in a row may differ.
        let three = LONG.replace("foxtrot golf hotel", "x y z");
        assert_eq!(found(&three), [(0, three.clone(), 11, 11.0 / 14.0)]);
        // After four another stretch begins; the two add up, if they are enough.
        let four = LONG.replace("foxtrot golf hotel india", "x y z a");
        assert_eq!(found(&four), [(0, four.clone(), 10, 10.0 / 14.0)]);
        assert_eq!(found(&LONG.replace("foxtrot golf hotel india juliet", "x y z a b")), []);
    }

    #[test]
    fn the_share_decides() {
        // 10 of 14 words are 0.714, 9 are 0.643.
        let words: Vec<&str> = LONG.split(' ').collect();
        assert_eq!(found(&words[..10].join(" ")).len(), 1);
        assert_eq!(found(&words[4..].join(" ")).len(), 1);
        assert_eq!(found(&words[..9].join(" ")), []);
    }

    #[test]
    fn a_short_text_must_be_whole() {
        assert_eq!(found(&SHORT.replace("sierra", "sahara")), []);
        assert_eq!(found("oscar papa quebec romeo sierra"), []);
        assert_eq!(found(&format!("x {SHORT} {SHORT}")).len(), 2);
    }

    #[test]
    fn a_span_does_not_reach_over_lonely_equal_words() {
        // `november` two words after a chain that broke at `kilo` is the last word of the text and joins, `lima` does not.
        let document = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo x lima x x x x";
        let all = found(document);
        assert_eq!(all[0].1, "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo");
    }

    #[test]
    fn a_text_split_by_an_advertisement_or_with_its_sentences_shuffled_is_found() {
        let words: Vec<&str> = LONG.split(' ').collect();
        let turned = [&words[7..], &words[..7]].concat().join(" ");
        assert_eq!(found(&turned), [(0, turned.clone(), 14, 1.0)]);
        let apart = |n: usize| {
            let others: Vec<String> = (0..n).map(|i| format!("other{i}")).collect();
            format!("{} {} {}", words[..7].join(" "), others.join(" "), words[7..].join(" "))
        };
        assert_eq!(found(&apart(11)), [(0, apart(11), 14, 1.0)]);
        // Beyond the window they are two.
        assert_eq!(found(&apart(40)), []);
        // One stretch twice is no more than once.
        assert_eq!(found(&format!("{0} x y z a {0}", words[..8].join(" "))), []);
    }

    #[test]
    fn the_scanner_forgets_the_last_document() {
        let index = index(Settings::default());
        let mut scanner = Scanner::default();
        let first = scanner.scan(&index, LONG);
        assert!(scanner.scan(&index, "one two three four five six").is_empty());
        assert_eq!(scanner.scan(&index, LONG), first);
    }
}
