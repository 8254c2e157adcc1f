//! What a sender does, step by step: bytes in any pieces, pauses, waits, and the end.

use std::fmt::Write;
use std::time::Duration;

use fastrand::Rng;

use super::plan::{Conduct, Framing, RequestPlan, cut, ms, one_of, percent};
use super::wire::End;
use crate::config::HttpSettings;

pub enum Step {
    /// The header of the PROXY protocol, or a part of it.
    SendProxy {
        bytes: Vec<u8>,
        is_last: bool,
    },
    /// A part of a request.
    Send {
        request: usize,
        bytes: Vec<u8>,
        marks: Marks,
    },
    Pause(Duration),
    /// Until so many answers have come, or the connection has ended.
    AwaitAnswers(usize),
    /// Until the bridge wants the body, has answered, or for so long.
    AwaitContinue {
        request: usize,
        patience: Duration,
    },
    End(End),
}

/// What is complete with a part of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    pub is_first: bool,
    pub has_head: bool,
    pub is_last: bool,
}

/// A request's bytes, and how many of them are its head.
pub fn bytes(number: usize, request: &RequestPlan) -> (Vec<u8>, usize) {
    if request.framing == Framing::Garbage {
        return (b"this is\x00no HTTP\r\n\r\n".to_vec(), 0);
    }
    let mut head = format!("{} /{number} HTTP/1.1\r\nhost: t\r\n", request.method);
    let has_body = !request.body.is_empty();
    let length = request.body.len();
    // A `String` takes whatever is written.
    let _ = match request.framing {
        Framing::Chunked => write!(head, "transfer-encoding: chunked\r\n"),
        _ if has_body => write!(head, "content-length: {length}\r\n"),
        _ => Ok(()),
    };
    if request.filler > 0 {
        let _ = write!(head, "x-filler: {}\r\n", "f".repeat(request.filler));
    }
    if request.expects_continue {
        head.push_str("expect: 100-continue\r\n");
    }
    if request.closes {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    let head = bytes.len();
    if request.framing == Framing::Chunked {
        for chunk in request.body.chunks(1 + request.body.len() / 3) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(&request.body);
    }
    (bytes, head)
}

/// The steps of a connection of HTTP/1.1. One of HTTP/2 takes from them the pauses and the end.
pub fn steps(
    rng: &mut Rng,
    proxy: Option<&[u8]>,
    requests: &[RequestPlan],
    is_flood: bool,
    limits: &HttpSettings,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(proxy) = proxy {
        let split = if percent(rng, 50) { proxy.len() } else { rng.usize(1..proxy.len()) };
        let (first, rest) = proxy.split_at(split);
        steps.push(Step::SendProxy { bytes: first.to_vec(), is_last: rest.is_empty() });
        if !rest.is_empty() {
            steps.push(Step::Pause(pause(rng, limits.header_timeout())));
            steps.push(Step::SendProxy { bytes: rest.to_vec(), is_last: true });
        }
    }
    if percent(rng, 10) {
        steps.push(Step::Pause(pause(rng, limits.header_timeout())));
    }
    let is_pipeline = is_flood || percent(rng, 40);
    for (number, request) in requests.iter().enumerate() {
        if number > 0 && !(is_pipeline && (is_flood || percent(rng, 70))) {
            steps.push(Step::AwaitAnswers(number));
            if percent(rng, 60) {
                steps.push(Step::Pause(pause(rng, limits.idle_timeout())));
            }
        }
        send(rng, &mut steps, number, request, is_flood, limits);
    }
    if let Some(end) = cut(rng) {
        // At any place, or behind the last request.
        let place = if percent(rng, 50) { steps.len() } else { rng.usize(..=steps.len()) };
        steps.truncate(place);
        if percent(rng, 30) {
            steps.push(Step::Pause(pause(rng, ms(100))));
        }
        steps.push(Step::End(end));
    } else if percent(rng, 6) {
        // Silence at any place.
        steps.truncate(rng.usize(..=steps.len()));
    }
    steps
}

/// The middle of each pause, where all goes well.
pub fn moments(steps: &[Step], requests: &[RequestPlan]) -> Vec<Duration> {
    let mut moments = Vec::new();
    let mut now = Duration::ZERO;
    for step in steps {
        match step {
            Step::Pause(pause) => {
                moments.push(now + *pause / 2);
                now += *pause;
            }
            Step::AwaitAnswers(count) => {
                let (Conduct::Serve(wait) | Conduct::Refuse(wait) | Conduct::Panic(wait)) =
                    requests[count - 1].conduct;
                now += wait;
            }
            _ => {}
        }
    }
    moments
}

fn send(
    rng: &mut Rng,
    steps: &mut Vec<Step>,
    number: usize,
    request: &RequestPlan,
    is_whole: bool,
    limits: &HttpSettings,
) {
    let (bytes, head) = bytes(number, request);
    // Where the request is taken apart.
    let mut cuts = Vec::new();
    match rng.u8(..100) {
        _ if is_whole => {}
        _ if request.expects_continue => cuts.push(head),
        0..45 => {}
        45..70 => cuts.push(head),
        70..90 => cuts.extend((0..rng.usize(1..5)).map(|_| rng.usize(1..bytes.len()))),
        _ => cuts.extend((1..bytes.len()).step_by(1 + bytes.len() / 30)),
    }
    cuts.retain(|cut| (1..bytes.len()).contains(cut));
    cuts.sort_unstable();
    cuts.dedup();
    cuts.push(bytes.len());
    let is_slow = percent(rng, 50);
    let mut from = 0;
    for cut in cuts {
        if from == head && head > 0 && request.expects_continue {
            let patience = ms(one_of(rng, &[1, 1_000]));
            steps.push(Step::AwaitContinue { request: number, patience });
        } else if from > 0 && is_slow {
            let near = if from < head { limits.header_timeout() } else { limits.body_timeout() };
            steps.push(Step::Pause(pause(rng, near)));
        }
        let marks = Marks {
            is_first: from == 0,
            has_head: from < head && cut >= head,
            is_last: cut == bytes.len(),
        };
        steps.push(Step::Send { request: number, bytes: bytes[from..cut].to_vec(), marks });
        from = cut;
    }
}

/// A pause: mostly short, or about as long as a limit.
fn pause(rng: &mut Rng, near: Duration) -> Duration {
    match rng.u8(..100) {
        0..40 => ms(rng.u64(..=5)),
        40..70 => ms(rng.u64(..=300)),
        70..80 => near / 2,
        80..85 => near - ms(rng.u64(..=3)),
        85..90 => near + ms(rng.u64(..=3)),
        90..95 => ms(rng.u64(900..1_200)),
        _ => near + near / 2,
    }
}
