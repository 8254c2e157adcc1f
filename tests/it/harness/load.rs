//! A steady load of numbered clicks, and a record of each answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::brokers::variable;
use super::support::{KEY, PATIENCE, POLL_INTERVAL};

/// The number of senders. Each has its own campaigns and waits for each answer, so that its clicks
/// arrive in the order of their numbers.
const SENDERS: usize = 32;
const CAMPAIGNS: usize = 8;

/// How long a sender waits after its connection broke.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// One body in this many is not an event.
const BROKEN: u32 = 20;

/// Whether the tests under load run in their long form.
pub fn is_long() -> bool {
    match variable("HOOKBRIDGE_PROOF").as_deref() {
        Some("long") => true,
        None | Some("short") => false,
        Some(other) => panic!("HOOKBRIDGE_PROOF is {other}; it may be short or long"),
    }
}

/// The outcomes of all clicks.
#[derive(Debug, Default)]
pub struct Book {
    pub sent: usize,
    /// Answered 200: campaign and number.
    pub held: Vec<(Arc<str>, u32)>,
    /// Answered otherwise, by status.
    pub refused: HashMap<StatusCode, usize>,
    /// Not answered: the connection broke.
    pub unanswered: usize,
    /// How long each answer took.
    pub took: Vec<Duration>,
}

impl Book {
    pub fn add(&mut self, other: Book) {
        self.sent += other.sent;
        self.unanswered += other.unanswered;
        self.held.extend(other.held);
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.took.extend(other.took);
    }

    /// The time within which this share of the answers came.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let place = (took.len() as f64 * share).ceil() as usize;
        took.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// What a sender does with its connection between two clicks.
#[derive(Debug, Clone, Copy)]
pub enum Connections {
    Kept,
    /// Each click has a new connection.
    New,
}

/// The bridge's address, and whether to continue.
pub struct Aim {
    pub url: Mutex<String>,
    stopped: AtomicBool,
    answered: AtomicUsize,
    /// Answered otherwise, or not at all.
    failed: AtomicUsize,
}

pub struct Load {
    pub aim: Arc<Aim>,
    senders: Vec<JoinHandle<Book>>,
}

impl Load {
    /// Starts a load at this rate, in clicks a second, of campaigns whose names begin with `name`.
    pub fn start(url: &str, rate: usize, name: &str) -> Load {
        Load::start_over(Connections::Kept, url, rate, name)
    }

    /// Starts a load over connections of this kind.
    pub fn start_over(connections: Connections, url: &str, rate: usize, name: &str) -> Load {
        let url = Mutex::new(url.to_owned());
        let (answered, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let aim = Arc::new(Aim { url, stopped: AtomicBool::new(false), answered, failed });
        let pause = Duration::from_secs(1) * SENDERS as u32 / rate as u32;
        let senders = (0..SENDERS)
            .map(|sender| format!("{name}-{sender}"))
            .map(|name| tokio::spawn(send(connections, name, pause, aim.clone())));
        Load { senders: senders.collect(), aim }
    }

    /// How many clicks have been answered 200 so far.
    pub fn held(&self) -> usize {
        self.aim.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more clicks have been answered 200.
    pub async fn more(&self, clicks: usize) {
        let before = self.held();
        let deadline = Instant::now() + PATIENCE;
        while self.held() < before + clicks {
            let failed = self.aim.failed.load(Ordering::Relaxed);
            assert!(
                Instant::now() < deadline,
                "{} of {clicks} more clicks were held; {failed} failed since the start",
                self.held() - before
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    pub async fn stop(self) -> Book {
        self.aim.stopped.store(true, Ordering::Relaxed);
        let mut book = Book::default();
        for sender in self.senders {
            book.add(sender.await.unwrap());
        }
        book
    }
}

async fn send(connections: Connections, name: String, pause: Duration, aim: Arc<Aim>) -> Book {
    let idle = match connections {
        Connections::Kept => 1,
        Connections::New => 0,
    };
    let client = reqwest::Client::builder().timeout(PATIENCE).pool_max_idle_per_host(idle);
    let client = client.build().unwrap();
    let campaigns = (0..CAMPAIGNS).map(|campaign| format!("{name}-{campaign}").into());
    let campaigns: Vec<Arc<str>> = campaigns.collect();
    let mut book = Book::default();
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        for campaign in &campaigns {
            if aim.stopped.load(Ordering::Relaxed) {
                return book;
            }
            ticks.tick().await;
            let url = aim.url.lock().unwrap().clone();
            let request = client.post(url).bearer_auth(KEY).body(body(campaign, number));
            book.sent += 1;
            let sent = Instant::now();
            let answer = request.send().await;
            book.took.push(sent.elapsed());
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    aim.answered.fetch_add(1, Ordering::Relaxed);
                    book.held.push((campaign.clone(), number));
                }
                Ok(answer) => {
                    aim.failed.fetch_add(1, Ordering::Relaxed);
                    *book.refused.entry(answer.status()).or_default() += 1;
                }
                Err(_) => {
                    aim.failed.fetch_add(1, Ordering::Relaxed);
                    book.unanswered += 1;
                    sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }
    book
}

/// A body about as long as a real click. A broken one has its mark, too.
fn body(campaign: &str, number: u32) -> String {
    let mark = mark(campaign, number);
    if number % BROKEN == BROKEN - 1 {
        return format!("{{\"campid\": broken {mark}");
    }
    format!(
        r#"{{"type":"Email marketing","event":"click","campid":"{campaign}","relid":"{mark}","cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749,"device_type":"mobile","browser":"Chrome","email":"test@testdomain.com","campaignName":"Test campaign name","subject":"Test campaign subject","contactId":"112528991","destination":"https://www.testdomain.com/"}}"#
    )
}

fn mark(campaign: &str, number: u32) -> String {
    format!("<{campaign}:{number}>")
}

/// The campaign and number in the mark of a body.
pub fn read_mark(body: &[u8]) -> Option<(Arc<str>, u32)> {
    let text = std::str::from_utf8(body).ok()?;
    let (campaign, number) = text.split_once('<')?.1.split_once('>')?.0.split_once(':')?;
    Some((campaign.into(), number.parse().ok()?))
}
