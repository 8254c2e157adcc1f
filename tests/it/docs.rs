//! The tables and links of the documents, against the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hookbridge::click::outcome::Outcome;
use hookbridge::config::Config;
use hookbridge::observe::metrics::Metrics;

/// A file of the repository.
fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares the table between the page's marks with the rows; prints the right table on failure.
#[track_caller]
fn check(page: &str, name: &str, rows: impl IntoIterator<Item = String>) {
    let text = read(page);
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).expect("the table's begin");
    let (table, _) = rest.split_once(&format!("<!-- /{name} -->")).expect("the table's end");
    let table: BTreeSet<&str> = table.lines().skip(2).collect();
    let rows: Vec<String> = rows.into_iter().collect();
    let expected: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert!(expected.len() > 5);
    assert!(table == expected, "{page}: the table `{name}` should be:\n{}", rows.join("\n"));
}

#[test]
fn the_table_of_answers_is_true() {
    check(
        "config/README.md",
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
    check("deploy/README.md", "metrics", rows);
}

/// The comment on a setting in the shipped file: above it, or above the first of its group.
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
    check("config/README.md", "settings", rows);
}

#[test]
fn one_version_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (text, line) in [
        (include_str!("../../deploy/CHANGELOG.md"), format!("## [{version}] - ")),
        (include_str!("../../deploy/Dockerfile"), format!("ARG VERSION={version}\n")),
        (include_str!("../../deploy/chart/Chart.yaml"), format!("appVersion: \"{version}\"\n")),
        (
            include_str!("../../deploy/README.md"),
            format!("docker build -f deploy/Dockerfile -t hookbridge:{version} "),
        ),
    ] {
        assert!(text.contains(&line), "nowhere: {line}");
    }
}

#[test]
fn image_and_package_have_the_same_program() {
    let (dockerfile, package) = (read("deploy/Dockerfile"), read("deploy/debian/build"));
    assert!(dockerfile.contains("RUN deploy/dist && deploy/image-root target/dist/hookbridge "));
    assert!(package.contains("[ $# -gt 0 ] || deploy/dist\n"));
    for text in [dockerfile, package] {
        assert!(!text.contains("--release") && !text.contains("target/release"), "{text}");
    }
}

#[test]
fn the_image_has_all_that_the_sources_include() {
    let dockerfile = include_str!("../../deploy/Dockerfile");
    let mut seen = 0;
    for (file, text) in crate::tidy::sources() {
        let includes = text.split("include_").skip(1).filter_map(|rest| rest.split('"').nth(1));
        // A path with more `..` than the file's depth leads out of src.
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

#[test]
fn a_newcomer_reads_at_most_300_lines() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 300, "{}", readme.lines().count());
    let command = "cargo test --locked";
    assert!(read(".ci/run").lines().any(|line| line.ends_with(command)));
    assert!(readme.contains(&format!("`{command}`")), "the README does not name {command}");
}

/// A reader must make a key: everybody knows one that is in a page.
#[test]
fn no_page_has_a_key() {
    let pages = [
        "README.md",
        "config/README.md",
        "config/senders.md",
        "deploy/README.md",
        "deploy/chart/README.md",
        "deploy/examples/README.md",
        "docker-compose.yml",
    ];
    let mut seen = 0;
    for page in pages {
        for rest in read(page).split("Authorization: Bearer ").skip(1) {
            seen += 1;
            let is_placeholder = rest.starts_with('$') || rest.starts_with("KEY`");
            assert!(is_placeholder, "{page}: {}", rest.lines().next().unwrap());
        }
    }
    assert!(seen > 2);
}

/// The page's text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    text.lines().filter(is_prose).collect::<Vec<_>>().join("\n")
}

/// The anchors of the page's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        })
        .collect()
}

/// Checks links to files and to sections, on every page that can be reached from the README.
#[test]
fn links_lead_somewhere() {
    let mut pages = vec![PathBuf::from("README.md")];
    let (mut seen, mut links) = (0, 0);
    while let Some(page) = pages.get(seen).cloned() {
        seen += 1;
        let text = prose(&read(&page));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let mut target = page.clone();
            if !file.is_empty() {
                target.pop();
                for part in file.split('/') {
                    let is_up = part == "..";
                    if is_up { assert!(target.pop(), "{link}") } else { target.push(part) }
                }
            }
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(root.join(&target).exists(), "{} links to {link}", page.display());
            if target.extension().is_some_and(|extension| extension == "md") {
                let is_there =
                    anchor.is_empty() || anchors(&prose(&read(&target))).contains(anchor);
                assert!(is_there, "{} links to {link}", page.display());
                if !pages.contains(&target) {
                    pages.push(target);
                }
            }
        }
    }
    assert!(pages.len() >= 9 && links > 60, "{pages:?}, {links} links");
}
