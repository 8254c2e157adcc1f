//! `hookbridge completions` and `hookbridge man`: from the command line's own definitions.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, fail};

const NAME: &str = "hookbridge";

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell, such as bash, zsh or fish
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), NAME, &mut script);
        print(&script)
    }
}

#[derive(Debug, Args)]
pub struct Man {
    /// The subcommand that the page is about, such as send
    command: Option<String>,
}

impl Man {
    pub fn run(self) -> Exit {
        let mut root = Cli::command();
        // So that a page also has the options that go with every subcommand.
        root.build();
        let page = match &self.command {
            None => root,
            Some(name) => match root.find_subcommand(name) {
                Some(found) => found.clone(),
                None => return fail(format!("there is no {name}; see `{NAME} --help`")),
            },
        };
        let mut text = Vec::new();
        match clap_mangen::Man::new(page.disable_help_subcommand(true)).render(&mut text) {
            Ok(()) => print(&text),
            Err(error) => fail(error),
        }
    }
}

/// A reader that has seen enough is no mistake.
fn print(text: &[u8]) -> Exit {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => Exit::Clean,
    }
}
