//! The program `moe-train`: parses, calls the library, prints the error, sets the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use moe_shards::memory::Allocator;
use moe_train::cli::Cli;
use moe_train::commands;
use moe_train::printer::{Printer, Verbosity};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new(out_of_memory);

/// Nothing here allocates.
fn out_of_memory(n_bytes: usize) -> ! {
    let hint = "give it more, or set run.recompute = true, a smaller data.micro_batch or shorter sequences";
    moe_shards::terminal::leave_screen();
    // Nobody can be told if stderr is closed.
    writeln!(io::stderr(), "error: out of memory: cannot allocate {n_bytes} more bytes\n  hint: {hint}").ok();
    std::process::exit(5)
}

fn main() -> ExitCode {
    moe_shards::memory::keep_large_blocks();
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
