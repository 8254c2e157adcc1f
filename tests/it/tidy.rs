use std::fs;
use std::path::Path;

/// Every source file of Rust below `src`, with its text up to its tests.
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

/// The module that a file belongs to: `http/body.rs` and `http.rs` to `http`.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// The order of the map in the crate's documentation: a file uses only files further down.
#[test]
fn files_use_only_files_further_down() {
    let library = sources().into_iter().find(|(name, _)| name == "lib.rs").unwrap().1;
    let map = library.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let order: Vec<&str> = map.map(|row| module(row.split('`').next().unwrap())).collect();
    let place = |module: &str| {
        order
            .iter()
            .position(|m| *m == module)
            .unwrap_or_else(|| panic!("{module} is not on the map"))
    };
    for (name, text) in sources().iter().filter(|(name, _)| name != "lib.rs") {
        let from = place(module(name));
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

/// Who may name what.
#[test]
fn libraries_stay_behind_their_file() {
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
        only("redb::", "spool/store.rs");
        only("zeroize", "config");
        only("indicatif", "cli/progress.rs");
        only("opentelemetry", "trace.rs");
        only("plotters", "page/chart.rs");
        only("maud", "page");
        assert!(
            !code.contains("std::fs") || name.starts_with("spool/") || name.starts_with("config/"),
            "{name} works with files"
        );
        for kind in ["Counter", "Gauge", "Histogram"] {
            only(&format!("Int{kind}::new"), "metrics.rs");
            only(&format!("{kind}Vec::new"), "metrics.rs");
        }
        assert!(!code.contains("unbounded"), "{name} has a queue without a bound");
        assert!(text.starts_with("//! "), "{name} does not begin by saying what it is for");
    }
}

/// The pure steps: no async, no clock, no input or output, no log.
#[test]
fn pure_steps_are_pure() {
    let pure = [
        "auth.rs",
        "auth/sns.rs",
        "auth/way.rs",
        "event.rs",
        "mask.rs",
        "pseudonym.rs",
        "route.rs",
        "outcome.rs",
    ];
    let mut seen = 0;
    for (name, text) in sources().iter().filter(|(name, _)| pure.contains(&name.as_str())) {
        seen += 1;
        for word in ["async ", ".await", "::now()", "tokio", "info!", "warn!", "error!", "std::fs"]
        {
            assert!(!code(text).contains(word), "{name} has {word}");
        }
    }
    assert_eq!(seen, pure.len());
}
