//! Personal data in texts: e-mail addresses, public IP addresses, phone numbers, payment cards, bank accounts (IBAN), and
//! keys. Each is replaced by a placeholder and counted by kind, or the document is dropped or tagged.
//!
//! Few texts have any, so a text is first searched for what each kind must contain: an `@`, the fixed beginning of a key,
//! or a number. Only those places are examined. Anything reserved for examples, such as `example.com` or `192.0.2.1`, is
//! not personal and stays.

mod email;
mod iban;
mod ip;
mod keys;
mod national;
mod numbers;
mod plain;

use serde::{Deserialize, Serialize};

use self::plain::Plain;
use super::{Action, Limit, Reason, Rewrite, Rewriting, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A public address of the internet protocol, version 4 or 6.
    Ip,
    /// A phone number, international, North American, with the 0 of a country, or after a word such as `tel.`.
    Phone,
    /// The number of a payment card: a known issuer, and its check digit fits.
    Card,
    /// An international bank account number: the length of its country, and its check digits fit.
    Iban,
    /// A key, token or private key of a documented shape.
    Key,
}

const KINDS: [Kind; 6] = [Kind::Email, Kind::Ip, Kind::Phone, Kind::Card, Kind::Iban, Kind::Key];

/// Names in the ledger, in the order of the kinds.
const REASONS: [&str; 6] = ["pii_email", "pii_ip", "pii_phone", "pii_card", "pii_iban", "pii_key"];

documented! {
    /// Settings of `pii`.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Pii {
        /// Kinds to look for.
        pub kinds: Vec<Kind>,
        /// What an e-mail address becomes.
        pub email: String,
        /// What an IP address becomes.
        pub ip: String,
        /// What a phone number becomes.
        pub phone: String,
        /// What the number of a card becomes.
        pub card: String,
        /// What an IBAN becomes.
        pub iban: String,
        /// What a key becomes.
        pub key: String,
        /// If the document is dropped or tagged: most findings of a kind that it may have.
        pub max_found: u64,
    }
}

/// Keys of `pii` that are thresholds.
pub const THRESHOLDS: &[&str] = &["max_found"];

impl Default for Pii {
    /// The placeholders of StarCoder (Li et al. 2023, section 4.3), if it has them.
    fn default() -> Pii {
        Pii {
            kinds: KINDS.to_vec(),
            email: "<EMAIL>".into(),
            ip: "<IP_ADDRESS>".into(),
            phone: "<PHONE>".into(),
            card: "<CARD>".into(),
            iban: "<IBAN>".into(),
            key: "<KEY>".into(),
            max_found: 0,
        }
    }
}

impl Section for Pii {
    fn docs() -> Docs {
        Pii::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.kinds.is_empty() {
            wrong.push((
                "kinds",
                "is empty; name at least one of email, ip, phone, card, iban, key".to_owned(),
            ));
        }
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        if let Some(pair) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
            wrong.push((
                "kinds",
                format!("names `{}` twice", REASONS[pair[0] as usize].trim_start_matches("pii_")),
            ));
        }
        const KEYS: [&str; 6] = ["email", "ip", "phone", "card", "iban", "key"];
        for kind in KINDS {
            let placeholder = self.placeholder(kind);
            // Otherwise a second pass would find the placeholders.
            if let Some(found) = find(placeholder, &KINDS).first() {
                let name = KEYS[found.kind as usize];
                wrong.push((
                    KEYS[kind as usize],
                    format!("is `{placeholder}`, which is itself found as {name}"),
                ));
            }
        }
        wrong
    }
}

impl Pii {
    fn placeholder(&self, kind: Kind) -> &str {
        match kind {
            Kind::Email => &self.email,
            Kind::Ip => &self.ip,
            Kind::Phone => &self.phone,
            Kind::Card => &self.card,
            Kind::Iban => &self.iban,
            Kind::Key => &self.key,
        }
    }
}

impl Rewrite for Pii {
    fn methods(&self) -> Vec<Reason> {
        REASONS.iter().map(|reason| Reason::Borrowed(*reason)).collect()
    }

    fn limits(&self, action: Action) -> Vec<Limit> {
        let limit = |reason: &'static str| match action {
            Action::Cut => Limit { threshold: None, ..Limit::most(reason, 0.0) },
            Action::Drop | Action::Tag => Limit::most(reason, self.max_found as f64),
        };
        REASONS.map(limit).to_vec()
    }

    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
        let text = text.as_str();
        let mut n_found = [0u64; KINDS.len()];
        let mut end = 0;
        for Found { start, len, kind } in find(text, &self.kinds) {
            out.keep(&text[end..start]);
            out.take(kind as usize, &text[start..start + len]);
            out.put(self.placeholder(kind));
            n_found[kind as usize] += 1;
            end = start + len;
        }
        out.keep(&text[end..]);
        n_found.into_iter().for_each(|n| out.value(n as f64));
    }
}

/// Personal data at a position of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// First byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// What it is.
    pub kind: Kind,
}

/// All personal data of the given kinds in a text, in its order and without overlap: if two overlap, the one that
/// begins first, then the longer one.
pub fn find(text: &str, kinds: &[Kind]) -> Vec<Found> {
    let mut found = Vec::new();
    let plain = Plain::of(text);
    if kinds.contains(&Kind::Email) {
        email::find(&plain.text, &mut found);
    }
    if kinds.contains(&Kind::Key) {
        keys::find(&plain.text, &mut found);
    }
    in_numbers(&plain.text, kinds, &mut found);
    for found in &mut found {
        let (start, end) = (plain.original(found.start), plain.original(found.start + found.len));
        (found.start, found.len) = (start, end - start);
    }
    found.sort_by_key(|found| (found.start, std::cmp::Reverse(found.len), found.kind));
    let mut end = 0;
    found.retain(|found| {
        let is_free = found.start >= end;
        if is_free {
            end = found.start + found.len;
        }
        is_free
    });
    found
}

/// Examines every position where a number begins, as all other kinds contain one.
fn in_numbers(text: &str, kinds: &[Kind], found: &mut Vec<Found>) {
    let has = |kind| kinds.contains(&kind);
    let (ip, phone, card, iban) = (has(Kind::Ip), has(Kind::Phone), has(Kind::Card), has(Kind::Iban));
    if !(ip || phone || card || iban) {
        return;
    }
    let bytes = text.as_bytes();
    let mut was_digit = false;
    for (at, byte) in bytes.iter().enumerate() {
        let is_digit = byte.is_ascii_digit();
        if !is_digit || was_digit {
            was_digit = is_digit;
            continue;
        }
        was_digit = true;
        let mut push = |kind, (start, len): (usize, usize)| found.push(Found { start, len, kind });
        if ip && let Some(place) = ip::at(text, at) {
            push(Kind::Ip, place);
        }
        if phone && let Some(place) = numbers::phone(bytes, at) {
            push(Kind::Phone, place);
        }
        if card && let Some(place) = numbers::card(bytes, at) {
            push(Kind::Card, place);
        }
        if iban && let Some(place) = iban::at(bytes, at) {
            push(Kind::Iban, place);
        }
    }
}

/// Whether a byte is part of a word: a letter or digit of ASCII, `_`, or part of a letter beyond ASCII, since no
/// other characters beyond ASCII remain ([`Plain`]).
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The byte before a place.
fn before(bytes: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| bytes.get(at)).copied()
}

#[cfg(test)]
mod tests;
