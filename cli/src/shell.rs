//! Shell completions and manual pages.

use clap::{Args, Command};
use clap_complete::Shell;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl CompletionsArgs {
    /// The script for a program.
    pub fn script(&self, mut program: Command) -> String {
        let (name, mut script) = (program.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Verb, followed by its own verb if it has any [default: the program]
    #[arg(value_name = "VERB")]
    pub verbs: Vec<String>,
}

impl ManArgs {
    /// The page about a program or one of its verbs.
    ///
    /// # Errors
    /// There is no such verb.
    pub fn page(&self, mut program: Command) -> Result<String, String> {
        program.build();
        let mut found = &program;
        for verb in &self.verbs {
            found = found.find_subcommand(verb).ok_or_else(|| {
                let names: Vec<&str> = found.get_subcommands().map(Command::get_name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                format!("{} has no verb `{verb}`; there are: {known}", found.get_name())
            })?;
        }
        let mut page = Vec::new();
        let written = clap_mangen::Man::new(found.clone()).render(&mut page);
        written.map_err(|e| format!("cannot write the page: {e}"))?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}
