//! The answers in the bytes that the bridge writes to a connection of HTTP/1.1.

use std::time::Duration;

use memchr::memmem;

/// An answer that was written whole.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub status: u16,
    /// The request that it names; none where hyper itself answered.
    pub request: Option<usize>,
    /// Whether it says that the connection closes.
    pub closes: bool,
    /// Where it ends in all that was written.
    pub end: usize,
    pub at: Duration,
}

#[derive(Default)]
pub struct Answers {
    pub all: Vec<Written>,
    /// Where each `100 Continue` ends.
    continues: Vec<usize>,
    buffer: Vec<u8>,
    written: usize,
}

impl Answers {
    pub fn write(&mut self, bytes: &[u8], now: Duration) {
        self.buffer.extend(bytes);
        self.written += bytes.len();
        while let Some((length, mut answer)) = parse(&self.buffer) {
            self.buffer.drain(..length);
            answer.end = self.written - self.buffer.len();
            answer.at = now;
            match answer.status {
                100 => self.continues.push(answer.end),
                _ => self.all.push(answer),
            }
        }
    }

    /// Bytes.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Whether an answer is written in part.
    pub fn has_rest(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// How often the sender was asked to go on in these first bytes.
    pub fn continues(&self, received: usize) -> usize {
        self.continues.iter().filter(|end| **end <= received).count()
    }
}

/// The first answer, if it is whole, and its length.
fn parse(bytes: &[u8]) -> Option<(usize, Written)> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap_or_default();
    let header = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim())
    };
    let number = |text: &str| text.parse().unwrap_or_default();
    let request = header("x-request").map(number);
    let has_body = header("x-method") != Some("HEAD");
    let body = header("content-length").filter(|_| has_body).map_or(0, number);
    let answer = Written {
        status: text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default(),
        request,
        closes: header("connection") == Some("close"),
        end: 0,
        at: Duration::ZERO,
    };
    (bytes.len() >= head + body).then_some((head + body, answer))
}
