//! `moe-data report`: a page about a build, and its figures as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_report::{Figure, Page};
use moe_shards::{Manifest, atomic};

use crate::error::{Error, Result};
use crate::listing::check_single;
use crate::printer::Printer;
use crate::report::compare::compare;
use crate::report::report;
use crate::watch::Watch;

const GENERATOR: &str = "moe-data report";
const PAGE: &str = "report.html";
const PAGE_OF_TWO: &str = "compare.html";

/// Flags of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Folder of the build
    #[arg(value_name = "DIR", default_value = "out")]
    pub path: PathBuf,
    /// Compare two builds instead: which documents changed their fate, and why
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with = "path")]
    pub compare: Option<Vec<PathBuf>>,
    /// Where to write the page [default: report.html in the folder of the build, or compare.html here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write each figure as an SVG file into this folder
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
    /// Print the numbers of all figures as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// No build, a damaged one, foreign files in the way, or a full disk.
pub fn run(args: &ReportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let n_shards = |out: &Path| -> Result<u64> {
        match out.join(Manifest::FILE).exists() {
            true => Ok(Manifest::read(out)?.shards.len() as u64),
            false => Ok(0),
        }
    };
    let (made, default) = match args.compare.as_deref() {
        Some([a, b]) => {
            let watch = Watch::new(stop, printer.work_bar("compare", n_shards(a)? + n_shards(b)?, "shards"));
            let made = compare([a, b], GENERATOR, &watch);
            watch.finish();
            (made, PathBuf::from(PAGE_OF_TWO))
        }
        _ => {
            let watch = Watch::new(stop, printer.work_bar("report", n_shards(&args.path)?, "shards"));
            let made = report(&args.path, GENERATOR, &watch);
            watch.finish();
            (made, args.path.join(PAGE))
        }
    };
    let report = made?;
    let output = args.output.clone().unwrap_or(default);
    // All conflicts are found before anything is written.
    check_single(&output, |start| Page::is_by(start, GENERATOR))?;
    let mut files = vec![(output.clone(), report.page.html())];
    for (dir, figure) in
        args.figures.iter().flat_map(|dir| report.figures.iter().map(move |figure| (dir, figure)))
    {
        let path = dir.join(format!("{}.svg", figure.id));
        check_single(&path, |start| Figure::is_svg_by(start, GENERATOR))?;
        files.push((path, figure.svg(GENERATOR)));
    }
    for (path, text) in &files {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
        }
        atomic::write_file(path, text.as_bytes())?;
    }
    printer.note(&format!("page     {}", output.display()));
    if let Some(dir) = &args.figures {
        printer.note(&format!("figures  {} in {}", report.figures.len(), dir.display()));
    }
    if args.json {
        printer.data(&format!("{:#}\n", report.json()));
    }
    Ok(())
}
