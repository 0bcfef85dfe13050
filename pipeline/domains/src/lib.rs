//! Domains of host names, by the public suffix list (<https://publicsuffix.org>).
//!
//! The list is compiled to code, 8 % of all that would be generated for `moe-data` if it called [`psl`] itself. It is a crate of its own so that
//! this code is compiled once, and without optimization: a look at a host name is little beside the document that it came from.

use psl::Type;

/// The public suffix of a host in lower case, if the list knows it: `co.uk` of `www.bbc.co.uk`.
#[must_use]
pub fn public_suffix(host: &str) -> Option<&str> {
    known(host).map(|suffix| &host[host.len() - suffix.as_bytes().len()..])
}

/// The part of a host in lower case that is registered: one label more than its public suffix. Suffixes that companies
/// registered count as domains, as in tldextract: that of `me.blogspot.com` is `blogspot.com`. A host without a known suffix,
/// such as an address, is its own.
#[must_use]
pub fn registered_domain(host: &str) -> &str {
    let mut inner = host;
    while let Some(suffix) = known(inner) {
        let suffix_start = host.len() - suffix.as_bytes().len();
        if suffix.typ() != Some(Type::Private) {
            let before = host[..suffix_start].trim_end_matches('.');
            return &host[before.rfind('.').map_or(0, |dot| dot + 1)..];
        }
        match host[suffix_start..].split_once('.') {
            Some((_, outer)) => inner = outer,
            None => break,
        }
    }
    host
}

fn known(host: &str) -> Option<psl::Suffix<'_>> {
    psl::suffix(host.as_bytes()).filter(psl::Suffix::is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_those_of_the_list() {
        for (host, expected) in [
            ("www.bbc.co.uk", Some("co.uk")),
            ("me.blogspot.com", Some("blogspot.com")),
            ("co.uk", Some("co.uk")),
            ("intranet", None),
            ("10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(public_suffix(host), expected, "{host}");
        }
    }

    #[test]
    fn registered_domains() {
        for (host, expected) in [
            ("a.b.spam.com", "spam.com"),
            ("www.bbc.co.uk", "bbc.co.uk"),
            ("me.blogspot.com", "blogspot.com"),
            ("x.me.github.io", "github.io"),
            ("spam.com", "spam.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("intranet", "intranet"),
            ("co.uk", "co.uk"),
        ] {
            assert_eq!(registered_domain(host), expected, "{host}");
        }
    }
}
