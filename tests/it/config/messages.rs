//! The message for each mistake of `mistakes.txt`.

use std::collections::HashMap;

use hookbridge::config::load;

use super::KEYS;

#[test]
fn a_mistake_has_one_message_that_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hookbridge.toml");
    let mut wrong = Vec::new();
    let blocks: Vec<_> = include_str!("mistakes.txt").split("\n\n").skip(1).collect();
    for block in &blocks {
        let (mut settings, mut variables, mut expected) =
            (String::new(), HashMap::new(), Vec::new());
        for line in block.lines() {
            let variable = line.split_once('=').filter(|_| line.starts_with("HOOKBRIDGE_"));
            if let Some(message) = line.strip_prefix("=> ") {
                expected.push(message.to_owned());
            } else if let Some((name, value)) = variable {
                variables.insert(name.to_owned(), value.to_owned());
            } else {
                settings.push_str(&format!("{line}\n"));
            }
        }
        let names_keys = settings.contains("[auth]") || block.contains("__AUTH__");
        std::fs::write(&file, settings + if names_keys { "" } else { KEYS }).unwrap();
        let problems = load(Some(&file), variables).problems;
        let said = problems.iter().map(|problem| {
            let message = problem.to_string().replace(&file.display().to_string(), "FILE");
            message.split(" known here: ").next().unwrap().to_owned()
        });
        let said: Vec<_> = said.collect();
        if said != expected {
            wrong.push(format!("{block}\n-- but it is said: {said:#?}\n"));
        }
    }
    assert!(blocks.len() >= 100, "{}", blocks.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
