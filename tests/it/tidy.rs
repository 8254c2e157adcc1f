//! The rules of the architecture, checked on the source.

use std::fs;
use std::path::Path;

/// Every Rust file below `src`, with its text up to its tests.
pub fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            sources.push((name, code));
        }
    }
    assert!(sources.len() > 20, "{}", sources.len());
    sources
}

/// The code without its comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The room that a file belongs to: `http/body.rs` and `http.rs` to `http`.
fn room(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// The order is that of the table in the crate's documentation.
#[test]
fn rooms_use_only_rooms_further_down() {
    let library = sources().into_iter().find(|(name, _)| name == "lib.rs").unwrap().1;
    let map = library.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let order: Vec<&str> = map.map(|row| room(row.split('`').next().unwrap())).collect();
    let place = |room: &str| {
        let place = order.iter().position(|other| *other == room);
        place.unwrap_or_else(|| panic!("{room} is not on the map"))
    };
    for (name, text) in sources().iter().filter(|(name, _)| name != "lib.rs") {
        let from = place(room(name));
        for used in code(text).split("crate::").skip(1) {
            let names: Vec<String> = if let Some(list) = used.strip_prefix('{') {
                let list = list.split('}').next().unwrap();
                list.split(',').map(|name| name.trim().to_owned()).collect()
            } else {
                vec![used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().into()]
            };
            for used in names.iter().filter(|used| !used.is_empty()) {
                let to = place(used.split("::").next().unwrap());
                assert!(to >= from, "{name} uses {used}, which is further up");
            }
        }
    }
}

#[test]
fn libraries_stay_in_their_place() {
    for (name, text) in sources() {
        let code = code(&text);
        let only = |words: &str, allowed: &str| {
            let found = code.contains(words) && !name.starts_with(allowed);
            assert!(!found, "{name} has {words}, which belongs to {allowed}");
        };
        only("rdkafka::", "kafka");
        only("unsafe {", "kafka/client.rs");
        only("unsafe impl", "kafka/client.rs");
        only("hyper_util::server", "http/");
        only("std::env::", "config/load.rs");
        only("rustls::", "http/");
        only("redb::", "delivery/spool/legacy.rs");
        only("zeroize", "config");
        only("reqsign", "kafka/token/");
        only("indicatif", "cli/terminal.rs");
        only("opentelemetry", "ingest/spans.rs");
        only("plotters", "operator/page/chart.rs");
        only("maud", "operator/page");
        assert!(
            !code.contains("std::fs")
                || name.starts_with("delivery/spool")
                || name.starts_with("config/"),
            "{name} works with files"
        );
        for kind in ["Counter", "Gauge", "Histogram"] {
            only(&format!("Int{kind}::new"), "observe/metrics.rs");
            only(&format!("{kind}Vec::new"), "observe/metrics.rs");
        }
        assert!(!code.contains("unbounded"), "{name} has a queue without a bound");
        assert!(text.starts_with("//! "), "{name} does not begin by saying what it is for");
    }
}

/// Pure code has no async, clock, input, output or log.
#[test]
fn pure_code_stays_pure() {
    let sources = sources();
    let is_pure = |name: &str| name.starts_with("click") || name == "observe/redact.rs";
    let pure: Vec<_> = sources.iter().filter(|(name, _)| is_pure(name)).collect();
    assert!(pure.len() > 8, "{}", pure.len());
    for (name, text) in pure {
        for word in ["async ", ".await", "::now()", "tokio", "info!", "warn!", "error!", "std::fs"]
        {
            assert!(!code(text).contains(word), "{name} has {word}");
        }
    }
}
