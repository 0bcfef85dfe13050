//! Literal spans: URLs, addresses and code, which a rephrasing must keep unchanged.

use std::sync::LazyLock;

use regex::Regex;

/// URLs, mail addresses, text between backticks, and identifiers with `_`, `::`, `()` or a leading `--`.
static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        r"(?:https?|ftp)://[^\s<>`\x22')\]]+",
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]*[A-Za-z0-9]",
        // In a quotation `like this' the next mark is after a space.
        r"``?[^`\s](?:[^`\n]{0,78}[^`\s])?``?",
        // A dash--like this one--begins no option.
        r"(?:^|[\s(])--[a-z][a-z0-9-]+\b",
        r"\b[A-Za-z0-9]+(?:(?:_+|::)[A-Za-z0-9]+)+(?:\(\))?",
        r"\b[A-Za-z_][A-Za-z0-9_.]*\(\)",
    ];
    // The pattern is a constant that a test compiles.
    Regex::new(&parts.join("|")).unwrap_or_else(|e| panic!("{e}"))
});

/// Literal spans in order, without backticks and without a period at the end of a URL.
pub fn literals(text: &str) -> Vec<&str> {
    LITERAL
        .find_iter(text)
        .map(|found| {
            found
                .as_str()
                .trim_start_matches(['(', ' ', '\n', '\t'])
                .trim_matches('`')
                .trim_end_matches(['.', ',', ';', ':'])
        })
        .filter(|literal| !literal.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_as_they_stand() {
        let text = "See https://example.org/a?b=1, mail me@example.org, use ``max_len`` or `x + y`, call os.path() \
                    with --dry-run and std::fs. Not: plain words, 3.5, a-b.";
        let expected = [
            "https://example.org/a?b=1",
            "me@example.org",
            "max_len",
            "x + y",
            "os.path()",
            "--dry-run",
            "std::fs",
        ];
        assert_eq!(literals(text), expected);
        assert_eq!(literals("a dash--like this--and (--quiet)\n--verbose"), ["--quiet", "--verbose"]);
        assert_eq!(literals("He said, `Let there be light;' and again, `Let it be.'"), [""; 0]);
    }
}
