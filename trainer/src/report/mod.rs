//! `moe-train report`: a page about one run, or several side by side, from their files. It reads
//! `metrics.jsonl`, whose keys docs/metrics.md defines, and the configuration; it needs no device and no
//! shards.

mod curves;
pub mod log;
mod routers;

use maud::{Markup, html};
use moe_report::{Cell, Figure, Page, Section, Table, number, settings};
use serde_json::{Value, json};

use self::log::{AlarmLine, RunLog};

/// Maximum number of a run's alarms on its page.
const MOST_ALARMS: usize = 50;

/// A page and the figures in it.
#[derive(Debug)]
pub struct Report {
    /// The page.
    pub page: Page,
    /// All of its figures.
    pub figures: Vec<Figure>,
}

impl Report {
    /// The numbers of all figures.
    pub fn json(&self) -> Value {
        json!({
            "title": self.page.title,
            "facts": self.page.facts.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        })
    }
}

/// Makes the page. The other runs are compared with the first.
///
/// # Panics
/// Without a run.
pub fn report(runs: &[RunLog], generator: &str) -> Report {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut parts: Vec<(&str, &str, Vec<Figure>)> = Vec::new();
    let mut losses = curves::losses(runs);
    if runs.len() > 1 {
        let at = losses.len().min(1);
        losses.splice(at..at, curves::differences(runs));
    }
    parts.push(("loss", "Loss", losses));
    parts.push(("parts", "Loss by source, pass and variant", curves::parts(runs)));
    let mut routing = routers::measures(runs);
    routing.extend(routers::loads(runs));
    routing.extend(routers::groups(runs));
    routing.extend(routers::capacities(runs));
    parts.push(("routing", "Routing", routing));
    parts.push(("optimization", "Optimization", curves::scalars(runs, &curves::OPTIMIZATION)));
    parts.push(("speed", "Speed", curves::scalars(runs, &curves::SPEED)));

    let mut sections = Vec::new();
    let mut figures = Vec::new();
    if runs.len() > 1 {
        sections.push(Section::new("runs", "Runs", comparison(runs).html()));
    }
    if runs.iter().any(|run| !run.alarms.is_empty()) {
        sections.push(Section::new("alarms", "Alarms", alarms(runs)));
    }
    for (id, title, drawn) in parts {
        if drawn.is_empty() {
            continue;
        }
        sections.push(Section::new(&format!("section-{id}"), title, in_columns(&drawn)));
        figures.extend(drawn);
    }
    sections.push(Section::new("configuration", "Configuration", configuration(runs)));
    let title = match names.as_slice() {
        [name] => format!("Run {name}"),
        _ => format!("Runs {}", names.join(", ")),
    };
    let page = Page {
        title,
        subtitle: subtitle(runs),
        facts: facts(runs),
        sections,
        generator: generator.to_owned(),
    };
    Report { page, figures }
}

/// The last alarms of each run.
fn alarms(runs: &[RunLog]) -> Markup {
    let mut table = Table::new(["run", "step", "alarm", "message"]);
    for run in runs {
        for alarm in run.alarms.iter().rev().take(MOST_ALARMS) {
            let AlarmLine { step, kind, message } = alarm;
            table.push([
                run.name.as_str().into(),
                (*step).into(),
                kind.as_str().into(),
                message.as_str().into(),
            ]);
        }
    }
    let n: usize = runs.iter().map(|run| run.alarms.len()).sum();
    html! {
        @if n > table.rows.len() { p { "The last " (table.rows.len()) " of " (number::count(n as u64)) "." } }
        (table.html())
    }
}

/// The first figure in full width, the others in columns.
fn in_columns(figures: &[Figure]) -> Markup {
    let (first, rest) = figures.split_at(figures.len().min(1));
    html! {
        @for figure in first { (figure.html()) }
        div class="grid2" { @for figure in rest { (figure.html()) } }
    }
}

fn subtitle(runs: &[RunLog]) -> String {
    match runs {
        [run] => format!("after {} steps", number::count(run.last_step() as u64)),
        _ => format!("compared with {}", runs[0].name),
    }
}

/// Key facts of a single run.
fn facts(runs: &[RunLog]) -> Vec<(String, String)> {
    let [run] = runs else { return Vec::new() };
    let measured = measured(run).into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    measured.chain(run.facts.iter().cloned()).collect()
}

/// Measurements at the end of a run.
fn measured(run: &RunLog) -> [(&'static str, Option<String>); 6] {
    let seconds = run.seconds().and_then(|seconds| seconds.last().copied());
    [
        ("validation loss", run.validation.last("validation/ce").map(number::digits)),
        ("bits per byte", run.validation.last("validation/bpb").map(number::digits)),
        ("training loss", run.train.last("train/ce").map(number::digits)),
        ("targets learned from", run.train.last("data/tokens_seen").map(number::short)),
        ("training time", seconds.map(duration)),
        ("tokens per second", run.train.last("perf/tokens_per_s").map(number::short)),
    ]
}

/// A row for each run.
fn comparison(runs: &[RunLog]) -> Table {
    let columns = ["run", "steps"].map(str::to_owned).into_iter();
    let names = measured(&runs[0]).map(|(name, _)| name.to_owned());
    let facts: Vec<&String> = runs[0].facts.iter().map(|(name, _)| name).collect();
    let columns = columns.chain(names).chain(facts.iter().map(|name| (*name).clone()));
    let mut table = Table { columns: columns.collect(), rows: Vec::new() };
    for run in runs {
        let fact = |name: &String| run.facts.iter().find(|fact| fact.0 == *name).map(|fact| fact.1.clone());
        let cell = |value: Option<String>| value.map_or(Cell::Empty, Cell::Text);
        let first = [Cell::Text(run.name.clone()), Cell::Count(run.last_step() as u64)].into_iter();
        let measured = measured(run).into_iter().map(|(_, value)| cell(value));
        table.rows.push(first.chain(measured).chain(facts.iter().map(|name| cell(fact(name)))).collect());
    }
    table
}

/// Keys that differ between runs, then all keys.
fn configuration(runs: &[RunLog]) -> Markup {
    let named: Vec<_> = runs.iter().map(|run| (run.name.as_str(), &run.config)).collect();
    settings::side_by_side(&named)
}

/// A time in human-readable form: `1 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, losses: &[f64]) -> RunLog {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut text = String::new();
        for (i, loss) in losses.iter().enumerate() {
            let step = (i + 1) * 10;
            text.push_str(&format!(
                "{{\"step\":{step},\"train/ce\":{loss},\"data/tokens_seen\":{},\"data/t\":{},\"perf/tokens_per_s\":100.0,\"router/1/load\":[0.5,0.5],\
                 \"router/1/maxvio\":0.1,\"router/1/source/a/load\":[1.0,0.0],\"router/1/source/b/load\":[0.0,1.0],\"train/source/<b>/ce\":{loss},\"train/source/b/ce\":{loss}}}\n\
                 {{\"step\":{step},\"validation/ce\":{loss}}}\n",
                step * 50,
                step * 2
            ));
        }
        std::fs::write(&path, text).unwrap();
        let mut run = RunLog::read(name, &path).unwrap();
        run.seq_len = Some(30.0);
        run.config = [("run.seed".to_owned(), name.to_owned()), ("same".to_owned(), "1".to_owned())].into();
        run
    }

    #[test]
    fn a_page_has_every_point_of_a_run_and_no_markup_of_its_names() {
        let report = report(&[run("<i>", &[5.0, 4.0, 3.0])], "test");
        let page = report.page.html();
        assert!(!page.contains("<i>") && !page.contains("<b>"), "{page}");
        let loss = report.figures.iter().find(|figure| figure.id == "loss").unwrap();
        assert_eq!(loss.table.rows.len(), 3);
        assert_eq!(loss.table.rows[2][1], Cell::Value(3.0));
        // 30 steps of two samples of 30 tokens at 100 tokens a second.
        assert!(
            report.page.facts.contains(&("training time".to_owned(), "18 s".to_owned())),
            "{:?}",
            report.page.facts
        );
        let load = report.figures.iter().find(|figure| figure.id == "load-1").unwrap();
        assert_eq!(load.table.rows.len(), 3);
        let sources = report.figures.iter().find(|figure| figure.id == "sources-1").unwrap();
        assert_eq!(sources.table.rows[1], [Cell::Text("b".to_owned()), Cell::Value(0.0), Cell::Value(1.0)]);
    }

    #[test]
    fn time_and_work_of_a_fork_are_its_own() {
        let mut fork = run("a", &[5.0, 4.0]);
        fork.first_sample = 10.0;
        // 30 more samples of 30 tokens at 100 tokens a second.
        assert_eq!(fork.seconds().unwrap(), [3.0, 9.0]);
        assert_eq!(fork.read_at(20.0), Some(900.0));
    }

    #[test]
    fn runs_are_compared_with_the_first_one() {
        let report = report(&[run("a", &[5.0, 4.0]), run("b", &[5.0, 3.5, 3.0])], "test");
        let difference = report.figures.iter().find(|figure| figure.id == "differences").unwrap();
        let rows: Vec<&[Cell]> = difference.table.rows.iter().map(Vec::as_slice).collect();
        assert_eq!(
            rows,
            [&[Cell::Value(10.0), Cell::Value(0.0)][..], &[Cell::Value(20.0), Cell::Value(-0.5)]]
        );
        let page = report.page.html();
        assert!(page.contains("run.seed"), "{page}");
    }
}
