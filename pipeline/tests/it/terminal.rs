//! Output to the terminal, and the position of flags.

use serde_json::{Value, json};

use crate::support::{Scratch, small_recipe, text};

/// Clears the screen, sets a title, moves back, reverses the direction of writing, and is invisible.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{8}\u{7f}\u{202e}b\u{2066}\u{200b}\u{feff}c\r";

fn assert_harmless(said: &str) {
    let hidden = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    assert!(!said.contains(hidden), "{said:?}");
}

#[test]
fn control_sequences_of_names_and_texts_do_not_reach_the_terminal() {
    let scratch = Scratch::new();
    let record = |id: &str, text: &str| format!("{}\n", json!({ "id": id, "text": text }));
    let line_end = "first\nsecond: kept";
    let lines: String = [
        record(HOSTILE, &format!("{} {HOSTILE}", text(1))),
        record(&format!("{HOSTILE}2"), &format!("{} {HOSTILE}", text(1))),
        record("short", HOSTILE),
        record(line_end, &text(2)),
        (3..20).map(|n| record(&format!("d{n}"), &text(n))).collect(),
    ]
    .concat();
    scratch.write(&format!("in/{}.jsonl", HOSTILE.replace('/', "")), lines);
    scratch.write("r.toml", small_recipe("\"in/\"", "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.write("m.toml", "[mix]\nseq_len = 128\nepochs = 1\nholdout = 0.0\n");
    let commands: &[&[&str]] = &[
        &["build", "--recipe", "r.toml", "-v"],
        &["mix", "--mixture", "m.toml"],
        &["why", HOSTILE],
        &["why", line_end],
        &["where", HOSTILE],
        &["dups"],
        &["explain", "0", "--full"],
        &["inspect", "out"],
    ];
    for command in commands {
        let said = scratch.ok(command);
        assert_harmless(&said.out);
        assert_harmless(&said.err);
    }
    let said = scratch.ok(&["why", HOSTILE]).out;
    assert!(said.contains(r"a\u001b[2J\u001b]0;x\u0007\u009b31m\u0008\u007f\u202eb"), "{said}");
    // A name does not begin a new line.
    assert!(scratch.ok(&["why", line_end]).out.starts_with("a/first\\u000asecond: kept: kept\n"));
    // JSON says the same in its own escapes.
    let said = scratch.ok(&["why", HOSTILE, "--json"]).out;
    assert_harmless(&said);
    let value: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(value["documents"][0]["document"]["id"], HOSTILE);
    for wrong in
        [&["why", "no\u{1b}[2J"][..], &["inspect", "no\u{1b}[2J"], &["build", "--recipe", "no\u{1b}[2J"]]
    {
        assert_harmless(&scratch.fail(wrong, 2).err);
    }
    let said = scratch.run(&["no\u{1b}[2J"]);
    assert_eq!(said.code, Some(2));
    assert_harmless(&said.err);
}

#[test]
fn global_flags_may_be_anywhere() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", (0..20).map(crate::support::line).collect::<String>());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    for args in [
        &["-q", "build", "--recipe", "r.toml", "--fresh"][..],
        &["build", "--recipe", "r.toml", "--fresh", "--quiet"],
        &["build", "-q", "--recipe", "r.toml", "--fresh"],
    ] {
        let said = scratch.ok(args);
        assert_eq!(said.err, "", "{args:?}");
    }
    for args in [
        &["-q", "rephrase", "validate"][..],
        &["rephrase", "-q", "validate"],
        &["rephrase", "validate", "-q"],
        &["-v", "tokenizer", "check", "out/tokenizer.json"],
        &["tokenizer", "-v", "check", "out/tokenizer.json"],
        &["tokenizer", "check", "out/tokenizer.json", "--verbose"],
    ] {
        // There is nothing to validate, but the flag is not what is wrong.
        let said = scratch.run(args);
        assert!(!said.err.contains("cannot be used with"), "{args:?}: {}", said.err);
    }
    let said = scratch.run(&["-q", "build", "-v"]);
    assert!(said.code == Some(2) && said.err.contains("cannot be used with"), "{}", said.err);
}
