//! The commands that the pages tell their readers to run.

use std::fs;

use crate::command::Result;

/// The first block of commands after this text in a page of the repository.
pub fn commands(page: &str, after: &str) -> Result<String> {
    let text = fs::read_to_string(page)?;
    let missing = || format!("{page} has no block of commands after {after:?}");
    let (_, rest) = text.split_once(after).ok_or_else(missing)?;
    let (_, rest) = rest.split_once("```sh\n").ok_or_else(missing)?;
    let (block, _) = rest.split_once("```").ok_or_else(missing)?;
    Ok(block.to_owned())
}

/// The `curl` command in the comment at the top of a file.
pub fn commented_curl(file: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let comment: Vec<_> =
        text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
    let start = comment.iter().position(|line| line.starts_with("curl "));
    let start = start.ok_or_else(|| format!("{file} has no curl command at its top"))?;
    let command = comment[start..].iter().take_while(|line| !line.is_empty());
    Ok(command.copied().collect::<Vec<_>>().join("\n"))
}
