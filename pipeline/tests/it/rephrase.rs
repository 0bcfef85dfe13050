use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use moe_data::rephrase::record::{self, Ledger};
use moe_shards::Manifest;
use serde_json::{Value, json};

use crate::scripted::{Server, answer};
use crate::support::{Scratch, dataset_lines};

/// Chapters of the World English Bible, shortened to a few verses.
fn documents(n: usize) -> Vec<Value> {
    let lines = dataset_lines("bible_kjv_web.jsonl.gz");
    let all = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let web = all.filter(|record| record["version"] == "WEB").take(n);
    web.map(|record| {
        let text: Vec<&str> = record["text"].as_str().unwrap().lines().take(8).collect();
        json!({ "id": record["group"], "text": text.join("\n") })
    })
    .collect()
}

fn write_corpus(scratch: &Scratch, documents: &[Value]) {
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    scratch.write("corpus.jsonl", lines);
}

const RECIPE: &str = "[[source]]\nname = \"a\"\npaths = [\"corpus.jsonl\"]\nid = \"id\"\n[[filter]]\nname = \"length\"\n\
                      [tokenizer]\ntrain = { vocab_size = 400 }\n";

/// A corpus, its build, and the repository's styles.
fn built(n: usize) -> Scratch {
    let scratch = Scratch::new();
    write_corpus(&scratch, &documents(n));
    scratch.write("r.toml", RECIPE);
    let styles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/styles");
    for name in ["plain", "wikipedia"] {
        let text = fs::read_to_string(styles.join(format!("{name}.toml"))).unwrap();
        scratch.write(&format!("styles/{name}.toml"), text);
    }
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch
}

fn args<'a>(server: &'a Server, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["rephrase", "--base-url", &server.base_url, "--model", "m", "--styles-dir", "styles"];
    args.extend_from_slice(more);
    args
}

/// Bytes of the output of rephrasing, by name.
fn made(scratch: &Scratch) -> BTreeMap<String, Vec<u8>> {
    ["accepted-a.jsonl", "rejected.jsonl", "ledger.json"]
        .map(|name| (name.to_owned(), fs::read(scratch.path("out/rephrase").join(name)).unwrap()))
        .into()
}

#[test]
fn answers_are_asked_once_and_judged_as_often_as_limits_change() {
    let scratch = built(30);
    let server = Server::start(Duration::ZERO);
    let said = scratch.ok(&args(&server, &["--dry-run", "2"]));
    assert!(said.out.contains(">>>") && said.err.contains("to answer"), "{}{}", said.out, said.err);
    assert!(!scratch.path("out/rephrase/ledger.json").exists());

    scratch.ok(&args(&server, &["--license", "CC0"]));
    let first = made(&scratch);
    let ledger = Ledger::read(&scratch.path("out/rephrase")).unwrap();
    ledger.check().unwrap();
    let asked: u64 = ledger.styles.values().map(|style| style.asked).sum();
    assert_eq!((ledger.documents, asked, ledger.waiting()), (30, 60, 0));
    let rejected: BTreeSet<&str> =
        ledger.styles.values().flat_map(|style| style.rejected.keys()).map(String::as_str).collect();
    for rule in ["sentinel", "finished", "copied_8grams", "numbers_known"] {
        assert!(rejected.contains(rule), "{rule} is not among {rejected:?}");
    }
    let accepted: Vec<_> =
        record::accepted(&scratch.path("out/rephrase/accepted-a.jsonl")).unwrap().collect();
    assert!(accepted.len() >= 20, "{}", ledger.table());
    for record in accepted {
        let record = record.unwrap();
        assert_eq!((record.source.as_str(), record.licence.as_deref()), ("a", Some("CC0")));
        assert!(!record.text.contains("version:") && record.text.len() > 100, "{}", record.text);
    }

    // The same again costs nothing and changes nothing.
    let n = server.asked();
    scratch.ok(&args(&server, &["--licence", "CC0"]));
    assert_eq!((server.asked(), made(&scratch)), (n, first.clone()));

    // Another limit: judged again, without a server.
    let style = fs::read_to_string(scratch.path("styles/plain.toml")).unwrap();
    scratch.write("styles/plain.toml", style.replace("length_most = 1.6", "length_most = 0.8"));
    drop(server);
    scratch.ok(&["rephrase", "validate"]);
    let strict = Ledger::read(&scratch.path("out/rephrase")).unwrap();
    assert_eq!((strict.styles["plain"].accepted, strict.styles["plain"].waiting), (0, 0));
    assert!(strict.styles["plain"].rejected["length_most"] > 10, "{}", strict.table());
    // The other style had fewer competitors in its families, never more.
    assert!(strict.styles["wikipedia"].accepted >= ledger.styles["wikipedia"].accepted);
    scratch.write("styles/plain.toml", style.clone());
    scratch.ok(&["rephrase", "validate"]);
    assert_eq!(made(&scratch), first);

    // Another template is another request.
    scratch.write("styles/plain.toml", style.replace("temperature = 0.6", "temperature = 0.7"));
    let said = scratch.fail(&["rephrase", "validate"], 2);
    assert!(said.err.contains("template of style `plain` was changed"), "{}", said.err);
    scratch.write("styles/plain.toml", style);

    // From a different folder than when they were requested: the styles were moved.
    fs::rename(scratch.path("styles"), scratch.path("moved")).unwrap();
    scratch.fail(&["rephrase", "report", "-o", "report.html"], 2);
    scratch.ok(&["rephrase", "report", "-o", "report.html", "--samples", "3", "--styles-dir", "moved"]);
    scratch.ok(&["rephrase", "validate", "--styles-dir", "moved"]);
    assert_eq!(made(&scratch), first);
    let page = fs::read_to_string(scratch.path("report.html")).unwrap();
    assert_eq!(page.matches("<article").count(), page.matches("</article>").count());
    assert!(page.contains("class=\"rejected\"") && page.contains(">numbers_known</a></h3>"));

    // The page of the build has the counts of the ledger, and three of each style and kind next to their originals.
    let said = scratch.ok(&["report", "-o", "build.html", "--json"]).out;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let rows = figures.iter().find(|figure| figure["id"] == "rephrasings").unwrap()["table"]["rows"].clone();
    let of =
        |name: &str| rows.as_array().unwrap().iter().find(|row| row[0] == name).map(|row| row[1].clone());
    assert_eq!(of("plain: accepted"), Some(ledger.styles["plain"].accepted.into()), "{rows}");
    assert!(figures.iter().any(|figure| figure["id"] == "rephrasing-distance"));
    let page = fs::read_to_string(scratch.path("build.html")).unwrap();
    let n_samples = ledger.styles.values().flat_map(|style| [style.accepted, style.rejected.values().sum()]);
    let expected: u64 = n_samples.map(|n| n.min(3)).sum();
    let n_shown = ["class=\"accepted\"", "class=\"rejected\""].map(|kind| page.matches(kind).count() as u64);
    assert_eq!(n_shown[0] + n_shown[1], expected);
    assert!(page.contains("<ins>") && page.contains("<del>") && !page.contains("not in the work folder"));
}

#[test]
fn accepted_variants_are_added_and_later_passes_show_them() {
    let scratch = built(24);
    let server = Server::start(Duration::ZERO);
    scratch.ok(&args(&server, &[]));
    let n_accepted =
        fs::read_to_string(scratch.path("out/rephrase/accepted-a.jsonl")).unwrap().lines().count() as u64;
    let recipe =
        format!("{RECIPE}[rephrase]\nfrom = \"out/rephrase\"\nstyles = [\"wikipedia\", \"plain\"]\n");
    scratch.write("r.toml", &recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let manifest = Manifest::read(&scratch.path("out")).unwrap();
    assert_eq!(manifest.sources[0].variants, ["original", "wikipedia", "plain"]);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 24 + n_accepted);
    scratch.ok(&["verify", "out"]);

    // Every pass over a family with variants shows another text.
    scratch.write("mix.toml", "[mix]\nepochs = 3\nseq_len = 256\n[[pool]]\nsource = \"a\"\n");
    scratch.ok(&["mix", "--mixture", "mix.toml"]);
    let mut shown: BTreeMap<String, BTreeMap<u64, BTreeSet<String>>> = BTreeMap::new();
    let plan = moe_shards::Plan::open(&scratch.path("out")).unwrap();
    for t in 0..plan.len() {
        let sample: Value =
            serde_json::from_str(&scratch.ok(&["explain", &t.to_string(), "--json"]).out).unwrap();
        for piece in sample["pieces"].as_array().unwrap() {
            let passes = shown.entry(piece["family"].as_str().unwrap().to_owned()).or_default();
            let texts = passes.entry(sample["pass"].as_u64().unwrap()).or_default();
            texts.insert(piece["document"].as_str().unwrap().to_owned());
        }
    }
    let mut by_number = BTreeMap::<usize, usize>::new();
    for passes in shown.values() {
        assert!(passes.values().all(|texts| texts.len() == 1), "a pass shows a family once: {passes:?}");
        let texts: BTreeSet<&String> = passes.values().flatten().collect();
        *by_number.entry(texts.len()).or_default() += 1;
    }
    assert!(by_number.get(&3).copied().unwrap_or(0) >= 5, "families by number of texts shown: {by_number:?}");

    // Asking again is about the same originals: variants are not rephrased.
    let n = server.asked();
    scratch.ok(&args(&server, &[]));
    assert_eq!(server.asked(), n);

    // An original that changed, and one that is gone.
    let parents: Vec<String> = record::accepted(&scratch.path("out/rephrase/accepted-a.jsonl"))
        .unwrap()
        .map(|record| record.unwrap().parent)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let of = |parent: &String| -> u64 {
        let all = record::accepted(&scratch.path("out/rephrase/accepted-a.jsonl")).unwrap();
        all.filter(|record| record.as_ref().unwrap().parent == *parent).count() as u64
    };
    let (changed, gone) = (of(&parents[0]), of(&parents[1]));
    let mut documents = documents(24);
    documents.retain(|document| document["id"] != parents[1].as_str());
    for document in &mut documents {
        if document["id"] == parents[0].as_str() {
            document["text"] = format!("{} And so on.", document["text"].as_str().unwrap()).into();
        }
    }
    write_corpus(&scratch, &documents);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = &scratch.ledger("out").sources["a"];
    assert_eq!(
        (source.dropped["parent_changed"].docs, source.dropped["parent_dropped"].docs),
        (changed, gone)
    );
    assert_eq!(source.kept.docs, 23 + n_accepted - changed - gone);
    let why = scratch.ok(&["why", &format!("a/{}#plain", parents[1])]);
    assert!(why.out.contains("parent_dropped") || of(&parents[1]) == 1, "{}", why.out);

    // The order of the recipe numbers the variants, and a style that it does not name is refused.
    scratch.write("r.toml", recipe.replace("\"wikipedia\", \"plain\"", "\"wikipedia\", \"plane\""));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("`plain`") && said.err.contains("did you mean `plane`?"), "{}", said.err);
    scratch.write("r.toml", recipe.replace("out/rephrase", "nowhere"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("accepted-SOURCE.jsonl"), "{}", said.err);
}

#[test]
fn threads_and_file_split_change_no_byte() {
    let scratch = built(20);
    let server = Server::start(Duration::ZERO);
    scratch.ok(&args(&server, &["--max-docs", "12"]));
    let first = made(&scratch);
    let documents = documents(20);
    let half = |part: &[Value]| part.iter().rev().map(|document| format!("{document}\n")).collect::<String>();
    scratch.write("b1.jsonl", half(&documents[..9]));
    scratch.write("b0.jsonl", half(&documents[9..]));
    scratch.write("r.toml", RECIPE.replace("\"corpus.jsonl\"", "\"b0.jsonl\", \"b1.jsonl\""));
    scratch.ok(&["build", "--recipe", "r.toml", "--threads", "1"]);
    let n = server.asked();
    scratch.ok(&args(&server, &["--max-docs", "12"]));
    assert_eq!((server.asked(), made(&scratch)), (n, first));
}

#[test]
fn batches_give_what_a_server_gives() {
    let scratch = built(10);
    let server = Server::start(Duration::ZERO);
    scratch.ok(&args(&server, &[]));
    let expected = made(&scratch);
    fs::remove_dir_all(scratch.path("out/rephrase")).unwrap();
    for round in 0..6 {
        let export = ["rephrase", "export-batch", "b.jsonl", "--model", "m", "--styles-dir", "styles"];
        scratch.ok(&export);
        let lines = fs::read_to_string(scratch.path("b.jsonl")).unwrap();
        if lines.is_empty() {
            assert!(round > 0);
            break;
        }
        // The host answers in another order.
        let answers = lines.lines().rev().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let response = json!({ "status_code": 200, "body": answer(&line["body"]) });
            format!("{}\n", json!({ "custom_id": line["custom_id"], "response": response, "error": null }))
        });
        scratch.write("answers.jsonl", answers.collect::<String>());
        scratch.ok(&["rephrase", "import-batch", "answers.jsonl", "--exported", "b.jsonl"]);
    }
    assert_eq!(made(&scratch), expected);
}

#[test]
fn shares_that_are_asked_at_once_give_what_one_process_gives() {
    let scratch = built(24);
    let server = Server::start(Duration::ZERO);
    scratch.ok(&args(&server, &["--license", "CC0"]));
    let (expected, n_questions) = (made(&scratch), server.asked());
    fs::remove_dir_all(scratch.path("out/rephrase")).unwrap();
    let ask = &|share: &str| drop(scratch.ok(&args(&server, &["--license", "CC0", "--array", share])));

    let said = scratch.fail(&["rephrase", "collect"], 2);
    assert!(said.err.contains("no shares to collect"), "{}", said.err);
    thread::scope(|scope| {
        for share in ["0/3", "1/3", "2/3"] {
            scope.spawn(move || ask(share));
        }
    });
    assert_eq!(server.asked(), 2 * n_questions);
    ask("1/3");
    assert_eq!(server.asked(), 2 * n_questions);
    assert!(!scratch.path("out/rephrase/ledger.json").exists());
    fs::write(scratch.path("out/rephrase/settings.json"), "{\"mine\":1}").unwrap();
    scratch.fail(&["rephrase", "collect"], 2);
    fs::remove_file(scratch.path("out/rephrase/settings.json")).unwrap();
    scratch.ok(&["rephrase", "collect"]);
    assert_eq!(made(&scratch), expected);
    assert!(!scratch.path("out/rephrase/cache/shares").exists());
    let said = scratch.fail(&["rephrase", "collect"], 2);
    assert!(said.err.contains("no shares to collect"), "{}", said.err);

    // What cannot work is refused before anything is taken.
    ask("0/2");
    ask("1/2");
    let shares = scratch.path("out/rephrase/cache/shares");
    fs::rename(scratch.path("styles"), scratch.path("moved")).unwrap();
    scratch.fail(&["rephrase", "collect"], 2);
    assert_eq!(fs::read_dir(&shares).unwrap().count(), 2);
    scratch.ok(&["rephrase", "collect", "--styles-dir", "moved"]);
    fs::rename(scratch.path("moved"), scratch.path("styles")).unwrap();
    assert!(!shares.exists());
    assert_eq!(made(&scratch), expected);

    // A damaged share is taken as far as it is whole, and stays.
    ask("0/1");
    let segment = shares.join("0-of-1/completions-00000.jsonl");
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..], b"{\"check\":\"damaged\"}\n"].concat()).unwrap();
    let said = scratch.ok(&["rephrase", "collect"]);
    assert!(said.err.contains("0-of-1 stays, because of its damage"), "{}", said.err);
    fs::write(&segment, whole).unwrap();
    scratch.ok(&["rephrase", "collect"]);
    assert!(!shares.exists());

    // Nothing is asked twice, by other shares or by a single process; answers that are not collected are mentioned.
    ask("1/2");
    assert_eq!(server.asked(), 2 * n_questions);
    let said = scratch.ok(&args(&server, &["--license", "CC0", "--array", "0/3"]));
    assert!(said.err.contains("1-of-2") && said.err.contains("not collected yet"), "{}", said.err);
    let said = scratch.ok(&["rephrase", "validate"]);
    assert!(said.err.contains("answers of 2 shares") && said.err.contains("1-of-2"), "{}", said.err);
    scratch.ok(&args(&server, &["--license", "CC0"]));
    assert_eq!((server.asked(), made(&scratch)), (2 * n_questions, expected));

    // A process that is refused leaves the settings of the one that asks.
    let settings = shares.join("1-of-2/settings.json");
    let before = fs::read(&settings).unwrap();
    let lock = fs::File::options().write(true).open(shares.join("1-of-2/.lock")).unwrap();
    lock.lock().unwrap();
    let said = scratch.fail(&args(&server, &["--array", "1/2"]), 2);
    assert!(said.err.contains("another process writes to this cache"), "{}", said.err);
    assert_eq!(fs::read(&settings).unwrap(), before);
    drop(lock);

    // All shares have the same settings, which the collected answers are judged with.
    scratch.ok(&args(&server, &["--array", "0/2"]));
    let said = scratch.fail(&["rephrase", "collect"], 2);
    assert!(said.err.contains("0-of-2") && said.err.contains("different settings (licence)"), "{}", said.err);
    let said = scratch.fail(&args(&server, &["--array", "2/2"]), 2);
    assert!(said.err.contains("shares count from 0 to 1"), "{}", said.err);
}

#[test]
fn fifty_kills_leave_the_same_accepted_set() {
    let scratch = built(30);
    let server = Server::start(Duration::from_millis(8));
    let few = ["--concurrency", "4"];
    scratch.ok(&args(&server, &few));
    let expected = made(&scratch);
    let n_questions = server.asked();
    fs::remove_dir_all(scratch.path("out/rephrase")).unwrap();
    let mut killed = 0;
    for i in 0..50u64 {
        let mut child =
            scratch.command(&args(&server, &few)).stderr(std::process::Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(20 + i * 37 % 130));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        child.kill().ok();
        child.wait().unwrap();
    }
    scratch.ok(&args(&server, &few));
    assert_eq!(made(&scratch), expected);
    assert!(killed >= 10, "only {killed} of 50 runs were killed before their end");
    // A kill loses what was in flight, four requests, and nothing else.
    let twice = server.asked() - 2 * n_questions;
    assert!(twice <= 4 * 50, "{twice} questions were asked twice");
}

#[test]
fn what_cannot_work_is_reported_before_any_request() {
    let scratch = built(4);
    let server = Server::start(Duration::ZERO);
    let said = scratch.fail(&args(&server, &["--styles", "plian"]), 2);
    assert!(said.err.contains("did you mean `plain`?"), "{}", said.err);
    let said = scratch.fail(&["rephrase", "validate"], 2);
    assert!(said.err.contains("run moe-data rephrase first"), "{}", said.err);
    let said = scratch.fail(&["rephrase"], 2);
    assert!(said.err.contains("--base-url"), "{}", said.err);
    let said = scratch.fail(&args(&server, &["--out", "nowhere"]), 2);
    assert!(said.err.contains("is not a finished build"), "{}", said.err);
    assert_eq!(server.asked(), 0);
}

#[test]
fn a_flipped_byte_of_the_completions_is_noticed() {
    let scratch = built(8);
    let server = Server::start(Duration::ZERO);
    scratch.ok(&args(&server, &[]));
    drop(server);
    assert!(!scratch.ok(&["verify", "out"]).err.contains("warning"));
    let recipe =
        format!("{RECIPE}[rephrase]\nfrom = \"out/rephrase\"\nstyles = [\"wikipedia\", \"plain\"]\n");
    scratch.write("with.toml", recipe);
    let flip = |name: &str, from_end: usize| {
        let path = scratch.path(&format!("out/rephrase/{name}"));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    for name in ["accepted-a.jsonl", "rejected.jsonl", "ledger.json", "settings.json"] {
        flip(name, 20);
        assert!(scratch.fail(&["verify", "out"], 1).err.contains(name), "{name}");
        if name.starts_with("accepted") {
            let said = scratch.fail(&["build", "--recipe", "with.toml", "--out", "other"], 3);
            assert!(said.err.contains("accepted-a.jsonl: was changed"), "{}", said.err);
        }
        flip(name, 20);
    }
    // The last line of the segment too, which no line follows.
    for from_end in [10, 2000] {
        flip("cache/completions-00000.jsonl", from_end);
        let said = scratch.fail(&["verify", "out"], 1);
        assert!(said.err.contains("completions-00000.jsonl: the line at byte"), "{}", said.err);
        assert!(scratch.fail(&["verify", "out/rephrase/cache"], 1).err.contains("the line at byte"));
        let said = scratch.ok(&["rephrase", "validate"]);
        assert!(said.err.contains("1 lines are not as they were written"), "{}", said.err);
        flip("cache/completions-00000.jsonl", from_end);
    }
    scratch.ok(&["rephrase", "validate"]);
    scratch.ok(&["verify", "out"]);
    scratch.ok(&["build", "--recipe", "with.toml", "--out", "other"]);
    scratch.write("out/rephrase/accepted-papers.jsonl", "{\"a list\": \"of mine\"}\n");
    scratch.ok(&["rephrase", "validate"]);
    assert!(scratch.path("out/rephrase/accepted-papers.jsonl").exists());
}
