//! Senders that are slow, large or many, and the memory of a click.

use std::net::TcpStream;
use std::time::Duration;

use hookbridge::bridge::Listeners;
use procfs::process::Process;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::harness::brokers::Broker;
use crate::harness::process::Serve;
use crate::harness::support::{KEY, Raw, TestBridge, click, config, until};

/// The limit holds for a partial head and for none at all.
#[tokio::test]
async fn a_late_head_closes_the_connection() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.header_timeout_ms = 2_000;
    })
    .await;
    let mut silent = bridge.raw();
    let mut half = bridge.raw();
    half.send("POST /webhooks");
    let mut later = bridge.raw();
    let path = &bridge.config.webhook[0].path;
    let body = click("7");
    later.send_head(path, &format!("content-length: {}\r\n", body.len()));
    later.send(&body);
    later.read_until("correctamente", 1);
    later.send("POST /webhooks");
    for (what, connection) in [("silent", &mut silent), ("half", &mut half), ("later", &mut later)]
    {
        assert_eq!(connection.read_all(), "", "{what}");
    }
    until("counted", async || bridge.outcomes_without_webhook("slow_head").await == 3.0).await;
    assert_eq!(bridge.metric("hookbridge_connections").await, 0.0);
}

/// No connection of the burst needs a retry.
#[test]
fn a_burst_of_connections_waits_in_the_kernel() {
    let listeners = Listeners::bind(&config(&Broker::embedded())).unwrap();
    let address = listeners.http.local_addr().unwrap();
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    assert_eq!((0..500).map(connect).collect::<Vec<_>>().len(), 500);
}

#[tokio::test]
async fn an_idle_connection_may_wait_longer_than_a_head() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.header_timeout_ms = 1_000;
        config.http.idle_timeout_ms = 4_000;
    })
    .await;
    let body = click("7");
    let mut raw = bridge.raw();
    // The body comes after the head in its own packet: it must not be read as the next head.
    let lines = format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len());
    raw.send_head(&bridge.config.webhook[0].path, &lines);
    raw.read_until("100 Continue", 1);
    raw.send(&body);
    raw.read_until("correctamente", 1);
    let answered = Instant::now();
    assert_eq!(raw.read_all(), "");
    let idle = answered.elapsed();
    assert!(idle > Duration::from_millis(2_000), "closed after {idle:?}");
    assert_eq!(bridge.outcomes_without_webhook("slow_head").await, 0.0);
}

/// A body that never ends is counted.
#[tokio::test]
async fn a_late_body_is_answered_408() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.body_timeout_ms = 1_000;
    })
    .await;
    let path = &bridge.config.webhook[0].path;
    let mut slow = bridge.raw();
    slow.send_head(path, "content-length: 100\r\n");
    slow.send("{\"campid\"");
    let answer = slow.read_all();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:hookbridge:problem:slow_body"), "{answer}");
    assert_eq!(bridge.outcomes("slow_body").await, 1.0);

    let mut gone = bridge.raw();
    gone.send_head(path, "content-length: 100\r\n");
    gone.send("{\"campid\"");
    drop(gone);
    until("counted", async || bridge.outcomes("abandoned").await == 1.0).await;
    assert_eq!(bridge.count(), 0);
}

/// This includes a chunked body that grows.
#[tokio::test]
async fn a_too_large_body_is_refused_before_it_is_read() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_body_bytes = 1_000;
    })
    .await;
    let path = &bridge.config.webhook[0].path;
    let mut stated = bridge.raw();
    stated.send_head(path, "content-length: 1001\r\n");
    assert!(stated.read_until("problem:body_too_large", 1).starts_with("HTTP/1.1 413"));
    let mut grown = bridge.raw();
    grown.send_head(path, "transfer-encoding: chunked\r\n");
    grown.send(format!("3e9\r\n{}\r\n", " ".repeat(1_001)));
    assert!(grown.read_until("problem:body_too_large", 1).starts_with("HTTP/1.1 413"));
    let exact = format!("{}{{\"campid\":7}}", " ".repeat(1_000 - 12));
    assert_eq!(bridge.post(exact).await.status(), StatusCode::OK);
    assert_eq!(bridge.outcomes("body_too_large").await, 2.0);
    assert_eq!(bridge.count(), 1);
}

/// The bridge refuses it up to a certain size, hyper beyond.
#[tokio::test]
async fn a_too_large_head_is_answered_431() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let path = &bridge.config.webhook[0].path;
    for (count, bytes, ours) in
        [(70, 1, true), (1, 20_000, true), (200, 1, false), (1, 60_000, false)]
    {
        let before = bridge.outcomes_without_webhook("head_too_large").await;
        let line = |number| format!("x-{number}: {}\r\n", "a".repeat(bytes));
        let lines: String = (0..count).map(line).collect();
        let mut raw = bridge.raw();
        raw.send_head(path, &format!("connection: close\r\n{lines}"));
        let answer = raw.read_all();
        assert!(answer.starts_with("HTTP/1.1 431"), "{count} of {bytes}: {answer:.100}");
        assert_eq!(answer.contains("problem:head_too_large"), ours, "{count} of {bytes}: {answer}");
        until("counted", async || {
            bridge.outcomes_without_webhook("head_too_large").await == before + 1.0
        })
        .await;
    }
}

/// A closed connection makes room for a new one.
#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    for (limit, per_address, reason) in [(2, 0, "limit"), (100, 2, "address_limit")] {
        let broker = Broker::embedded();
        let bridge = TestBridge::start_with(&broker, |config| {
            config.http.max_connections = limit;
            config.http.max_connections_per_address = per_address;
        })
        .await;
        let held = [bridge.raw(), bridge.raw()];
        until("held", async || bridge.metric("hookbridge_connections").await == 2.0).await;
        let answer = bridge.raw().read_all();
        assert!(answer.starts_with("HTTP/1.1 503"), "{reason}: {answer}");
        assert!(answer.contains("retry-after: 1"), "{reason}: {answer}");
        let series = format!("hookbridge_connections_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(bridge.metric(&series).await, 1.0);
        drop(held);
        until("given back", async || bridge.metric("hookbridge_connections").await == 0.0).await;
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK, "{reason}");
    }
}

/// They are answered 503 at once, and their bytes are released.
#[tokio::test]
async fn requests_beyond_their_number_or_bytes_are_refused() {
    for (requests, bytes, tag) in [(1, 1 << 20, "too_many_requests"), (100, 1_500, "memory_full")] {
        let broker = Broker::embedded();
        let bridge = TestBridge::start_with(&broker, |config| {
            config.http.max_requests_in_flight = requests;
            config.http.max_bytes_in_flight = bytes;
            config.http.max_body_bytes = 1_000;
        })
        .await;
        let mut holder = bridge.raw();
        holder.send_head(&bridge.config.webhook[0].path, "content-length: 1000\r\n");
        holder.send("{");
        until("held", async || bridge.metric("hookbridge_body_bytes_in_flight").await == 1_000.0)
            .await;
        let answer = bridge.post(format!("{}{{\"campid\":7}}", " ".repeat(900))).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{tag}");
        assert!(answer.headers().contains_key("retry-after"), "{tag}");
        assert_eq!(bridge.outcomes(tag).await, 1.0);
        holder.send(format!("{}\"campid\":7}}", " ".repeat(988)));
        holder.read_until("correctamente", 1);
        assert_eq!(bridge.metric("hookbridge_body_bytes_in_flight").await, 0.0);
        assert_eq!(bridge.metric("hookbridge_requests_in_flight").await, 0.0);
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK, "{tag}");
    }
}

#[tokio::test]
async fn a_body_without_a_valid_key_is_not_read() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let mut raw = bridge.raw();
    raw.send(format!(
        "POST {} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer not-{KEY}\r\n\
         content-length: 1000000\r\n\r\n",
        bridge.config.webhook[0].path
    ));
    let answer = raw.read_until("problem:unauthorized", 1);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(bridge.metric("hookbridge_body_bytes_in_flight").await, 0.0);
}

#[tokio::test]
async fn a_sender_that_reads_no_answers_is_disconnected() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.kafka.ack_timeout_ms = 100;
        config.http.answer_timeout_ms = 1_500;
    })
    .await;
    let raw = bridge.raw();
    let flood = std::thread::spawn(move || {
        // Writes until the send buffer is full, because the other side has stopped reading.
        let mut raw = raw;
        while raw.try_send("GET /nowhere HTTP/1.1\r\nhost: test\r\n\r\n".repeat(100)) {}
    });
    until("let go", async || bridge.outcomes_without_webhook("abandoned").await == 1.0).await;
    flood.join().unwrap();
    assert_eq!(bridge.metric("hookbridge_connections").await, 0.0);
}

/// The log says so at most once a second; the listener resumes by itself.
#[tokio::test]
async fn without_file_descriptors_the_listener_pauses() {
    let broker = Broker::embedded();
    let config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "ulimit -n 64");
    until("ready", async || serve.is_ready().await).await;
    let began = Instant::now();
    let held: Vec<Raw> = (0..100).map(|_| Raw::connect(serve.http)).collect();
    let exhausted = "hookbridge_connections_refused_total{reason=\"file_descriptors\"}";
    // The admin listener has no descriptor left either, so the test watches the log.
    serve.wait_for_log("No connection can be accepted");
    drop(held);
    until("accepted again", async || {
        let request = serve.post(click("7")).send().await;
        request.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    assert!(serve.metric(exhausted).await >= 1.0);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    let complaints = log.matches("No connection can be accepted").count();
    assert!(complaints <= seconds + 1, "{complaints} complaints in {seconds} s: {log}");
}

#[tokio::test]
async fn a_head_right_behind_a_request_has_the_time_of_any_head() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.header_timeout_ms = 2_000;
    })
    .await;
    let mut raw = bridge.raw();
    raw.send("GET /nowhere HTTP/1.1\r\nhost: test\r\n\r\nG");
    assert!(raw.read_all().starts_with("HTTP/1.1 404"));
    until("counted", async || bridge.outcomes_without_webhook("slow_head").await == 1.0).await;
}

/// Lines that do not fit the queue are dropped and counted.
#[tokio::test]
async fn a_log_that_nobody_reads_delays_no_click() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    // At this level each frame of HTTP/2 is a log line.
    config.log.level = "h2=trace".into();
    broker.create_topic(&config.webhook[0].topic, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    let first = format!("mkfifo {pipe} && exec 2<> {pipe}", pipe = pipe.display());
    let serve = Serve::launch(&config, folder.path(), &first);
    until("ready", async || serve.is_ready().await).await;
    let sender = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    until("lines are lost", async || {
        for _ in 0..100 {
            let answer = sender.post(serve.url()).bearer_auth(KEY).body(click("7")).send().await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        serve.metric("hookbridge_log_lines_lost_total").await > 0.0
    })
    .await;
    assert_eq!(serve.stop().0, 0);
}

/// What the Kafka client takes and frees for each request stays with the process.
#[tokio::test]
async fn a_click_takes_no_new_pages_of_the_kernel() {
    const TOGETHER: usize = 24;
    const TIMES: usize = 100;
    let broker = Broker::embedded();
    let config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let process = Process::new(serve.id() as i32).unwrap();
    let mut faults = [0; 3];
    for count in &mut faults {
        for _ in 0..TIMES {
            let send =
                |campaign: usize| tokio::spawn(serve.post(click(&campaign.to_string())).send());
            for answer in (0..TOGETHER).map(send).collect::<Vec<_>>() {
                assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
            }
        }
        *count = process.stat().unwrap().minflt;
    }
    // The first ones need pages for all that follow.
    let each = (faults[2] - faults[1]) as f64 / (TOGETHER * TIMES) as f64;
    assert!(each < 0.5, "{each} pages");
}
