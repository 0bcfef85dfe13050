//! Lists of domains, URLs and words in URLs, used to drop pages in FineWeb, RefinedWeb and DCLM (datatrove 0.10.1
//! `URLFilter`; Penedo et al. 2023, appendix G.1). The lists are the user's; we include none.

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use moe_domains::registered_domain;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::lists::{self, Cache, List};
use super::{Built, Filter, Limit, Rule, Settings, Text, decode};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `url_lists`. Every list is a list of files.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct UrlLists {
        /// Domains, such as `spam.example`; also hosts below them, such as `blog.spam.example`.
        pub domains: Vec<String>,
        /// Whole URLs.
        pub urls: Vec<String>,
        /// Words, delimited by characters other than letters and digits, that no URL may contain.
        pub hard_words: Vec<String>,
        /// Words of which a URL may contain a few.
        pub soft_words: Vec<String>,
        /// Strings that may not occur in the letters and digits of a URL.
        pub substrings: Vec<String>,
        /// Most distinct soft words of a URL.
        pub max_soft_words: u64,
        /// Drops documents without a URL, which cannot be judged.
        pub require_url: bool,
    }
}

/// Keys of `url_lists` that are thresholds.
pub const THRESHOLDS: &[&str] = &["max_soft_words"];

/// Keys of `url_lists` that name files.
pub const FILES: &[&str] = &["domains", "urls", "hard_words", "soft_words", "substrings"];

impl Default for UrlLists {
    fn default() -> UrlLists {
        UrlLists {
            domains: Vec::new(),
            urls: Vec::new(),
            hard_words: Vec::new(),
            soft_words: Vec::new(),
            substrings: Vec::new(),
            max_soft_words: 1,
            require_url: true,
        }
    }
}

impl UrlLists {
    fn files(&self) -> [&Vec<String>; 5] {
        [&self.domains, &self.urls, &self.hard_words, &self.soft_words, &self.substrings]
    }
}

impl Section for UrlLists {
    fn docs() -> Docs {
        UrlLists::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.files().iter().all(|files| files.is_empty()) {
            true => {
                let message = "is missing, as are `urls`, `hard_words`, `soft_words` and `substrings`; name files with one entry a line";
                vec![("domains", message.to_owned())]
            }
            false => Vec::new(),
        }
    }
}

struct Lists {
    domains: List,
    urls: List,
    hard_words: List,
    soft_words: List,
    substrings: Option<AhoCorasick>,
}

/// The rule with its lists.
struct Rules {
    lists: Arc<Lists>,
    max_soft_words: u64,
    require_url: bool,
}

/// Builds the rule.
///
/// # Errors
/// A list that cannot be read.
pub fn build(settings: &Settings) -> Built {
    static CACHE: Cache<Lists> = Cache::new();
    let config: UrlLists = decode(settings)?;
    let key: Vec<String> = config.files().map(lists::key_of).to_vec();
    let lists = CACHE.get(key.join("\n"), || {
        let substrings = List::read(&config.substrings, letters_and_digits)?;
        let searcher = match substrings.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::new(substrings.iter())
                    .map_err(|e| format!("{}: {e}", config.substrings.join(", ")))?,
            ),
        };
        Ok(Lists {
            domains: List::read(&config.domains, |line| line.trim_end_matches('.').to_lowercase())?,
            urls: List::read(&config.urls, str::to_owned)?,
            hard_words: List::read(&config.hard_words, letters_and_digits)?,
            soft_words: List::read(&config.soft_words, letters_and_digits)?,
            substrings: searcher,
        })
    })?;
    Ok(Rule::Filter(Box::new(Rules {
        lists,
        max_soft_words: config.max_soft_words,
        require_url: config.require_url,
    })))
}

/// ASCII letters and digits, in lower case.
fn letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl Filter for Rules {
    fn limits(&self) -> Vec<Limit> {
        let none = |reason| Limit::most(reason, 0.0);
        let no_url = Limit { threshold: self.require_url.then_some(0.0), ..none("url_missing") };
        vec![
            no_url,
            none("url_domain"),
            none("url_subdomain"),
            none("url_listed"),
            none("url_hard_word"),
            Limit::most("url_soft_words", self.max_soft_words as f64),
            none("url_substring"),
        ]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        match text.metadata().url {
            None => values.extend([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            Some(url) => {
                values.push(0.0);
                values.extend(self.lists.look(url));
            }
        }
    }
}

impl Lists {
    /// Numbers of entries that match a URL, by kind.
    fn look(&self, url: &str) -> [f64; 6] {
        let flag = |hit: bool| f64::from(u8::from(hit));
        let (domain, subdomain) = match self.domains.is_empty() {
            true => (false, false),
            false => self.hosts(url),
        };
        let (mut hard, mut soft) = (Vec::new(), Vec::new());
        if !(self.hard_words.is_empty() && self.soft_words.is_empty()) {
            for word in url.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
                let word = word.to_ascii_lowercase();
                if self.hard_words.contains(&word) && !hard.contains(&word) {
                    hard.push(word.clone());
                }
                if self.soft_words.contains(&word) && !soft.contains(&word) {
                    soft.push(word);
                }
            }
        }
        let substring = self.substrings.as_ref().is_some_and(|list| list.is_match(&letters_and_digits(url)));
        [
            flag(domain),
            flag(subdomain),
            flag(!self.urls.is_empty() && self.urls.contains(url)),
            hard.len() as f64,
            soft.len() as f64,
            flag(substring),
        ]
    }

    /// Whether the registered domain is listed, and whether a host below it is.
    fn hosts(&self, url: &str) -> (bool, bool) {
        let Some(host) = host(url) else { return (false, false) };
        let domain = registered_domain(&host);
        let mut below = false;
        let mut rest = host.as_str();
        while rest.len() > domain.len() {
            below |= self.domains.contains(rest);
            rest = rest.split_once('.').map_or("", |(_, rest)| rest);
        }
        (self.domains.contains(domain), below)
    }
}

/// The host of a URL in lower case, even without a scheme.
fn host(url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok().filter(Url::has_host);
    let parsed = parsed.or_else(|| Url::parse(&format!("http://{url}")).ok())?;
    match parsed.host()? {
        Host::Domain(name) => Some(name.trim_end_matches('.').to_lowercase()),
        Host::Ipv4(ip) => Some(ip.to_string()),
        Host::Ipv6(ip) => Some(ip.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Metadata;
    use crate::filter::Scratch;

    fn lists() -> Lists {
        Lists {
            domains: List::of(&["spam.com", "bad.blog.org", "blogspot.com", "evil.co.uk", "10.0.0.1"]),
            urls: List::of(&["http://ok.org/Page"]),
            hard_words: List::of(&["casino"]),
            soft_words: List::of(&["cam", "escort", "live"]),
            substrings: Some(AhoCorasick::new(["freemovies"]).unwrap()),
        }
    }

    #[test]
    fn urls_are_held_against_every_list() {
        let none = [0.0; 6];
        let at = |i: usize, n: f64| {
            let mut hits = none;
            hits[i] = n;
            hits
        };
        for (url, expected) in [
            ("https://good.org/page", none),
            ("https://www.spam.com/", at(0, 1.0)),
            ("http://SPAM.com:80/x", at(0, 1.0)),
            ("spam.com/x", at(0, 1.0)),
            ("https://notspam.com/", none),
            ("https://me.blogspot.com/", at(0, 1.0)),
            ("https://x.evil.co.uk/", at(0, 1.0)),
            ("http://10.0.0.1/", at(0, 1.0)),
            ("https://x.bad.blog.org/", at(1, 1.0)),
            ("https://good.blog.org/", none),
            ("http://ok.org/Page", at(2, 1.0)),
            ("http://ok.org/page", none),
            ("http://ok.org/best-Casino_x", at(3, 1.0)),
            ("http://ok.org/casinos", none),
            ("http://ok.org/live-cam/cam", at(4, 2.0)),
            ("http://ok.org/free-movies", at(5, 1.0)),
            ("not a url", none),
            ("", none),
        ] {
            assert_eq!(lists().look(url), expected, "{url}");
        }
    }

    #[test]
    fn a_document_without_url_is_dropped_unless_that_is_allowed() {
        let reason = |require_url, url| {
            let rules = Rules { lists: Arc::new(lists()), max_soft_words: 1, require_url };
            let scratch = Scratch::default();
            let mut values = Vec::new();
            rules.measure(&scratch.text("", Metadata { url, ..Metadata::default() }), &mut values);
            let limits = rules.limits();
            assert_eq!(limits.len(), values.len());
            limits
                .iter()
                .zip(values)
                .find_map(|(l, v)| l.measured(v).rejection())
                .map(|r| r.reason.into_owned())
        };
        assert_eq!(reason(true, None).as_deref(), Some("url_missing"));
        assert_eq!(reason(false, None), None);
        assert_eq!(reason(true, Some("http://ok.org/cam")), None);
        assert_eq!(reason(true, Some("http://ok.org/cam/live")).as_deref(), Some("url_soft_words"));
    }
}
