//! Curves of dots: each braille character is two dots wide and four high.

/// Dots of a character by column and row, as Unicode numbers them from U+2800 on.
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// A field of dots.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    width: usize,
    height: usize,
    cells: Vec<u8>,
}

impl Canvas {
    /// A field of this many characters in width and height.
    pub(super) fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, height, cells: vec![0; width * height] }
    }

    /// A curve through points from 0 to 1 in both directions, from the lower left corner; points outside are
    /// moved to the edge.
    pub(super) fn curve(&mut self, points: impl Iterator<Item = (f64, f64)>) {
        let (columns, rows) = (2 * self.width, 4 * self.height);
        if columns == 0 || rows == 0 {
            return;
        }
        let place = |x: f64, n: usize| (x.clamp(0.0, 1.0) * (n - 1) as f64).round() as usize;
        let mut last: Option<(usize, usize)> = None;
        for (x, y) in points {
            if !x.is_finite() || !y.is_finite() {
                last = None;
                continue;
            }
            let (column, row) = (place(x, columns), rows - 1 - place(y, rows));
            let (from, before) = last.unwrap_or((column, row));
            for step in from..=column.max(from) {
                // Straight to the next point; the last column takes the rest.
                let share = |at: usize| match column > from {
                    true => {
                        before as f64
                            + (row as f64 - before as f64) * (at - from) as f64 / (column - from) as f64
                    }
                    false => row as f64,
                };
                let here = share(step).round() as usize;
                let there = if step > from { share(step - 1).round() as usize } else { before };
                for dot in here.min(there)..=here.max(there) {
                    self.dot(step, dot);
                }
            }
            last = Some((column, row));
        }
    }

    fn dot(&mut self, column: usize, row: usize) {
        if let Some(cell) = self.cells.get_mut(row / 4 * self.width + column / 2) {
            *cell |= DOTS[column % 2][row % 4];
        }
    }

    /// The characters of a row, from the top.
    pub(super) fn row(&self, row: usize) -> Vec<char> {
        let cells = self.cells.get(row * self.width..(row + 1) * self.width).unwrap_or_default();
        cells.iter().map(|bits| char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' ')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(width: usize, height: usize, points: &[(f64, f64)]) -> Vec<String> {
        let mut canvas = Canvas::new(width, height);
        canvas.curve(points.iter().copied());
        (0..height).map(|row| canvas.row(row).into_iter().collect()).collect()
    }

    #[test]
    fn curves_join_their_points_and_end_at_gaps() {
        // Four dots wide, four high: a diagonal from the upper left to the lower right.
        assert_eq!(rows(2, 1, &[(0.0, 1.0), (1.0, 0.0)]), ["⠙⢦"]);
        assert_eq!(rows(2, 1, &[(0.0, 0.0), (1.0, 0.0)]), ["⣀⣀"]);
        assert_eq!(rows(2, 1, &[(0.0, 0.0), (0.4, f64::NAN), (1.0, 5.0)]), ["⡀⠈"]);
        assert_eq!(rows(1, 2, &[(0.0, 0.0), (0.0, 1.0)]), ["⡇", "⡇"]);
        assert_eq!(rows(0, 0, &[(0.0, 0.0)]), [""; 0]);
    }
}
