//! Curves over a common axis.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::figure::{Cell, Figure, N_COLORS, Table, at, legend};
use crate::number;
use crate::scale::Scale;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Columns in which a curve keeps its first, smallest, largest and last point.
const N_COLUMNS: usize = 340;
const DASHES: [&str; 3] = ["", "6 3", "2 3"];

/// An axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Whether it is logarithmic.
    pub is_log: bool,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), is_log: false }
    }

    /// A logarithmic axis.
    pub fn log(label: &str) -> Axis {
        Axis { label: label.to_owned(), is_log: true }
    }
}

/// A curve.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Places and values; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
}

/// Curves over a common axis.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// See [`Figure::id`].
    pub id: String,
    /// See [`Figure::title`].
    pub title: String,
    /// See [`Figure::note`].
    pub note: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves, at most a few dozen; colors repeat with other dashes after eight.
    pub series: Vec<Series>,
    /// Range of the vertical axis that is considered good.
    pub healthy: Option<(f64, f64)>,
    /// Values of the vertical axis to compare with, by name.
    pub marks: Vec<(String, f64)>,
    /// Places on the horizontal axis to look at, by name.
    pub places: Vec<(String, f64)>,
    /// Series that are drawn as dots, since nothing was measured between their points; by number.
    pub dotted: Vec<usize>,
}

impl Lines {
    /// The figure.
    pub fn figure(&self) -> Figure {
        let (legend, legend_height) = self.legend();
        Figure {
            id: self.id.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            picture: html! { (legend) g transform={ "translate(0 " (legend_height) ")" } { (self.plot()) } },
            size: (WIDTH, HEIGHT + legend_height),
            table: self.table(),
        }
    }

    /// The parts that are drawn without a break: single dots, or stretches of a line.
    fn stretches(
        &self,
        series: usize,
        points: &[(f64, f64)],
        place: impl Fn((f64, f64)) -> Option<(f64, f64)>,
    ) -> Vec<Vec<(f64, f64)>> {
        match self.dotted.contains(&series) {
            false => runs(points, place),
            true => points.iter().filter_map(|point| Some(vec![place(*point)?])).collect(),
        }
    }

    /// One row for each place, one column for each curve.
    fn table(&self) -> Table {
        let mut rows: BTreeMap<u64, (f64, Vec<Cell>)> = BTreeMap::new();
        for (i, series) in self.series.iter().enumerate() {
            for &(x, y) in &series.points {
                let row = rows.entry(order(x)).or_insert_with(|| (x, vec![Cell::Empty; self.series.len()]));
                row.1[i] = Cell::Value(y);
            }
        }
        let columns = std::iter::once(self.x.label.clone()).chain(self.series.iter().map(|s| s.name.clone()));
        let rows =
            rows.into_values().map(|(x, cells)| std::iter::once(Cell::Value(x)).chain(cells).collect());
        Table { columns: columns.collect(), rows: rows.collect() }
    }

    /// Names and colors in rows above the picture, and their height.
    fn legend(&self) -> (Markup, f64) {
        if self.series.len() < 2 {
            return (html! {}, 0.0);
        }
        let (places, last) = legend(self.series.iter().map(|series| series.name.as_str()), LEFT, WIDTH);
        let entries = html! {
            @for (i, (series, (x, y))) in self.series.iter().zip(&places).enumerate() {
                line class={ "line s" (i % N_COLORS) } stroke-dasharray=[dash(i)] x1=(at(*x)) x2=(at(x + 18.0)) y1=(y - 4.0) y2=(y - 4.0) {}
                text class="name" x=(at(x + 22.0)) y=(y) { (series.name) }
            }
        };
        (entries, last + 4.0)
    }

    fn plot(&self) -> Markup {
        let values = self.series.iter().flat_map(|series| &series.points).filter(|point| point.1.is_finite());
        let places = self.places.iter().map(|place| place.1);
        let x_scale = Scale::of(values.clone().map(|point| point.0).chain(places), self.x.is_log);
        let marks = self.marks.iter().map(|mark| mark.1);
        let y_scale = Scale::of(values.map(|point| point.1).chain(marks), self.y.is_log).rounded(5);
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x_at = |x: f64| x_scale.place(x).map(|place| LEFT + place * width);
        let y_at = |y: f64| y_scale.place(y).map(|place| TOP + (1.0 - place) * height);
        let bottom = TOP + height;
        html! {
            @if let Some((low, high)) = self.healthy
                && let (Some(low), Some(high)) = (y_at(low), y_at(high)) {
                @let (low, high) = (low.clamp(TOP, bottom), high.clamp(TOP, bottom));
                rect class="band" x=(LEFT) y=(at(high)) width=(width) height=(at(low - high)) {}
            }
            @for tick in y_scale.ticks(5) {
                @if let Some(y) = y_at(tick) {
                    path class="grid" d={ "M" (LEFT) " " (at(y)) "h" (width) } {}
                    text x=(LEFT - 6.0) y=(at(y + 4.0)) text-anchor="end" { (number::short(tick)) }
                }
            }
            @for tick in x_scale.ticks(8) {
                @if let Some(x) = x_at(tick) {
                    path class="grid" d={ "M" (at(x)) " " (bottom) "v4" } {}
                    text x=(at(x)) y=(bottom + 16.0) text-anchor="middle" { (number::short(tick)) }
                }
            }
            text x=(LEFT + width / 2.0) y=(bottom + 34.0) text-anchor="middle" { (self.x.label) }
            text x="12" y=(TOP + height / 2.0) text-anchor="middle" transform={ "rotate(-90 12 " (TOP + height / 2.0) ")" } { (self.y.label) }
            @for (name, value) in &self.marks {
                @if let Some(y) = y_at(*value) {
                    path class="mark" d={ "M" (LEFT) " " (at(y)) "h" (width) } {}
                    text x=(LEFT + width - 2.0) y=(at(y - 4.0)) text-anchor="end" { (name) " " (number::digits(*value)) }
                }
            }
            @for (name, value) in &self.places {
                @if let Some(x) = x_at(*value) {
                    path class="mark" d={ "M" (at(x)) " " (TOP) "V" (at(bottom)) } {}
                    text x=(at(x - 4.0)) y=(TOP + 12.0) text-anchor="end" { (name) " " (number::digits(*value)) }
                }
            }
            @for (i, series) in self.series.iter().enumerate() {
                @for run in self.stretches(i, &series.points, |(x, y)| Some((x_at(x)?, y_at(y)?))) {
                    @let path = path(&thinned(&run));
                    // A lone point would be an invisible line.
                    path class={ (if run.len() == 1 { "dots s" } else { "line s" }) (i % N_COLORS) } stroke-dasharray=[dash(i)] d=(path) {
                        title { (series.name) }
                    }
                }
            }
        }
    }
}

/// A key by which numbers are ordered.
fn order(x: f64) -> u64 {
    let bits = x.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn dash(i: usize) -> Option<&'static str> {
    let dash = DASHES[i / N_COLORS % DASHES.len()];
    (!dash.is_empty()).then_some(dash)
}

/// Unbroken stretches of a curve, in the picture.
fn runs(points: &[(f64, f64)], place: impl Fn((f64, f64)) -> Option<(f64, f64)>) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for &point in points {
        match (place(point), runs.last_mut()) {
            (Some(point), Some(run)) => run.push(point),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The first, smallest, largest and last point of each column: what is drawn is the same, and no spike is
/// lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * N_COLUMNS {
        return points.to_vec();
    }
    let column = |x: f64| ((x - LEFT) / (WIDTH - LEFT - RIGHT) * N_COLUMNS as f64) as i64;
    let mut kept = Vec::new();
    let of_column = points.chunk_by(|a, b| column(a.0) == column(b.0));
    for points in of_column {
        let by_y = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        let ends =
            [Some(0), (0..points.len()).min_by(by_y), (0..points.len()).max_by(by_y), Some(points.len() - 1)];
        let mut ends: Vec<usize> = ends.into_iter().flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        kept.extend(ends.into_iter().map(|i| points[i]));
    }
    kept
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        path.push_str(&format!("{}{} {}", if i == 0 { "M" } else { "L" }, at(*x), at(*y)));
    }
    if points.len() == 1 {
        path.push_str("h0");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: Vec<(f64, f64)>) -> Lines {
        let series = ["<a>", "b"].map(|name| Series { name: name.to_owned(), points: points.clone() });
        Lines { x: Axis::linear("steps"), y: Axis::log("loss"), series: series.to_vec(), ..Lines::default() }
    }

    #[test]
    fn gaps_stay_gaps_and_lone_points_are_seen() {
        let figure = lines(vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)]).figure();
        let picture = figure.picture.into_string();
        assert_eq!(picture.matches("class=\"line s0\"").count(), 2, "one stretch, and the legend: {picture}");
        assert_eq!(picture.matches("class=\"dots s0\"").count(), 1, "{picture}");
        assert!(!picture.contains("NaN") && picture.contains("&lt;a&gt;"), "{picture}");
        assert_eq!(figure.table.columns, ["steps", "<a>", "b"]);
        assert_eq!(figure.table.rows.len(), 4);
    }

    #[test]
    fn dots_are_not_joined_and_places_have_names() {
        let mut lines = lines(vec![(1.0, 1.0), (2.0, 2.0), (3.0, f64::NAN)]);
        lines.dotted = vec![1];
        lines.places = vec![("limit".to_owned(), 1.5)];
        let picture = lines.figure().picture.into_string();
        assert_eq!(picture.matches("class=\"dots s1\"").count(), 2, "{picture}");
        assert_eq!(picture.matches("class=\"line s0\"").count(), 2, "a stretch, and the legend: {picture}");
        assert!(picture.contains("limit 1.5"), "{picture}");
    }

    #[test]
    fn a_spike_among_a_hundred_thousand_points_is_drawn() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 100.0;
        let placed: Vec<(f64, f64)> =
            points.iter().map(|(x, y)| (LEFT + x / 100_000.0 * (WIDTH - LEFT - RIGHT), *y)).collect();
        let kept = thinned(&placed);
        assert!(
            kept.len() < 4 * N_COLUMNS + 8 && kept.iter().any(|point| point.1 == 100.0),
            "{}",
            kept.len()
        );
        assert!(lines(points).figure().picture.into_string().len() < 100_000);
    }

    #[test]
    fn nothing_to_show_is_an_empty_frame() {
        let picture = lines(vec![]).figure().picture.into_string();
        assert!(
            picture.contains("loss") && !picture.contains("NaN") && !picture.contains("inf"),
            "{picture}"
        );
    }
}
