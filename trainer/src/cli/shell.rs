//! Shell completions and man pages.

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::error::{Error, Result};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl CompletionsArgs {
    /// The script.
    pub fn script(&self) -> String {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "moe-train", &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Verb [default: the program].
    #[arg(value_name = "VERB")]
    pub verb: Option<String>,
}

impl ManArgs {
    /// The page.
    ///
    /// # Errors
    /// If there is no such verb.
    pub fn page(&self) -> Result<String> {
        let mut command = Cli::command();
        command.build();
        let found = match &self.verb {
            None => &command,
            Some(verb) => command.find_subcommand(verb).ok_or_else(|| {
                let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
                Error::Usage(format!("moe-train has no verb `{verb}`; the verbs are {}", names.join(", ")))
            })?,
        };
        let mut page = Vec::new();
        let written = clap_mangen::Man::new(found.clone()).render(&mut page);
        written.map_err(Error::io(std::path::Path::new("the page"), "write"))?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}
