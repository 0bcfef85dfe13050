//! A field of values by row and column: experts over time, routing by source.

use maud::{Markup, html};

use crate::figure::{Cell, Figure, Table, at, clipped};
use crate::number;

const WIDTH: f64 = 640.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 86.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 8.0;
/// Characters of a name that fit.
const MAX_NAME: usize = 12;
/// Shades of the picture: close to white or black at the low end, blue to yellow to red at the high end
/// (after ColorBrewer's YlGnBu, reversed so that more is darker on paper).
const SHADES: [&str; 12] = [
    "#f7fbf3", "#edf8d9", "#d5eeb9", "#b0e0b6", "#84cfba", "#5bbcc2", "#3aa2c2", "#2583b8", "#2362a5",
    "#253f93", "#1b2a78", "#0d1a52",
];

/// A field of values.
#[derive(Clone, Debug, Default)]
pub struct Heat {
    /// See [`Figure::id`].
    pub id: String,
    /// See [`Figure::title`].
    pub title: String,
    /// See [`Figure::note`].
    pub note: String,
    /// What the columns are, with the unit.
    pub x_label: String,
    /// What a value means, with the unit.
    pub value_label: String,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// Names of the columns, from the left.
    pub columns: Vec<String>,
    /// Rows of values; what is not finite is left white.
    pub values: Vec<Vec<f64>>,
    /// Values of the lightest and the darkest shade.
    pub range: (f64, f64),
    /// Columns beyond which neighbors are drawn as their mean.
    pub max_columns: usize,
}

impl Heat {
    /// The figure.
    pub fn figure(&self) -> Figure {
        let row_height = (300.0 / self.rows.len().max(1) as f64).clamp(2.0, 22.0);
        let height = row_height * self.rows.len() as f64;
        Figure {
            id: self.id.clone(),
            title: self.title.clone(),
            note: self.note.clone(),
            picture: self.picture(row_height, height),
            size: (WIDTH, TOP + height.max(120.0) + BOTTOM),
            table: self.table(),
        }
    }

    fn table(&self) -> Table {
        let columns = std::iter::once(String::new()).chain(self.columns.iter().cloned());
        let row = |(name, values): (&String, &Vec<f64>)| {
            let values = values.iter().map(|x| if x.is_finite() { Cell::Value(*x) } else { Cell::Empty });
            std::iter::once(Cell::Text(name.clone())).chain(values).collect()
        };
        // A column for each point in time would make an unreadable table, so those are the rows.
        match self.columns.len() > self.rows.len() {
            false => Table {
                columns: columns.collect(),
                rows: self.rows.iter().zip(&self.values).map(row).collect(),
            },
            true => {
                let columns = std::iter::once(self.x_label.clone()).chain(self.rows.iter().cloned());
                let rows = self.columns.iter().enumerate().map(|(i, name)| {
                    let values =
                        self.values.iter().map(|row| row.get(i).copied().filter(|x| x.is_finite()).into());
                    std::iter::once(Cell::Text(name.clone())).chain(values).collect()
                });
                Table { columns: columns.collect(), rows: rows.collect() }
            }
        }
    }

    fn picture(&self, row_height: f64, height: f64) -> Markup {
        let n_columns = self.columns.len();
        let merged = n_columns.div_ceil(self.max_columns.max(1)).max(1);
        let n_drawn = n_columns.div_ceil(merged);
        let width = WIDTH - LEFT - RIGHT;
        let column_width = width / n_drawn.max(1) as f64;
        let (low, high) = self.range;
        let shade = |x: f64| {
            let place = if high > low { ((x - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
            ((place * SHADES.len() as f64) as usize).min(SHADES.len() - 1)
        };
        // One path for each shade: a page holds tens of thousands of cells.
        let mut paths = vec![String::new(); SHADES.len()];
        for (r, row) in self.values.iter().enumerate() {
            let means: Vec<Option<usize>> = row.chunks(merged).map(|cells| mean(cells).map(shade)).collect();
            let mut c = 0;
            for same in means.chunk_by(|a, b| a == b) {
                if let Some(shade) = same[0] {
                    let (x, y) = (LEFT + c as f64 * column_width, TOP + r as f64 * row_height);
                    let wide = same.len() as f64 * column_width;
                    let (wide, high) = (at(wide), at(row_height));
                    paths[shade].push_str(&format!("M{} {}h{wide}v{high}h-{wide}z", at(x), at(y)));
                }
                c += same.len();
            }
        }
        let every_row = (14.0 / row_height).ceil().max(1.0) as usize;
        let every_column = (56.0 / (width / n_columns.max(1) as f64)).ceil().max(1.0) as usize;
        let names: Vec<(f64, &String)> = self
            .columns
            .iter()
            .enumerate()
            .step_by(every_column)
            .map(|(i, name)| (LEFT + (i as f64 + 0.5) * width / n_columns as f64, name))
            .collect();
        let legend_x = WIDTH - RIGHT + 12.0;
        let step = 110.0 / SHADES.len() as f64;
        html! {
            @for (fill, d) in SHADES.iter().zip(&paths) {
                @if !d.is_empty() { path fill=(fill) d=(d) {} }
            }
            rect class="grid" x=(LEFT) y=(TOP) width=(width) height=(at(height)) {}
            @for (i, name) in self.rows.iter().enumerate().step_by(every_row) {
                text x=(LEFT - 6.0) y=(at(TOP + (i as f64 + 0.5) * row_height + 4.0)) text-anchor="end" { (clipped(name, MAX_NAME)) }
            }
            @for (x, name) in names {
                text x=(at(x)) y=(at(TOP + height + 15.0)) text-anchor="middle" { (clipped(name, MAX_NAME)) }
            }
            text x=(LEFT + width / 2.0) y=(at(TOP + height + 33.0)) text-anchor="middle" { (self.x_label) }
            @for (i, fill) in SHADES.iter().enumerate() {
                rect fill=(fill) x=(legend_x) y=(at(TOP + 110.0 - (i + 1) as f64 * step)) width="12" height=(at(step + 0.3)) {}
            }
            text x=(legend_x + 16.0) y=(TOP + 9.0) { (number::digits(high)) }
            text x=(legend_x + 16.0) y=(TOP + 110.0) { (number::digits(low)) }
            text x=(legend_x + 30.0) y=(TOP + 60.0) text-anchor="middle" transform={ "rotate(-90 " (legend_x + 30.0) " " (TOP + 60.0) ")" } { (self.value_label) }
        }
    }
}

fn mean(cells: &[f64]) -> Option<f64> {
    let finite = cells.iter().filter(|x| x.is_finite());
    let n = finite.clone().count();
    (n > 0).then(|| finite.sum::<f64>() / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_one_shade_are_one_stretch_and_gaps_are_white() {
        let heat = Heat {
            rows: vec!["0".to_owned(), "1".to_owned()],
            columns: (0..4).map(|i| i.to_string()).collect(),
            values: vec![vec![0.0, 0.0, 1.0, 1.0], vec![f64::NAN, 1.0, f64::NAN, 0.0]],
            range: (0.0, 1.0),
            max_columns: 10,
            ..Heat::default()
        };
        let figure = heat.figure();
        let picture = figure.picture.into_string();
        // Lightest: columns 0-1 of the first row, 3 of the second; darkest: 2-3 of the first, 1 of the
        // second.
        let path = |shade: &str| {
            picture
                .split(&format!("fill=\"{shade}\" d=\""))
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(path(SHADES[0]).matches('M').count(), 2, "{picture}");
        assert_eq!(path(SHADES[11]).matches('M').count(), 2, "{picture}");
        // Two columns of 119.5 wide, 22 high, back and closed.
        assert!(path(SHADES[0]).starts_with("M76 8h239v22h-239z"), "{}", path(SHADES[0]));
        assert_eq!(figure.table.rows.len(), 4, "moments are rows");
        assert_eq!(figure.table.rows[0], [Cell::Text("0".to_owned()), Cell::Value(0.0), Cell::Empty]);
    }

    #[test]
    fn many_columns_are_drawn_as_means() {
        let heat = Heat {
            rows: vec!["a".to_owned()],
            columns: (0..1000).map(|i| i.to_string()).collect(),
            values: vec![(0..1000).map(|i| f64::from(i % 2)).collect()],
            range: (0.0, 1.0),
            max_columns: 100,
            ..Heat::default()
        };
        let picture = heat.figure().picture.into_string();
        // Means of ten alternating values are 0.5 everywhere: one run.
        assert!(picture.contains(&format!("fill=\"{}\" d=\"M76 8h478", SHADES[6])), "{picture}");
    }
}
