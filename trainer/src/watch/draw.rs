//! A view as the lines of a screen of any size: the most important comes first, and what does not fit is left
//! out.

use console::measure_text_width;
use moe_report::number;
use moe_shards::terminal;

use super::canvas::Canvas;
use super::view::{Layer, View};

/// Eighths of a character's height.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// An expert without a token.
const NOTHING: char = '·';
/// Characters of the scale to the left of a curve.
const SCALE: usize = 8;
/// Minimum rows of a useful curve.
const LEAST_CURVE: usize = 3;
/// Widest strip of loads.
const WIDEST_STRIP: usize = 64;
/// Widest mark of an expert.
const WIDEST_EXPERT: usize = 4;
/// Fraction of the first steps to leave out, whose losses are so high that the rest would look flat.
const BEGINNING: f64 = 0.05;

/// Columns and rows of a screen, and whether it may have colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether there are colors.
    pub color: bool,
}

/// Colors by their numbers in SGR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ink {
    Plain,
    Strong,
    Soft,
    Good,
    Bad,
    Curve,
    Other,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Ink::Plain => "0",
            Ink::Strong => "1",
            Ink::Soft => "2",
            Ink::Good => "32",
            Ink::Bad => "31",
            Ink::Curve => "36",
            Ink::Other => "33",
        }
    }
}

/// Parts of a line, each in one color.
type Line = Vec<(Ink, String)>;

/// The lines of a screen, which fit its width and height; `said` has the messages of the process, oldest
/// first.
pub fn frame(view: &View, said: &[String], size: Size) -> Vec<String> {
    let mut lines = head(view, size);
    let rest = size.height.saturating_sub(lines.len());
    let mut foot = foot(view, said, size);
    foot.truncate(match rest {
        // The last message on a small screen, a quarter of a large one.
        0..8 => rest.min(1),
        _ => (rest / 4).max(2),
    });
    let rest = rest - foot.len();
    let n_layers = match view.layers.len() {
        0 => 0,
        n => (n + 1).min(if rest > LEAST_CURVE + 2 { rest / 2 } else { 0 }),
    };
    let for_curve = rest - n_layers;
    if for_curve >= LEAST_CURVE && size.width > SCALE + 4 {
        lines.extend(curve(view, size.width, for_curve));
    }
    lines.extend(loads(&view.layers, size.width, n_layers));
    lines.extend(foot);
    lines.truncate(size.height);
    lines.iter().map(|line| render(line, size)).collect()
}

/// Name, progress, numbers.
fn head(view: &View, size: Size) -> Vec<Line> {
    let ink = if view.is_wrong { Ink::Bad } else { Ink::Good };
    let mut lines = vec![vec![
        (Ink::Strong, format!("{}  ", terminal::escape_line(&view.name))),
        (Ink::Plain, format!("step {}  ", view.steps())),
        (ink, view.status.clone()),
    ]];
    if let Some(n_steps) = view.n_steps.filter(|n| *n > 0.0) {
        let left = view.left();
        let words = format!(" {:>3.0} %  {left}", (100.0 * view.step / n_steps).floor());
        let room = size.width.saturating_sub(words.chars().count() + 2).min(60);
        let done = ((view.step / n_steps).clamp(0.0, 1.0) * room as f64) as usize;
        lines.push(vec![
            (Ink::Soft, "[".to_owned()),
            (Ink::Curve, "=".repeat(done)),
            (Ink::Plain, " ".repeat(room - done)),
            (Ink::Soft, "]".to_owned()),
            (Ink::Plain, words),
        ]);
    }
    let most = if size.height >= 12 { 2 } else { 1 };
    let mut rows: Vec<Line> = vec![Vec::new()];
    let mut used = 0;
    for (name, value) in &view.numbers {
        let length = name.len() + value.len() + 3;
        if used + length > size.width + 2 && used > 0 {
            rows.push(Vec::new());
            used = 0;
        }
        used += length;
        if let Some(row) = rows.last_mut() {
            row.push((Ink::Soft, format!("{name} ")));
            row.push((Ink::Plain, format!("{value}  ")));
        }
    }
    rows.truncate(most);
    lines.extend(rows.into_iter().filter(|row| !row.is_empty()));
    if size.height >= 16 && view.speeds.len() > 1 {
        let room = size.width.saturating_sub(10);
        lines.push(vec![(Ink::Soft, "tokens/s ".to_owned()), (Ink::Curve, spark(&view.speeds, room))]);
    }
    lines
}

/// Alarms and messages, newest first.
fn foot(view: &View, said: &[String], size: Size) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut push = |ink, text: &str| {
        let text = terminal::escape_line(text);
        lines.extend(wrapped(&text, size.width).into_iter().map(|part| vec![(ink, part)]));
    };
    if view.n_bad > 0 {
        push(Ink::Bad, &format!("metrics.jsonl has {} lines that are not records", view.n_bad));
    }
    for alarm in view.alarms.iter().rev().take(size.height) {
        push(Ink::Bad, &format!("{} at step {}: {}", alarm.kind, alarm.step, alarm.message));
    }
    // An alarm is both printed and recorded.
    let told = |line: &&String| !view.alarms.iter().any(|alarm| line.contains(&alarm.message));
    said.iter().rev().filter(told).take(size.height).for_each(|line| push(Ink::Soft, line));
    lines
}

/// The losses over the steps.
fn curve(view: &View, width: usize, height: usize) -> Vec<Line> {
    let points = || view.loss.iter().chain(&view.validation).filter(|(_, loss)| loss.is_finite());
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (first, last) = ends(&mut points().map(|point| point.0));
    if first > last {
        return vec![vec![(Ink::Soft, "no metrics yet".to_owned())]];
    }
    let after = first + BEGINNING * (last - first);
    let (low, high) = ends(&mut points().filter(|point| point.0 >= after).map(|point| point.1));
    let room = if high > low { 0.05 * (high - low) } else { 0.5 };
    let (low, high) = (low - room, high + room);
    let rows = height - 1;
    let columns = width - SCALE;
    let x = |step: f64| if last > first { (step - first) / (last - first) } else { 1.0 };
    let place = |(step, loss): &(f64, f64)| (x(*step), (loss - low) / (high - low));
    let (mut training, mut validation) = (Canvas::new(columns, rows), Canvas::new(columns, rows));
    training.curve(view.loss.iter().map(place));
    // Points, since validations are few.
    view.validation.iter().map(place).for_each(|point| validation.curve(std::iter::once(point)));
    let blank = '\u{2800}';
    let mut lines: Vec<Line> = Vec::new();
    for row in 0..rows {
        let at = match row {
            0 => Some(high),
            _ if row + 1 == rows => Some(low),
            _ if row == rows / 2 && rows > 4 => Some(high + (low - high) * (row as f64 + 0.5) / rows as f64),
            _ => None,
        };
        let label = at.map_or_else(String::new, |x| format!("{x:.3}"));
        let mut line: Line = vec![(Ink::Soft, format!("{label:>7} "))];
        for (over, under) in validation.row(row).into_iter().zip(training.row(row)) {
            let (ink, c) = match (over, under) {
                (over, _) if over != blank => (Ink::Other, 'o'),
                (_, under) if under != blank => (Ink::Curve, under),
                _ => (Ink::Plain, ' '),
            };
            match line.last_mut() {
                Some((last, text)) if *last == ink => text.push(c),
                _ => line.push((ink, c.to_string())),
            }
        }
        lines.push(line);
    }
    let (from, to) = (format!("step {}", number::short(first)), number::short(last));
    let words = "loss in nats, o validation";
    let gap = columns.saturating_sub(from.len() + to.len());
    let middle = if gap > words.len() + 4 { format!("{words:^gap$}") } else { " ".repeat(gap) };
    lines.push(vec![(Ink::Soft, format!("{}{from}{middle}{to}", " ".repeat(SCALE)))]);
    lines
}

/// A strip for each layer, or the worst ones if there is no room for all, in `n_rows` with a heading.
fn loads(layers: &[Layer], width: usize, n_rows: usize) -> Vec<Line> {
    if n_rows < 2 {
        return Vec::new();
    }
    let violation = |layer: &Layer| layer.max_violation.unwrap_or(0.0);
    let mut shown: Vec<usize> = (0..layers.len()).collect();
    shown.sort_by(|a, b| violation(&layers[*b]).total_cmp(&violation(&layers[*a])));
    shown.truncate(n_rows - 1);
    shown.sort_unstable();
    let which = match shown.len() < layers.len() {
        true => format!("load of each expert in the {} worst of {} layers", shown.len(), layers.len()),
        false => "load of each expert by layer".to_owned(),
    };
    let mut lines = vec![vec![(Ink::Soft, format!("{which}: ▄ even, █ twice that, {NOTHING} none"))]];
    let label = shown.iter().map(|i| layers[*i].name.chars().count()).max().unwrap_or(0);
    for layer in shown.iter().map(|i| &layers[*i]) {
        let words = layer.max_violation.map(|x| format!(" MaxVio {x:.2}")).unwrap_or_default();
        let dead =
            layer.dead.filter(|dead| *dead > 0.0).map(|dead| format!(" dead {}", number::digits(dead)));
        let dead = dead.unwrap_or_default();
        let room = width.saturating_sub(label + 1 + words.len() + dead.len()).min(WIDEST_STRIP);
        let mut line = vec![(Ink::Soft, format!("{:>label$} ", layer.name))];
        line.extend(strip(&layer.load, room));
        line.extend([(Ink::Plain, words), (Ink::Bad, dead)]);
        lines.push(line);
    }
    lines
}

/// The loads of experts in this many characters; experts that share one show the load that is farthest from
/// even.
fn strip(load: &[f64], room: usize) -> Line {
    let (n, mut line) = (load.len(), Line::new());
    if n == 0 || room == 0 {
        return line;
    }
    let each = n.div_ceil(room);
    // Few experts are as wide as is easy to see.
    let wide = (room / n).clamp(1, WIDEST_EXPERT);
    for experts in load.chunks(each) {
        let far = |share: &f64| (share * n as f64 - 1.0).abs();
        let share = experts.iter().copied().max_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(0.0);
        let times = share * n as f64;
        let (ink, c) = match times {
            x if x <= 0.0 => (Ink::Bad, NOTHING),
            x if x > 2.0 => (Ink::Other, BLOCKS[8]),
            x => (Ink::Curve, BLOCKS[((4.0 * x).round() as usize).clamp(1, 8)]),
        };
        let cells = c.to_string().repeat(wide);
        match line.last_mut() {
            Some((last, text)) if *last == ink => text.push_str(&cells),
            _ => line.push((ink, cells)),
        }
    }
    line
}

/// Values as a row of blocks; if there are too many, means of neighbors.
fn spark(values: &[f64], room: usize) -> String {
    let each = values.len().div_ceil(room.max(1)).max(1);
    let means: Vec<f64> =
        values.chunks(each).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let most = means.iter().copied().fold(0.0, f64::max);
    let block = |x: &f64| match most > 0.0 {
        true => BLOCKS[((8.0 * x / most).round() as usize).clamp(1, 8)],
        false => ' ',
    };
    means.iter().map(block).collect()
}

/// A text in lines of at most `width` columns, broken at spaces if there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| measure_text_width(line));
        if used > 0 && used + 1 + measure_text_width(word) > width {
            lines.push(format!("  {word}"));
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A line cut off at the width of the screen.
fn render(line: &Line, size: Size) -> String {
    let (mut text, mut used) = (String::new(), 0);
    for (ink, part) in line {
        let mut shown = String::new();
        for c in part.chars() {
            let wide = measure_text_width(c.encode_utf8(&mut [0; 4]));
            if used + wide > size.width {
                break;
            }
            used += wide;
            shown.push(c);
        }
        match size.color && *ink != Ink::Plain && !shown.is_empty() {
            true => text.push_str(&format!("\u{1b}[{}m{shown}\u{1b}[0m", ink.code())),
            false => text.push_str(&shown),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::log::AlarmLine;

    fn view() -> View {
        View {
            name: "a\u{1b}[2J漢".to_owned(),
            status: "running".to_owned(),
            step: 320.0,
            n_steps: Some(640.0),
            seconds_left: Some(84.0),
            loss: (1..=320).map(|i| (f64::from(i), 8.0 - 4.0 * f64::from(i) / 320.0)).collect(),
            validation: vec![(160.0, 6.5), (320.0, 4.5)],
            speeds: vec![100.0, 50.0, 100.0],
            numbers: vec![("loss", "4.0000".to_owned()), ("validation", "4.5000".to_owned())],
            layers: (0..6)
                .map(|i| Layer {
                    name: i.to_string(),
                    load: vec![0.25, 0.5, 0.25, 0.0],
                    max_violation: Some(f64::from(i)),
                    dead: Some(1.0),
                })
                .collect(),
            alarms: vec![AlarmLine {
                step: 9,
                kind: "spike".to_owned(),
                message: "the loss\u{7} is high ".repeat(9),
            }],
            n_bad: 0,
            is_wrong: false,
        }
    }

    fn size(width: usize, height: usize) -> Size {
        Size { width, height, color: false }
    }

    #[test]
    fn every_size_is_kept_and_nothing_of_a_run_is_obeyed() {
        for width in [0, 1, 2, 5, 9, 13, 40, 80, 300] {
            for height in [0, 1, 2, 3, 6, 9, 10, 24, 100] {
                let lines = frame(&view(), &["said\r\n".to_owned()], size(width, height));
                assert!(lines.len() <= height, "{width}x{height}: {} lines", lines.len());
                for line in &lines {
                    assert!(measure_text_width(line) <= width, "{width}x{height}: {line}");
                    assert!(!line.contains(|c: char| c.is_control()), "{width}x{height}: {line:?}");
                }
            }
        }
        let colored = frame(&view(), &[], Size { color: true, ..size(80, 24) }).join("\n");
        assert!(colored.contains("\u{1b}[31m") && !colored.contains("\u{1b}[2J"), "{colored:?}");
    }

    #[test]
    fn eighty_by_twenty_four_holds_all_of_it() {
        let lines = frame(&view(), &[], size(80, 24));
        let text = lines.join("\n");
        assert_eq!(lines[0], "a\\u001b[2J漢  step 320/640  running");
        assert!(lines[1].contains("=====") && lines[1].ends_with(" 50 %  1 min 24 s left"), "{}", lines[1]);
        assert_eq!(lines[2], "loss 4.0000  validation 4.5000  ");
        assert_eq!(lines[3], "tokens/s █▄█");
        assert!(
            text.contains("spike at step 9") && text.contains("o validation") && text.contains('o'),
            "{text}"
        );
        // Even, twice, even, nothing; six layers fit.
        assert!(text.contains("5 ▄▄▄▄████▄▄▄▄···· MaxVio 5.00 dead 1"), "{text}");
    }

    #[test]
    fn the_worst_layers_are_shown_where_there_is_no_room() {
        let lines = loads(&view().layers, 80, 3);
        let text: Vec<String> = lines.iter().map(|line| render(line, size(80, 9))).collect();
        assert!(
            text[0].contains("2 worst of 6") && text[1].starts_with("4 ") && text[2].starts_with("5 "),
            "{text:?}"
        );
        assert_eq!(loads(&view().layers, 80, 1), Vec::<Line>::new());
        // Two experts a character: 0.5 and 0 are farthest from even.
        assert_eq!(
            strip(&[0.25, 0.5, 0.25, 0.0], 2),
            [(Ink::Curve, "█".to_owned()), (Ink::Bad, "·".to_owned())]
        );
    }
}
