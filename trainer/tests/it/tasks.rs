use std::fs;

use moe_shards::Hash;
use moe_train::model::{Input, Model};
use moe_train::tasks::encode::Request;
use moe_train::tasks::score::{Reading, Score, score};
use serde_json::Value;

use crate::program::{World, json, stderr};
use crate::support::*;

/// A model's score of the last `n` tokens of a text, read as a separate sample.
fn by_hand(model: &Model, tokens: &[u32], n: usize) -> Score {
    let len = tokens.len() - 1;
    let positions: Vec<u32> = (0..len as u32).collect();
    let input = Input::new(&tokens[..len], &positions, &vec![0; len], [1, len], &autodiff());
    let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
    let logits = host(hidden.matmul(model.head()));
    let mut score = Score { n_tokens: n, ..Score::default() };
    for place in len - n..len {
        let row: Vec<f64> =
            logits[place * VOCAB..(place + 1) * VOCAB].iter().map(|&x| f64::from(x)).collect();
        let target = row[tokens[place + 1] as usize];
        score.log_likelihood += target - row.iter().map(|x| x.exp()).sum::<f64>().ln();
        score.n_missed += usize::from(row.iter().any(|&x| x > target));
    }
    score
}

#[test]
fn scores_are_sums_of_log_probabilities_regardless_of_what_else_is_read() {
    let model = Model::new(&tiny_model(), 3, &autodiff());
    let request = |context: &[u32], continuation: &[u32]| Request {
        context: context.to_vec(),
        continuation: continuation.to_vec(),
    };
    // Two of one length, two that read the same tokens, and two that are longer than the model reads.
    let requests = [
        request(&[1, 2, 3], &[4, 5]),
        request(&[7, 7], &[8]),
        request(&[6], &[5, 4, 3]),
        request(&[7, 7], &[9]),
        request(&[1, 2, 3, 4, 5, 6], &[7, 8, 9]),
        request(&[1], &[2, 3, 4, 5, 6, 7, 8, 9]),
    ];
    let whole = |tokens: &[u32], n| by_hand(&model, tokens, n);
    let first = whole(&[1, 2, 3, 4, 5, 6], 5);
    let second = whole(&[4, 5, 6, 7, 8, 9], 3);
    let expected = [
        whole(&[1, 2, 3, 4, 5], 2),
        whole(&[7, 7, 8], 1),
        whole(&[6, 5, 4, 3], 3),
        whole(&[7, 7, 9], 1),
        whole(&[4, 5, 6, 7, 8, 9], 3),
        Score {
            log_likelihood: first.log_likelihood + second.log_likelihood,
            n_tokens: 8,
            n_missed: first.n_missed + second.n_missed,
        },
    ];
    for pass_tokens in [1, 8, 1000] {
        let found =
            score(&model, &requests, Reading { longest: 5, pass_tokens, ranks: true }).expect("scores");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found.log_likelihood - expected.log_likelihood).abs() < 1e-5, "{found:?} {expected:?}");
            assert_eq!((found.n_tokens, found.n_missed), (expected.n_tokens, expected.n_missed));
        }
    }
}

/// Questions about the next words, some of which a run of `World` learns.
fn write_tasks(world: &World) {
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let word = |i: usize| words[i % 8];
    let text = |from: usize, n: usize| (from..from + n).map(word).collect::<Vec<_>>().join(" ");
    let records: Vec<String> = (0..12)
        .map(|i| {
            let prompt = match i {
                0 => "h g f e d c b a".to_string(),
                i => text(i, 4 + i),
            };
            let right = word(2 * i + 4);
            let wrong = word(2 * i + 6);
            serde_json::json!({ "q": prompt, "c": [wrong, right], "a": 1, "s": i % 2, "t": text(i, 40) })
                .to_string()
        })
        .collect();
    fs::write(world.path("words.jsonl"), records.join("\n")).expect("write");
    let choice = "kind = \"choice\"\ndata = \"words.jsonl\"\nprompt = \"{{q}}\"\nchoices = \"c\"\nanswer = \"a\"\nby = \"s\"\n";
    fs::write(world.path("next.toml"), choice).expect("write");
    let text = "kind = \"perplexity\"\nname = \"whole\"\ndata = \"words.jsonl\"\ntext = \"{{t}}\"\n";
    fs::write(world.path("text.toml"), text).expect("write");
}

#[test]
fn tasks_are_answered_counted_and_written_down() {
    let world = World::new();
    write_tasks(&world);
    json(&world.train("r", &[]));
    let tasks = ["eval", "r", "--tasks", "next.toml", "text.toml", "lambada=long.jsonl"];
    fs::write(world.path("long.jsonl"), "{\"text\": \"a b c d e f\"}\n{\"text\": \"c d e g h\"}\n")
        .expect("write");
    let found = json(&world.run(&[&tasks[..], &["--answers", "answers.jsonl", "--json"]].concat()));
    let next = &found["tasks"]["next"];
    assert_eq!((next["questions"].as_u64(), next["kind"].as_str()), (Some(12), Some("choice")));
    assert_eq!(next["groups"]["0"]["questions"], 6);
    let answers = fs::read_to_string(world.path("answers.jsonl")).expect("answers");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 12 + 12 + 2);
    let chosen = answers.iter().filter(|answer| answer["task"] == "next" && answer["chosen"] == 1).count();
    assert_eq!(next["acc"].as_f64(), Some(chosen as f64 / 12.0));
    assert!(chosen > 8, "{next}");
    let nats: f64 =
        answers[12..24].iter().map(|a| -a["log_likelihoods"][0].as_f64().expect("a number")).sum();
    let bits = nats / (12.0 * 79.0) / std::f64::consts::LN_2;
    assert!((found["tasks"]["whole"]["bits_per_byte"].as_f64().expect("bits") - bits).abs() < 1e-12);
    assert_eq!(found["tasks"]["lambada"]["questions"], 2);

    // Neither the size of a pass nor other questions change a bit.
    let alone = [&tasks[..4], &["--pass-tokens", "1", "--answers", "alone.jsonl", "--json"]].concat();
    let alone = json(&world.run(&alone));
    assert_eq!(alone["tasks"]["next"], *next);
    let alone = fs::read(world.path("alone.jsonl")).expect("answers");
    assert_eq!(fs::read(world.path("answers.jsonl")).expect("answers")[..alone.len()], alone);

    let table = world.run(&[&tasks[..4], &["--shots", "2", "--limit", "3"]].concat());
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.contains("next          3  acc            0."), "{table}");
    assert_eq!(table.lines().count(), 1 + 6 + 2 * 6, "{table}");
}

#[test]
fn questions_in_the_shards_are_named_and_left_out() {
    let world = World::new();
    write_tasks(&world);
    json(&world.train("r", &["--steps", "3"]));
    let args = ["eval", "r", "--tasks", "next.toml", "--shards", "out"];
    let found = json(&world.run(&[&args[..], &["--json"]].concat()));
    let overlap = &found["tasks"]["next"]["overlap"];
    let named: Vec<u64> = overlap["found"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| {
            assert!(
                entry["document"].as_str().expect("a name").starts_with("words-v0-00000/doc-"),
                "{entry}"
            );
            entry["question"].as_u64()
        })
        .collect();
    // No document runs backwards; many run forwards.
    assert!(!named.contains(&0) && named.contains(&1), "{overlap}");
    assert_eq!(overlap["rest"]["questions"].as_u64(), Some(12 - named.len() as u64));
    let told = world.run(&args);
    assert!(stderr(&told).contains("of 12 questions are in the shards"), "{}", stderr(&told));
    assert!(String::from_utf8_lossy(&told.stdout).contains("not in the shards"), "{told:?}");
}

#[test]
fn invalid_tasks_are_refused_with_file_and_line() {
    let world = World::new();
    write_tasks(&world);
    json(&world.train("r", &["--steps", "1"]));
    fs::write(world.path("bad.jsonl"), "{\"query\": \"x\", \"choices\": [\"a\", \"b\"]}\n").expect("write");
    let cases: [(&[&str], i32, &str); 10] = [
        (&["arc_easi=bad.jsonl"], 2, "did you mean arc_easy?"),
        (&["arc_easy=bad.jsonl"], 3, "bad.jsonl, line 1: no field `gold`; available: choices, query"),
        (&["arc_easy=no.jsonl"], 3, "no.jsonl: no such file"),
        (&["arc_easy"], 2, "`data` is missing"),
        (&["no.toml"], 2, "cannot read no.toml"),
        (&["next.toml", "next.toml"], 2, "another task is called \"next\""),
        (&["next.toml", "--shots", "40"], 2, "40 examples are requested, but there are only 12"),
        (&["next.toml", "--shots", "18446744073709551615"], 2, "--shots"),
        (&["empty.toml"], 2, "empty.toml: `data` is an empty list"),
        // Missing parts of the shards are reported before the first question.
        (&["next.toml", "--shards", "no", "--answers", "answers.jsonl"], 3, "no"),
    ];
    let empty = "kind = \"perplexity\"\ndata = []\ntext = \"{{t}}\"\n";
    fs::write(world.path("empty.toml"), empty).expect("write");
    for (tasks, code, expected) in cases {
        let output = world.run(&[&["eval", "r", "--tasks"], tasks].concat());
        let said = stderr(&output);
        assert!(said.contains(expected) && !said.contains("panicked"), "{tasks:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{tasks:?}: {said}");
        assert!(!said.contains("answered in"), "{tasks:?}: {said}");
    }
    assert_eq!(world.run(&["eval", "r"]).status.code(), Some(2));
    // A run checks its tasks before its folder is created.
    let output = world.train("s", &["--set", "run.eval_tasks=[\"arc_easy=no.jsonl\"]"]);
    assert!(stderr(&output).contains("run.eval_tasks: no.jsonl: no such file"), "{}", stderr(&output));
    assert!(!world.path("s").exists());
}

#[test]
fn a_run_answers_tasks_on_its_way_and_a_resumed_one_the_same() {
    let world = World::new();
    write_tasks(&world);
    let plain = json(&world.train("plain", &["--steps", "12"]));
    let tasks =
        ["--set", "run.eval_tasks=[\"next.toml\"]", "--set", "run.eval_tasks_every=5", "--steps", "12"];
    let straight = json(&world.train("straight", &tasks));
    assert_eq!(straight["parameter_hash"], plain["parameter_hash"]);
    json(&world.train("halted", &[&tasks[..], &["--stop-after", "7"]].concat()));
    json(&world.run(&["resume", "halted", "--json"]));
    let lines = |run: &str| -> Vec<Value> {
        let text = fs::read_to_string(world.path(run).join("metrics.jsonl")).expect("metrics");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &Value| line.get("task/next/acc").is_some()).collect()
    };
    let steps: Vec<_> = lines("straight").iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [5, 10, 12]);
    assert_eq!(lines("straight"), lines("halted"));
    let last = &lines("straight")[2];
    let found = json(&world.run(&["eval", "straight", "--tasks", "next.toml", "--json"]));
    assert_eq!(found["tasks"]["next"]["bits_per_byte"], last["task/next/bits_per_byte"]);
    assert_eq!(found["tasks"]["next"]["groups"]["1"]["acc"], last["task/next/1/acc"]);
    // An empty list turns off what a file turns on.
    let off = ["--set", "run.eval_tasks=[]", "--set", "run.eval_tasks_every=5", "--steps", "2"];
    json(&world.train("off", &off));
    assert!(lines("off").is_empty());
    let refused = world.train("x", &["--set", "run.eval_tasks_every=5"]);
    assert!(stderr(&refused).contains("no effect without run.eval_tasks"), "{}", stderr(&refused));
}

#[test]
fn numbers_are_those_of_lm_eval() {
    let world = World::new();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let golden: Value =
        serde_json::from_slice(&fs::read(data.join("tasks/lm-eval.json")).expect("golden")).expect("JSON");
    let checkpoint = data.join("checkpoint-v1");
    let mut args = vec!["eval".to_string(), checkpoint.to_str().expect("text").into(), "--tasks".into()];
    let names: Vec<&String> = golden["tasks"].as_object().expect("tasks").keys().collect();
    args.extend(
        names.iter().map(|name| data.join(format!("tasks/{name}.toml")).to_string_lossy().into_owned()),
    );
    args.extend(["--answers", "answers.jsonl", "--json"].map(str::to_string));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = json(&world.run(&args));
    let answers = fs::read_to_string(world.path("answers.jsonl")).expect("answers");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for name in names {
        let of_lm_eval = &golden["tasks"][name];
        for (metric, value) in of_lm_eval["metrics"].as_object().expect("metrics") {
            let (ours, theirs) = (found["tasks"][name][metric].as_f64(), value.as_f64().expect("a number"));
            let ours = ours.unwrap_or_else(|| panic!("{name} has no {metric}"));
            assert!(
                (ours - theirs).abs() <= 1e-4 * theirs.abs(),
                "{name} {metric}: {ours}, and {theirs} of lm-eval"
            );
        }
        let own: Vec<&Value> = answers.iter().filter(|answer| answer["task"] == **name).collect();
        let theirs = of_lm_eval["log_likelihoods"].as_array().expect("likelihoods");
        assert_eq!(own.len(), theirs.len());
        for (ours, theirs) in own.into_iter().zip(theirs) {
            let (ours, theirs) = (ours["log_likelihoods"].as_array(), theirs.as_array());
            for (ours, theirs) in ours.expect("numbers").iter().zip(theirs.expect("numbers")) {
                let (ours, theirs) = (ours.as_f64().expect("a number"), theirs.as_f64().expect("a number"));
                assert!((ours - theirs).abs() < 1e-4, "{name}: {ours}, and {theirs} of lm-eval");
            }
        }
    }
    // The committed model is the one that lm-eval evaluated.
    let model = Hash::of_file(&checkpoint.join("model.safetensors")).expect("a file");
    assert_eq!(golden["model_blake3"], model.to_string());
}
