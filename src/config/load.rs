//! Defaults, file and environment become one [`Config`]; the only place that reads any of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use config::{ConfigError, Environment, File, FileFormat, Value, ValueKind};
use serde::Deserialize;
use serde_path_to_error::{Segment, Track};
use zeroize::Zeroizing;

use super::problem::Problems;
use super::{AuthSettings, Config, NamedKey, Problem, PseudonymSettings, Secret};

/// The settings file where none is named.
const DEFAULT_FILE: &str = "config/hookbridge.toml";

/// The settings as read, and everything that is wrong with them.
///
/// Where a setting has a problem, the config holds its default, so that the rest can be checked.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    pub problems: Vec<Problem>,
}

impl Loaded {
    /// The config, if nothing is wrong with it.
    pub fn into_result(self) -> Result<Config, Vec<Problem>> {
        if self.problems.is_empty() { Ok(self.config) } else { Err(self.problems) }
    }
}

/// This process's environment, for [`load`].
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(crate) fn environment() -> HashMap<String, String> {
    // A variable that is not text cannot be one of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads the settings: `HOOKBRIDGE__SECTION__NAME` over the file over the defaults.
///
/// `file` must exist if it is given; otherwise `config/hookbridge.toml` is read where there is one.
pub fn load(file: Option<&Path>, environment: HashMap<String, String>) -> Loaded {
    let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
    let file = file.map(Path::to_owned).or_else(default);
    let mut problems = Problems::default();
    let mut root = read(file.as_deref(), environment, &mut problems);
    super::profiles::apply(&mut root, &mut problems);
    let mut config = typed(root, &mut problems);
    read_keys(&mut config.auth, &mut problems);
    read_pseudonym_key(&mut config.pseudonym, &mut problems);
    super::check::check(&config, &mut problems);
    Loaded { config, file, problems: problems.0 }
}

/// These settings with the present keys of `auth.keys_file`.
///
/// # Errors
///
/// What is wrong with the file or its keys.
pub(crate) fn reload_keys(config: &Config) -> Result<Config, Vec<Problem>> {
    let (mut config, mut problems) = (config.clone(), Problems::default());
    config.auth.keys.retain(|key| !key.is_filed);
    read_keys(&mut config.auth, &mut problems);
    super::check::check(&config, &mut problems);
    Loaded { config, file: None, problems: problems.0 }.into_result()
}

/// Merges the sources into one untyped tree.
fn read(file: Option<&Path>, variables: HashMap<String, String>, problems: &mut Problems) -> Value {
    // The prefix ends in the separator, so that the variables that Kubernetes makes for a Service
    // named hookbridge (HOOKBRIDGE_PORT and the like) are not taken for settings.
    let environment = Environment::with_prefix("HOOKBRIDGE")
        .prefix_separator("__")
        .separator("__")
        .source(Some(variables));
    let build = |file: Option<&Path>| {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(File::new(&file.to_string_lossy(), FileFormat::Toml));
        }
        builder.add_source(environment.clone()).build().map(|built| built.cache)
    };
    let built = build(file).or_else(|error| {
        let place = file.map_or("environment".into(), |file| file.display().to_string());
        let why = file.and_then(syntax_error).unwrap_or_else(|| error.to_string());
        problems.note(place, why);
        build(None)
    });
    built.unwrap_or_else(|_| Value::new(None, config::Map::<String, Value>::new()))
}

/// The syntax error of a settings file, if it has one. The library's own text quotes the line, which may
/// hold a secret.
fn syntax_error(file: &Path) -> Option<String> {
    let text = Zeroizing::new(std::fs::read_to_string(file).ok()?);
    let error = toml::from_str::<toml::Table>(&text).err()?;
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    Some(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
}

/// Sections whose values may be secrets, and are not quoted.
const SECRET_SECTIONS: [&str; 3] = ["auth", "pseudonym", "kafka"];

/// Gives the tree its types. A setting of the wrong type is reported and removed, and the rest is read
/// again, so that all problems are found: at most one round for each setting in the tree.
fn typed(mut root: Value, problems: &mut Problems) -> Config {
    loop {
        let mut unknown = Vec::new();
        let mut track = Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(root.clone(), &mut track);
        let mut note = |path: serde_ignored::Path| unknown.push(path.to_string());
        match serde_ignored::deserialize::<_, _, Config>(deserializer, &mut note) {
            Ok(config) => {
                for path in unknown {
                    problems.note(bracketed(&path), unknown_setting(&path));
                }
                return config;
            }
            Err(error) => {
                let path = track.path();
                let message = match &error {
                    ConfigError::NotFound(name) => {
                        format!("needs `{}`", name.rsplit([']', '.']).next().unwrap_or(name))
                    }
                    error => error.to_string(),
                };
                let place = path.to_string();
                let section = place.split(['.', '[']).next().unwrap_or_default();
                let is_secret = SECRET_SECTIONS.contains(&section);
                let message = if is_secret { unquoted(&message) } else { message };
                problems.note(&place, message);
                if !remove(&mut root, &path.iter().collect::<Vec<_>>()) {
                    return Config::default();
                }
            }
        }
    }
}

/// A message about a value of the wrong type without the value, which may be a secret.
fn unquoted(message: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "];
    let is_quoting = quotes.iter().any(|begin| message.starts_with(begin));
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if is_quoting => format!("is something else, expected {expected}"),
        _ => message.to_owned(),
    }
}

/// Removes the value at a path from the tree; false if there is none.
fn remove(value: &mut Value, path: &[&Segment]) -> bool {
    match (&mut value.kind, path) {
        (ValueKind::Table(table), [Segment::Map { key }]) => table.remove(key).is_some(),
        (ValueKind::Table(table), [Segment::Map { key }, rest @ ..]) => {
            table.get_mut(key).is_some_and(|value| remove(value, rest))
        }
        (ValueKind::Array(array), [Segment::Seq { index }]) if *index < array.len() => {
            array.remove(*index);
            true
        }
        (ValueKind::Array(array), [Segment::Seq { index }, rest @ ..]) => {
            array.get_mut(*index).is_some_and(|value| remove(value, rest))
        }
        _ => false,
    }
}

/// The message about an unknown setting: it names those that may have been meant.
fn unknown_setting(path: &str) -> String {
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let names = |defaults: toml::Value| -> Option<String> {
        let mut table = &defaults;
        for name in section.split('.').filter(|name| !name.is_empty()) {
            let entry = if name.parse::<usize>().is_ok() { table.get(0) } else { table.get(name) };
            table = entry?;
        }
        Some(table.as_table()?.keys().cloned().collect::<Vec<_>>().join(", "))
    };
    match toml::Value::try_from(Config::default()).ok().and_then(names) {
        Some(known) => format!("there is no such setting; known here: {known}"),
        None => "there is no such setting".into(),
    }
}

/// `webhook.0.name` as the other problems write it: `webhook[0].name`.
fn bracketed(path: &str) -> String {
    let bracketed = path.split('.').map(|part| match part.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        Err(_) => format!(".{part}"),
    });
    bracketed.collect::<String>().trim_start_matches('.').to_owned()
}

/// Reads the file that a setting names.
///
/// # Errors
///
/// A problem with that setting.
pub(crate) fn read_file(key: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path)
        .map_err(|error| Problem::new(key, format!("{} cannot be read: {error}", path.display())))
}

/// Reads the file that a setting names, which must not be larger than this.
///
/// # Errors
///
/// A problem with that setting.
pub(crate) fn read_file_within(key: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Problem> {
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size > bytes_max {
        let message = format!("{} is larger than {} MiB", path.display(), bytes_max >> 20);
        return Err(Problem::new(key, message));
    }
    read_file(key, path)
}

/// Reads the file that a setting names as text.
fn read_text(key: &str, path: &Path) -> Result<Zeroizing<String>, Problem> {
    let text = String::from_utf8(read_file(key, path)?).map(Zeroizing::new);
    text.map_err(|_| Problem::new(key, format!("{} is not a text", path.display())))
}

/// Reads the key of pseudonyms from its file, if it is in one.
fn read_pseudonym_key(pseudonym: &mut PseudonymSettings, problems: &mut Problems) {
    let setting = "pseudonym.key_file";
    let Some(path) = &pseudonym.key_file else { return };
    if pseudonym.key.is_some() {
        problems.note(setting, "pseudonym.key is set, too; take one of the two out");
        return;
    }
    match read_text(setting, path) {
        Ok(text) => pseudonym.key = Some(Secret::new(text.as_str())),
        Err(problem) => problems.0.push(problem),
    }
}

/// Adds the keys of `auth.keys_file`.
fn read_keys(auth: &mut AuthSettings, problems: &mut Problems) {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct KeysFile {
        keys: Vec<NamedKey>,
    }
    let setting = "auth.keys_file";
    let Some(path) = &auth.keys_file else { return };
    let file = read_text(setting, path).and_then(|text| {
        // The library's text quotes the line, which may hold a key, and its summary a wrong value.
        toml::from_str::<KeysFile>(&text).map_err(|error| {
            let why = unquoted(error.message());
            Problem::new(setting, format!("{} cannot be read: {why}", path.display()))
        })
    });
    match file {
        Ok(file) => {
            auth.keys.extend(file.keys.into_iter().map(|key| NamedKey { is_filed: true, ..key }))
        }
        Err(problem) => problems.0.push(problem),
    }
}
