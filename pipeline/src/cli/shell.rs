//! Shell completions and manual pages.

use clap::{Args, Command};
use clap_complete::Shell;
use moe_data::{Error, Result};

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl Completions {
    /// The script.
    pub fn script(&self, mut command: Command) -> String {
        let (name, mut script) = (command.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Verb, and verb of that one, such as `tokenizer train` [default: the program]
    #[arg(value_name = "VERB")]
    pub verbs: Vec<String>,
}

impl Man {
    /// The page.
    ///
    /// # Errors
    /// There is no such verb.
    pub fn page(&self, mut command: Command) -> Result<String> {
        command.build();
        let mut found = &command;
        for verb in &self.verbs {
            found = found.find_subcommand(verb).ok_or_else(|| {
                let names: Vec<&str> = found.get_subcommands().map(Command::get_name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Error::Usage(format!("{} has no verb `{verb}`; there are: {known}", found.get_name()))
            })?;
        }
        let mut page = Vec::new();
        let written = clap_mangen::Man::new(found.clone()).render(&mut page);
        written.map_err(Error::Output)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}
