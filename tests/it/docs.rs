//! The tables and links of the documents, against the code.

use std::collections::BTreeSet;

use hookbridge::click::outcome::Outcome;
use hookbridge::config::Config;
use hookbridge::observe::metrics::Metrics;

/// The rows of a table of the README, between its marks.
fn table(name: &str) -> BTreeSet<String> {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once(&format!("<!-- {name} -->\n")).expect("the table's begin");
    let (table, _) = rest.split_once(&format!("<!-- /{name} -->")).expect("the table's end");
    table.lines().skip(2).map(str::to_owned).collect()
}

/// Shows what to put into the README where it is not true.
#[track_caller]
fn check(name: &str, rows: impl IntoIterator<Item = String>) {
    let rows: Vec<String> = rows.into_iter().collect();
    let expected: BTreeSet<String> = rows.iter().cloned().collect();
    assert!(expected.len() > 5);
    assert!(table(name) == expected, "the table `{name}` should be:\n{}", rows.join("\n"));
}

#[test]
fn the_table_of_answers_is_true() {
    check(
        "answers",
        Outcome::all().map(|outcome| {
            let facts = outcome.facts();
            let status = match outcome {
                Outcome::Refused(refusal) if !refusal.is_answered() => "none".to_owned(),
                _ => facts.status.as_u16().to_string(),
            };
            format!("| `{}` | {status} | {} |", facts.tag, facts.text)
        }),
    );
}

#[test]
fn the_table_of_metrics_is_true() {
    let metrics = Metrics::new(&["webhook"], &["topic"]).unwrap();
    metrics.set_keys(["key"].into_iter());
    let scrape = String::from_utf8(metrics.scrape().unwrap()).unwrap();
    let rows = scrape.lines().filter_map(|line| {
        let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
        let name = Some(name).filter(|name| name.starts_with("hookbridge_"))?;
        let r#type = scrape.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let series = scrape.lines().find(|line| line.starts_with(name))?;
        let labels: Vec<_> = series
            .split(['{', ',', '}'])
            .filter_map(|part| part.split_once("=\"").map(|(label, _)| label))
            .filter(|label| *label != "le")
            .map(|label| format!("`{label}`"))
            .collect();
        Some(format!("| `{name}` | {} | {} | {help} |", r#type?, labels.join(", ")))
    });
    check("metrics", rows);
}

/// What the shipped file says of a setting: the comment above it, or above the first of its group.
fn explanation(name: &str) -> String {
    let (section, key) = name.rsplit_once(['.', ' ']).unwrap();
    let header = if section.starts_with("[[") { section.into() } else { format!("[{section}]") };
    let (mut here, mut comment, mut is_open) = (false, Vec::new(), false);
    for line in include_str!("../../config/hookbridge.toml").lines() {
        if line.starts_with('[') {
            here = line == header;
        } else if let Some(text) = line.strip_prefix('#') {
            if !is_open {
                comment.clear();
            }
            is_open = true;
            // Indented lines are examples.
            comment.extend(Some(text.trim()).filter(|_| !text.starts_with("   ")));
        } else if here && line.starts_with(&format!("{key} = ")) {
            return comment.join(" ");
        } else {
            is_open = false;
        }
    }
    panic!("{name} is not in config/hookbridge.toml");
}

#[test]
fn the_table_of_settings_is_true() {
    let settings = toml::Value::try_from(Config::default()).unwrap();
    let mut rows = Vec::new();
    for (section, entries) in settings.as_table().unwrap() {
        let (prefix, entries) = match entries.get(0) {
            Some(first) => (format!("[[{section}]] "), first),
            None => (format!("{section}."), entries),
        };
        for (key, value) in entries.as_table().unwrap().iter().filter(|(_, v)| !v.is_table()) {
            let name = format!("{prefix}{key}");
            rows.push(format!("| `{name}` | `{value}` | {} |", explanation(&name)));
        }
    }
    check("settings", rows);
}

#[test]
fn one_version_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (text, line) in [
        (include_str!("../../deploy/CHANGELOG.md"), format!("## [{version}] - ")),
        (include_str!("../../deploy/Dockerfile"), format!("ARG VERSION={version}\n")),
        (include_str!("../../deploy/chart/Chart.yaml"), format!("appVersion: \"{version}\"\n")),
        (
            include_str!("../../README.md"),
            format!("docker build -f deploy/Dockerfile -t hookbridge:{version} "),
        ),
    ] {
        assert!(text.contains(&line), "nowhere: {line}");
    }
}

#[test]
fn the_image_has_all_that_the_sources_include() {
    let dockerfile = include_str!("../../deploy/Dockerfile");
    let mut seen = 0;
    for (file, text) in crate::tidy::sources() {
        let includes = text.split("include_").skip(1).filter_map(|rest| rest.split('"').nth(1));
        // More steps up than the file is deep lead out of src.
        let depth = file.matches('/').count();
        for path in includes.filter(|path| path.matches("../").count() > depth) {
            let folder = path.trim_start_matches("../").split('/').next().unwrap();
            let copy = format!("COPY {folder} ./{folder}\n");
            assert!(dockerfile.contains(&copy), "{file} takes in {path}: {copy}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// The README's links to its own sections and to files.
#[test]
fn links_lead_somewhere() {
    let readme = include_str!("../../README.md");
    let anchors: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("##"))
        .map(|title| title.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.replace(' ', "-").replace([',', ':', '\''], ""))
        .collect();
    let links: Vec<&str> =
        readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 20, "{}", links.len());
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        let is_there = match link.strip_prefix('#') {
            Some(anchor) => anchors.contains(anchor),
            None => {
                let file = link.split('#').next().unwrap();
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists()
            }
        };
        assert!(is_there, "the README links to {link}");
    }
}
