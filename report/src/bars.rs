//! Named amounts, one bar each: where records went, tokens of each source.

use maud::html;

use crate::figure::{Cell, Figure, Table, at, clipped};
use crate::number;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 170.0;
const ROW: f64 = 20.0;
/// Characters of a name that fit.
const MAX_NAME: usize = 38;

/// A bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Where it begins: bars of a funnel begin at the end of the one before.
    pub start: f64,
    /// Its length.
    pub value: f64,
    /// The text after it.
    pub text: String,
    /// `keep`, `drop` or a color of a series, `f0` to `f7`.
    pub class: &'static str,
}

/// Named amounts.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// See [`Figure::id`].
    pub id: String,
    /// See [`Figure::title`].
    pub title: String,
    /// See [`Figure::note`].
    pub note: String,
    /// What a length means, with the unit.
    pub unit: String,
    /// From the top.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// What happened to a total: a bar for all of it, one for each part that was taken away, placed where the
    /// rest ends, and one for what is left. Parts without records are left out.
    pub fn funnel(total: (&str, u64), taken: &[(String, u64)], left: (&str, u64), unit: &str) -> Bars {
        let whole = total.1 as f64;
        let text = |n: u64| format!("{} ({})", number::count(n), number::percent(n as f64, whole));
        let bar = |name: &str, start: f64, n: u64, class| Bar {
            name: name.to_owned(),
            start,
            value: n as f64,
            text: text(n),
            class,
        };
        let mut bars = vec![bar(total.0, 0.0, total.1, "f7")];
        let mut rest = whole;
        for (name, n) in taken.iter().filter(|(_, n)| *n > 0) {
            rest -= *n as f64;
            bars.push(bar(name, rest, *n, "drop"));
        }
        bars.push(bar(left.0, 0.0, left.1, "keep"));
        Bars { unit: unit.to_owned(), bars, ..Bars::default() }
    }

    /// The figure.
    pub fn figure(&self) -> Figure {
        let most = self.bars.iter().map(|bar| bar.start + bar.value).fold(0.0, f64::max);
        let length = |x: f64| if most > 0.0 { x / most * (WIDTH - LEFT - RIGHT) } else { 0.0 };
        let height = ROW * self.bars.len() as f64 + 10.0;
        let mut table = Table::new(["", ""]);
        table.columns[1].clone_from(&self.unit);
        for bar in &self.bars {
            let whole = bar.value >= 0.0 && bar.value.fract() == 0.0;
            let value = if whole { Cell::Count(bar.value as u64) } else { Cell::Value(bar.value) };
            table.push([bar.name.as_str().into(), value]);
        }
        let picture = html! {
            @for (i, bar) in self.bars.iter().enumerate() {
                @let y = i as f64 * ROW + 5.0;
                text class="name" x=(LEFT - 8.0) y=(y + 14.0) text-anchor="end" { (clipped(&bar.name, MAX_NAME)) }
                rect class=(bar.class) x=(at(LEFT + length(bar.start))) y=(y + 3.0) width=(at(length(bar.value).max(0.5))) height="14" {
                    title { (bar.name) ": " (bar.text) }
                }
                text x=(at(LEFT + length(bar.start + bar.value) + 6.0)) y=(y + 14.0) { (bar.text) }
            }
        };
        let Bars { id, title, note, .. } = self.clone();
        Figure { id, title, note, picture, size: (WIDTH, height), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_funnel_hang_at_the_end_of_what_is_left() {
        let taken = [("a".to_owned(), 25), ("nothing".to_owned(), 0), ("b".to_owned(), 15)];
        let bars = Bars::funnel(("read", 100), &taken, ("kept", 60), "documents");
        let places: Vec<(f64, f64)> = bars.bars.iter().map(|bar| (bar.start, bar.value)).collect();
        assert_eq!(places, [(0.0, 100.0), (75.0, 25.0), (60.0, 15.0), (0.0, 60.0)]);
        assert_eq!(bars.bars[1].text, "25 (25.0 %)");
        let figure = bars.figure();
        assert_eq!(figure.table.rows[3], [Cell::Text("kept".to_owned()), Cell::Count(60)]);
        // 340 of 760 are for bars; a quarter of them is 85.
        assert!(figure.picture.into_string().contains("x=\"505\" y=\"28\" width=\"85\""));
    }

    #[test]
    fn nothing_at_all_does_not_divide_by_zero() {
        let figure = Bars::funnel(("read", 0), &[], ("kept", 0), "documents").figure();
        assert!(!figure.picture.into_string().contains("NaN"));
    }
}
