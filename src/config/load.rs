//! Defaults, file and environment become one [`Config`]; the only place that reads any of them.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{ConfigError, Environment, File, FileFormat, Value, ValueKind};
use serde::Deserialize;
use serde_path_to_error::{Segment, Track};
use zeroize::Zeroizing;

use super::problem::Problems;
use super::section::Section;
use super::{
    AdminSettings, AuthSettings, Config, HttpSettings, KafkaSettings, LogSettings, NamedKey,
    Problem, PseudonymSettings, Secret, SpoolSettings, TracingSettings, WebhookSettings, wrong,
};

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
    misspelt_variables(&environment, &mut problems);
    let before = problems.found.len();
    let mut root = read(file.as_deref(), environment, &mut problems);
    let unreadable = (problems.found.len() > before).then_some(problems.found.len());
    super::profiles::apply(&mut root, &mut problems);
    let before = problems.found.len();
    let mut config = typed(root, &mut problems);
    // The tree has no order.
    problems.found[before..].sort_by(|one, other| one.key.cmp(&other.key));
    read_keys(&mut config.auth, &mut problems);
    read_pseudonym_key(&mut config.pseudonym, &mut problems);
    problems.all_is_read();
    super::check::check(&config, &mut problems);
    if let Some(count) = unreadable {
        // Whatever else is wrong may be right in the file.
        problems.found.truncate(count);
    }
    Loaded { config, file, problems: problems.found }
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
    problems.all_is_read();
    super::check::check(&config, &mut problems);
    Loaded { config, file: None, problems: problems.found }.into_result()
}

/// Notes variables that begin with one underscore too few, which would be ignored.
fn misspelt_variables(environment: &HashMap<String, String>, problems: &mut Problems) {
    let rest_of = |name: &str| Some(name.strip_prefix("HOOKBRIDGE_")?.to_owned());
    let rests = environment.keys().filter_map(|name| rest_of(name));
    let mut rests: Vec<_> =
        rests.filter(|rest| !rest.starts_with('_') && rest.contains("__")).collect();
    rests.sort_unstable();
    for rest in rests {
        let right = format!("is no setting: write HOOKBRIDGE__{rest}, with two underscores");
        problems.note(format!("HOOKBRIDGE_{rest}"), right);
    }
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
    match std::fs::read_to_string(file).map(Zeroizing::new) {
        Ok(text) => Some(explain(&text, &toml::from_str::<toml::Table>(&text).err()?)),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// An error in this text, with its line.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    let why = match error.message() {
        message if message.contains("as i128") => "this number is too large",
        message => message,
    };
    format!("line {}: {why}", before.matches('\n').count() + 1)
}

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
                let segments: Vec<_> = path.iter().collect();
                let place = path.to_string();
                problems.note(&place, wrong::message(&place, find(&root, &segments), &message));
                if !remove(&mut root, &path.iter().collect::<Vec<_>>()) {
                    return Config::default();
                }
            }
        }
    }
}

/// The value at a path of the tree.
fn find<'v>(value: &'v Value, path: &[&Segment]) -> Option<&'v Value> {
    match (&value.kind, path) {
        (_, []) => Some(value),
        (ValueKind::Table(table), [Segment::Map { key }, rest @ ..]) => find(table.get(key)?, rest),
        (ValueKind::Array(array), [Segment::Seq { index }, rest @ ..]) => {
            find(array.get(*index)?, rest)
        }
        // What is optional has a segment of its own.
        (_, [_, rest @ ..]) => find(value, rest),
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

/// The message about an unknown setting, by its path as `serde_ignored` writes it.
fn unknown_setting(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parts = section.split('.').filter(|part| part.parse::<usize>().is_err() && *part != "?");
    let mut known = match parts.collect::<Vec<_>>()[..] {
        [""] => Config::NAMES,
        ["http"] => HttpSettings::NAMES,
        ["http", "tls"] => &["cert_file", "key_file", "client_ca_file"],
        ["admin"] => AdminSettings::NAMES,
        ["kafka"] => KafkaSettings::NAMES,
        ["spool"] => SpoolSettings::NAMES,
        ["auth"] => AuthSettings::NAMES,
        ["pseudonym"] => PseudonymSettings::NAMES,
        ["log"] => LogSettings::NAMES,
        ["tracing"] => TracingSettings::NAMES,
        ["webhook"] => WebhookSettings::NAMES,
        _ => return "there is no such setting".into(),
    }
    .to_vec();
    known.sort_unstable();
    wrong::unknown("setting", name, &known)
}

/// `webhook.0.name` as the other problems write it: `webhook[0].name`.
fn bracketed(path: &str) -> String {
    let parts = path.split('.').filter(|part| *part != "?");
    let bracketed = parts.map(|part| match part.parse::<usize>() {
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

/// Opens the file that an option names, to read it part by part.
///
/// # Errors
///
/// A problem with that option.
pub(crate) fn open_file(option: &str, path: &Path) -> Result<impl Read + Send + use<>, Problem> {
    std::fs::File::open(path).map_err(|error| {
        Problem::new(option, format!("{} cannot be read: {error}", path.display()))
    })
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
        Err(problem) => problems.found.push(problem),
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
            let why = explain(&text, &error);
            let why = why.split_once(": ").map_or((why.as_str(), ""), |parts| parts);
            let why = format!("{}: {}", why.0, wrong::message("auth.keys", None, why.1));
            Problem::new(setting, format!("{} cannot be read: {why}", path.display()))
        })
    });
    match file {
        Ok(file) => {
            auth.keys.extend(file.keys.into_iter().map(|key| NamedKey { is_filed: true, ..key }))
        }
        Err(problem) => problems.found.push(problem),
    }
}
