//! Where records went: read, dropped by reason, quarantined, kept.

use std::collections::BTreeMap;

use moe_report::{Bar, Bars, Table, number};

use super::Part;
use crate::document::Count;
use crate::ledger::{Ledger, SourceLedger};

pub(super) fn part(ledger: &Ledger) -> Part {
    let mut figures = Vec::new();
    let mut all = SourceLedger::default();
    for source in ledger.sources.values() {
        all.read += source.read;
        all.kept.docs += source.kept.docs;
        all.kept.bytes += source.kept.bytes;
        SourceLedger::add(&mut all.dropped, &source.dropped);
        SourceLedger::add(&mut all.cut, &source.cut);
        SourceLedger::add(&mut all.quarantined, &source.quarantined);
    }
    let mut of_documents = funnel(&all, |count| count.docs, all.kept.docs, "documents");
    of_documents.id = "funnel-documents".to_owned();
    of_documents.title = "Documents".to_owned();
    of_documents.note = "Each bar starts where the one above ends.".to_owned();
    figures.push(of_documents.figure());
    let mut of_bytes = funnel(&all, |count| count.bytes, all.kept.bytes, "bytes of text");
    of_bytes.id = "funnel-bytes".to_owned();
    of_bytes.title = "Bytes of text".to_owned();
    of_bytes.note = "Cuts take text out of documents that stay.".to_owned();
    figures.push(of_bytes.figure());
    let bars = ledger.sources.iter().map(|(name, source)| Bar {
        name: name.clone(),
        start: 0.0,
        value: source.kept.tokens as f64,
        text: format!("{} of {} documents", number::count(source.kept.docs), number::count(source.read.docs)),
        class: "f0",
    });
    let sources = Bars {
        id: "sources".to_owned(),
        title: "Tokens of each source".to_owned(),
        unit: "tokens".to_owned(),
        bars: bars.collect(),
        ..Bars::default()
    };
    if sources.bars.len() > 1 && sources.bars.iter().any(|bar| bar.value > 0.0) {
        figures.push(sources.figure());
    }
    let mut part = Part::new("flow", "From read to kept", "wide", figures);
    part.more = by_source(ledger).html();
    part
}

fn funnel(all: &SourceLedger, of: impl Fn(&Count) -> u64, kept: u64, unit: &str) -> Bars {
    let mut taken: Vec<(String, u64)> = Vec::new();
    let sorted = |counts: &BTreeMap<String, Count>, word: &str| {
        let mut named: Vec<(String, u64)> =
            counts.iter().map(|(name, count)| (format!("{word}{name}"), of(count))).collect();
        named.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        named
    };
    taken.extend(sorted(&all.quarantined, "quarantined: "));
    taken.extend(sorted(&all.dropped, ""));
    // A cut takes no document.
    if unit.starts_with("bytes") {
        taken.extend(sorted(&all.cut, "cut: "));
    }
    Bars::funnel(("read", of(&all.read)), &taken, ("kept", kept), unit)
}

/// Reasons by source, in documents.
fn by_source(ledger: &Ledger) -> Table {
    let mut reasons: Vec<&String> =
        ledger.sources.values().flat_map(|source| source.dropped.keys()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let first = ["source", "read", "kept", "quarantined"].map(str::to_owned).into_iter();
    let columns = first.chain(reasons.iter().map(|reason| (*reason).clone())).collect();
    let rows = ledger.sources.iter().map(|(name, source)| {
        let quarantined: u64 = source.quarantined.values().map(|count| count.docs).sum();
        let first =
            [name.as_str().into(), source.read.docs.into(), source.kept.docs.into(), quarantined.into()];
        let dropped =
            reasons.iter().map(|reason| source.dropped.get(*reason).map_or(0, |count| count.docs).into());
        first.into_iter().chain(dropped).collect()
    });
    Table { columns, rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_the_funnel_add_up_to_what_was_read() {
        let count = |docs, bytes| Count { docs, bytes };
        let source = SourceLedger {
            read: count(11, 110),
            quarantined: [("bad".to_owned(), count(1, 10))].into(),
            kept: crate::ledger::Kept { docs: 7, bytes: 55, tokens: 9 },
            dropped: [("a".to_owned(), count(1, 10)), ("b".to_owned(), count(2, 30))].into(),
            cut: [("c".to_owned(), count(3, 5))].into(),
            ..SourceLedger::default()
        };
        let docs = funnel(&source, |count| count.docs, 7, "documents");
        let names: Vec<&str> = docs.bars.iter().map(|bar| bar.name.as_str()).collect();
        assert_eq!(names, ["read", "quarantined: bad", "b", "a", "kept"]);
        assert_eq!(docs.bars[3].start, 7.0, "the last one hangs where the rest ends");
        let bytes = funnel(&source, |count| count.bytes, 55, "bytes of text");
        assert_eq!(bytes.bars[bytes.bars.len() - 2].start, 55.0);
    }
}
