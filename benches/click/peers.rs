//! Other programs in the same run: `--peer FILE` for each, a few lines of TOML (`benches/README.md`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How to start a program that takes a POST and writes a record, and where to post.
#[derive(Clone)]
pub struct Peer {
    /// The file's name.
    pub name: String,
    /// Where the command runs.
    pub folder: PathBuf,
    pub start: Start,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A line for the shell, which ends with `exec PROGRAM`. It sees BROKERS, TOPIC, PORT, KEY and DIR, an empty
    /// folder.
    pub command: String,
    /// Where it listens, if it cannot listen on PORT.
    pub port: Option<u16>,
    /// Where it takes clicks.
    pub path: String,
}

impl Peer {
    pub fn read(file: &Path) -> Peer {
        let text = std::fs::read_to_string(file).expect("the peer's file");
        let start: Start = toml::from_str(&text).expect("command, port and path of the peer");
        let file = file.canonicalize().expect("the peer's file");
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        Peer { name, folder: file.parent().expect("a folder").into(), start }
    }
}
