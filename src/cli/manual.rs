//! `hookbridge completions` and `hookbridge man`: from the command line's own definitions.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::terminal::is_closed;
use super::{Cli, CommandResult, Exit};

const NAME: &str = "hookbridge";

pub fn print_completions(shell: Shell) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

/// Prints the page of a subcommand, or of the whole program.
pub fn print_page(subcommand: Option<&str>) -> CommandResult {
    let mut root = Cli::command();
    // So that a page also has the options that go with every subcommand.
    root.build();
    let page = match subcommand {
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

fn print(text: &[u8]) -> CommandResult {
    is_closed(io::stdout().write_all(text))?;
    Ok(Exit::Clean)
}
