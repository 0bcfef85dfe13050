//! Keys and tokens of documented shapes, and private keys. Only the documented prefixes count: hashes
//! and identifiers of the same length do not.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;

use super::{Found, Kind, before, is_word};

/// Shapes, from their fixed prefixes on:
/// access keys of AWS (IAM user guide, "unique identifiers"; base 32 after the prefix), its secret keys if their name
/// precedes them, tokens of GitHub ("about authentication to GitHub", token formats), Slack ("token types", incoming
/// webhooks) and Google (API keys, OAuth client secrets), JSON web tokens (RFC 7519: the base 64 of `{"` is `eyJ`), and
/// private keys in PEM (RFC 7468) or OpenPGP armor (RFC 9580).
/// Also those of OpenAI, Anthropic and OpenRouter (`sk-`), Stripe, Hugging Face, GitLab, npm, PyPI, SendGrid,
/// DigitalOcean, Shopify, Databricks and Groq, according to their documentation or secret-scanning patterns.
const SHAPES: [(&str, &str); 30] = [
    ("AKIA", r"^AKIA[A-Z2-7]{16}"),
    ("ASIA", r"^ASIA[A-Z2-7]{16}"),
    (
        "aws_secret_access_key",
        r#"^aws_secret_access_key["']?\s{0,4}[=:]\s{0,4}["']?(?P<key>[A-Za-z0-9/+]{40})"#,
    ),
    ("ghp_", r"^ghp_[A-Za-z0-9]{36}"),
    ("gho_", r"^gho_[A-Za-z0-9]{36}"),
    ("ghu_", r"^ghu_[A-Za-z0-9]{36}"),
    ("ghs_", r"^ghs_[A-Za-z0-9]{36}"),
    ("ghr_", r"^ghr_[A-Za-z0-9]{36}"),
    ("github_pat_", r"^github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("xox", r"^xox[abeprs]-(?:[0-9]+-)+[A-Za-z0-9]{16,}"),
    (
        "hooks.slack.com/services/",
        r"^hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}",
    ),
    ("AIza", r"^AIza[A-Za-z0-9_-]{35}"),
    ("GOCSPX-", r"^GOCSPX-[A-Za-z0-9_-]{28}"),
    ("eyJ", r"^eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
    ("sk-", r"^sk-(?:(?:proj|svcacct|admin|or-v1|ant-[a-z0-9]+)-[A-Za-z0-9_-]{32,}|[A-Za-z0-9]{32,})"),
    ("sk_live_", r"^sk_live_[A-Za-z0-9]{16,}"),
    ("sk_test_", r"^sk_test_[A-Za-z0-9]{16,}"),
    ("rk_live_", r"^rk_live_[A-Za-z0-9]{16,}"),
    ("rk_test_", r"^rk_test_[A-Za-z0-9]{16,}"),
    ("whsec_", r"^whsec_[A-Za-z0-9+/=]{32,}"),
    ("hf_", r"^hf_[A-Za-z0-9]{34,40}"),
    ("glpat-", r"^glpat-[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]{2,}){0,2}"),
    ("npm_", r"^npm_[A-Za-z0-9]{36}"),
    ("pypi-AgEI", r"^pypi-AgEI[A-Za-z0-9_-]{50,}"),
    ("SG.", r"^SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("dop_v1_", r"^dop_v1_[a-f0-9]{64}"),
    ("shpat_", r"^shpat_[a-fA-F0-9]{32}"),
    ("dapi", r"^dapi[a-f0-9]{32}"),
    ("gsk_", r"^gsk_[A-Za-z0-9]{52}"),
    ("xapp-", r"^xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-f0-9]{32,}"),
];

const PEM: &str = "-----BEGIN ";
/// Longest private key; RSA keys of 16,384 bits have 13,000 characters.
const MAX_PEM_BYTES: usize = 64 << 10;

struct Shapes {
    beginnings: AhoCorasick,
    shapes: Vec<Regex>,
}

static ALL: LazyLock<Option<Shapes>> = LazyLock::new(|| {
    let beginnings = SHAPES.iter().map(|(beginning, _)| *beginning).chain([PEM]);
    Some(Shapes {
        // They do not overlap, and the leftmost kind is searched with vector instructions.
        beginnings: AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(beginnings).ok()?,
        shapes: SHAPES.iter().map(|(_, shape)| Regex::new(shape).ok()).collect::<Option<_>>()?,
    })
});

pub(super) fn find(text: &str, found: &mut Vec<Found>) {
    let Some(all) = ALL.as_ref() else { return };
    for hit in all.beginnings.find_iter(text) {
        let start = hit.start();
        let place = match all.shapes.get(hit.pattern().as_usize()) {
            Some(shape) => token(text, start, shape),
            None => private_key(text, start),
        };
        if let Some((start, len)) = place {
            found.push(Found { start, len, kind: Kind::Key });
        }
    }
}

fn token(text: &str, start: usize, shape: &Regex) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    if before(bytes, start).is_some_and(|b| is_word(b) && b != b'_') {
        return None;
    }
    let captures = shape.captures(&text[start..])?;
    let key = captures.name("key").or_else(|| captures.get(0))?;
    let (key, start, end) = (key.as_str(), start + key.start(), start + key.end());
    let ends = bytes.get(end).is_none_or(|b| !is_word(*b) && !matches!(b, b'/' | b'+'));
    // Manuals use it in sample keys.
    let is_example = key.contains("EXAMPLE");
    (ends && !is_example).then_some((start, end - start))
}

/// From `-----BEGIN ... PRIVATE KEY-----` to its end. A beginning without an end is a mention.
fn private_key(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = &text[start..];
    let label = rest[PEM.len()..].split("-----").next()?;
    if !label.ends_with("PRIVATE KEY") && label != "PGP PRIVATE KEY BLOCK" || label.len() > 40 {
        return None;
    }
    let mut window = rest.len().min(MAX_PEM_BYTES);
    while !rest.is_char_boundary(window) {
        window -= 1;
    }
    let end = format!("-----END {label}-----");
    let at = rest[..window].find(&end)?;
    let body = &rest[PEM.len() + label.len() + "-----".len()..at];
    // Manuals write `...` between the two lines.
    (body.bytes().filter(u8::is_ascii_alphanumeric).count() >= 32).then_some((start, at + end.len()))
}
