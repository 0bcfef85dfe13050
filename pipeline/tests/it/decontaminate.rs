use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Scratch, assert_same, dataset_lines, line, quickstart_recipe, recipe_over, small_recipe,
};

/// Questions of an invented evaluation set.
fn questions() -> Vec<String> {
    let things = ["lanterns", "marbles", "violins", "teapots", "kites", "ladders", "pebbles", "wagons"];
    let places = ["a harbour town", "the old mill", "her uncle's orchard", "the northern railway"];
    let mut questions = Vec::new();
    for (i, thing) in things.iter().enumerate() {
        for (j, place) in places.iter().enumerate() {
            let (n, m) = (i * 7 + j * 3 + 5, i + 2 * j + 2);
            questions.push(format!(
                "Beatrice keeps {n} {thing} in {place} and gives {m} of them away each week; after how many weeks does she have fewer than {} {thing} left?",
                m + 1
            ));
        }
    }
    questions
}

const SECTION: &str = "[decontaminate]\n[[decontaminate.benchmark]]\nname = \"weeks\"\npaths = [\"eval.jsonl\"]\nfields = [\"question\"]\nprefix = \"Question: \"\n";

fn eval_set(scratch: &Scratch) {
    let lines: String = questions()
        .iter()
        .map(|q| format!("{}\n", json!({ "question": format!("Question: {q}"), "answer": 7 })))
        .collect();
    scratch.write("eval.jsonl", lines);
}

/// A hundred documents, of which four hold questions: as it is, wrapped again, with a word changed, at the end of a long text.
fn corpus(scratch: &Scratch) {
    let questions = questions();
    let mut corpus: String = (0..100).map(line).collect();
    let wrapped: Vec<String> =
        questions[1].split(' ').collect::<Vec<_>>().chunks(8).map(|words| words.join(" ")).collect();
    let long: String = (200..260).map(crate::support::text).collect();
    for (id, text) in [
        ("plain", questions[0].clone()),
        ("wrapped", wrapped.join("\n").to_uppercase()),
        ("changed", questions[2].replace("keeps", "stores")),
        ("diluted", format!("{long} {}", questions[3])),
    ] {
        corpus.push_str(&format!("{}\n", json!({ "id": id, "text": text })));
    }
    scratch.write("a.jsonl", corpus);
}

fn report(scratch: &Scratch, out: &str) -> Value {
    serde_json::from_slice(&fs::read(scratch.path(out).join("decontamination.json")).unwrap()).unwrap()
}

#[test]
fn planted_questions_are_found_dropped_and_explained() {
    let scratch = Scratch::new();
    eval_set(&scratch);
    corpus(&scratch);
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", SECTION));
    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(said.err.contains("32 evaluation texts, 128 of 128 canaries found"), "{}", said.err);
    let ledger = scratch.ledger("out");
    assert_eq!(ledger.sources["a"].dropped["contaminated"].docs, 4);
    assert_eq!(ledger.sources["a"].kept.docs, 100);
    let weeks = &ledger.decontamination.unwrap()["weeks"];
    assert_eq!((weeks.texts, weeks.documents), (32, 4));
    let report = report(&scratch, "out");
    let matches = report["benchmarks"]["weeks"]["matches"].as_array().unwrap();
    for id in ["plain", "wrapped", "changed", "diluted"] {
        assert!(matches.iter().any(|found| found["id"] == id), "{id}");
    }
    let story = scratch.ok(&["why", "diluted"]).out;
    assert!(story.contains("dropped, contaminated"), "{story}");
    assert!(story.contains("question of record 3 of the evaluation set weeks"), "{story}");
    assert!(!story.contains("unknown"), "{story}");
    scratch.ok(&["verify", "out"]);
}

#[test]
fn tagging_keeps_the_documents_and_marks_them() {
    let scratch = Scratch::new();
    eval_set(&scratch);
    corpus(&scratch);
    let action = "[decontaminate]\naction = \"tag\"\ntag = \"exam\"\n";
    let filter = "[[filter]]\nname = \"length\"\nmax_chars = 300\naction = \"tag\"\ntag = \"long\"\n";
    let section = SECTION.replace("[decontaminate]\n", action);
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &format!("{section}{filter}")));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 104);
    let said = scratch.ok(&["inspect", "out"]).out;
    assert!(said.contains("exam 4 ") && said.contains("long 1 "), "{said}");
    scratch.ok(&["verify", "out"]);
}

#[test]
fn cutting_takes_the_span_and_keeps_the_rest() {
    let scratch = Scratch::new();
    eval_set(&scratch);
    corpus(&scratch);
    let section = SECTION.replace("[decontaminate]\n", "[decontaminate]\naction = \"cut\"\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &section));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let a = &scratch.ledger("out").sources["a"];
    // Three documents consisted only of the question.
    assert_eq!((a.dropped["too_little_left"].docs, a.cut["contamination"].docs, a.kept.docs), (3, 1, 101));
    let planted = questions()[3].len() as u64;
    let cut = a.cut["contamination"].bytes;
    assert!(cut <= planted && cut + 2 >= planted, "{cut} of {planted} bytes");
    let story = scratch.ok(&["why", "diluted"]).out;
    assert!(story.contains("a/diluted: kept"), "{story}");
    scratch.ok(&["verify", "out"]);
}

#[test]
fn the_bytes_do_not_depend_on_threads_and_split_and_the_audit_stays_balanced() {
    let scratch = Scratch::new();
    // Real text as its own benchmark: the first verses of each chapter, and paragraphs of the Django documents.
    let mut eval = String::new();
    for name in ["bible_kjv_web.jsonl.gz", "django_docs_two_versions.jsonl.gz"] {
        for line in dataset_lines(name).iter().step_by(5) {
            let record: Value = serde_json::from_str(line).unwrap();
            let start: Vec<&str> =
                record["text"].as_str().unwrap().split_whitespace().skip(20).take(40).collect();
            eval.push_str(&format!("{}\n", json!({ "question": start.join(" ") })));
        }
    }
    scratch.write("eval.jsonl", eval);
    let section = SECTION.replace("[decontaminate]\n", "[decontaminate]\naction = \"cut\"\n");
    let change = |recipe: String| {
        let recipe = recipe.replace("vocab_size = 4096", "vocab_size = 400");
        recipe.replace("[dedup]\n", "[dedup]\nparagraph = { min_chars = 30, min_documents = 2 }\n")
    };
    let recipe = change(quickstart_recipe());
    scratch.write("r.toml", format!("{recipe}\n{section}"));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "one", "--threads", "1"]);
    // Plain files in slices, in another order of lines.
    for (name, file) in
        [("bible.jsonl", "bible_kjv_web.jsonl.gz"), ("django.jsonl", "django_docs_two_versions.jsonl.gz")]
    {
        let mut lines = dataset_lines(file);
        lines.reverse();
        scratch.write(name, lines.join("\n"));
    }
    let sliced = change(recipe_over("\"bible.jsonl\"", "\"django.jsonl\""));
    let sliced = sliced.replace("slice_bytes = \"64MB\"", "slice_bytes = 100000");
    scratch.write("s.toml", format!("{sliced}\n{section}"));
    scratch.ok(&["build", "--recipe", "s.toml", "--out", "three", "--threads", "3"]);
    let (one, three) = (scratch.results("one"), scratch.results("three"));
    assert_same(&three, &one);
    let read = |out: &str| fs::read(scratch.path(out).join("decontamination.json")).unwrap();
    assert!(read("one") == read("three"), "the reports differ");
    let ledger = scratch.ledger("one");
    let cut: u64 =
        ledger.sources.values().filter_map(|source| source.cut.get("contamination")).map(|c| c.docs).sum();
    assert!(cut > 50, "{cut} documents were cut");
    scratch.ok(&["verify", "one"]);
}

#[test]
fn a_benchmark_that_changed_or_a_threshold_is_noticed_and_nothing_before_is_done_again() {
    let scratch = Scratch::new();
    eval_set(&scratch);
    corpus(&scratch);
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", SECTION));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let read_folder = |stage: &str| {
        let folder = scratch.path("out/work").join(stage);
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (read_folder("read"), read_folder("filter"), read_folder("decontaminate"));
    let mut more = fs::read_to_string(scratch.path("eval.jsonl")).unwrap();
    more.push_str(&format!(
        "{}\n",
        json!({ "question": "Which of the seven sisters of the pale moon sings to the fox?" })
    ));
    scratch.write("eval.jsonl", more);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    assert_eq!(ledger.sources["a"].dropped["contaminated"].docs, 4);
    assert_eq!(ledger.decontamination.unwrap()["weeks"].texts, 33);
    assert_eq!((read_folder("read"), read_folder("filter")), (before.0, before.1));
    assert_ne!(read_folder("decontaminate"), before.2);
}

#[test]
fn a_self_test_that_fails_ends_the_build_before_any_work() {
    let scratch = Scratch::new();
    eval_set(&scratch);
    corpus(&scratch);
    let section = SECTION.replace("[decontaminate]\n", "[decontaminate]\nthreshold = 1.0\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &section));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 1);
    assert!(said.err.contains("weeks, changed: 0 of 32"), "{}", said.err);
    assert!(said.err.contains("decontaminate.min_recall"), "{}", said.err);
    assert!(!scratch.path("out/work/read").exists());
    let relaxed = section.replace("threshold = 1.0\n", "threshold = 1.0\nmin_recall = 0.0\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &relaxed));
    scratch.ok(&["build", "--recipe", "r.toml"]);
}

#[test]
fn wrong_sections_and_evaluation_sets_are_named() {
    let scratch = Scratch::new();
    corpus(&scratch);
    let wrong = "[decontaminate]\nthreshhold = 0.5\nngram = 2\nsources = [\"b\"]\naction = \"hide\"\n\
                 [[decontaminate.benchmark]]\nname = \"x\"\npath = [\"eval.jsonl\"]\nfields = [\"q\"]\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", wrong));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    for part in [
        "did you mean `threshold`?",
        "`decontaminate.ngram`",
        "`decontaminate.sources`",
        "action",
        "did you mean `paths`?",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", SECTION));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(
        said.err.contains("decontaminate.benchmark.weeks.paths") && said.err.contains("eval.jsonl"),
        "{}",
        said.err
    );
    scratch.write("eval.jsonl", "{\"prompt\":\"one two three four five six seven eight\"}\n");
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 3);
    assert!(said.err.contains("field `question`: missing_text"), "{}", said.err);
    scratch.write("eval.jsonl", "{\"question\":\"too short\"}\n");
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("has no text of 5 words or more in `question`"), "{}", said.err);
}
