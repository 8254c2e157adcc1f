//! `hookbridge completions` and `hookbridge man`: from the command line's own definitions.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::terminal::is_closed;
use super::{Cli, CommandResult, Exit};

const NAME: &str = "hookbridge";

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell, such as bash, zsh or fish
    shell: Shell,
}

impl CompletionsArgs {
    pub fn run(self) -> CommandResult {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), NAME, &mut script);
        print(&script)
    }
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The subcommand that the page is about, such as send
    command: Option<String>,
}

impl ManArgs {
    pub fn run(self) -> CommandResult {
        let mut root = Cli::command();
        // So that a page also has the options that go with every subcommand.
        root.build();
        let page = match &self.command {
            None => root,
            Some(name) => {
                let found = root.find_subcommand(name).cloned();
                found.ok_or_else(|| format!("there is no {name}; see `{NAME} --help`"))?
            }
        };
        let mut text = Vec::new();
        clap_mangen::Man::new(page.disable_help_subcommand(true)).render(&mut text)?;
        print(&text)
    }
}

fn print(text: &[u8]) -> CommandResult {
    is_closed(io::stdout().write_all(text))?;
    Ok(Exit::Clean)
}
