//! The command line: the subcommands, their flags, and their exit codes.
//!
//! Each command has a file of its own (`completions` and `man` share one); `terminal.rs` has what several of
//! them need to print, and `lines.rs` the form of records in files.

mod check;
mod dev;
mod health;
mod key;
mod lines;
mod manual;
mod replay;
mod schema;
mod send;
mod serve;
mod spool;
mod tail;
mod terminal;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use anstream::eprintln;
use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::bridge::StartError;
use crate::config::{self, Config, Loaded, Problem, WebhookSettings};
use crate::kafka;
use terminal::BAD;

/// Takes click webhooks over HTTP and lands them in Kafka.
#[derive(Debug, Parser)]
#[command(version, about, subcommand_required = false)]
pub struct Cli {
    /// The settings; without it `config/hookbridge.toml` is read where there is one. Variables such
    /// as HOOKBRIDGE__KAFKA__BROKERS go before the file.
    #[arg(long, global = true, value_name = "FILE", env = "HOOKBRIDGE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge (the default)
    Serve,
    /// Run it with a development broker inside: no Kafka, no settings
    Dev(dev::DevArgs),
    /// Check the settings and the spool's folder, and report every problem at once
    Check {
        /// Also connect to Kafka and check topics, replicas and rights
        #[arg(long)]
        kafka: bool,
    },
    /// Print the settings in force, secrets hidden
    Config,
    /// Make a key for a sender and print the line for the settings
    Key {
        /// Whose key it is; it stands in the logs
        #[arg(long, default_value = "opptima")]
        name: String,
        /// Take the key from standard input instead of making one: Opptima sends the account's own
        #[arg(long)]
        stdin: bool,
        /// Take one that can be guessed, because the sender dictates it
        #[arg(long, requires = "stdin")]
        allow_short: bool,
    },
    /// Look into the spool's folder, drain it without a bridge, or write its events as lines
    #[command(subcommand)]
    Spool(spool::SpoolCommand),
    /// Send clicks to a deployment, one to try it or many to load it
    Send(send::SendArgs),
    /// Follow a topic, records as they land
    Tail(tail::TailArgs),
    /// Send dead letters, a part of any topic, or a file through the same validation again
    Replay(replay::ReplayArgs),
    /// Print what readers of the topics need, for Flink, Spark, ksqlDB, ClickHouse, PostgreSQL and others
    Schema(schema::SchemaArgs),
    /// Ask the local admin listener whether this replica is ready
    Health,
    /// Print the completions for a shell
    Completions {
        /// The shell, such as bash, zsh or fish
        shell: Shell,
    },
    /// Print the manual page, or that of a subcommand
    Man {
        /// The subcommand that the page is about, such as send
        command: Option<String>,
    },
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All went well; for `serve`, the drain was clean.
    Clean = 0,
    /// It did not.
    Failed = 1,
    /// The command line is wrong (EX_USAGE of sysexits.h).
    Usage = 64,
    /// The settings are wrong (EX_CONFIG).
    Config = 78,
}

/// Why a command fails: what is printed, and the exit code.
struct CommandError {
    lines: Vec<String>,
    exit: Exit,
}

impl<E: Display> From<E> for CommandError {
    fn from(error: E) -> CommandError {
        CommandError { lines: vec![error.to_string()], exit: Exit::Failed }
    }
}

impl CommandError {
    fn settings(problems: Vec<Problem>) -> CommandError {
        let lines = problems.iter().map(Problem::to_string).collect();
        CommandError { lines, exit: Exit::Config }
    }

    fn start(error: StartError) -> CommandError {
        match error {
            StartError::Config(problem) => CommandError::settings(vec![problem]),
            error => error.into(),
        }
    }
}

type CommandResult<T = Exit> = Result<T, CommandError>;

impl Cli {
    /// Runs the command. Blocks until it is done.
    pub fn run(self) -> Exit {
        self.try_run().unwrap_or_else(|error| {
            for line in error.lines {
                eprintln!("{BAD}hookbridge{BAD:#}: {line}");
            }
            error.exit
        })
    }

    fn try_run(self) -> CommandResult {
        let file = self.config;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::serve(load(file)),
            Command::Dev(args) => args.run(),
            Command::Check { kafka } => Ok(check::check(&load(file), kafka)),
            Command::Config => {
                // Settings that were just read can be written.
                print!("{}", toml::to_string(&valid(load(file))?).unwrap_or_default());
                Ok(Exit::Clean)
            }
            Command::Key { name, stdin, allow_short } => key::print_key(&name, stdin, allow_short),
            Command::Spool(command) => command.run(&valid_without(&["auth", "http"], load(file))?),
            Command::Send(args) => args.run(),
            Command::Replay(args) => {
                args.run(&valid_without(&["auth", "http", "spool"], load(file))?)
            }
            Command::Tail(args) => {
                args.run(&valid_without(&["auth", "http", "spool"], load(file))?)
            }
            Command::Schema(args) => {
                args.run(&valid_without(&["auth", "http", "spool"], load(file))?)
            }
            Command::Completions { shell } => manual::print_completions(shell),
            Command::Man { command } => manual::print_page(command.as_deref()),
            Command::Health => {
                // Run every few seconds, and only the address matters: nothing else is checked.
                let loaded = config::load(file.as_deref(), config::environment());
                health::ask(loaded.config.admin.listen)
            }
        }
    }
}

/// Reads the settings and has librdkafka check its own.
fn load(file: Option<PathBuf>) -> Loaded {
    let mut loaded = config::load(file.as_deref(), config::environment());
    // Its limit follows from the size of bodies.
    if loaded.problems.iter().all(|problem| problem.key != "http.max_body_bytes") {
        loaded.problems.extend(kafka::check(&loaded.config));
    }
    loaded
}

fn valid(loaded: Loaded) -> CommandResult<Config> {
    loaded.into_result().map_err(CommandError::settings)
}

/// For commands that do not use these sections: they may be wrong or missing, as the keys of senders are on
/// an operator's own machine.
fn valid_without(sections: &[&str], mut loaded: Loaded) -> CommandResult<Config> {
    let is_used = |key: &str| !sections.iter().any(|section| key.starts_with(section));
    loaded.problems.retain(|problem| is_used(&problem.key));
    valid(loaded)
}

/// The webhook of this name; the first one if no name is given.
fn webhook<'c>(config: &'c Config, name: Option<&str>) -> Option<&'c WebhookSettings> {
    config.webhook.iter().find(|webhook| name.is_none_or(|name| webhook.name == name))
}

/// Runs a future on this thread. Name look-ups that are still under way are not waited for.
fn block_on<T, E: From<io::Error>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}
