//! Settings, as a file and as variables (`NAME=value` lines after an empty line). Any input is accepted or
//! refused; accepted settings can be used, and are the same when printed and read again; no problem
//! quotes a secret.
#![no_main]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use hookbridge_fuzz::config::{Config, load};
use libfuzzer_sys::fuzz_target;

/// The settings file, in memory where the system has such a folder.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("hookbridge-fuzz-{}.toml", std::process::id()))
});

/// Stands for a secret in the corpus.
const SECRET: &str = "zq-secret";

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else { return };
    // Such settings would make the bridge read other files.
    if input.to_lowercase().contains("_file") {
        return;
    }
    let (file, variables) = input.rsplit_once("\n\n\n").unwrap_or((input, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: HashMap<String, String> =
        variables.map(|(name, value)| (format!("HOOKBRIDGE__{name}"), value.to_owned())).collect();
    std::fs::write(&*FILE, file).unwrap();
    let loaded = load(Some(&FILE), variables);
    for problem in &loaded.problems {
        assert!(
            !problem.message.contains(SECRET) || !is_in_secret_place(&problem.key),
            "{problem}"
        );
    }
    let Ok(config) = loaded.into_result() else { return };
    assert!(config.callers().is_ok() && config.webhooks().is_ok());
    let printed = toml::to_string(&config).unwrap();
    let again: Config = toml::from_str(&printed).unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), printed);
});

/// Whether the value of this setting may be a secret.
fn is_in_secret_place(key: &str) -> bool {
    ["auth.api_key", "pseudonym.key", "kafka.options"].iter().any(|place| key.starts_with(place))
}
