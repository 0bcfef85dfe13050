//! Line charts as SVG: two panels side by side, each with its legend below.

use std::fmt::Write;

/// Okabe and Ito's palette, distinguishable with any color vision; dashes help in gray.
const STROKES: [(&str, &str, f64); 6] = [
    ("#0072B2", "", 3.0),
    ("#D55E00", "7 3", 1.8),
    ("#009E73", "2 3", 1.8),
    ("#CC79A7", "10 3 2 3", 1.8),
    ("#E69F00", "", 1.5),
    ("#444444", "1 2", 1.8),
];
const PLOT: (f64, f64) = (380.0, 260.0);
const LEFT: f64 = 70.0;
const TOP: f64 = 46.0;
const PANEL: f64 = 500.0;
const LEGEND_ROW: f64 = 18.0;

/// An axis: its label, its range and its ticks.
pub struct Axis {
    pub label: &'static str,
    pub range: (f64, f64),
    pub logarithmic: bool,
    pub ticks: &'static [(f64, &'static str)],
}

impl Axis {
    /// Position in 0..1 of a value, at the edge when it is outside.
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).ln() } else { v };
        let (low, high) = (scale(self.range.0), scale(self.range.1));
        ((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// A chart: axes and named lines.
pub struct Panel {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// Both panels as one SVG file.
pub fn draw(panels: &[Panel]) -> String {
    let rows = panels.iter().map(|panel| panel.lines.len()).max().unwrap_or(0) as f64;
    let (width, height) = (PANEL * panels.len() as f64, TOP + PLOT.1 + 58.0 + rows * LEGEND_ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({} {TOP})\">", PANEL * i as f64 + LEFT);
        panel_into(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

// Writing to a string cannot fail, so the results of `write!` are dropped here.
fn panel_into(svg: &mut String, panel: &Panel) {
    let (w, h) = PLOT;
    let _ =
        writeln!(svg, "<text x=\"0\" y=\"-18\" font-size=\"14\" font-weight=\"bold\">{}</text>", panel.title);
    for &(value, label) in panel.y.ticks {
        let y = h * (1.0 - panel.y.place(value));
        let _ = writeln!(
            svg,
            "<path d=\"M0 {y:.1}H{w}\" stroke=\"#ddd\"/><text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            y + 4.0
        );
    }
    for &(value, label) in panel.x.ticks {
        let x = w * panel.x.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {h}v5\" stroke=\"#222\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            h + 18.0
        );
    }
    let _ = writeln!(svg, "<path d=\"M0 0V{h}H{w}\" fill=\"none\" stroke=\"#222\"/>");
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        w / 2.0,
        h + 36.0,
        panel.x.label
    );
    let _ = writeln!(
        svg,
        "<text transform=\"translate(-50 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        h / 2.0,
        panel.y.label
    );
    // The first line is ours: it is drawn last, on top.
    for (i, (_, points)) in panel.lines.iter().enumerate().rev() {
        let (colour, dashes, width) = STROKES[i % STROKES.len()];
        let path: Vec<String> = points
            .iter()
            .map(|&(x, y)| format!("{:.1} {:.1}", w * panel.x.place(x), h * (1.0 - panel.y.place(y))))
            .collect();
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\"/>",
            path.join("L")
        );
    }
    for (i, (name, _)) in panel.lines.iter().enumerate() {
        let (colour, dashes, width) = STROKES[i % STROKES.len()];
        let y = h + 58.0 + i as f64 * LEGEND_ROW;
        let _ = writeln!(
            svg,
            "<path d=\"M0 {y}h34\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"44\" y=\"{}\">{name}</text>",
            y + 4.0
        );
    }
}
