//! A well-behaved sender beside many attackers.
//!
//! `HOOKBRIDGE_PROOF=long` runs the long form; `benches/README.md` has the command.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hookbridge::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::harness::brokers::Broker;
use crate::harness::frames::{self, frame, hello};
use crate::harness::load::{Load, is_long};
use crate::harness::process::Serve;
use crate::harness::support::{KEY, config, until};

/// The interval between two bytes on a slow connection.
const DRIBBLE: Duration = Duration::from_millis(200);

/// The pause before an attacker reconnects.
const PAUSE: Duration = Duration::from_millis(100);

/// What an attacker's connection does until it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Connects and sends nothing.
    Silent,
    SlowHead,
    /// Sends a body slowly, with a valid key.
    SlowBody,
    /// Sends requests without end and reads no answer.
    Unread,
    /// HTTP/2: sends requests and resets each at once.
    RapidReset,
    /// HTTP/2: sends a head that does not end.
    Continuation,
    /// HTTP/2: grants no window for answers.
    StalledWindow,
    /// HTTP/2: sends SETTINGS frames without end; each must be acknowledged.
    Settings,
    Ping,
}

impl Attack {
    const ALL: [Attack; 9] = [
        Attack::Silent,
        Attack::SlowHead,
        Attack::SlowBody,
        Attack::Unread,
        Attack::RapidReset,
        Attack::Continuation,
        Attack::StalledWindow,
        Attack::Settings,
        Attack::Ping,
    ];

    /// The number of connections, in the long form and in the short form.
    fn connections(self) -> usize {
        match (self, is_long()) {
            (Attack::Silent, true) => 10_000,
            (Attack::SlowHead | Attack::SlowBody, true) => 900,
            (Attack::Unread, true) => 200,
            (Attack::Silent, false) => 200,
            (Attack::SlowHead | Attack::SlowBody, false) => 50,
            (Attack::Unread, false) => 5,
            (Attack::StalledWindow, true) => 20,
            (_, true) => 5,
            (_, false) => 1,
        }
    }

    async fn commit(self, path: &str, stream: &mut TcpStream) -> io::Result<()> {
        let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {KEY}\r\n");
        match self {
            Attack::Silent => read_all(stream).await,
            Attack::SlowHead => dribble(stream, head.as_bytes()).await,
            Attack::SlowBody => {
                stream.write_all(format!("{head}content-length: 999\r\n\r\n").as_bytes()).await?;
                dribble(stream, &[b' '; 998]).await
            }
            Attack::Unread => flood(stream, "GET / HTTP/1.1\r\nhost: t\r\n\r\n".as_bytes()).await,
            Attack::RapidReset => {
                stream.write_all(&hello(&[])).await?;
                for stream_id in (1..).step_by(2) {
                    stream.write_all(&request(path, stream_id)).await?;
                    let cancel = 8_u32.to_be_bytes();
                    stream.write_all(&frame(frames::RST_STREAM, 0, stream_id, &cancel)).await?;
                }
                Ok(())
            }
            Attack::Continuation => {
                stream.write_all(&hello(&[])).await?;
                stream.write_all(&frame(frames::HEADERS, 0, 1, &head_of(path))).await?;
                let more = frames::head(&[("x", "y")]).repeat(2_000);
                flood(stream, &frame(frames::CONTINUATION, 0, 1, &more)).await
            }
            Attack::StalledWindow => {
                stream.write_all(&hello(&[(frames::INITIAL_WINDOW_SIZE, 0)])).await?;
                for stream_id in (1..200).step_by(2) {
                    stream.write_all(&request(path, stream_id)).await?;
                }
                read_all(stream).await
            }
            Attack::Settings => {
                stream.write_all(&hello(&[])).await?;
                flood(stream, &frame(frames::SETTINGS, 0, 0, &[])).await
            }
            Attack::Ping => {
                stream.write_all(&hello(&[])).await?;
                flood(stream, &frame(frames::PING, 0, 0, &[0; 8])).await
            }
        }
    }
}

fn head_of(path: &str) -> Vec<u8> {
    let start = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "t")];
    frames::head(&start)
}

fn request(path: &str, stream: u32) -> Vec<u8> {
    frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, stream, &head_of(path))
}

async fn read_all(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn dribble(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(DRIBBLE).await;
    }
    Ok(())
}

/// Writes these bytes again and again until the write fails.
async fn flood(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let bytes = bytes.repeat(16_384 / bytes.len() + 1);
    loop {
        stream.write_all(&bytes).await?;
    }
}

/// All attacks at once, on their own threads.
struct Attacks {
    runtime: Option<Runtime>,
    /// Connections that the bridge ended, in the order of [`Attack::ALL`].
    ended: Arc<[AtomicUsize; Attack::ALL.len()]>,
}

impl Attacks {
    fn start(bridge: SocketAddr, path: &str) -> Attacks {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let ended: Arc<[AtomicUsize; Attack::ALL.len()]> = Arc::default();
        for (place, attack) in Attack::ALL.into_iter().enumerate() {
            for number in 0..attack.connections() {
                let (path, ended) = (path.to_owned(), ended.clone());
                let local = [127, 0, u8::try_from(place).unwrap() + 1, (number % 250) as u8 + 1];
                runtime.spawn(async move {
                    loop {
                        if let Ok(mut stream) = connect(local, bridge).await {
                            let _ = attack.commit(&path, &mut stream).await;
                            ended[place].fetch_add(1, Ordering::Relaxed);
                        }
                        sleep(PAUSE).await;
                    }
                });
            }
        }
        Attacks { runtime: Some(runtime), ended }
    }

    fn ended(&self) -> Vec<(Attack, usize)> {
        let counts = self.ended.iter().map(|count| count.load(Ordering::Relaxed));
        Attack::ALL.into_iter().zip(counts).collect()
    }
}

impl Drop for Attacks {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connect(local: [u8; 4], bridge: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A small buffer is soon full when the sender does not read.
    socket.set_recv_buffer_size(4_096)?;
    socket.bind((local, 0).into())?;
    socket.connect(bridge).await
}

/// Shortens the time-outs so that every attack ends within the short form.
fn hurry(config: &mut Config) {
    config.http.header_timeout_ms = 1_000;
    config.http.body_timeout_ms = 1_000;
    config.http.idle_timeout_ms = 2_000;
}

/// No click of the good sender is refused, lost or slow; every attack is ended; memory stays within
/// its bound.
#[tokio::test]
async fn attackers_cost_a_good_sender_nothing() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    if !is_long() {
        hurry(&mut config);
    }
    broker.create_topic(&config.webhook[0].topic, 12).await;
    broker.create_topic(&config.webhook[0].dead_letters(), 2).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::launch(&config, folder.path(), "ulimit -n $(ulimit -H -n)");
    until("ready", async || serve.is_ready().await).await;
    let (rate, time, p99_max) = match is_long() {
        true => (1_000, Duration::from_secs(60), Duration::from_millis(20)),
        false => (100, Duration::from_secs(5), Duration::from_secs(1)),
    };
    let load = Load::start(serve.url(), rate, "good");
    load.more(rate).await;
    let attacks = Attacks::start(serve.http, &config.webhook[0].path);
    let (began, mut resident, mut connections) = (Instant::now(), 0.0_f64, 0.0_f64);
    while began.elapsed() < time || attacks.ended().iter().any(|(_, count)| *count == 0) {
        sleep(Duration::from_millis(200)).await;
        resident = resident.max(serve.metric("process_resident_memory_bytes").await);
        connections = connections.max(serve.metric("hookbridge_connections").await);
        assert!(began.elapsed() < time * 12, "not ended: {:?}", attacks.ended());
    }
    let book = load.stop().await;
    let ended = attacks.ended();
    drop(attacks);
    let (median, p99) = (book.percentile(0.5), book.percentile(0.99));
    println!(
        "{} clicks, median {median:?}, p99 {p99:?}, slowest {:?}; {:.0} MB, {connections} \
         connections; ended: {ended:?}",
        book.sent,
        book.percentile(1.0),
        resident / 1e6
    );
    assert_eq!((book.held.len(), book.unanswered), (book.sent, 0), "{:?}", book.refused);
    assert!(p99 < p99_max, "{p99:?}");
    assert!(resident < MEMORY_MAX, "{resident} bytes");
    until("all closed", async || serve.metric("hookbridge_connections").await < 100.0).await;
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log:.2000}");
    let lines = log.lines().count() as f64;
    let most = 10.0 * 25.0 * (began.elapsed().as_secs_f64() + 2.0);
    assert!(lines < most, "{lines} lines of log, at most {most}");
}

/// The limit of the bridge's memory during the attacks, in bytes.
const MEMORY_MAX: f64 = 200e6;
