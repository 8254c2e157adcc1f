//! The load: prepared clicks, sent by the engine of `hookbridge send` (`hookbridge::load`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use hookbridge::load::{self, AuthMethod, Bodies, Connection, Plan, Target};
use tokio::time::{Instant, sleep};

use crate::KEY;

/// The polling interval.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the bridge takes clicks.
pub const PATH: &str = "/webhooks/email-marketing/click";

/// Bodies, sent in turn.
pub type Requests = Arc<[Bytes]>;

/// Clicks of this many campaigns, each `more_bytes` longer than a real one.
pub fn requests(campaigns: usize, more_bytes: usize) -> Requests {
    let padding = "x".repeat(more_bytes);
    let request = |campaign| {
        format!(
            r#"{{"type":"Email marketing","event":"click","campid":"{campaign}","relid":"123","cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749,"device_type":"mobile","browser":"Chrome","timestamp":"2020-10-02 15:07:31","email":"test@testdomain.com","campaignName":"Test campaign name{padding}","subject":"Test campaign subject","contactId":"112528991","destination":"https://www.testdomain.com/"}}"#
        )
        .into()
    };
    (0..campaigns).map(request).collect()
}

/// Connections, and clicks a second of all of them; none where each sends its next click when it is answered.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub rate: Option<u32>,
}

/// A running load. Every click must be answered 200, or otherwise with success.
pub struct Load(load::Load);

/// The answers to a load.
pub struct Answers {
    /// Clicks answered with success.
    pub held: u64,
    /// Since `time_from_now`, in microseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    /// A closed loop over this many connections.
    pub async fn closed(server: SocketAddr, requests: &Requests, connections: usize) -> Load {
        Load::given(server, requests, Shape { connections, rate: None })
    }

    /// An open loop: `rate` clicks a second over this many connections.
    pub async fn open(
        server: SocketAddr,
        requests: &Requests,
        connections: usize,
        rate: u32,
    ) -> Load {
        Load::given(server, requests, Shape { connections, rate: Some(rate) })
    }

    fn given(server: SocketAddr, requests: &Requests, shape: Shape) -> Load {
        Load::start(&format!("http://{server}{PATH}"), &Bodies::Given(requests.clone()), shape)
    }

    /// A load of these bodies.
    pub fn start(url: &str, bodies: &Bodies, shape: Shape) -> Load {
        let (timeout, Shape { connections, rate }) = (ANSWER_TIMEOUT, shape);
        let plan = Plan { connections, rate, count: None, duration: None, timeout };
        Load(load::Load::start(target(url), bodies, plan))
    }

    /// How many clicks have been answered with success so far.
    pub fn held(&self) -> u64 {
        let tally = self.0.tally();
        let held = tally.statuses.range(200..300).map(|(_, count)| count).sum();
        assert_eq!(tally.sent(), held, "{:?}", tally.first_failure);
        held
    }

    /// Forgets how long answers took so far.
    pub fn time_from_now(&self) {
        self.0.tally().latency.reset();
    }

    pub async fn stop(mut self) -> Answers {
        self.0.stop();
        self.0.done().await;
        let held = self.held();
        Answers { held, latency: self.0.end().0.latency }
    }
}

fn target(url: &str) -> Arc<Target> {
    let url = url.parse().expect("a URL");
    Arc::new(Target::new(&url, Some(KEY), AuthMethod::Bearer, None).expect("a target"))
}

/// Idle connections and their requests.
pub struct Idle {
    target: Arc<Target>,
    bodies: Bodies,
    connections: Vec<Connection>,
    next: u64,
}

/// Opens connections and sends one click over each.
pub async fn idle(server: SocketAddr, requests: &Requests, count: usize) -> Idle {
    let (target, bodies) =
        (target(&format!("http://{server}{PATH}")), Bodies::Given(requests.clone()));
    let mut idle = Idle { target, bodies, connections: Vec::new(), next: 0 };
    for _ in 0..count {
        let connection = idle.target.connect().await.expect("a connection");
        idle.connections.push(connection);
        // Over this one, and at once: without a request it is closed after `http.header_timeout_ms`.
        idle.exchange(1).await;
    }
    idle
}

impl Idle {
    /// Sends this many clicks over the connections, in turn.
    pub async fn exchange(&mut self, clicks: usize) {
        for _ in 0..clicks {
            let request = self.target.request(self.bodies.get(self.next));
            let connection = self.next as usize % self.connections.len();
            self.next += 1;
            let answer = self.connections[connection].exchange(request).await;
            assert_eq!(answer.expect("an answer").status, 200);
        }
    }
}

/// Waits a second after the first answer. During an outage of Kafka the first answer takes the whole
/// `ack_timeout_ms`.
pub async fn warm_up(load: &Load) {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while load.held() == 0 {
        assert!(Instant::now() < deadline, "nothing is answered");
        sleep(LOOK_INTERVAL).await;
    }
    sleep(Duration::from_secs(1)).await;
}
