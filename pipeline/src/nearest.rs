//! The nearest right name for a wrong one, for error messages.

/// `did you mean ...?` when a name is near, else the names that are possible.
pub fn hint<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match nearest(wrong, &names) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("expected one of `{}`", names.join("`, `")),
    }
}

fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    // A third of the letters may differ, but not all: `txt` is near `text`, `a` is not near `b`.
    let n_chars = wrong.chars().count();
    let limit = n_chars.div_ceil(3).min(n_chars.saturating_sub(1));
    let distance = |name: &str| strsim::damerau_levenshtein(wrong, name);
    let by_prefix = |name: &&&str| name.starts_with(wrong) || wrong.starts_with(**name);
    let near = names.iter().filter(|name| distance(name) <= limit).min_by_key(|name| distance(name));
    near.or_else(|| names.iter().filter(|name| !name.is_empty() && !wrong.is_empty()).find(by_prefix))
        .copied()
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
        assert_eq!(hint("c", ["a", "b"]), "expected one of `a`, `b`");
        assert_eq!(hint("xyz", ["a", "b"]), "expected one of `a`, `b`");
        assert_eq!(hint("xyz", []), "there are none");
    }
}
