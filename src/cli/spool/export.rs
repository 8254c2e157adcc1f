//! `hookbridge spool export`: the events of a spool as JSON lines on standard output.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anstream::eprintln;
use clap::Args;

use super::PATIENCE;
use crate::cli::lines::LineRecord;
use crate::cli::terminal::{BAD, is_closed};
use crate::cli::{CommandResult, Exit, block_on};
use crate::config::Config;
use crate::delivery::spool::{self, ExportSource, StoreError};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only the events that are set aside, because no topic takes them
    #[arg(long, conflicts_with = "file")]
    set_aside: bool,
    /// Whatever can be read of this file instead, such as a damaged-... of the spool's folder, also while a
    /// bridge runs. It may have events that have reached Kafka already
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// How many events were found.
#[derive(Default)]
struct Counts {
    whole: u64,
    damaged: u64,
}

impl ExportArgs {
    pub fn run(&self, config: &Config) -> CommandResult {
        let folder = &config.spool.dir;
        let (source, path) = match &self.file {
            Some(path) => (ExportSource::File(path), path),
            None if !config.spool.is_on() => {
                return Err("there is no spool: spool.dir is empty; --file reads a file".into());
            }
            None => (ExportSource::Folder { folder, is_only_set_aside: self.set_aside }, folder),
        };
        let mut out = BufWriter::new(io::stdout().lock());
        let (mut counts, mut written) = (Counts::default(), Ok(()));
        let give = |record: Option<_>| {
            match record {
                Some(record) => {
                    counts.whole += 1;
                    written = writeln!(out, "{}", LineRecord::of(&record).write());
                }
                None => counts.damaged += 1,
            }
            written.is_ok()
        };
        let read = block_on(spool::export(source, PATIENCE, give));
        if is_closed(written.and_then(|()| out.flush()))? {
            return Ok(Exit::Clean);
        }
        let shown = path.display();
        match read {
            Ok(()) => {}
            Err(StoreError::InUse(owner)) => {
                return Err(format!(
                    "{shown}: {owner} uses it. Stop that process first, or read one of its files with --file"
                )
                .into());
            }
            Err(StoreError::Damaged(reason)) => {
                return Err(format!(
                    "{shown}: it is damaged: {reason}. Read what is whole of its files with --file"
                )
                .into());
            }
            Err(error) => return Err(format!("{shown}: {error}").into()),
        }
        Ok(self.summarise(&counts))
    }

    /// Says on standard error how many events there were.
    fn summarise(&self, counts: &Counts) -> Exit {
        eprintln!("{} events written", counts.whole);
        if counts.damaged > 0 {
            eprintln!("{BAD}{} events are damaged{BAD:#} and cannot be read", counts.damaged);
        }
        let finds_nothing = self.file.is_some() && counts.whole == 0;
        if finds_nothing {
            eprintln!("{BAD}no event{BAD:#} can be read of this file");
        }
        if counts.damaged > 0 || finds_nothing { Exit::Failed } else { Exit::Clean }
    }
}
