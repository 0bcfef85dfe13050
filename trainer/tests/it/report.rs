use std::fs;

use crate::program::{World, json, stderr};

#[test]
fn a_report_shows_what_runs_have_measured_and_replaces_only_its_own_files() {
    let world = World::new();
    json(&world.train("runs/a", &["--stop-after", "12"]));
    assert!(world.run(&["report", "runs/a", "--tensorboard"]).status.success());
    // Pages in its folder do not stop a run from continuing.
    json(&world.run(&["resume", "runs/a", "--json"]));
    json(&world.train("runs/b", &["--set", "moe.top_k=1", "--set", "moe.router.norm_weights=false"]));
    let made = json(&world.run(&["report", "runs/a", "--figures", "figures", "--tensorboard", "--json"]));
    let figure = |report: &serde_json::Value, id: &str| {
        let figures = report["figures"].as_array().expect("figures");
        figures.iter().find(|figure| figure["id"] == id).unwrap_or_else(|| panic!("no figure {id}")).clone()
    };
    // A line for each of 24 steps, and two validations at some of them.
    assert_eq!(figure(&made, "loss-steps")["table"]["rows"].as_array().map(Vec::len), Some(24));
    let metrics = fs::read_to_string(world.path("runs/a/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert_eq!(figure(&made, "loss-steps")["table"]["rows"][0][1], first["train/ce"]);
    assert_eq!(figure(&made, "load-1")["table"]["rows"][0][1], first["router/1/load"][0]);
    // Work is tokens read times the operations that `inspect` counts.
    let inspected = json(&world.run(&["inspect", "runs/a", "--json"]));
    let (state, flops) = (&inspected["state"], inspected["flops_per_token"].as_f64().unwrap());
    let work = state["t"].as_f64().unwrap() * state["seq_len"].as_f64().unwrap() * flops;
    assert_eq!(figure(&made, "loss-flops")["table"]["rows"][23][0], work);

    let page = fs::read_to_string(world.path("runs/a/report.html")).unwrap();
    assert!(page.contains("id=\"loss\"") && !page.contains("<script"), "{page}");
    let svg = fs::read_to_string(world.path("figures/loss.svg")).unwrap();
    assert!(svg.contains("<svg xmlns"), "{svg}");
    let events = fs::read(world.path("runs/a/tensorboard/events.out.tfevents.0.moe")).unwrap();
    let has = |tag: &str| events.windows(tag.len()).any(|window| window == tag.as_bytes());
    assert!(has("train/ce") && has("validation/ce") && has("router/1/maxvio"));

    // Its own page is replaced, other files are not.
    assert!(world.run(&["report", "runs/a"]).status.success());
    fs::write(world.path("mine.html"), "<html>mine</html>").unwrap();
    let refused = world.run(&["report", "runs/a", "-o", "mine.html"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(world.path("mine.html")).unwrap(), "<html>mine</html>");
    let nothing = world.run(&["report", "figures"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", stderr(&nothing));

    let both = json(&world.run(&["report", "runs/a", "runs/b", "-o", "both.html", "--json"]));
    assert_eq!(figure(&both, "differences")["table"]["rows"].as_array().map(Vec::len), Some(2));
    assert!(fs::read_to_string(world.path("both.html")).unwrap().contains("moe.top_k"));
}

#[test]
fn a_run_is_watched_and_alarms_end_it_where_asked() {
    let world = World::new();
    // Every update is skipped from the sixth on, which is an alarm.
    let skip = ["optim.skip_sigma=0", "optim.skip_window=6", "run.steps=12"];
    let sets: Vec<&str> = skip.iter().flat_map(|assignment| ["--set", assignment]).collect();
    let failed = world.train("runs/a", &[&sets[..], &["--fail-on", "collapse,skipped"]].concat());
    assert_eq!(failed.status.code(), Some(6), "{}", stderr(&failed));
    assert!(stderr(&failed).contains("the alarm `skipped` ended the run"), "{}", stderr(&failed));
    let ended: serde_json::Value = serde_json::from_slice(&failed.stdout).expect("JSON");
    assert_eq!((&ended["alarm"], &ended["interrupted"]), (&"skipped".into(), &true.into()));
    let alarms = fs::read_to_string(world.path("runs/a/alarms.jsonl")).expect("alarms");
    let first: serde_json::Value =
        serde_json::from_str(alarms.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["alarm"], &first["step"]), (&"skipped".into(), &ended["step"]));

    let watch = |more: &[&str]| world.run(&[&["watch", "runs/a", "--once"][..], more].concat());
    let state = json(&watch(&["--json"]));
    assert_eq!((&state["status"], &state["steps"]), (&"not running".into(), &12.0.into()));
    assert_eq!(state["layers"][0]["load"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        (watch(&["--fail-on", "spike"]).status.code(), watch(&["--fail-on", "skipped"]).status.code()),
        (Some(0), Some(6))
    );
    // It still continues to its end.
    assert!(world.run(&["resume", "runs/a"]).status.success());
    let told = world.run(&["watch", "runs/a"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success() && text.contains("step 12/12") && text.contains("alarm skipped at step"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(world.run(&["watch", "out"]).status.code(), Some(2));
    assert!(world.run(&["report", "runs/a"]).status.success());
    assert!(fs::read_to_string(world.path("runs/a/report.html")).expect("page").contains("id=\"alarms\""));
}

#[test]
fn a_sweep_over_capacities_is_kept_for_the_page() {
    let world = World::new();
    json(&world.train("runs/a", &["--steps", "3"]));
    let sweep =
        ["eval", "runs/a", "--shards", "out", "--samples", "4", "--capacity", "0.5,1,inf", "--record"];
    assert!(world.run(&sweep).status.success());
    let made = json(&world.run(&["report", "runs/a", "--json"]));
    let figures = made["figures"].as_array().expect("figures");
    let dropped = figures.iter().find(|figure| figure["id"] == "capacity-dropped").expect("a figure");
    let rows = dropped["table"]["rows"].as_array().expect("rows");
    assert_eq!((rows.len(), rows[0][0].as_f64()), (2, Some(0.5)));
    assert!(rows[0][1].as_f64() > rows[1][1].as_f64(), "a smaller capacity drops more: {rows:?}");
    fs::write(world.path("runs/a/capacity.jsonl"), "mine\n").expect("write");
    let refused = world.run(&sweep);
    assert!(refused.status.code() == Some(3) && stderr(&refused).contains("line 1"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(world.path("runs/a/capacity.jsonl")).expect("read"), "mine\n");
}

#[test]
fn shells_and_manuals_know_every_verb() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let out = world.run(&["completions", shell]);
        let script = String::from_utf8(out.stdout).expect("text");
        assert!(["verify-resume", "watch", "fail-on"].iter().all(|word| script.contains(word)), "{shell}");
    }
    let page = |args: &[&str]| String::from_utf8(world.run(args).stdout).expect("text");
    assert!(page(&["man"]).contains(".TH moe-train 1"), "{}", page(&["man"]));
    assert!(page(&["man", "watch"]).contains("fail\\-on"));
    assert_eq!(world.run(&["man", "wacth"]).status.code(), Some(2));
}
