//! A figure: a picture, what it shows in words, and its numbers.

use maud::{Markup, PreEscaped, html};
use serde_json::{Value, json};

use crate::number;

const STYLE: &str = include_str!("figure.css");
/// Maximum rows of a table on a page; above that, rows are thinned evenly, keeping the last one.
const MAX_ROWS: usize = 60;

/// Colors of series: those of Okabe and Ito, which are distinguishable with any color vision.
pub const N_COLORS: usize = 8;

/// A picture with its numbers.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name in a page and as a file: letters, digits, hyphens.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What to look for, in a sentence; may be empty.
    pub note: String,
    pub(crate) picture: Markup,
    /// Width and height of the picture.
    pub(crate) size: (f64, f64),
    /// Its numbers.
    pub table: Table,
}

/// Numbers in rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns, with units.
    pub columns: Vec<String>,
    /// Rows with the same number of cells.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// A count.
    Count(u64),
    /// A measured value.
    Value(f64),
    /// Nothing was measured.
    Empty,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(n: u64) -> Cell {
        Cell::Count(n)
    }
}

impl From<f64> for Cell {
    fn from(x: f64) -> Cell {
        Cell::Value(x)
    }
}

impl From<Option<f64>> for Cell {
    fn from(x: Option<f64>) -> Cell {
        x.map_or(Cell::Empty, Cell::Value)
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(n) => number::count(*n),
            Cell::Value(x) => number::digits(*x),
            Cell::Empty => String::new(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Count(n) => json!(n),
            Cell::Value(x) => json!(x),
            Cell::Empty => Value::Null,
        }
    }
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new<const N: usize>(columns: [&str; N]) -> Table {
        Table { columns: columns.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push<const N: usize>(&mut self, row: [Cell; N]) {
        self.rows.push(row.to_vec());
    }

    /// The table, whole.
    pub fn html(&self) -> Markup {
        self.with_rows(self.rows.iter())
    }

    fn with_rows<'a>(&self, rows: impl Iterator<Item = &'a Vec<Cell>>) -> Markup {
        html! {
            div class="scroll" tabindex="0" {
                table {
                    thead { tr { @for name in &self.columns { th scope="col" { (name) } } } }
                    tbody {
                        @for row in rows {
                            tr {
                                @for cell in row {
                                    td class=[matches!(cell, Cell::Text(_)).then_some("text")] { (cell.text()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// An object with the columns and the rows.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| row.iter().map(Cell::json).collect()).collect();
        json!({ "columns": self.columns, "rows": rows })
    }
}

impl Figure {
    /// The figure in a page: picture, words, and the numbers folded away.
    pub fn html(&self) -> Markup {
        let n_rows = self.table.rows.len();
        let every = n_rows.div_ceil(MAX_ROWS).max(1);
        let shown = || self.table.rows.iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == n_rows);
        html! {
            figure id=(self.id) {
                figcaption {
                    h3 { a href={ "#" (self.id) } { (self.title) } }
                    @if !self.note.is_empty() { p { (self.note) } }
                }
                (self.element(false))
                @if n_rows > 0 {
                    details {
                        summary { "Numbers" @if every > 1 { " (" (shown().count()) " of " (number::count(n_rows as u64)) " rows)" } }
                        (self.table.with_rows(shown().map(|(_, row)| row)))
                    }
                }
            }
        }
    }

    /// The picture as a separate file, made by the command `generator`.
    pub fn svg(&self, generator: &str) -> String {
        let picture = self.element(true).into_string();
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- {generator} -->\n{picture}\n")
    }

    /// Whether the first bytes of a file are those of a picture of this command.
    pub fn is_svg_by(start: &str, generator: &str) -> bool {
        start.starts_with(&format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- {generator} -->\n<svg"))
    }

    /// Title and numbers as JSON.
    pub fn json(&self) -> Value {
        json!({ "id": self.id, "title": self.title, "table": self.table.json() })
    }

    fn element(&self, is_file: bool) -> Markup {
        let (width, height) = self.size;
        html! {
            svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(self.title)
                width=[is_file.then_some(width)] height=[is_file.then_some(height)] {
                @if is_file {
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                    rect class="paper" width=(width) height=(height) {}
                }
                (self.picture)
            }
        }
    }
}

/// The styles of pictures, for pages.
pub(crate) fn style() -> &'static str {
    STYLE
}

/// A name that is cut off after this many characters.
pub(crate) fn clipped(name: &str, letters: usize) -> String {
    match name.char_indices().nth(letters) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Where the entries of a legend begin, in rows between `left` and `right` from the top of a picture on, and
/// the place of the last row.
pub(crate) fn legend<'a>(
    names: impl Iterator<Item = &'a str>,
    left: f64,
    right: f64,
) -> (Vec<(f64, f64)>, f64) {
    let (mut x, mut y) = (left, 14.0);
    let mut places = Vec::new();
    for name in names {
        // A mark, and about seven for each character.
        let width = 30.0 + 7.0 * name.chars().count() as f64;
        if x + width > right && x > left {
            (x, y) = (left, y + 16.0);
        }
        places.push((x, y));
        x += width;
    }
    (places, y)
}

/// A length in a picture, to a tenth.
pub(crate) fn at(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let mut table = Table::new(["name <x>", "n"]);
        for i in 0..200 {
            table.push([format!("<script>{i}</script>").into(), i.into()]);
        }
        Figure {
            id: "a".to_owned(),
            title: "A & \"B\"".to_owned(),
            note: "<b>".to_owned(),
            picture: html! { circle r="1" {} },
            size: (10.0, 5.0),
            table,
        }
    }

    #[test]
    fn nothing_that_a_figure_shows_is_markup() {
        let page = figure().html().into_string();
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(page.contains("A &amp; &quot;B&quot;"), "{page}");
        // Every fourth of 200 rows, and the last.
        assert!(page.contains("51 of 200 rows") && page.contains(">199<"), "{page}");
    }

    #[test]
    fn long_names_are_cut_and_legends_broken() {
        assert_eq!((clipped("a b", 3), clipped("äbcd", 3)), ("a b".to_owned(), "äbc…".to_owned()));
        // 30 and 7 for each letter: two fit into 100 from 10 on, and the third begins a row.
        let (places, last) = legend(["a", "b", "c"].into_iter(), 10.0, 100.0);
        assert_eq!((places, last), (vec![(10.0, 14.0), (47.0, 14.0), (10.0, 30.0)], 30.0));
    }

    #[test]
    fn a_file_brings_its_styles() {
        let svg = figure().svg("a test");
        assert!(
            svg.starts_with("<?xml") && svg.contains("<style>") && svg.contains("viewBox=\"0 0 10 5\""),
            "{svg}"
        );
        assert_eq!(figure().json()["table"]["rows"][2], json!(["<script>2</script>", 2]));
    }
}
