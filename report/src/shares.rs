//! How a whole is divided among a few parts over time: which source the samples of a plan come from.

use maud::html;

use crate::figure::{Cell, Figure, N_COLORS, Table, at, legend};
use crate::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// Shares of a whole along an axis, stacked.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// See [`Figure::id`].
    pub id: String,
    /// See [`Figure::title`].
    pub title: String,
    /// See [`Figure::note`].
    pub note: String,
    /// What the axis shows, with the unit.
    pub x_label: String,
    /// Names, from the bottom.
    pub names: Vec<String>,
    /// Ends of the intervals, ascending; the first is the beginning of the axis.
    pub edges: Vec<f64>,
    /// For each interval, the amount of each name.
    pub amounts: Vec<Vec<f64>>,
}

impl Shares {
    /// The figure.
    pub fn figure(&self) -> Figure {
        let (low, high) =
            (self.edges.first().copied().unwrap_or(0.0), self.edges.last().copied().unwrap_or(1.0));
        let width = WIDTH - LEFT - RIGHT;
        let x_at = |x: f64| LEFT + if high > low { (x - low) / (high - low) * width } else { 0.0 };
        let (places, last) = legend(self.names.iter().map(String::as_str), LEFT, WIDTH);
        let top = last + 8.0;
        let height = HEIGHT - BOTTOM;
        let bottom = top + height;
        // For each name the outline of its band: stretches from the left along the top, back along the
        // bottom.
        let mut bands = vec![String::new(); self.names.len()];
        for (amounts, edge) in self.amounts.iter().zip(self.edges.windows(2)) {
            let whole: f64 = amounts.iter().sum();
            let mut below = 0.0;
            for (band, amount) in bands.iter_mut().zip(amounts) {
                let share = if whole > 0.0 { amount / whole } else { 0.0 };
                if share > 0.0 {
                    let (x, wide) = (at(x_at(edge[0])), at(x_at(edge[1]) - x_at(edge[0])));
                    let tall = at(share * height);
                    band.push_str(&format!(
                        "M{x} {}h{wide}v{tall}h-{wide}z",
                        at(bottom - (below + share) * height)
                    ));
                }
                below += share;
            }
        }
        let columns =
            [format!("{} from", self.x_label), "to".to_owned()].into_iter().chain(self.names.iter().cloned());
        let rows = self
            .amounts
            .iter()
            .zip(self.edges.windows(2))
            .map(|(amounts, edge)| edge.iter().chain(amounts).map(|x| Cell::Value(*x)).collect());
        let table = Table { columns: columns.collect(), rows: rows.collect() };
        let picture = html! {
            @for (i, (name, (x, y))) in self.names.iter().zip(&places).enumerate() {
                rect class={ "f" (i % N_COLORS) } x=(at(*x)) y=(y - 10.0) width="12" height="12" {}
                text class="name" x=(at(x + 16.0)) y=(y) { (name) }
            }
            @for (i, (band, name)) in bands.iter().zip(&self.names).enumerate() {
                @if !band.is_empty() { path class={ "f" (i % N_COLORS) } d=(band) { title { (name) } } }
            }
            @for share in [0.0, 0.5, 1.0] {
                @let y = bottom - share * height;
                path class="grid" d={ "M" (LEFT) " " (at(y)) "h" (width) } {}
                text x=(LEFT - 6.0) y=(at(y + 4.0)) text-anchor="end" { (100.0 * share) " %" }
            }
            @for i in 0..=4 {
                @let x = low + (high - low) * f64::from(i) / 4.0;
                text x=(at(x_at(x))) y=(bottom + 16.0) text-anchor=(["start", "middle", "middle", "middle", "end"][i as usize]) { (number::short(x)) }
            }
            text x=(LEFT + width / 2.0) y=(bottom + 34.0) text-anchor="middle" { (self.x_label) }
        };
        let Shares { id, title, note, .. } = self.clone();
        Figure { id, title, note, picture, size: (WIDTH, bottom + BOTTOM), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_stretch_fill_its_height() {
        let shares = Shares {
            names: vec!["a".to_owned(), "b".to_owned()],
            edges: vec![0.0, 10.0, 20.0],
            amounts: vec![vec![1.0, 3.0], vec![0.0, 0.0]],
            ..Shares::default()
        };
        let picture = shares.figure().picture.into_string();
        // 200 high above 222: a quarter, and three above it; 282 wide. The second stretch is empty.
        assert!(picture.contains("d=\"M62 172h282v50h-282z\""), "{picture}");
        assert!(picture.contains("d=\"M62 22h282v150h-282z\""), "{picture}");
        assert!(!picture.contains("NaN"), "{picture}");
    }
}
