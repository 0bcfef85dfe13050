//! `moe-data report --compare A B`: a page that compares two builds. Documents that changed their fate are found by
//! sorting both within a limit of memory ([`changes`]), so builds may be of any size.

use std::collections::BTreeMap;
use std::path::Path;

use maud::{Markup, html};
use moe_report::settings;
use moe_report::{Bar, Bars, Cell, Figure, Page, Section, Table, number};
use moe_shards::terminal::escape_line;
use moe_shards::{Manifest, PlanLock};

use super::{Report, recipe};
use crate::error::{Error, Result};
use crate::ledger::{Ledger, SourceLedger};
use crate::plans::diff::{Diff, diff};
use crate::provenance::changes::{Change, Changes, changes};
use crate::watch::Watch;

/// Changes with a bar; the table has all of them.
const MAX_BARS: usize = 40;
/// Documents to name for each change.
const N_EXAMPLES: usize = 5;

/// Makes the page of two output folders, A and B.
///
/// # Errors
/// One of them is not a finished build, or one of its files is damaged; a request to stop.
pub fn compare(folders: [&Path; 2], generator: &str, watch: &Watch) -> Result<Report> {
    if let Some(bad) = folders.iter().find(|out| !out.join(Manifest::FILE).exists()) {
        let message = "holds no finished build; name the output folders of two builds";
        return Err(Error::Usage(format!("{} {message}", bad.display())));
    }
    let [a, b] = folders;
    let ledgers = [Ledger::read(a)?, Ledger::read(b)?];
    let found = changes(a, b, N_EXAMPLES, watch)?;
    let names = folders.map(|out| out.display().to_string());
    let mut figures = Vec::new();
    let mut sections = vec![Section::new("totals", "Both builds", totals(&ledgers, &names).html())];
    if !found.changes.is_empty() {
        let figure = moved(&found);
        let body = html! { (figure.html()) (examples(&found.changes, b)) };
        sections.push(Section::new("changes", "Documents with a different fate", body));
        figures.push(figure);
    }
    if let Some(figure) = reasons(&ledgers) {
        let body = html! { (figure.html()) (by_reason(&ledgers, &names).html()) };
        sections.push(Section::new("reasons", "Dropped, by reason", body));
        figures.push(figure);
    }
    let (of_a, of_b) = (recipe(a)?, recipe(b)?);
    let named = [(names[0].as_str(), &of_a), (names[1].as_str(), &of_b)];
    sections.push(Section::new("recipes", "Recipes", settings::side_by_side(&named)));
    if folders.iter().all(|out| out.join(PlanLock::FILE).exists()) {
        sections.push(Section::new("plans", "Plans", plans(&diff(a, b, &watch.without_bar())?, &names)));
    }
    let n_changed: u64 = found.changes.iter().map(|change| change.documents).sum();
    let [id_a, id_b] = found.builds.map(|id| id.short());
    let facts = [
        ("documents of A".to_owned(), number::count(found.documents[0])),
        ("documents of B".to_owned(), number::count(found.documents[1])),
        ("same fate and text".to_owned(), number::count(found.unchanged)),
        ("different fate or text".to_owned(), number::count(n_changed)),
        ("data set A".to_owned(), id_a.to_string()),
        ("data set B".to_owned(), id_b.to_string()),
    ];
    let page = Page {
        title: format!("Builds {} and {}", escape_line(&names[0]), escape_line(&names[1])),
        subtitle: format!(
            "A is {}, B is {}: whose documents changed their fate, and why.",
            names[0], names[1]
        ),
        facts: facts.into(),
        sections,
        generator: generator.to_owned(),
    };
    Ok(Report { page, figures })
}

/// Documents by their fate in A and in B.
fn moved(found: &Changes) -> Figure {
    let class = |change: &Change| match (change.before.as_str(), change.after.as_str()) {
        (_, "kept") => "keep",
        ("kept", _) => "drop",
        _ => "f7",
    };
    let bar = |change: &Change| Bar {
        name: format!("{} → {}", change.before, change.after),
        start: 0.0,
        value: change.documents as f64,
        text: number::count(change.documents),
        class: class(change),
    };
    let bars = Bars {
        id: "changes-of-fate".to_owned(),
        title: "From A to B".to_owned(),
        note: "Documents are the same where source and name are. Absent ones were not read, or are in quarantine.".to_owned(),
        unit: "documents".to_owned(),
        bars: found.changes.iter().take(MAX_BARS).map(bar).collect(),
    };
    bars.figure()
}

fn examples(changes: &[Change], b: &Path) -> Markup {
    let mut table = Table::new(["in A", "in B", "documents", "some of them"]);
    for change in changes {
        let names: Vec<String> = change.examples.iter().map(|name| escape_line(name).into_owned()).collect();
        table.push([
            change.before.as_str().into(),
            change.after.as_str().into(),
            change.documents.into(),
            names.join(", ").into(),
        ]);
    }
    html! {
        (table.html())
        p { code { "moe-data why NAME --out " (b.display()) } " shows the history of any of them." }
    }
}

/// Sums over the sources.
fn sum(ledger: &Ledger) -> SourceLedger {
    let mut all = SourceLedger::default();
    for source in ledger.sources.values() {
        all.read += source.read;
        all.kept.docs += source.kept.docs;
        all.kept.bytes += source.kept.bytes;
        all.kept.tokens += source.kept.tokens;
        SourceLedger::add(&mut all.dropped, &source.dropped);
        SourceLedger::add(&mut all.cut, &source.cut);
        SourceLedger::add(&mut all.quarantined, &source.quarantined);
    }
    all
}

fn totals(ledgers: &[Ledger; 2], names: &[String; 2]) -> Table {
    let [a, b] = ledgers.each_ref().map(sum);
    let docs = |counts: &BTreeMap<String, crate::document::Count>| {
        counts.values().map(|count| count.docs).sum::<u64>()
    };
    let rows = [
        ("documents read", a.read.docs, b.read.docs),
        ("documents kept", a.kept.docs, b.kept.docs),
        ("documents dropped", docs(&a.dropped), docs(&b.dropped)),
        ("records in quarantine", docs(&a.quarantined), docs(&b.quarantined)),
        ("bytes read", a.read.bytes, b.read.bytes),
        ("bytes kept", a.kept.bytes, b.kept.bytes),
        ("tokens", a.kept.tokens, b.kept.tokens),
    ];
    let mut table = with_both("", names);
    for (name, a, b) in rows {
        table.rows.push(vec![name.into(), a.into(), b.into(), difference(a, b)]);
    }
    table
}

fn with_both(first: &str, names: &[String; 2]) -> Table {
    Table::new([first, &format!("A: {}", names[0]), &format!("B: {}", names[1]), "B minus A"])
}

fn difference(a: u64, b: u64) -> Cell {
    let (sign, n) = match b.cmp(&a) {
        std::cmp::Ordering::Equal => ("", 0),
        std::cmp::Ordering::Greater => ("+", b - a),
        std::cmp::Ordering::Less => ("-", a - b),
    };
    Cell::Text(format!("{sign}{}", number::count(n)))
}

/// Documents of each reason in both, by the greater number.
fn dropped(ledgers: &[Ledger; 2]) -> Vec<(String, [u64; 2])> {
    let mut by_reason: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (side, ledger) in ledgers.iter().enumerate() {
        for (reason, count) in sum(ledger).dropped {
            by_reason.entry(reason).or_default()[side] = count.docs;
        }
    }
    let mut found: Vec<(String, [u64; 2])> = by_reason.into_iter().collect();
    found.sort_by_key(|(_, both)| std::cmp::Reverse(both[0].max(both[1])));
    found
}

fn reasons(ledgers: &[Ledger; 2]) -> Option<Figure> {
    let bars = dropped(ledgers).into_iter().flat_map(|(reason, both)| {
        [("A", both[0], "f0"), ("B", both[1], "f1")].map(|(side, n, class)| Bar {
            name: format!("{reason}, {side}"),
            start: 0.0,
            value: n as f64,
            text: number::count(n),
            class,
        })
    });
    let bars = Bars {
        id: "reasons".to_owned(),
        title: "Dropped documents of both".to_owned(),
        unit: "documents".to_owned(),
        bars: bars.collect(),
        ..Bars::default()
    };
    (!bars.bars.is_empty()).then(|| bars.figure())
}

fn by_reason(ledgers: &[Ledger; 2], names: &[String; 2]) -> Table {
    let mut table = with_both("reason", names);
    for (reason, [a, b]) in dropped(ledgers) {
        table.rows.push(vec![reason.into(), a.into(), b.into(), difference(a, b)]);
    }
    table
}

fn plans(diff: &Diff, names: &[String; 2]) -> Markup {
    let mut table = Table::new(["key", &format!("A: {}", names[0]), &format!("B: {}", names[1])]);
    let cell = |value: &Option<String>| value.as_deref().map_or(Cell::Empty, Cell::from);
    for change in &diff.changes {
        table.push([change.key.as_str().into(), cell(&change.a), cell(&change.b)]);
    }
    html! {
        @if diff.plans[0] == diff.plans[1] { p { "Both are plan " (diff.plans[0].short()) "." } }
        @else {
            p {
                @match diff.first_difference {
                    Some(t) => { "The first sample that differs is " (number::count(t)) ". " },
                    None => { "No sample of the shorter plan differs. " },
                }
                (number::percent(diff.equal as f64, diff.compared as f64)) " of " (number::count(diff.compared)) " samples that were compared are equal."
            }
            (table.html())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Count;

    fn ledger(dropped: &[(&str, u64)]) -> Ledger {
        let count = |docs| Count { docs, bytes: 10 * docs };
        let source = SourceLedger {
            read: count(10),
            dropped: dropped.iter().map(|(reason, n)| ((*reason).to_owned(), count(*n))).collect(),
            ..SourceLedger::default()
        };
        Ledger { sources: [("a".to_owned(), source)].into(), ..Ledger::default() }
    }

    #[test]
    fn reasons_of_both_stand_next_to_each_other() {
        let ledgers = [ledger(&[("x", 3), ("y", 1)]), ledger(&[("y", 5)])];
        assert_eq!(dropped(&ledgers), [("y".to_owned(), [1, 5]), ("x".to_owned(), [3, 0])]);
        let table = by_reason(&ledgers, &["<a>".to_owned(), "b".to_owned()]);
        assert_eq!(table.rows[0][3], Cell::Text("+4".to_owned()));
        assert_eq!(table.rows[1][3], Cell::Text("-3".to_owned()));
        assert!(!table.html().into_string().contains("<a>"));
        assert_eq!(reasons(&ledgers).unwrap().table.rows.len(), 4);
        assert!(reasons(&[ledger(&[]), ledger(&[])]).is_none());
    }
}
