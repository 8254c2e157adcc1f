//! The process edge: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use hookbridge::cli::{Cli, Exit};

fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help and version are answers, not mistakes.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Clean };
            let _ = error.print();
            exit
        }
    };
    ExitCode::from(exit as u8)
}
