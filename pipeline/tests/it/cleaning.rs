use std::fs;

use moe_shards::{Manifest, Shard};
use serde_json::json;

use crate::support::{Scratch, assert_same, dataset_lines, small_recipe};

/// Language of each document of a build, by id.
fn languages(scratch: &Scratch, out: &str) -> Vec<(String, Option<String>)> {
    let out = scratch.path(out);
    let mut found = Vec::new();
    for info in Manifest::read(&out).unwrap().shards {
        let shard = Shard::open(&Manifest::mdx_path(&out, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            let language = shard.names().language(shard.meta(doc).unwrap().language).map(str::to_owned);
            found.push((shard.id(doc).unwrap().to_owned(), language));
        }
    }
    found.sort();
    found
}

const ENGLISH: &str = "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.";
const FRENCH: &str = "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.";

#[test]
fn a_document_without_a_language_gets_the_one_that_is_found() {
    let scratch = Scratch::new();
    let lines = [
        json!({"id": "en", "text": ENGLISH}),
        json!({"id": "fr", "text": FRENCH}),
        json!({"id": "said", "text": format!("{ENGLISH} Indeed."), "l": "eng-Latn"}),
    ];
    scratch.write("a.jsonl", lines.map(|line| format!("{line}\n")).concat());
    let recipe = small_recipe("\"a.jsonl\"", "[[filter]]\nname = \"language\"\nmin_confidence = 0.3\n");
    let recipe = recipe.replace("id = \"id\"\n", "id = \"id\"\nlanguage = \"l\"\n");
    scratch.write("r.toml", &recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let expected = [("en", "en"), ("fr", "fr"), ("said", "eng-Latn")];
    let expected = expected.map(|(id, language)| (id.to_owned(), Some(language.to_owned())));
    assert_eq!(languages(&scratch, "out"), expected);

    scratch.write("r.toml", format!("{recipe}languages = [\"eng\"]\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    assert_eq!(ledger.sources["a"].kept.docs, 2);
    assert_eq!(ledger.sources["a"].dropped["language"].docs, 1);

    scratch
        .write("r.toml", format!("{recipe}languages = [\"en\", \"klingon\", \"haw\"]\nmodel = \"no.ftz\"\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("`klingon`"), "{}", said.err);
    scratch.write("r.toml", format!("{recipe}languages = [\"haw\"]\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("which whatlang does not know"), "{}", said.err);
    scratch.write("no.ftz", "this is no model");
    scratch.write("r.toml", format!("{recipe}languages = [\"haw\"]\nmodel = \"no.ftz\"\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("no.ftz"), "{}", said.err);
    // fastText's own model is used if it is next to the recipe.
    scratch.write("lid.176.ftz", "this is no model");
    scratch.write("r.toml", format!("{recipe}languages = [\"en\"]\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("lid.176.ftz"), "{}", said.err);
}

#[test]
fn lists_count_by_their_content() {
    let scratch = Scratch::new();
    let record =
        |id: &str, url: &str| format!("{}\n", json!({"id": id, "text": format!("{ENGLISH} {id}"), "u": url}));
    let lines =
        ["spam.com", "ok.org", "x.evil.org"].map(|host| record(host, &format!("https://{host}/page")));
    scratch.write("a.jsonl", lines.concat());
    scratch.write("lists/one.txt", "# bad hosts\nspam.com\n");
    let recipe = |list: &str| {
        let more = format!("[[filter]]\nname = \"url_lists\"\ndomains = [\"{list}\"]\n");
        small_recipe("\"a.jsonl\"", &more).replace("id = \"id\"\n", "id = \"id\"\nurl = \"u\"\n")
    };
    scratch.write("r.toml", recipe("lists/one.txt"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let dropped = |out: &str, reason: &str| {
        let ledger = scratch.ledger(out);
        ledger.sources["a"].dropped.get(reason).map_or(0, |count| count.docs)
    };
    assert_eq!((dropped("out", "url_domain"), dropped("out", "url_subdomain")), (1, 0));
    let identity = Manifest::read(&scratch.path("out")).unwrap().build;

    // The same list in another place is the same build.
    fs::rename(scratch.path("lists/one.txt"), scratch.path("two.txt")).unwrap();
    scratch.write("r.toml", recipe("two.txt"));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "moved"]);
    assert_eq!(Manifest::read(&scratch.path("moved")).unwrap().build, identity);

    // Another list is another build.
    scratch.write("two.txt", "spam.com\nx.evil.org\n");
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "moved"]);
    assert_ne!(Manifest::read(&scratch.path("moved")).unwrap().build, identity);
    assert_eq!((dropped("moved", "url_domain"), dropped("moved", "url_subdomain")), (1, 1));

    scratch.write("r.toml", recipe("none.txt"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("none.txt"), "{}", said.err);
}

#[test]
fn personal_data_is_replaced_and_accounted_for() {
    let scratch = Scratch::new();
    let text = format!("{ENGLISH} Write to jane.doe@acme.com or call +1 212 555 2368.");
    let clean = format!("{ENGLISH} Nobody is named here.");
    let lines = [json!({"id": "a", "text": text}), json!({"id": "b", "text": clean})];
    scratch.write("a.jsonl", lines.map(|line| format!("{line}\n")).concat());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[[filter]]\nname = \"pii\"\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    let source = &ledger.sources["a"];
    assert_eq!((source.kept.docs, source.cut["pii_email"].bytes, source.cut["pii_phone"].bytes), (2, 17, 15));
    let said = scratch.ok(&["why", "a"]).out;
    assert!(said.contains("pii_email"), "{said}");

    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[[filter]]\nname = \"pii\"\naction = \"drop\"\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    assert_eq!(ledger.sources["a"].dropped["pii_email"].docs, 1);
}

#[test]
fn cleaning_gives_the_same_bytes_for_any_threads_and_slices() {
    let scratch = Scratch::new();
    let lines = dataset_lines("django_docs_two_versions.jsonl.gz").join("\n");
    scratch.write("django.jsonl", lines);
    let rules = "[[filter]]\nname = \"newlines\"\n[[filter]]\nname = \"refinedweb_lines\"\nmax_words_removed = 0.5\n\
                 [[filter]]\nname = \"c4_quality\"\nfilter_curly_bracket = false\nfilter_no_terminal_punct = false\n\
                 [[filter]]\nname = \"language\"\nlanguages = [\"en\"]\nmin_confidence = 0.2\n\
                 [[filter]]\nname = \"pii\"\n";
    let recipe = |slice_bytes: u64| {
        let more = format!("{rules}[limits]\nslice_bytes = {slice_bytes}\n");
        small_recipe("\"django.jsonl\"", &more)
    };
    scratch.write("r.toml", recipe(64_000_000));
    scratch.ok(&["build", "--recipe", "r.toml", "--threads", "1", "--out", "one"]);
    scratch.write("r.toml", recipe(100_000));
    scratch.ok(&["build", "--recipe", "r.toml", "--threads", "3", "--out", "three"]);
    assert_same(&scratch.results("three"), &scratch.results("one"));
    let ledger = scratch.ledger("one");
    let source = &ledger.sources["a"];
    for method in ["newlines", "refinedweb_short_line", "c4_too_few_words", "pii_email"] {
        assert!(source.cut.get(method).is_some_and(|count| count.bytes > 0), "{method}: {:?}", source.cut);
    }
    assert!(source.kept.docs > 40, "{} of {}", source.kept.docs, source.read.docs);
}
