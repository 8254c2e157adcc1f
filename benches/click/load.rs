//! The load: clicks as bytes that are made once, over connections that are kept.
//!
//! - Closed loop: each connection sends its next click when the last one is answered.
//! - Open loop: clicks come at their rate whether or not earlier ones are answered, and each is timed
//!   from the moment when it was due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::KEY;

/// An answer is shorter than this.
const ANSWER_MAX: usize = 2_048;

/// How often the open loop looks which clicks are due.
const PACE: Duration = Duration::from_micros(200);

/// How long the first answer may take.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Clicks of the open loop that wait for a connection; more of them mean that the rate is beyond the
/// machine, and they wait with the pacer.
const DUE_MAX: usize = 4_096;

/// Requests as bytes, taken in turn.
pub type Requests = Arc<Vec<Vec<u8>>>;

/// Clicks of so many campaigns, each longer by some bytes than a real one.
pub fn requests(campaigns: usize, more_bytes: usize) -> Requests {
    let padding = "x".repeat(more_bytes);
    let request = |campaign| {
        let body = format!(
            r#"{{"type":"Email marketing","event":"click","campid":"{campaign}","relid":"123","cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749,"device_type":"mobile","browser":"Chrome","timestamp":"2020-10-02 15:07:31","email":"test@testdomain.com","campaignName":"Test campaign name{padding}","subject":"Test campaign subject","contactId":"112528991","destination":"https://www.testdomain.com/"}}"#
        );
        format!(
            "POST /webhooks/email-marketing/click HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    Arc::new((0..campaigns).map(request).collect())
}

/// Counts what a load gets.
#[derive(Default)]
struct Counts {
    is_stopped: AtomicBool,
    held: AtomicU64,
    next: AtomicU64,
}

/// A running load.
pub struct Load {
    counts: Arc<Counts>,
    connections: Vec<JoinHandle<Histogram<u64>>>,
}

/// What a load got.
pub struct Answers {
    /// Clicks answered 200.
    pub held: u64,
    /// In microseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    /// A closed loop over so many connections.
    pub async fn closed(server: SocketAddr, requests: &Requests, connections: usize) -> Load {
        let counts = Arc::new(Counts::default());
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (counts, requests) = (counts.clone(), requests.clone());
            let mut connection = Connection::open(server).await;
            tasks.push(tokio::spawn(async move {
                let mut latency = histogram();
                while !counts.is_stopped.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    connection.exchange(&requests, &counts).await;
                    latency.saturating_record(micros(sent));
                }
                latency
            }));
        }
        Load { counts, connections: tasks }
    }

    /// So many clicks a second over so many connections.
    pub async fn open(
        server: SocketAddr,
        requests: &Requests,
        connections: usize,
        rate: u32,
    ) -> Load {
        let counts = Arc::new(Counts::default());
        let (due, dues) = mpsc::channel(DUE_MAX);
        let dues = Arc::new(Mutex::new(dues));
        let pacer = counts.clone();
        std::thread::spawn(move || {
            pace(rate, |moment| {
                due.blocking_send(moment).is_ok() && !pacer.is_stopped.load(Ordering::Relaxed)
            });
        });
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (counts, requests, dues) = (counts.clone(), requests.clone(), dues.clone());
            let mut connection = Connection::open(server).await;
            tasks.push(tokio::spawn(async move {
                let mut latency = histogram();
                loop {
                    let Some(due) = dues.lock().await.recv().await else { return latency };
                    connection.exchange(&requests, &counts).await;
                    latency.saturating_record(micros(due));
                }
            }));
        }
        Load { counts, connections: tasks }
    }

    /// How many clicks have been answered 200 so far.
    pub fn held(&self) -> u64 {
        self.counts.held.load(Ordering::Relaxed)
    }

    pub async fn stop(self) -> Answers {
        self.counts.is_stopped.store(true, Ordering::Relaxed);
        let mut latency = histogram();
        for connection in self.connections {
            latency.add(connection.await.expect("a connection's end")).expect("a histogram");
        }
        Answers { held: self.counts.held.load(Ordering::Relaxed), latency }
    }
}

/// Calls at an even rate, with the moment at which each call was due, until it returns false.
pub fn pace(rate: u32, mut call: impl FnMut(Instant) -> bool) {
    let start = Instant::now();
    let mut sent = 0;
    loop {
        std::thread::sleep(PACE);
        let now = Instant::now();
        loop {
            let due = start + Duration::from_secs(1) * sent / rate;
            if due > now {
                break;
            }
            if !call(due) {
                return;
            }
            sent += 1;
        }
    }
}

/// From one microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")
}

pub fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Opens connections on each of which one click was answered.
pub async fn idle(server: SocketAddr, requests: &Requests, count: usize) -> Vec<Connection> {
    let counts = Counts::default();
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::open(server).await;
        connection.exchange(requests, &counts).await;
        connections.push(connection);
    }
    connections
}

/// Sends so many clicks over these connections, one by one.
pub async fn exchange(connections: &mut [Connection], requests: &Requests, clicks: usize) {
    let counts = Counts::default();
    let count = connections.len();
    for click in 0..clicks {
        connections[click % count].exchange(requests, &counts).await;
    }
}

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    answer: [u8; ANSWER_MAX],
}

impl Connection {
    async fn open(server: SocketAddr) -> Connection {
        let stream = TcpStream::connect(server).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Connection { stream, answer: [0; ANSWER_MAX] }
    }

    /// Sends the next click and reads the answer, which is 200.
    async fn exchange(&mut self, requests: &Requests, counts: &Counts) {
        let number = counts.next.fetch_add(1, Ordering::Relaxed);
        let request = &requests[usize::try_from(number).expect("a number") % requests.len()];
        self.stream.write_all(request).await.expect("a write");
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.answer[length..]).await.expect("a read");
            assert!(
                read > 0,
                "the server closed: {}",
                String::from_utf8_lossy(&self.answer[..length])
            );
            length += read;
            if let Some(status) = status_of(&self.answer[..length]) {
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&self.answer[..length]));
                counts.held.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// The status of an answer, once it is whole.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes).expect("HTTP") else { return None };
    let length =
        answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = std::str::from_utf8(length.expect("a length").value).expect("text");
    let length: usize = length.parse().expect("a number");
    (bytes.len() >= head + length).then_some(answer.code.expect("a status"))
}

/// Lets a second pass after the first answer, so that everything is warm. Where Kafka is away the first
/// answer takes as long as the bridge gives Kafka.
pub async fn warm_up(load: &Load) {
    let deadline = Instant::now() + FIRST_ANSWER_TIMEOUT;
    while load.held() == 0 {
        assert!(Instant::now() < deadline, "nothing is answered");
        sleep(PACE).await;
    }
    sleep(Duration::from_secs(1)).await;
}
