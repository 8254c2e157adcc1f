//! A file of records, one on a line, as `spool export` writes them. Of each line only so much is kept in
//! memory as an event may need.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::revalidation::NotReplayed;
use super::source::{CHUNK, CHUNK_BYTES, FoundRecord, Place};
use crate::cli::lines::LineRecord;
use crate::cli::terminal::one_line;
use crate::config::{self, Config, Problem};

/// The name of standard input.
const STDIN: &str = "-";

/// As many characters as a byte may become in JSON: a control character is `\u0000`.
const ESCAPED: usize = 6;

/// What a line has beside the body: key, headers, names.
const OVERHEAD: usize = 64 << 10;

/// So much is shown of what is wrong with a line.
const DETAIL_MAX: usize = 200;

pub struct LineFile {
    input: Box<dyn BufRead + Send>,
    /// As it is called.
    pub name: String,
    /// Longer lines are not read.
    length_max: usize,
    /// The number of the last line that was read; the first one has 1.
    pub number: u64,
    pub has_ended: bool,
}

impl LineFile {
    /// Opens the file that `--from-file` names, or standard input.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened.
    pub fn open(path: &Path, config: &Config) -> Result<LineFile, Problem> {
        let length_max = ESCAPED * (config.http.max_body_bytes + OVERHEAD);
        if path == Path::new(STDIN) {
            return Ok(LineFile::new("standard input".into(), io::stdin(), length_max));
        }
        let (name, file) = (path.display().to_string(), config::open_file("--from-file", path)?);
        Ok(LineFile::new(name, file, length_max))
    }

    fn new(name: String, input: impl Read + Send + 'static, length_max: usize) -> LineFile {
        let input = Box::new(BufReader::new(input));
        LineFile { input, name, length_max, number: 0, has_ended: false }
    }

    /// The next records, some at the most. None are left when the file has ended.
    pub fn chunk(&mut self) -> io::Result<Vec<FoundRecord>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < CHUNK && bytes < CHUNK_BYTES {
            let Some(line) = self.next_line()? else {
                self.has_ended = true;
                break;
            };
            let line = match &line {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(line) => {
                    bytes += line.len();
                    LineRecord::read(line)
                }
                Err(too_long) => Err(too_long.clone()),
            };
            let place = Place::Line(self.number);
            found.push(FoundRecord { place, record: line.map(Into::into).map_err(misread) });
        }
        Ok(found)
    }

    /// The next line, or why it is not read. None at the end.
    fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        let limit = self.length_max as u64 + 1;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.len() > self.length_max && line.last() != Some(&b'\n') {
            self.input.skip_until(b'\n')?;
            let length_max = self.length_max;
            return Ok(Some(Err(format!(
                "it is longer than {length_max} bytes, so its value is larger than http.max_body_bytes"
            ))));
        }
        Ok(Some(Ok(line)))
    }
}

fn misread(why: String) -> NotReplayed {
    let detail = format!("The line is not understood: {}", one_line(&why, DETAIL_MAX));
    NotReplayed { tag: "bad_line", detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the lines, and whether each is a record.
    fn read(text: &'static str, length_max: usize) -> Vec<(u64, bool)> {
        let mut file = LineFile::new("lines".into(), text.as_bytes(), length_max);
        let mut lines = Vec::new();
        while !file.has_ended {
            for FoundRecord { place, record } in file.chunk().expect("read") {
                let Place::Line(number) = place else { panic!("a line") };
                lines.push((number, record.is_ok()));
            }
        }
        lines
    }

    #[test]
    fn lines_have_numbers_and_a_longest_length() {
        let line = r#"{"topic":"t","value":"v"}"#;
        assert_eq!(line.len(), 25);
        const TEXT: &str = concat!(
            r#"{"topic":"t","value":"v"}"#,
            "\n\n \r\n",
            r#"{"topic":"t","value":"v"}"#,
            "\r\nno\n",
            r#"{"topic":"t","value":"longer"}"#,
            "\n",
            r#"{"topic":"t","value":"v"}"#,
        );
        let expected = |longer| vec![(1, true), (4, true), (5, false), (6, longer), (7, true)];
        assert_eq!(read(TEXT, 26), expected(false));
        assert_eq!(read(TEXT, 30), expected(true));
        assert_eq!(read("", 30), []);
        assert_eq!(read("\n\n", 30), []);
        // A line may be as long as the limit, and its end is none of it.
        assert_eq!(read("{\"topic\":\"t\",\"value\":\"v\"}\n", 25), [(1, true)]);
        assert_eq!(read("{\"topic\":\"t\",\"value\":\"v\"}\n", 24), [(1, false)]);
        assert_eq!(read("{\"topic\":\"t\",\"value\":\"v\"}", 25), [(1, true)]);
        assert_eq!(read("{\"topic\":\"t\",\"value\":\"v\"}", 24), [(1, false)]);
    }
}
