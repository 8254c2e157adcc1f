//! `[[webhook]] profile`: what is known of a sender, as the settings that an entry has unless it says
//! otherwise. The profiles are data, in `config/profiles.toml`.

use std::cell::LazyCell;

use config::{Map, Value, ValueKind};

use super::problem::Problems;
use super::wrong;

const PROFILES: &str = include_str!("../../config/profiles.toml");

/// Fills in every entry under `webhook` that names a profile.
pub(super) fn apply(root: &mut Value, problems: &mut Problems) {
    let ValueKind::Table(root) = &mut root.kind else { return };
    let webhooks = root.get_mut("webhook").map(|value| &mut value.kind);
    let Some(ValueKind::Array(webhooks)) = webhooks else { return };
    // Read only where an entry names one.
    let profiles = LazyCell::new(profiles);
    for (index, webhook) in webhooks.iter_mut().enumerate() {
        let ValueKind::Table(webhook) = &mut webhook.kind else { continue };
        let name = webhook.get("profile").and_then(|name| name.clone().into_string().ok());
        let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
        match profiles.get(&name).map(|profile| &profile.kind) {
            Some(ValueKind::Table(profile)) => {
                for (setting, value) in profile {
                    webhook.entry(setting.clone()).or_insert_with(|| value.clone());
                }
            }
            _ => {
                let mut known: Vec<_> = profiles.keys().map(String::as_str).collect();
                known.sort_unstable();
                let message = wrong::unknown("profile", &name, &known);
                problems.note(format!("webhook[{index}].profile"), message);
                webhook.remove("profile");
            }
        }
    }
}

/// All of them, by name. A test reads every one.
fn profiles() -> Map<String, Value> {
    toml::from_str(PROFILES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::load;

    /// Each is a whole webhook by itself, but for what only its entry can say.
    #[test]
    fn every_profile_can_be_read() {
        let names: Vec<String> = profiles().into_keys().collect();
        assert!(names.len() > 10);
        let entries = names.iter().map(|name| {
            let more = match name.as_str() {
                "amazon-ses" => {
                    "auth = { type = \"sns\", topics = [\"arn:aws:sns:eu-west-1:123456789012:a\"] }\n"
                }
                "mandrill" => {
                    "auth = { type = \"hmac-sha1-form\", header = \"X\", url = \"https://a.example/a\" }\n"
                }
                "hubspot" => "auth = { type = \"hmac-sha256\", header = \"X\", signed = \"{body}\" }\n",
                _ => "",
            };
            format!("[[webhook]]\nprofile = \"{name}\"\n{more}")
        });
        let keys = "[auth]\napi_key = \"a-key-of-the-test\"\n[[auth.keys]]\nname = \"sendgrid\"\npublic_key = \"\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOJR66bHQspeHSWX/cbSn8j1FzVXMi3y3nOKexIy0/Nfm3SeoOBTe\
            KzX+g2//TScL5NWwqsT6JbJ2/0P7XBUpZQ==\"\n[[auth.keys]]\nname = \"resend\"\n\
            secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, keys.to_owned() + &entries.collect::<String>()).expect("a file");
        let loaded = load(Some(&file), HashMap::new());
        assert_eq!(loaded.problems, []);
        assert_eq!(loaded.config.webhook.len(), names.len());
        assert_eq!(loaded.config.webhooks().expect("webhooks").len(), names.len());
    }
}
