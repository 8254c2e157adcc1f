//! `hookbridge key`: makes a key for a sender, or takes the sender's own, and prints the line for the
//! settings. The key itself is not stored.

use std::io::Read;

use super::{CommandResult, Exit};
use crate::click::auth::{format_hash, hash_key};
use crate::config::weakness;

/// Far above any key; a larger input is a mistake.
const KEY_BYTES_MAX: u64 = 64 << 10;

pub fn print_key(name: &str, from_stdin: bool, allow_short: bool) -> CommandResult {
    let key = if from_stdin { read() } else { make() }?;
    // A pair is for `auth = "basic"`; a key of another kind seldom has a colon near its end.
    if let Some(weakness) = weakness(name, &key, true).filter(|_| !allow_short) {
        let advice =
            "leave --stdin out to make one; if the sender dictates this one, say --allow-short";
        return Err(format!("{weakness}: {advice}").into());
    }
    if !from_stdin {
        println!("# Give this key to the sender; it is kept nowhere.\n{key}\n");
    }
    let (name, hash) = (toml::Value::from(name), format_hash(&hash_key(key.as_bytes())));
    println!("# Put this line under [auth] in the settings.");
    println!("keys = [{{ name = {name}, sha256 = \"{hash}\" }}]");
    Ok(Exit::Clean)
}

/// A key of 256 random bits.
pub fn make() -> Result<String, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("hb_{}", format_hash(&bytes)))
}

fn read() -> Result<String, String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(KEY_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("standard input cannot be read: {error}"))?;
    match text.trim() {
        "" => Err("standard input holds no key".into()),
        key => Ok(key.to_owned()),
    }
}
