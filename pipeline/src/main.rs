//! `moe-data`: parses arguments, runs the verb, prints the error, exits with its code.

mod cli;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use moe_cli::signals;
use moe_cli::terminal::Color;
use moe_data::Error;
use moe_data::commands::{
    build, classifier, config, decontaminate, diff, dups, executor, explain, export, filters, grade, import,
    inspect, label, mix, rephrase, report, slurm, task, tokenizer, verify, where_is, why,
};
use moe_data::printer::{Level, Printer};
use moe_shards::memory::Allocator;
use signal_hook::consts::SIGXFSZ;

use crate::cli::{Cli, Verb};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new(out_of_memory);

/// Nothing here allocates.
fn out_of_memory(n_bytes: usize) -> ! {
    let hint = "give it more, or use fewer --threads, less --memory, a smaller `limits.max_doc_bytes`";
    // Nobody is left to tell when stderr is closed.
    writeln!(io::stderr(), "error: out of memory: no {n_bytes} bytes more\n  hint: {hint}").ok();
    std::process::exit(5)
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(cli::with_global_flags_first(std::env::args_os())) {
        Ok(cli) => cli,
        Err(answer) => return say(&answer),
    };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => Level::Quiet,
        (false, true) => Level::Verbose,
        (false, false) => Level::Normal,
    };
    let printer = Printer::new(level, cli.color);
    let outcome = listen().and_then(|()| run(cli.verb, &printer));
    match outcome.and_then(|()| printer.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, &printer),
    }
}

/// Turns signals that would end the program silently into errors.
fn listen() -> moe_data::Result<()> {
    moe_shards::exit_when_maps_are_lost()?;
    // Writes beyond `ulimit -f` then fail.
    let listened = signal_hook::flag::register(SIGXFSZ, Arc::default());
    listened.map(drop).map_err(|e| Error::Machine(format!("cannot listen to signal {SIGXFSZ}: {e}")))
}

fn fail(error: &Error, printer: &Printer) -> ExitCode {
    // A reader that closed the pipe, such as `head`, needs no message.
    let is_closed = matches!(error, Error::Output(e) if e.kind() == ErrorKind::BrokenPipe);
    // Waiting tasks are not an error, and the build has reported them.
    if !is_closed && !matches!(error, Error::Waiting { .. }) {
        printer.error(&error.to_string());
    }
    ExitCode::from(error.exit_code())
}

/// Help and version, which are ordinary output, or what is wrong with the flags.
fn say(answer: &clap::Error) -> ExitCode {
    if answer.use_stderr() {
        // An argument may be a file name expanded by the shell.
        Printer::new(Level::Quiet, Color::Auto).refused_flags(&answer.render().to_string());
        return ExitCode::from(2);
    }
    match answer.print().and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&Error::Output(e), &Printer::new(Level::Quiet, Color::Auto)),
    }
}

fn run(verb: Verb, printer: &Printer) -> moe_data::Result<()> {
    match verb {
        Verb::Tokenizer(verb) => tokenizer::run(&verb, printer),
        Verb::Decontaminate(args) => decontaminate::run(&args, printer),
        Verb::Classifier(verb) => classifier::run(&verb, printer),
        Verb::Build(args) => build::run(&args, printer, stop_on_signals()?),
        Verb::Task(verb) => task::run(&verb, printer, stop_on_signals()?),
        Verb::Slurm(verb) => slurm::run(&verb, printer, stop_on_signals()?),
        Verb::Executor(args) => executor::run(&args, printer, stop_within(GRACE_OF_EXECUTORS)?),
        Verb::Import(args) => import::run(&args, printer, stop_on_signals()?),
        Verb::Rephrase(args) => rephrase::run(&args, printer, stop_on_signals()?),
        Verb::Label(args) => label::run(&args, io::stdin().lock(), printer),
        Verb::Grade(args) => grade::run(&args, printer, stop_on_signals()?),
        Verb::Mix(args) => mix::run(&args, printer, stop_on_signals()?),
        Verb::Config(args) => config::run(&args, printer),
        Verb::Filters(args) => filters::run(&args, printer),
        Verb::Why(args) => why::run(&args, printer),
        Verb::Dups(args) => dups::run(&args, printer),
        Verb::Explain(args) => explain::run(&args, printer),
        Verb::Where(args) => where_is::run(&args, printer, stop_on_signals()?),
        Verb::Diff(args) => diff::run(&args, printer, stop_on_signals()?),
        Verb::Export(args) => export::run(&args, printer, stop_on_signals()?),
        Verb::Inspect(args) => inspect::run(&args, printer),
        Verb::Report(args) => report::run(&args, printer, stop_on_signals()?),
        Verb::Completions(args) => {
            printer.data(&args.script(Cli::command()));
            Ok(())
        }
        Verb::Man(args) => {
            printer.data(&args.page(Cli::command()).map_err(Error::Usage)?);
            Ok(())
        }
        Verb::Verify(args) => verify::run(&args, printer, stop_on_signals()?),
    }
}

/// How long a command may take to stop on its own after the first signal.
const GRACE: Duration = Duration::from_millis(900);

/// An executor takes leave of its build, and removes the rows that it has.
const GRACE_OF_EXECUTORS: Duration = Duration::from_secs(20);

fn stop_on_signals() -> moe_data::Result<Arc<AtomicBool>> {
    stop_within(GRACE)
}

/// A flag that the first Ctrl-C sets; a second one ends the process at once. So does the first after a moment,
/// if a library is running that cannot be interrupted: files appear whole or not at all, so nothing is lost.
fn stop_within(grace: Duration) -> moe_data::Result<Arc<AtomicBool>> {
    let stop = signals::stop_flag().map_err(|e| Error::Machine(e.to_string()))?;
    let asked = stop.clone();
    std::thread::spawn(move || {
        while !asked.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(grace);
        let error = moe_data::Error::Interrupted;
        Printer::new(Level::Quiet, Color::Auto).error(&error.to_string());
        signal_hook::low_level::exit(i32::from(error.exit_code()));
    });
    Ok(stop)
}
