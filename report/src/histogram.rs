//! The distribution of measured values, and their limits.

use std::cmp::Ordering;

use maud::html;

use crate::figure::{Figure, Table, at};
use crate::number;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 8.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;

/// Where values pass or fail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limit {
    /// The smallest or largest value that passes.
    pub value: f64,
    /// Whether it is the smallest.
    pub is_least: bool,
}

/// Counts of values in bins of equal width.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// See [`Figure::id`].
    pub id: String,
    /// See [`Figure::title`].
    pub title: String,
    /// See [`Figure::note`].
    pub note: String,
    /// What is measured, with the unit.
    pub x_label: String,
    /// What is counted.
    pub unit: String,
    /// Smallest and largest value.
    pub range: (f64, f64),
    /// Values in each bin: those that pass and those that do not.
    pub bins: Vec<[u64; 2]>,
    /// Where values pass or fail.
    pub limits: Vec<Limit>,
    /// Whether `range` has logarithms to base 10, while the axis shows the values.
    pub is_log: bool,
}

impl Histogram {
    /// Sorts values into bins; limits widen the range. Values and limits that are not finite are left out.
    pub fn of(values: &[f64], limits: &[Limit], n_bins: usize) -> Histogram {
        let limits: Vec<Limit> = limits.iter().filter(|limit| limit.value.is_finite()).cloned().collect();
        let finite = values.iter().copied().filter(|x| x.is_finite());
        let ends = finite.clone().chain(limits.iter().map(|limit| limit.value));
        let (low, high) =
            ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, width) = match low.partial_cmp(&high) {
            Some(Ordering::Less) => (low, high - low),
            // A single value is in the middle.
            Some(Ordering::Equal) => (low - 0.5, 1.0),
            _ => (0.0, 1.0),
        };
        let mut bins = vec![[0; 2]; n_bins.max(1)];
        let last = bins.len() - 1;
        for x in finite {
            let fails =
                limits.iter().any(|limit| if limit.is_least { x < limit.value } else { x > limit.value });
            let bin = ((x - low) / width * n_bins as f64) as usize;
            bins[bin.min(last)][usize::from(fails)] += 1;
        }
        Histogram { range: (low, low + width), bins, limits, ..Histogram::default() }
    }

    /// The figure.
    pub fn figure(&self) -> Figure {
        let most = self.bins.iter().map(|bin| bin[0] + bin[1]).max().unwrap_or(0).max(1) as f64;
        let (low, high) = self.range;
        let width = WIDTH - 2.0 * LEFT;
        let height = HEIGHT - TOP - BOTTOM;
        let bin_width = width / self.bins.len().max(1) as f64;
        let value = |x: f64| if self.is_log { 10f64.powf(x) } else { x };
        let x_at = |x: f64| LEFT + if high > low { (x - low) / (high - low) * width } else { 0.0 };
        let mut table = Table::new(["from", "to", "pass", "fail"]);
        for (i, bin) in self.bins.iter().enumerate() {
            let edge = |i: usize| value(low + (high - low) * i as f64 / self.bins.len() as f64);
            table.push([edge(i).into(), edge(i + 1).into(), bin[0].into(), bin[1].into()]);
        }
        let bottom = TOP + height;
        let picture = html! {
            path class="grid" d={ "M" (LEFT) " " (bottom) "h" (width) } {}
            @for (i, [pass, fail]) in self.bins.iter().enumerate() {
                @let x = LEFT + i as f64 * bin_width;
                @let (a, b) = (*pass as f64 / most * height, *fail as f64 / most * height);
                @if *pass > 0 { rect class="f0" x=(at(x)) y=(at(bottom - a)) width=(at(bin_width * 0.9)) height=(at(a.max(0.5))) {} }
                @if *fail > 0 { rect class="drop" x=(at(x)) y=(at(bottom - a - b)) width=(at(bin_width * 0.9)) height=(at(b.max(0.5))) {} }
            }
            @for limit in &self.limits {
                @let x = x_at(if self.is_log { limit.value.max(f64::MIN_POSITIVE).log10() } else { limit.value });
                path class="limit" d={ "M" (at(x)) " " (TOP - 4.0) "V" (bottom) } {}
                text x=(at(x)) y=(TOP - 7.0) text-anchor=(if x > WIDTH / 2.0 { "end" } else { "start" }) {
                    (if limit.is_least { "at least " } else { "at most " }) (number::digits(limit.value))
                }
            }
            text x=(LEFT) y=(bottom + 14.0) { (number::digits(value(low))) }
            text x=(WIDTH - LEFT) y=(bottom + 14.0) text-anchor="end" { (number::digits(value(high))) }
            text x=(WIDTH / 2.0) y=(bottom + 28.0) text-anchor="middle" { (self.x_label) }
            text x=(WIDTH / 2.0) y=(bottom + 14.0) text-anchor="middle" { "tallest: " (number::count(most as u64)) " " (self.unit) }
        };
        let Histogram { id, title, note, .. } = self.clone();
        Figure { id, title, note, picture, size: (WIDTH, HEIGHT), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_stretch_and_fail_at_the_limit() {
        let limit = Limit { value: 0.5, is_least: true };
        let histogram = Histogram::of(&[0.0, 0.49, 0.5, 1.0, f64::NAN], std::slice::from_ref(&limit), 2);
        assert_eq!(histogram.bins, [[0, 2], [2, 0]]);
        assert_eq!(histogram.range, (0.0, 1.0));
        let figure = histogram.figure();
        assert_eq!(figure.table.rows.len(), 2);
        // In the middle of 360.
        assert!(figure.picture.into_string().contains("M180 16V"));
    }

    #[test]
    fn one_value_and_none_do_not_divide_by_zero() {
        for values in [vec![], vec![3.0], vec![3.0, 3.0]] {
            let figure = Histogram::of(&values, &[], 10).figure();
            assert!(!figure.picture.clone().into_string().contains("NaN"), "{values:?}");
            let sum: u64 = Histogram::of(&values, &[], 10).bins.iter().map(|bin| bin[0]).sum();
            assert_eq!(sum, values.len() as u64);
        }
        let limit = Limit { value: f64::INFINITY, is_least: false };
        assert!(Histogram::of(&[1.0, 2.0], &[limit], 10).limits.is_empty());
    }
}
