//! A bridge in this process, a sender, and a reader of the topic.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use hookbridge::bridge::{Drained, Listeners, run};
use hookbridge::config::{Config, Secret};
use hookbridge::kafka::{ConsumedRecord, Reader, TopicPosition};
use reqwest::{RequestBuilder, Response, StatusCode};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use super::brokers::count;
use super::brokers::{Broker, unique};

pub const KEY: &str = "a-key-of-the-tests";

/// The longest that a condition in a test may take to come true; tests poll for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A body from `tests/fixtures`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("a fixture")
}

/// A numbered click of this campaign.
pub fn numbered(campid: &str, number: usize) -> Vec<u8> {
    format!(r#"{{"campid":"{campid}","relid":"{number}"}}"#).into_bytes()
}

pub fn click(campid: &str) -> Vec<u8> {
    format!(r#"{{"type":"Email marketing","event":"click","campid":"{campid}"}}"#).into_bytes()
}

/// Text of which compression takes nothing off.
pub fn incompressible(length: usize) -> String {
    let numbers = (1_u64..).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let text: String =
        numbers.take(length / 16 + 1).map(|number| format!("{number:016x}")).collect();
    text[..length].to_owned()
}

/// A click that is larger than so many bytes, also in Kafka.
pub fn large_click(length: usize) -> String {
    format!(r#"{{"campid":7,"x":"{}"}}"#, incompressible(length))
}

/// A running bridge with a topic of its own.
pub struct TestBridge {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub config: Config,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Drained>>,
    /// The folder of the spool, if there is one.
    _folder: Option<TempDir>,
}

/// Settings for a test on this broker: any port, no delay, one key, a new topic, no spool.
pub fn config(broker: &Broker) -> Config {
    let mut config = Config::default();
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.http.workers = 2;
    config.http.drain_delay_ms = 0;
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    config.kafka.brokers = broker.addresses();
    config.spool.dir = PathBuf::new();
    config.auth.api_key = Some(Secret::new(KEY));
    config.webhook[0].topic = unique("clicks");
    config
}

impl TestBridge {
    /// Creates the topic and starts a bridge; waits until it is ready.
    pub async fn start(broker: &Broker) -> TestBridge {
        TestBridge::start_with(broker, |_| {}).await
    }

    /// Like [`TestBridge::start`], with changed settings.
    pub async fn start_with(broker: &Broker, change: impl FnOnce(&mut Config)) -> TestBridge {
        let mut config = config(broker);
        change(&mut config);
        broker.create_topic(&config.webhook[0].topic, 12).await;
        broker.create_topic(&config.webhook[0].dead_letters(), 2).await;
        let bridge = TestBridge::launch(config);
        bridge.ready().await;
        bridge
    }

    /// Like [`TestBridge::start_with`], with a new spool.
    pub async fn start_spooling(broker: &Broker, change: impl FnOnce(&mut Config)) -> TestBridge {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("spool");
        let change = |config: &mut Config| {
            config.spool.dir = path;
            change(config);
        };
        let mut bridge = TestBridge::start_with(broker, change).await;
        bridge._folder = Some(folder);
        bridge
    }

    /// Starts a bridge with these webhooks, each with new topics; waits until it is ready.
    pub async fn start_all(broker: &Broker, mut config: Config) -> TestBridge {
        for webhook in &mut config.webhook {
            webhook.topic = unique(&webhook.topic);
            broker.create_topic(&webhook.topic, 3).await;
            broker.create_topic(&webhook.dead_letters(), 1).await;
        }
        let bridge = TestBridge::launch(config);
        bridge.ready().await;
        bridge
    }

    /// Starts a bridge with these settings, without waiting.
    pub fn launch(config: Config) -> TestBridge {
        let listeners = Listeners::bind(&config).expect("free ports");
        let http = listeners.http.local_addr().expect("an address");
        let admin = listeners.admin.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let for_thread = config.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let stopped = async { drop(stopped.await) };
            let bridge = run(for_thread, listeners, None, stopped);
            runtime.expect("a runtime").block_on(bridge).expect("a bridge")
        });
        let (stop, thread) = (Some(stop), Some(thread));
        TestBridge { http, admin, config, stop, thread, _folder: None }
    }

    pub fn topic(&self) -> &str {
        &self.config.webhook[0].topic
    }

    pub fn url(&self) -> String {
        format!("http://{}{}", self.http, self.config.webhook[0].path)
    }

    pub fn request(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        sender().post(self.url()).bearer_auth(KEY).body(body)
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        self.request(body).send().await.expect("an answer")
    }

    pub async fn admin(&self, path: &str) -> (StatusCode, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.admin)).await.expect("an answer");
        (answer.status(), answer.text().await.expect("a text"))
    }

    /// Waits until the bridge is ready.
    pub async fn ready(&self) {
        until("ready", async || self.admin("/readyz").await.0.is_success()).await;
    }

    /// The value of one series, as a scrape gives it.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(&self.admin("/metrics").await.1, series)
    }

    /// How many requests of the webhook had this outcome.
    pub async fn outcomes(&self, outcome: &str) -> f64 {
        let webhook = &self.config.webhook[0].name;
        self.metric(&format!(
            "hookbridge_requests_total{{outcome=\"{outcome}\",webhook=\"{webhook}\"}}"
        ))
        .await
    }

    /// How many requests without a webhook had this outcome.
    pub async fn outcomes_without_webhook(&self, outcome: &str) -> f64 {
        self.metric(&format!("hookbridge_requests_total{{outcome=\"{outcome}\",webhook=\"none\"}}"))
            .await
    }

    /// How many records of the topic had this result.
    pub async fn results(&self, result: &str) -> f64 {
        let topic = self.topic();
        self.metric(&format!(
            "hookbridge_kafka_records_total{{result=\"{result}\",topic=\"{topic}\"}}"
        ))
        .await
    }

    /// How many requests had each outcome, over all webhooks.
    pub async fn ends(&self) -> BTreeMap<String, f64> {
        let mut ends = BTreeMap::new();
        for line in self.admin("/metrics").await.1.lines() {
            let Some(series) = line.strip_prefix("hookbridge_requests_total{outcome=\"") else {
                continue;
            };
            let (outcome, rest) = series.split_once('"').expect("an outcome");
            let count: f64 = rest.split_once("} ").expect("a count").1.parse().expect("a number");
            *ends.entry(outcome.to_owned()).or_default() += count;
        }
        ends
    }

    /// The one dead letter, with its headers.
    pub fn dead_letter(&self) -> ConsumedRecord {
        let topic = self.config.webhook[0].dead_letters();
        let letter = records(&self.config, &topic, 1).remove(0);
        assert_eq!(count(&self.config.kafka.brokers, &topic), 1);
        letter
    }

    /// How many records the topic holds.
    pub fn count(&self) -> i64 {
        count(&self.config.kafka.brokers, self.topic())
    }

    /// The topic's records, once it has this many.
    pub fn records(&self, expected: usize) -> Vec<ConsumedRecord> {
        records(&self.config, self.topic(), expected)
    }

    /// The one record of the topic.
    pub fn record(&self) -> ConsumedRecord {
        let record = self.records(1).remove(0);
        assert_eq!(self.count(), 1);
        record
    }

    /// A connection for raw bytes.
    pub fn raw(&self) -> Raw {
        Raw::connect(self.http)
    }

    /// Starts the stop; `stopped` waits for its end.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn stopped(mut self) -> Drained {
        self.begin_stop();
        self.thread.take().expect("a thread").join().expect("a clean end")
    }
}

impl Drop for TestBridge {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A sender with a new connection for each request, so that tests do not disturb each other.
pub fn sender() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).build().expect("a client")
}

/// The value of one series in a scrape.
pub fn metric(scrape: &str, series: &str) -> f64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{series} is not in\n{scrape}"));
    value.parse().expect("a number")
}

/// A topic's records, once it has this many.
pub fn records(config: &Config, topic: &str, expected: usize) -> Vec<ConsumedRecord> {
    let reader = Reader::open(config, topic, TopicPosition::Beginning, PATIENCE).expect("a reader");
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < expected {
        records.extend(reader.next(Duration::from_millis(100)).expect("a record"));
        assert!(Instant::now() < deadline, "{} of {expected} records came", records.len());
    }
    records
}

/// Polls until the check is true.
pub async fn until(what: &str, check: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, check).await;
}

/// Like [`until`], with another time limit.
pub async fn until_within(patience: Duration, what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !check().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A connection for raw bytes.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::over(TcpStream::connect(address).expect("a connection"))
    }

    /// Connects from a local address.
    pub async fn connect_from(local: [u8; 4], address: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((local, 0).into()).expect("an address");
        let stream = socket.connect(address).await.expect("a connection");
        let stream = stream.into_std().expect("a connection");
        stream.set_nonblocking(false).expect("a connection that waits");
        Raw::over(stream)
    }

    /// Connects with a small receive buffer.
    pub async fn connect_small(address: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a size");
        let stream = socket.connect(address).await.expect("a connection");
        let stream = stream.into_std().expect("a connection");
        stream.set_nonblocking(false).expect("a connection that waits");
        Raw::over(stream)
    }

    fn over(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        Raw(stream)
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).expect("written");
    }

    /// Sends the head of a POST with a key and these further lines.
    pub fn send_head(&mut self, path: &str, lines: &str) {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {KEY}\r\n{lines}\r\n"
        ));
    }

    /// Closes the sending half, unless the other side has closed already.
    pub fn stop_writing(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads to the end of the connection, also an abrupt one.
    pub fn read_all(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until these words have come this many times.
    pub fn read_until(&mut self, words: &str, times: usize) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while text.matches(words).count() < times {
            let count = self.0.read(&mut buffer).expect("more to read");
            assert!(count > 0, "the connection ended after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text
    }
}

impl Raw {
    /// Sends; false when the connection is closed.
    pub fn try_send(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.0.write_all(text.as_ref()).is_ok()
    }
}

/// Files that change all at once, as in a mounted Secret of Kubernetes: each is a link through `..data`,
/// which links to the folder of the current version and is replaced atomically.
pub struct Mount {
    folder: TempDir,
    version: usize,
}

impl Mount {
    pub fn new(files: &[(&str, &str)]) -> Mount {
        let mut mount = Mount { folder: tempfile::tempdir().expect("a folder"), version: 0 };
        mount.swap(files);
        for (name, _) in files {
            let target = Path::new("..data").join(name);
            symlink(target, mount.path(name)).expect("a link");
        }
        mount
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn swap(&mut self, files: &[(&str, &str)]) {
        let old = self.path(&format!("..{}", self.version));
        self.version += 1;
        let new = self.path(&format!("..{}", self.version));
        std::fs::create_dir(&new).expect("a folder");
        for (name, text) in files {
            std::fs::write(new.join(name), text).expect("written");
        }
        symlink(new.file_name().expect("a name"), self.path("..data_tmp")).expect("a link");
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).expect("renamed");
        if old.exists() {
            std::fs::remove_dir_all(old).expect("removed");
        }
    }
}
