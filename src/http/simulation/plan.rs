//! What happens in a history, chosen by its seed: settings, connections, requests, pauses, cuts, the drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

use super::script::{Step, moments, steps};
use super::wire::End;
use crate::config::HttpSettings;

pub struct Plan {
    pub seed: u64,
    pub limits: HttpSettings,
    pub connections: Vec<ConnectionPlan>,
    pub drain_at: Option<Duration>,
}

pub struct ConnectionPlan {
    pub opens_at: Duration,
    /// The address that the connection comes from, and that its requests are to have.
    pub from: SocketAddr,
    pub sender: SocketAddr,
    /// A header of the PROXY protocol, which comes first.
    pub proxy: Option<Vec<u8>>,
    pub is_http2: bool,
    pub requests: Vec<RequestPlan>,
    pub steps: Vec<Step>,
    pub reading: Reading,
    /// Chooses the pieces in which the bridge reads and writes.
    pub rng: Rng,
}

pub struct RequestPlan {
    pub method: &'static str,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// Bytes of a header that says nothing.
    pub filler: usize,
    pub expects_continue: bool,
    pub closes: bool,
    pub conduct: Conduct,
    /// Bytes of the body of its answer.
    pub answer: usize,
}

/// How a body's length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// The bytes are no HTTP, and the connection has no more requests.
    Garbage,
}

/// What the handler does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// Reads the body, and answers 200 after so long.
    Serve(Duration),
    /// Answers 401 after so long, and leaves the body unread.
    Refuse(Duration),
    /// Reads the body, waits, and panics.
    Panic(Duration),
}

/// How the sender reads the answers.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Bytes that fit between the bridge and it.
    pub room: usize,
    pub piece: usize,
    pub pause: Duration,
    /// After so many bytes it stops for so long.
    pub stops: Option<(usize, Duration)>,
    /// How long it takes to notice that the bridge has ended the connection.
    pub notices: Duration,
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One of these.
pub fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// True in so many of a hundred cases.
pub fn percent(rng: &mut Rng, share: u8) -> bool {
    rng.u8(..100) < share
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let limits = limits(&mut rng);
        let count = one_of(&mut rng, &[1, 1, 1, 2, 3]);
        let connections = (0..count).map(|number| connection(&mut rng, number, &limits));
        let connections: Vec<_> = connections.collect();
        let drain_at = percent(&mut rng, 30).then(|| drain(&mut rng, &connections));
        Plan { seed, limits, connections, drain_at }
    }
}

/// When the drain begins: at any time, or about in the middle of a sender's pause.
fn drain(rng: &mut Rng, connections: &[ConnectionPlan]) -> Duration {
    let connection = &connections[rng.usize(..connections.len())];
    let moments = moments(&connection.steps, &connection.requests);
    if moments.is_empty() || percent(rng, 30) {
        let most = one_of(rng, &[50, 500, 5_000, 20_000]);
        return ms(rng.u64(..most));
    }
    connection.opens_at + moments[rng.usize(..moments.len())]
}

fn limits(rng: &mut Rng) -> HttpSettings {
    HttpSettings {
        header_timeout_ms: one_of(rng, &[200, 1_000, 5_000]),
        body_timeout_ms: one_of(rng, &[200, 1_000, 5_000]),
        idle_timeout_ms: one_of(rng, &[400, 3_000, 75_000]),
        answer_timeout_ms: one_of(rng, &[300, 3_000]),
        max_header_bytes: 2 << 10,
        max_body_bytes: 16 << 10,
        max_bytes_in_flight: one_of(rng, &[16 << 10, 64 << 20]),
        max_connections: one_of(rng, &[2, 16_384]),
        trusted_proxies: vec!["10.9.0.0/16".parse().unwrap_or_default()],
        proxy_protocol: true,
        ..HttpSettings::default()
    }
}

fn connection(rng: &mut Rng, number: u8, limits: &HttpSettings) -> ConnectionPlan {
    let address = |net: u8| {
        let ip = IpAddr::V4(Ipv4Addr::new(10, net, 0, 1 + number));
        SocketAddr::new(ip, 4_000 + u16::from(number))
    };
    let sender = address(1);
    let is_proxied = percent(rng, 10);
    let proxy = is_proxied.then(|| {
        format!("PROXY TCP4 {} 10.0.0.1 {} 80\r\n", sender.ip(), sender.port()).into_bytes()
    });
    let is_http2 = percent(rng, 15);
    // A client of HTTP/2 holds back what is beyond the bridge's limit.
    let is_flood = !is_http2 && percent(rng, 2);
    let count = if is_flood { rng.usize(50..400) } else { one_of(rng, &[1, 1, 2, 3, 5]) };
    let mut requests: Vec<_> = (0..count).map(|_| request(rng, is_http2, limits)).collect();
    if is_flood {
        flood(rng, &mut requests);
    }
    if !is_http2 && let Some(garbage) = requests.iter().position(|r| r.framing == Framing::Garbage)
    {
        requests.truncate(garbage + 1);
    }
    let mut reading = reading(rng, limits);
    if is_flood && percent(rng, 50) {
        reading.stops = Some((0, ms(3_600_000)));
    }
    let steps = steps(rng, proxy.as_deref(), &requests, is_flood, limits);
    ConnectionPlan {
        opens_at: ms(one_of(rng, &[0, 0, 1, 40, 700])),
        from: if is_proxied { address(9) } else { sender },
        sender,
        proxy,
        is_http2,
        requests,
        steps,
        reading,
        rng: rng.fork(),
    }
}

/// Makes the requests of a sender that sends many at once, without looking.
fn flood(rng: &mut Rng, requests: &mut [RequestPlan]) {
    let method = one_of(rng, &["POST", "GET", "HEAD"]);
    let conduct = one_of(rng, &[Conduct::Refuse(ms(0)), Conduct::Serve(ms(0))]);
    let framing = one_of(rng, &[Framing::Length, Framing::Length, Framing::Chunked]);
    for request in requests {
        (request.method, request.conduct, request.framing) = (method, conduct, framing);
        (request.closes, request.expects_continue) = (false, false);
        request.answer = request.answer.min(300);
        request.body = body(rng.usize(1..100));
    }
}

/// So many bytes.
fn body(length: usize) -> Vec<u8> {
    let mut body = b"abcdefghijklmnopqrstuvw".repeat(1 + length / 23);
    body.truncate(length);
    body
}

fn request(rng: &mut Rng, is_http2: bool, limits: &HttpSettings) -> RequestPlan {
    let framing = match rng.u8(..100) {
        0 if !is_http2 => Framing::Garbage,
        1..30 => Framing::Chunked,
        _ => Framing::Length,
    };
    let most = one_of(rng, &[0, 1, 500, 500, 4_000, 17_000]);
    // The bridge answers within `http.answer_timeout_ms`.
    let most_wait = limits.answer_timeout() - ms(10);
    let wait =
        |rng: &mut Rng| one_of(rng, &[ms(0), ms(0), ms(1), ms(30), most_wait / 2, most_wait]);
    let conduct = match rng.u8(..100) {
        0..15 => Conduct::Refuse(one_of(rng, &[ms(0), ms(0), ms(0), ms(10)])),
        15..18 => Conduct::Panic(wait(rng)),
        _ => Conduct::Serve(wait(rng)),
    };
    RequestPlan {
        method: one_of(rng, &["POST", "POST", "POST", "GET", "HEAD"]),
        framing,
        body: body(rng.usize(..=most)),
        filler: if percent(rng, 8) { 1_500 } else { 0 },
        expects_continue: most > 0 && percent(rng, 10),
        closes: percent(rng, 8),
        conduct,
        answer: one_of(rng, &[0, 2, 40, 40, 300, 20_000]),
    }
}

fn reading(rng: &mut Rng, limits: &HttpSettings) -> Reading {
    let room = one_of(rng, &[500, 4_096, 65_536, 1 << 20]);
    let near = limits.answer_timeout();
    let stop = one_of(rng, &[ms(50), near / 2, near, near * 2, ms(3_600_000)]);
    Reading {
        room,
        piece: one_of(rng, &[200, 1_000, 1 << 20, 1 << 20]),
        pause: ms(one_of(rng, &[0, 0, 0, 1, 20])),
        notices: ms(one_of(rng, &[0, 0, 1, 40, 1_000])),
        stops: percent(rng, 15).then(|| (rng.usize(..2_000), stop)),
    }
}

/// How the connection of a sender ends, where it does not just fall silent.
pub fn cut(rng: &mut Rng) -> Option<End> {
    match rng.u8(..100) {
        0..8 => Some(End::Reset),
        8..16 => Some(End::Finished),
        _ => None,
    }
}
