//! Talk about the answer instead of the answer: a preamble or a refusal at its start, notes at its end. Talk that the source
//! itself starts or ends with does not count.

use super::{Pair, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "preamble",
        limit: 0.0,
        is_least: false,
        measure: |pair| Some(count(pair, START, head, starts)),
    },
    Rule {
        name: "trailing_note",
        limit: 0.0,
        is_least: false,
        measure: |pair| Some(count(pair, END, tail, any_line)),
    },
];

/// Characters at the start or the end to examine.
const LOOKED_AT: usize = 400;

/// How preambles and refusals begin.
const START: &[&str] = &[
    "sure,",
    "sure!",
    "sure thing",
    "certainly",
    "of course",
    "here is",
    "here's",
    "here are",
    "below is",
    "as an ai",
    "as a language model",
    "as a large language",
    "i am an ai",
    "i'm an ai",
    "i cannot",
    "i can't",
    "i can not",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i'm sorry",
    "i am sorry",
    "sorry,",
    "i apologize",
    "unfortunately, i",
    "the text you provided",
    "the provided text",
    "the given text",
    "the passage you",
    "rewritten text",
    "rewritten version",
    "rephrased text",
    "rephrased version",
    "paraphrased",
    "output:",
    "answer:",
    "the rewritten",
    "the rephrased",
    "this is a rewritten",
    "this is a rephrased",
    "okay,",
    "ok,",
    "let me ",
    "i will rewrite",
    "i have rewritten",
    "i've rewritten",
    "no problem",
    // The frame of our own prompt, and talk about the passage.
    "passage to work on",
    "the passage to work on",
    "the original passage",
    "the original text",
    "the first line in the passage",
    "the passage is",
    "the passage describes",
    "the passage says",
];

/// How lines after the text begin.
const END: &[&str] = &[
    "note:",
    "(note",
    "*note",
    "**note",
    "[note",
    "note that i",
    "note that the rewritten",
    "please note",
    "i hope this",
    "i hope that",
    "hope this helps",
    "let me know",
    "feel free",
    "if you need",
    "if you have any",
    "if you would like",
    "if you'd like",
    "would you like",
    "is there anything",
    "please let me",
    "word count",
    "(word count",
    "i have rewritten",
    "i've rewritten",
    "i rewrote",
    "this rewritten",
    "this rephrased",
    "this version",
    "the rewritten",
    "the above text",
    "in this version",
    "in this rewritten",
    "changes made",
    "explanation of",
    "disclaimer:",
    "---end",
    "end of text",
    "[end",
];

fn count(pair: &Pair<'_>, phrases: &[&str], part: fn(&str) -> String, has: fn(&str, &str) -> bool) -> f64 {
    let (source, answer) = (part(pair.source.text), part(pair.answer.text));
    phrases.iter().filter(|phrase| has(&answer, phrase) && !has(&source, phrase)).count() as f64
}

fn head(text: &str) -> String {
    plain(text.trim_start().chars().take(LOOKED_AT).collect())
}

fn tail(text: &str) -> String {
    let n_chars = text.chars().count();
    plain(text.chars().skip(n_chars.saturating_sub(LOOKED_AT)).collect())
}

fn plain(text: String) -> String {
    text.to_lowercase().replace('\u{2019}', "'")
}

fn starts(text: &str, phrase: &str) -> bool {
    text.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with(phrase)
}

/// A line, or a sentence after an empty one: the examined part may start in the middle of a line.
fn any_line(text: &str, phrase: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, answer: &str, expected: [f64; 2]) {
        let pair = Pair::new(source, answer);
        let found: Vec<f64> = RULES.iter().filter_map(|rule| (rule.measure)(&pair)).collect();
        assert_eq!(found, expected, "{answer}");
    }

    #[test]
    fn talk_is_counted() {
        check("Dogs bark.", "Dogs make noise.", [0.0, 0.0]);
        check("Dogs bark.", "Sure, here is the text: Dogs make noise.", [1.0, 0.0]);
        check("Dogs bark.", "**Here\u{2019}s** a text", [1.0, 0.0]);
        check("Dogs bark.", "I'm sorry, but I can't do that.", [1.0, 0.0]);
        // SmolLM2-135M-Instruct's version of the prompt's frame.
        check("Dogs bark.", "The passage to work on:\nDogs make noise.", [1.0, 0.0]);
        check("Dogs bark.", "The original passage to work on is \"Dogs make noise.\"", [1.0, 0.0]);
        check("Dogs bark.", "Dogs make noise.\n\nNote: I changed a word.", [0.0, 1.0]);
        check("Dogs bark.", "Dogs make noise. Let me know whether it is right.", [0.0, 0.0]);
    }

    #[test]
    fn what_the_source_says_itself_is_no_talk() {
        check("Sorry, said the dog.\nNote: dogs bark.", "Sorry, the dog said.\nNote: they bark.", [0.0, 0.0]);
    }
}
