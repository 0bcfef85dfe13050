//! Public IP addresses. Version and section numbers look like addresses of version
//! 4; an address here has a number of 30 or more somewhere, which all but 2 of 10,000 random ones have, and no word before
//! it that says otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{before, is_word};

/// The address that begins with the number at `at`, as position and length in bytes.
pub(super) fn at(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    // Most numbers stop here: an address has a dot or a colon after at most four characters.
    let separator = bytes[at..].iter().take(5).find(|b| !b.is_ascii_hexdigit())?;
    let len = match separator {
        b'.' => version_4(text, at)?,
        b':' => version_6(text, at)?,
        _ => return None,
    };
    Some((at, len))
}

fn version_4(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if before(bytes, at).is_some_and(|b| is_word(b) || matches!(b, b'.' | b'-' | b'+' | b'^' | b'~')) {
        return None;
    }
    let mut octets = [0u8; 4];
    let mut end = at;
    for (i, octet) in octets.iter_mut().enumerate() {
        if i > 0 {
            bytes.get(end).filter(|b| **b == b'.')?;
            end += 1;
        }
        let n_digits = bytes[end..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
        let digits = &text[end..end + n_digits];
        if n_digits > 1 && digits.starts_with('0') {
            return None;
        }
        *octet = digits.parse().ok()?;
        end += n_digits;
    }
    let ends = match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'.' | b'-' | b'+'), Some(next)) => !is_word(*next),
        (Some(b), _) => !is_word(*b),
        (None, _) => true,
    };
    let is_address = ends && octets.iter().any(|octet| *octet >= 30) && is_public_4(octets.into());
    (is_address && !is_version(&text[..at])).then_some(end - at)
}

/// Words that announce a version or section number.
const VERSIONS: &[&str] = &[
    "version",
    "versions",
    "ver",
    "v",
    "release",
    "releases",
    "revision",
    "rev",
    "firmware",
    "build",
    "builds",
    "kernel",
    "driver",
    "drivers",
    "sdk",
    "plugin",
    "software",
    "chrome",
    "chromium",
    "firefox",
    "opera",
    "safari",
    "windows",
    "android",
    "java",
    "jdk",
    "jre",
    "python",
    "mysql",
    "oracle",
    "nvidia",
    "chapter",
    "section",
    "sections",
    "sec",
    "subsection",
    "clause",
    "clauses",
    "subclause",
    "article",
    "articles",
    "art",
    "arts",
    "paragraph",
    "paragraphs",
    "para",
    "paras",
    "rule",
    "rules",
    "regulation",
    "regulations",
    "annex",
    "appendix",
    "schedule",
    "figure",
    "fig",
    "oid",
    "artikel",
    "artikeln",
    "abschnitt",
    "abs",
    "kapitel",
    "ziffer",
    "articolo",
    "artigo",
    "artigos",
    // With the placeholder for letters beyond ASCII: artículo, sección, versión.
    "artéculo",
    "artéculos",
    "seccién",
    "versién",
];

/// Words before `to 1.2.3.4` or `from 1.2.3.4` that mark a version.
const CHANGES: [&str; 11] = [
    "update",
    "updated",
    "updates",
    "upgrade",
    "upgraded",
    "upgrades",
    "downgrade",
    "bump",
    "bumps",
    "patch",
    "roll",
];

/// Whether the words before a number say that it is not an address.
fn is_version(before: &str) -> bool {
    let before = before.trim_end_matches([' ', ':', '(', '"', '\'', '`', '[']);
    // `==1.2.3.4` and `>= 1.2.3.4` compare versions; `ip=1.2.3.4` does not.
    if ["==", ">=", "<=", "~="].iter().any(|sign| before.ends_with(sign))
        || before.ends_with(['<', '>', '~', '^', '§'])
    {
        return true;
    }
    // `Chrome/1.2.3.4`, but not `http://1.2.3.4`.
    if let Some(name) = before.strip_suffix('/') {
        let rest = name.trim_end_matches(char::is_alphabetic);
        return rest.len() < name.len()
            && !rest.ends_with(|c: char| c.is_alphanumeric() || "/.:-_".contains(c));
    }
    let line = before.rsplit('\n').next().unwrap_or_default();
    // A period may belong to an abbreviation: `Art. 5.1.2.34`.
    let mut words = line.rsplit(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let is_in = |word: &str, list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(word));
    let Some(last) = words.next() else { return false };
    is_in(last, VERSIONS)
        || (is_in(last, &["to", "from", "back"])
            && words.take(4).any(|word| is_in(word, VERSIONS) || is_in(word, &CHANGES)))
}

/// Whether an address of version 4 is globally reachable (IANA's registry of special-purpose addresses, RFC 6890).
fn is_public_4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_reserved = matches!(
        (a, b, c),
        // Not reserved, but in texts always ASN.1 identifiers of X.500 and the internet.
        (2, 5, 29)
            | (1, 3, 6)
            | (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, _, _)
    );
    !is_reserved
}

fn version_6(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if before(bytes, at).is_some_and(|b| is_word(b) || matches!(b, b':' | b'.' | b'-')) {
        return None;
    }
    let is_part = |b: &u8| b.is_ascii_hexdigit() || *b == b':';
    let end = at + bytes[at..].iter().take(46).position(|b| !is_part(b)).unwrap_or(46.min(bytes.len() - at));
    // A colon may follow an address in a sentence, but a single one is not part of it.
    let address =
        text[at..end].strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(&text[at..end]);
    let end = at + address.len();
    if bytes.get(end).is_some_and(|b| is_word(*b)) {
        return None;
    }
    let ip: Ipv6Addr = address.parse().ok()?;
    // Three groups or more: `2::1` is more often something else.
    let n_groups = address.split(':').filter(|group| !group.is_empty()).count();
    (n_groups >= 3 && is_public_6(ip)).then_some(address.len())
}

/// Whether an address of version 6 is global unicast and not a documentation prefix (RFC 3849, RFC 9637).
fn is_public_6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let is_documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    // 2001::/23 is for protocols, 2002::/16 holds addresses of version 4.
    let is_special = a == 0x2001 && b < 0x0200;
    (0x2000..=0x3fff).contains(&a) && !is_documentation && !is_special
}
