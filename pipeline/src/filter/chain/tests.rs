use super::super::{Filter, Rewrite};
use super::*;

/// Measures bytes and `x` characters; the threshold applies to the latter.
struct Letters(f64);

impl Filter for Letters {
    fn limits(&self) -> Vec<Limit> {
        let noted = Limit { threshold: None, ..Limit::most("bytes", 0.0) };
        vec![noted, Limit::most("too_many_x", self.0)]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let n_x = text.as_str().matches('x').count();
        values.extend([text.as_str().len() as f64, n_x as f64]);
    }
}

/// Takes out digits and hyphens, and puts a `0` for each run of digits.
struct Digits;

impl Rewrite for Digits {
    fn methods(&self) -> Vec<Reason> {
        vec!["digits".into(), "hyphens".into()]
    }

    fn limits(&self, action: Action) -> Vec<Limit> {
        let limit = Limit::most("has_digits", 0.0);
        vec![if action == Action::Cut { Limit { threshold: None, ..limit } } else { limit }]
    }

    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
        let mut n = 0;
        for c in text.as_str().split_inclusive(|_| true) {
            match c {
                "-" => out.take(1, c),
                _ if c.bytes().all(|b| b.is_ascii_digit()) => {
                    n += 1;
                    out.take(0, c);
                    out.put("#");
                }
                _ => out.keep(c),
            }
        }
        out.value(f64::from(n));
        if text.as_str().contains("und") {
            out.language("de");
        }
    }
}

fn chain(steps: Vec<(Rule, Action, Option<&str>)>) -> Chain {
    let steps = steps
        .into_iter()
        .enumerate()
        .map(|(i, (rule, action, tag))| Step::of(&format!("rule-{i}"), rule, action, tag.map(str::to_owned)));
    Chain { steps: steps.collect() }
}

fn letters(most: f64) -> Rule {
    Rule::Filter(Box::new(Letters(most)))
}

fn digits() -> Rule {
    Rule::Rewrite(Box::new(Digits))
}

fn measure(chain: &Chain, text: &str, raw_bytes: u32) -> Workspace {
    let mut work = Workspace::default();
    chain.measure(text, Metadata::default(), raw_bytes, &mut work).unwrap();
    assert_eq!(work.values().len(), chain.n_columns());
    work
}

#[test]
fn a_rule_sees_what_the_rule_before_it_left() {
    let chain = chain(vec![
        (letters(9.0), Action::Drop, None),
        (digits(), Action::Cut, None),
        (letters(9.0), Action::Drop, None),
    ]);
    let work = measure(&chain, "ab-12-34xx", 20);
    // 4 of 10 bytes are digits and 2 hyphens; as read they are twice as many.
    assert_eq!(work.values(), [10.0, 2.0, 4.0, 8.0, 4.0, 8.0, 8.0, 2.0]);
    assert_eq!((work.rewritten(), work.left_bytes()), (Some("ab####xx"), 8));
    let verdict = chain.judge(work.values()).unwrap();
    assert_eq!(verdict.cut, [("digits".into(), 8), ("hyphens".into(), 4)]);
    assert_eq!((verdict.dropped, verdict.tags.len()), (None, 0));
    let looked = chain.explain(work.values()).unwrap();
    assert_eq!((looked.len(), looked[1].cut.len(), looked[2].rules[0].measured), (3, 2, 8.0));
    // Nothing to take out.
    let work = measure(&chain, "abc", 3);
    assert_eq!((work.rewritten(), work.left_bytes()), (None, 3));
}

#[test]
fn shares_of_the_bytes_as_read_are_rounded_down_over_all_methods() {
    let chain = chain(vec![(digits(), Action::Cut, None)]);
    let work = measure(&chain, "a1-", 2);
    // 2 * 1 / 3 = 0.67 and 2 * 2 / 3 = 1.33 make 0 and 1.
    assert_eq!(work.values(), [1.0, 0.0, 1.0, 2.0]);
    assert_eq!(work.left_bytes(), 1);
}

#[test]
fn the_first_limit_that_is_missed_decides() {
    let rules = || {
        vec![
            (letters(1.0), Action::Tag, None),
            (letters(2.0), Action::Tag, Some("many")),
            (letters(3.0), Action::Drop, None),
        ]
    };
    let chain = chain(rules());
    let judge = |text: &str| chain.judge(measure(&chain, text, 1).values()).unwrap();
    assert_eq!(judge("x"), Verdict::default());
    assert_eq!(judge("xx").tags, ["too_many_x"]);
    assert_eq!(judge("xxx").tags, ["too_many_x", "many"]);
    let dropped = judge("xxxx");
    let rejection = Rejection { reason: "too_many_x".into(), measured: 4.0, threshold: 3.0 };
    assert_eq!(
        dropped,
        Verdict { dropped: Some(rejection), tags: dropped.tags.clone(), ..Verdict::default() }
    );
}

#[test]
fn a_document_without_text_is_dropped_with_all_its_bytes() {
    struct All;
    impl Rewrite for All {
        fn methods(&self) -> Vec<Reason> {
            vec!["all".into()]
        }
        fn limits(&self, _: Action) -> Vec<Limit> {
            Vec::new()
        }
        fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
            out.take(0, text.as_str());
        }
    }
    let chain = chain(vec![(Rule::Rewrite(Box::new(All)), Action::Cut, None), (digits(), Action::Cut, None)]);
    let work = measure(&chain, "abc", 7);
    assert_eq!((work.left_bytes(), work.rewritten()), (0, Some("")));
    let verdict = chain.judge(work.values()).unwrap();
    assert_eq!(verdict.dropped.map(|dropped| dropped.reason), Some(NOTHING_LEFT.into()));
    assert_eq!(verdict.cut, [("all".into(), 7)]);
}

#[test]
fn actions_without_cutting_leave_the_text_and_the_language_is_known_behind() {
    struct German;
    impl Filter for German {
        fn limits(&self) -> Vec<Limit> {
            vec![Limit::least("not_german", 1.0)]
        }
        fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
            values.push(f64::from(text.metadata().language == Some("de")));
        }
    }
    let german = || Rule::Filter(Box::new(German));
    let chain = chain(vec![(digits(), Action::Tag, None), (german(), Action::Tag, None)]);
    let work = measure(&chain, "1 und 2", 7);
    assert_eq!((work.rewritten(), work.left_bytes(), work.language()), (None, 7, Some("de")));
    assert_eq!(work.values(), [2.0, 1.0]);
    assert_eq!(chain.judge(work.values()).unwrap().tags, ["has_digits"]);
    let work = measure(&chain, "x", 1);
    assert_eq!(
        (chain.judge(work.values()).unwrap().tags, work.language()),
        (vec!["not_german".to_owned()], None)
    );
}

#[test]
fn rows_of_other_rules_are_refused() {
    let chain = chain(vec![(letters(1.0), Action::Drop, None)]);
    for row in [&[][..], &[1.0], &[1.0, 2.0, 3.0]] {
        assert!(chain.judge(row).is_err());
    }
}

#[test]
fn no_threshold_of_the_registry_changes_what_is_measured() {
    let texts =
        ["", "word", "# # # #", "- a ...\n- a ...\n\nthe and the and the and", "Ein Satz. Noch einer!"];
    for entry in super::super::REGISTRY.iter().filter(|entry| entry.files.is_empty()) {
        for action in entry.actions {
            let config = FilterConfig { action: *action, ..FilterConfig::with_defaults(entry) };
            let mut moved = config.clone();
            for key in entry.thresholds {
                let value = moved.settings.get_mut(*key).unwrap();
                if let serde_json::Value::Array(items) = value {
                    items.iter_mut().for_each(|item| *item = (item.as_f64().unwrap() / 2.0).into());
                    continue;
                }
                *value = match value.as_f64() {
                    Some(number) if value.is_f64() => (number / 2.0).into(),
                    Some(number) => ((number / 2.0) as u64).into(),
                    None => serde_json::Value::Null,
                };
            }
            assert_eq!(Measuring::of(&config), Measuring::of(&moved), "{}", entry.name);
            let [plain, moved, bare] = [
                Chain::new([&config]).unwrap(),
                Chain::new([&moved]).unwrap(),
                Chain::measuring(&[Measuring::of(&config)]).unwrap(),
            ];
            for text in texts {
                let expected = measure(&plain, text, 99).values().to_vec();
                assert_eq!(measure(&moved, text, 99).values(), expected, "{}", entry.name);
                assert_eq!(measure(&bare, text, 99).values(), expected, "{}", entry.name);
                assert!(expected.iter().all(|value| value.is_finite()), "{}: {expected:?}", entry.name);
            }
        }
    }
}
