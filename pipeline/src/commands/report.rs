//! `moe-data report`: a page about a build, and its figures as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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

/// What `report` is asked to do.
#[derive(Clone, Debug)]
pub struct ReportArgs {
    /// Folder of the build.
    pub path: PathBuf,
    /// Two builds to show next to each other instead.
    pub compare: Option<[PathBuf; 2]>,
    /// The page; `report.html` in the folder of the build by default, `compare.html` in the current one for two.
    pub output: Option<PathBuf>,
    /// Folder for the figures.
    pub figures: Option<PathBuf>,
    /// Whether to print the numbers.
    pub json: bool,
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// No build, one that is damaged, files of others in the way, a full disk.
pub fn run(args: &ReportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let n_shards = |out: &Path| -> Result<u64> {
        match out.join(Manifest::FILE).exists() {
            true => Ok(Manifest::read(out)?.shards.len() as u64),
            false => Ok(0),
        }
    };
    let (made, default) = match &args.compare {
        Some([a, b]) => {
            let watch = Watch::new(stop, printer.work_bar("compare", n_shards(a)? + n_shards(b)?, "shards"));
            let made = compare([a, b], GENERATOR, &watch);
            watch.finish();
            (made, PathBuf::from(PAGE_OF_TWO))
        }
        None => {
            let watch = Watch::new(stop, printer.work_bar("report", n_shards(&args.path)?, "shards"));
            let made = report(&args.path, GENERATOR, &watch);
            watch.finish();
            (made, args.path.join(PAGE))
        }
    };
    let report = made?;
    let output = args.output.clone().unwrap_or(default);
    // Everything that is in the way is found before anything is written.
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
