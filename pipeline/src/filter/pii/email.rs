//! E-mail addresses: the usual characters of RFC 5321's local part, `@`, and a host name under a known public suffix, so
//! that `icon@2x.png` and `x@app.route` do not count.

use moe_domains::public_suffix;

use super::{Found, Kind};

pub(super) fn find(text: &str, found: &mut Vec<Found>) {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'@', bytes) {
        let start = bytes[..at].iter().rposition(|b| !is_local(*b)).map_or(0, |before| before + 1);
        // Addresses do not begin with dots or marks.
        let start = start + bytes[start..at].iter().take_while(|b| !b.is_ascii_alphanumeric()).count();
        let is_whole = start < at
            && bytes[at - 1] != b'.'
            && !text[start..at].contains("..")
            && at - start <= 64
            // A letter beyond ASCII just before is part of another word.
            && super::before(bytes, start).is_none_or(|b| b < 0x80);
        if !is_whole {
            continue;
        }
        let host = host(&bytes[at + 1..]);
        // `git@host:path` is the address of a repository.
        if &text[start..at] == "git" && matches!(bytes.get(at + 1 + host), Some(b':' | b'/')) {
            continue;
        }
        if is_address(&text[at + 1..at + 1 + host]) {
            found.push(Found { start, len: at + 1 + host - start, kind: Kind::Email });
        }
    }
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')
}

/// Bytes of the host name at the start; a trailing dot or hyphen is not part of it.
fn host(bytes: &[u8]) -> usize {
    let is_host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let end = bytes.iter().position(|b| !is_host(b)).unwrap_or(bytes.len());
    bytes[..end].iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |last| last + 1)
}

/// Whether a host name can receive mail: known to the public suffix list, and not reserved for examples
/// (RFC 2606, RFC 6761).
fn is_address(host: &str) -> bool {
    let labels_fit = host.split('.').all(|label| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        label.len() <= 63 && edge(label.as_bytes().first()) && edge(label.as_bytes().last())
    });
    if !labels_fit || host.len() > 253 {
        return false;
    }
    let host = host.to_ascii_lowercase();
    let is_registered = public_suffix(&host).is_some_and(|suffix| suffix.len() < host.len());
    let is_below =
        |name: &str| host.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    let is_example = ["example.com", "example.net", "example.org"].into_iter().any(is_below)
        || matches!(host.rsplit('.').next(), Some("example" | "test" | "invalid" | "localhost" | "local"));
    is_registered && !is_example
}
