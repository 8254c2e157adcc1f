//! The command line: the subcommands, their flags, and their exit codes.

mod check;
mod dev;
mod health;
mod key;
mod manual;
mod paint;
mod progress;
mod replay;
mod send;
mod serve;
mod show;
mod spool;
mod tail;

use std::path::PathBuf;

use anstream::eprintln;
use clap::{Parser, Subcommand};

use crate::config;
use crate::config::{Config, Loaded, Problem};
use crate::kafka;
use paint::BAD;

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
    Dev(dev::Dev),
    /// Check the settings and report every problem at once
    Check(check::Check),
    /// Print the settings in force, secrets hidden
    Config,
    /// Make a key for a sender and print the line for the settings
    Key(key::Key),
    /// Look into the spool's folder, or drain it without a bridge
    #[command(subcommand)]
    Spool(spool::Command),
    /// Send clicks to a deployment, one to try it or many to load it
    Send(send::Send),
    /// Follow a topic, records as they land
    Tail(tail::Tail),
    /// Send dead letters, or a part of any topic, through the same validation again
    Replay(replay::Replay),
    /// Ask the local admin listener whether this replica is ready
    Health,
    /// Print the completions for a shell
    Completions(manual::Completions),
    /// Print the manual page, or that of a subcommand
    Man(manual::Man),
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Cli {
    /// Runs the command. Blocks until it is done.
    pub fn run(self) -> Exit {
        let file = self.config;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => {
                let loaded = load(file);
                let file = loaded.file.clone();
                loaded
                    .into_result()
                    .map_or_else(|p| report(&p), |config| serve::serve(config, file))
            }
            Command::Dev(dev) => dev.run(),
            Command::Check(check) => check.run(load(file)),
            Command::Config => with_config(file, |config| {
                // Settings that were just read can be written.
                print!("{}", toml::to_string(&config).unwrap_or_default());
                Exit::Clean
            }),
            Command::Key(key) => key.run(),
            Command::Spool(command) => with_config(file, |config| command.run(config)),
            Command::Send(send) => send.run(),
            Command::Replay(replay) => with_topics(file, |config| replay.run(&config)),
            Command::Tail(tail) => with_topics(file, |config| tail.run(&config)),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Health => {
                // Asked every few seconds: only the address matters, whatever else is wrong.
                let loaded = config::load(file.as_deref(), config::environment());
                health::ask(loaded.config.admin.listen)
            }
        }
    }
}

/// Reads the settings and has librdkafka judge its own.
fn load(file: Option<PathBuf>) -> Loaded {
    let mut loaded = config::load(file.as_deref(), config::environment());
    loaded.problems.extend(kafka::check(&loaded.config));
    loaded
}

fn with_config(file: Option<PathBuf>, run: impl FnOnce(Config) -> Exit) -> Exit {
    match load(file).into_result() {
        Ok(config) => run(config),
        Err(problems) => report(&problems),
    }
}

/// For commands that only talk to Kafka: what senders need may be missing, as on an operator's own
/// machine.
fn with_topics(file: Option<PathBuf>, run: impl FnOnce(Config) -> Exit) -> Exit {
    let mut loaded = load(file);
    let is_for_senders = |problem: &Problem| {
        ["auth", "http", "spool"].iter().any(|section| problem.key.starts_with(section))
    };
    loaded.problems.retain(|problem| !is_for_senders(problem));
    loaded.into_result().map_or_else(|problems| report(&problems), run)
}

/// Prints problems with the settings.
fn report(problems: &[Problem]) -> Exit {
    for problem in problems {
        eprintln!("{BAD}hookbridge{BAD:#}: {problem}");
    }
    Exit::Config
}

/// Prints why a command failed.
fn fail(reason: impl std::fmt::Display) -> Exit {
    eprintln!("{BAD}hookbridge{BAD:#}: {reason}");
    Exit::Failed
}
