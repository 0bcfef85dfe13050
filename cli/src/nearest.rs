//! The nearest valid name for a wrong one, for error messages.

/// Bytes of the shortest name that counts as near a longer one starting with it.
const MIN_PREFIX: usize = 4;

/// `did you mean ...?` if a name is near, else all possible names.
pub fn hint<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match near(wrong, &names) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("expected one of `{}`", names.join("`, `")),
    }
}

/// The name nearest to a wrong one, if any is near.
pub fn near<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    // A third of the letters may differ, but not all: `txt` is near `text`, `date` is not near `name`, nor `a` near `b`.
    let n_chars = wrong.chars().count();
    let limit = ((n_chars + 1) / 3).max(1).min(n_chars.saturating_sub(1));
    let distance = |name: &str| strsim::damerau_levenshtein(wrong, name);
    let by_prefix = |name: &&&str| {
        name.len().min(wrong.len()) >= MIN_PREFIX && (name.starts_with(wrong) || wrong.starts_with(**name))
    };
    let near = names.iter().filter(|name| distance(name) <= limit).min_by_key(|name| distance(name));
    near.or_else(|| names.iter().find(by_prefix)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_listed() {
        let names = ["text", "family", "variant", "gopher_quality"];
        assert_eq!(hint("txt", names), "did you mean `text`?");
        assert_eq!(hint("faimly", names), "did you mean `family`?");
        assert_eq!(hint("gopher", names), "did you mean `gopher_quality`?");
        // Sharing half of the letters, or only the first, is not near.
        assert_eq!(hint("date", ["name", "rate"]), "did you mean `rate`?");
        assert_eq!(hint("date", ["name"]), "expected one of `name`");
        assert_eq!(hint("b", ["bible"]), "expected one of `bible`");
        assert_eq!(hint("c", ["a", "b"]), "expected one of `a`, `b`");
        assert_eq!(hint("xyz", ["a", "b"]), "expected one of `a`, `b`");
        assert_eq!(hint("xyz", []), "there are none");
    }
}
