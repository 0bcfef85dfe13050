//! The program `moe-train`: parses, calls the library, prints the error, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use moe_train::cli::Cli;
use moe_train::commands;
use moe_train::printer::{Printer, Verbosity};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let mut printer = Printer::new(verbosity);
    let outcome = moe_shards::exit_when_maps_are_lost().map_err(Into::into);
    match outcome.and_then(|()| commands::run(cli, &mut printer)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            printer.finish_steps();
            printer.error(error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
