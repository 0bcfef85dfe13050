use proptest::prelude::*;

use super::*;
use crate::filter::rewritten;

/// What is found of one kind, as text.
fn found(kind: Kind, text: &str) -> Vec<&str> {
    find(text, &[kind]).into_iter().map(|f| &text[f.start..f.start + f.len]).collect()
}

/// Each positive is found whole, by itself and in sentences; nothing is found in a negative.
fn check(kind: Kind, positives: &[&str], negatives: &[&str]) {
    for positive in positives {
        for (before, after) in [
            ("", ""),
            ("see ", " now"),
            ("(", ")"),
            ("It is ", "."),
            ("a,\n", ",\nb"),
            ("é ", " é"),
            ("\"", "\""),
            // A no-break space, curly quotes, dashes, scripts without spaces.
            ("see\u{a0}", "\u{a0}now"),
            ("\u{201c}", "\u{201d}"),
            ("here\u{2014}", "\u{2014}there"),
            ("\u{300c}", "\u{300d}\u{3067}\u{3059}"),
            ("\u{96fb}\u{8a71}", "\u{3002}"),
        ] {
            let text = format!("{before}{positive}{after}");
            assert_eq!(found(kind, &text), [*positive], "{text:?}");
        }
    }
    for negative in negatives {
        assert_eq!(found(kind, negative), Vec::<&str>::new(), "{negative:?}");
    }
}

#[test]
fn email_addresses() {
    check(
        Kind::Email,
        &[
            "jane.doe@acme.co.uk",
            "j_d+list%x@mail.acme-corp.com",
            "X@Y.ORG",
            "a@b.xn--p1ai",
            "first-last@sub.domain.museum",
        ],
        &[
            "icon@2x.png",
            "user@localhost",
            "git@github.com:someone/something.git",
            "me@example.com you@mail.example.org x@a.test y@b.invalid",
            "package@1.2.3",
            "@decorator.route",
            "@ home.com",
            "git@",
            "a..b@acme.com",
            "a.@acme.com",
            "x@app.rout",
            "x@-acme.com",
            "x@acme..com",
            "x@com",
            "name (at) acme.com",
        ],
    );
    assert_eq!(
        found(Kind::Email, "<mailto:jane@acme.com>; 'bob@acme.de'. c@acme.fr..."),
        ["jane@acme.com", "bob@acme.de", "c@acme.fr"]
    );
}

#[test]
fn ip_addresses() {
    check(
        Kind::Ip,
        &[
            "93.184.216.34",
            "8.8.4.35",
            "216.58.0.1",
            "2a00:1450:4001:82a::200e",
            "2606:4700:4700:0:0:0:0:1111",
        ],
        &[
            "10.0.0.34 172.16.34.1 192.168.1.77 127.0.0.1 169.254.34.1 100.64.0.99",
            "192.0.2.34 198.51.100.34 203.0.113.34 240.0.0.34 0.0.0.99 255.255.255.255",
            "version 93.184.216.34",
            "v93.184.216.34",
            "Chrome/93.184.216.34-beta",
            "package==93.184.216.34",
            "package >= 93.184.216.34",
            "section 93.184.216.34",
            "1.2.3.4 and 2.6.12.1",
            "93.184.216.34.5",
            "1.93.184.216.34",
            "93.184.216.256",
            "93.184.216.034",
            "93.184.216",
            "2001:db8::1 fe80::1 ::1 fd00::2",
            "std::fmt a::b::c 2::1",
            "12:30:45 2:3:4:5",
            "00:1a:2b:3c:4d:5e",
            "2001:db8",
            "oid 1.3.6.1.4.1.311",
            "2.5.29.37",
            "update V8 to 11.3.244.8 (x) [#1]",
            "upgrade from 3.24.35.22",
            "Article 12.4.31.2",
            "(Art. 5.3.2.45)",
            "Mozilla/5.0 Chrome/93.0.4577.82 Safari/537.36",
            "Chrome 93.0.4577.82",
            "art\u{ed}culo 4.31.2.1",
            "Abs. 4.31.2.1",
        ],
    );
    assert_eq!(
        found(Kind::Ip, "http://93.184.216.34:80/ and 93.184.216.0/24"),
        ["93.184.216.34", "93.184.216.0"]
    );
}

#[test]
fn phone_numbers() {
    check(
        Kind::Phone,
        &[
            "+1 212 555 2368",
            "+44 20 7946 0958",
            "+49 (0)30 901820",
            "+33123456789",
            "+81-3-1234-5678",
            "(212) 555-2368",
            "212-555-2368",
            "1-800-356-9377",
            "212.555.2368",
            "020 7946 0958",
            "(02) 9876 5432",
            "07700 900123",
            "01 42 68 53 00",
            "06.12.34.56.78",
            "0171/1234567",
            "044 668 18 00",
            "03-1234-5678",
            "090-1234-5678",
        ],
        &[
            "2128675309",
            "212 555 2368",
            "123-456-7890",
            "+0100",
            "x+12345678901",
            "2012-10-10 12:30",
            "ISBN 978-0-13-110362-7",
            "0-13-110362-8",
            "212-555-23689",
            "1212-555-2368",
            "212-555-2368-1",
            "a212-555-2368",
            "100-200-3000",
            "+1.5 +2 +3",
            "+1.12345679",
            "+1441497364.649",
            "+10000-01-01",
            "+23.1.7779620",
            "1996-2004-2010",
            "/212-555-2368",
            "é212-555-2368",
            "05 06 07 08 09",
            "01 42 68 53 00 ff",
            "a1 01 42 68 53 00",
            "01.02.2003",
            "0.123456789",
            "0123.456789",
            "00 11 22 33 44",
            "0131103628",
            "612 345 678",
        ],
    );
    let behind_a_word = [
        ("Tel: ", "612 345 678"),
        ("Tel.:", "0301234567"),
        ("phone number: ", "2128675309"),
        ("t\u{e9}l. ", "42 68 53 00"),
        ("Fax ", "555-2368"),
    ];
    for (cue, number) in behind_a_word {
        assert_eq!(found(Kind::Phone, &format!("{cue}{number}, please")), [number], "{cue}");
    }
    assert_eq!(found(Kind::Phone, "phone model 12345, tel 2012-10-10"), Vec::<&str>::new());
    let typeset = "+49\u{a0}30\u{202f}901820 or 212\u{2011}555\u{2011}2368 or \u{ff10}3-1234-5678";
    assert_eq!(found(Kind::Phone, typeset).len(), 3);
}

#[test]
fn payment_cards() {
    check(
        Kind::Card,
        &[
            "4111111111111111",
            "4111 1111 1111 1111",
            "5500-0000-0000-0004",
            "3400 000000 00009",
            "6011000000000004",
            "30000000000004",
            "3530111333300000",
            "2223003122003222",
        ],
        &[
            "4111111111111112",
            "4111 1111 1111 1112",
            "9780131103627",
            "978-0-13-110362-7",
            "41111111111111110",
            "0.4111111111111111",
            "a4111111111111111",
            "4111111111111111b",
            "0000000000000000",
            "41 11 11 11 11 11 11 11",
            "4111 1111-1111 1111",
            "1111111111111117",
            "4222222222222",
            "542F 5430 5431 5432 5433",
            "5405 5406 5407 5408 5409\n540A",
            "837766094556764,\n    374555092627893\n",
            "20121010123000",
        ],
    );
}

#[test]
fn a_list_of_cards_is_no_table_of_numbers() {
    let cards = ["4111111111111111", "5500000000000004", "6011000000000004"];
    assert_eq!(found(Kind::Card, &cards.join("\n")), cards);
    let cards = ["4111 1111 1111 1111", "5500 0000 0000 0004"];
    assert_eq!(found(Kind::Card, &cards.join("\n")), cards);
}

#[test]
fn bank_accounts() {
    check(
        Kind::Iban,
        &[
            "DE89370400440532013000",
            "GB29 NWBK 6016 1331 9268 19",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "CH9300762011623852957",
        ],
        &[
            "DE89370400440532013001",
            "XX89370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130001",
            "aDE89370400440532013000",
            "GB29 NWBK 6016 1331 9268 1",
            "PEP8 DE89",
            "DE89 3704 0044 05320130 00",
        ],
    );
    assert!(iban::is_sorted());
}

#[test]
fn keys_and_tokens() {
    let x = |n: usize| "aB3".repeat(n).chars().take(n).collect::<String>();
    let upper = "ABCDEFGH23456723";
    let slack = format!("xoxb-123456789012-1234567890123-{}", x(24));
    let positives = [
        format!("AKIA{upper}"),
        format!("ASIA{upper}"),
        format!("ghp_{}", x(36)),
        format!("github_pat_{}_{}", x(22), x(59)),
        slack,
        format!("hooks.slack.com/services/T00000000/B00000000/{}", x(24)),
        format!("AIza{}", x(35)),
        format!("GOCSPX-{}", x(28)),
        format!("eyJ{}.eyJ{}.{}", x(20), x(40), x(43)),
        format!("sk-{}", x(48)),
        format!("sk-proj-{}", x(60)),
        format!("sk-ant-api03-{}", x(90)),
        format!("sk_live_{}", x(24)),
        format!("hf_{}", x(34)),
        format!("glpat-{}", x(20)),
        format!("npm_{}", x(36)),
        format!("SG.{}.{}", x(22), x(43)),
        format!("gsk_{}", x(52)),
        format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", x(64)),
        format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE KEY BLOCK-----", x(64)),
    ];
    let negatives = [
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        "ASIA4ZP5EXAMPLETOKEN".to_owned(),
        format!("AKIA{upper}Q"),
        format!("xAKIA{upper}"),
        format!("AKIA{}", upper.to_lowercase()),
        format!("ghp_{}", x(35)),
        format!("ghp_{}", x(37)),
        "xoxb-your-token-here".to_owned(),
        "task-management-and-learning-in-large-organisations".to_owned(),
        "sk-learn-based-classification-of-documents-in-the-wild".to_owned(),
        "sk_live_your_key".to_owned(),
        format!("hf_{}", x(20)),
        format!("npm_{}", x(35)),
        format!("AIza{}", x(34)),
        "eyJhbGciOiJIUzI1NiJ9".to_owned(),
        "da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        "123e4567-e89b-12d3-a456-426614174000".to_owned(),
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----".to_owned(),
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", x(64)),
        format!("-----BEGIN PRIVATE KEY-----\n{}", x(64)),
        "aws_secret_access_key = YOUR_SECRET".to_owned(),
    ];
    check(
        Kind::Key,
        &positives.iter().map(String::as_str).collect::<Vec<_>>(),
        &negatives.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let secret = x(40);
    assert_eq!(found(Kind::Key, &format!("aws_secret_access_key = \"{secret}\"")), [secret]);
}

#[test]
fn what_is_found_becomes_placeholders_and_counts() {
    let text = "Mail jane@acme.com or bob@acme.com, call +1 212 555 2368, host 93.184.216.34.";
    let mut out = Rewriting::default();
    let rule = Pii::default();
    out.start(rule.methods().len());
    rule.rewrite(&Text::new(text), &mut out);
    assert_eq!(out.text(), "Mail <EMAIL> or <EMAIL>, call <PHONE>, host <IP_ADDRESS>.");
    assert_eq!(out.values(), [2.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(out.taken(text.len()), Some(&[25, 13, 15, 0, 0, 0][..]));
    let (_, rejection) = rewritten(&rule, text);
    assert_eq!(rejection, None, "what is cut out is no reason to drop");
    let limits = rule.limits(Action::Drop);
    assert_eq!(limits[0].measured(1.0).rejection().map(|r| r.reason.into_owned()), Some("pii_email".into()));
}

#[test]
fn of_two_that_overlap_the_first_and_longest_stays() {
    let text = "+1 212-555-2368 x";
    assert_eq!(find(text, &KINDS), [Found { start: 0, len: 15, kind: Kind::Phone }]);
}

#[test]
fn settings_are_checked() {
    assert_eq!(Pii::default().check(), []);
    let wrong = Pii { kinds: vec![Kind::Ip, Kind::Ip], email: "who@acme.com".into(), ..Pii::default() };
    let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["kinds", "email"]);
    assert_eq!(Pii { kinds: vec![], ..Pii::default() }.check()[0].0, "kinds");
}

proptest! {
    /// Any text comes through: findings are in order and do not overlap, and all bytes are accounted for.
    #[test]
    fn any_text_comes_through(
        text in "([ -~]{0,30}|[0-9 .()+:@-]{0,40}|jane@acme\\.com|\\+1 212 555 2368|93\\.184\\.216\\.34|é|4111111111111111|GB29 NWBK|\n){0,12}"
    ) {
        let mut end = 0;
        for f in find(&text, &KINDS) {
            prop_assert!(f.start >= end && f.len > 0);
            end = f.start + f.len;
        }
        rewritten(&Pii::default(), &text);
    }

    /// Separate words are found whatever is next to them, and placeholders are never found.
    #[test]
    fn nothing_is_found_twice(words in prop::collection::vec(
        prop::sample::select(vec![
            "jane@acme.com", "+1 212 555 2368", "93.184.216.34", "4111111111111111", "GB29 NWBK 6016 1331 9268 19",
            "2a00:1450:4001:82a::200e", "word", "12", "1.5", "2012-10-10", "(", ")", "é", "-----",
        ]),
        0..12,
    )) {
        let personal = words.iter().filter(|word| word.len() > 12).count();
        let (once, _) = rewritten(&Pii::default(), &words.join(" , "));
        prop_assert_eq!(once.matches('<').count(), personal);
        let (twice, _) = rewritten(&Pii::default(), &once);
        prop_assert_eq!(once, twice);
    }
}
