use std::fs;

use crate::program::{World, json, stderr};

#[test]
fn a_report_shows_what_runs_have_measured_and_replaces_only_its_own_files() {
    let world = World::new();
    json(&world.train("runs/a", &["--stop-after", "12"]));
    assert!(world.run(&["report", "runs/a", "--tensorboard"]).status.success());
    // Pages in its folder are not in the way of a run that goes on.
    json(&world.run(&["resume", "runs/a", "--json"]));
    json(&world.train("runs/b", &["--set", "moe.top_k=1", "--set", "moe.router.norm_weights=false"]));
    let made = json(&world.run(&["report", "runs/a", "--figures", "figures", "--tensorboard", "--json"]));
    let figure = |report: &serde_json::Value, id: &str| {
        let figures = report["figures"].as_array().expect("figures");
        figures.iter().find(|figure| figure["id"] == id).unwrap_or_else(|| panic!("no figure {id}")).clone()
    };
    // A line for each of 24 steps, and two validations at steps of those.
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

    // Its own page is replaced, and that of others is not.
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
