//! Senders behind balancers.

use std::net::{Ipv4Addr, TcpStream};

use hookbridge::config::{Config, NamedKey};
use reqwest::StatusCode;

use crate::harness::brokers::Broker;
use crate::harness::haproxy;
use crate::harness::ports;
use crate::harness::process::{Running, Serve};
use crate::harness::support::{Mount, Raw, TestBridge, click, config, sender, until};
use crate::keys::key;
use crate::tls;

/// Trusts the proxies of this network, and has a key for the senders of another.
fn change(config: &mut Config, proxies: &str, senders: &str) {
    config.http.trusted_proxies = vec![proxies.parse().unwrap()];
    let networks = Some(vec![senders.parse().unwrap()]);
    config.auth.keys = vec![NamedKey { networks, ..key("near") }];
}

/// A click with the key `near`; the connection closes after it.
fn post(bridge: &TestBridge) -> String {
    let (path, body) = (&bridge.config.webhook[0].path, click("7"));
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer near\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{}",
        body.len(),
        String::from_utf8(body).unwrap()
    )
}

/// It decides whether a key's networks match; no other source is trusted.
#[tokio::test]
async fn the_address_that_a_trusted_proxy_names_counts() {
    use StatusCode as S;
    let header = "x-forwarded-for";
    for (proxies, name, sent, value, status) in [
        ("127.0.0.0/8", header, header, "203.0.113.7", S::OK),
        ("127.0.0.0/8", header, header, "192.0.2.1, 203.0.113.7, 127.0.0.9", S::OK),
        ("127.0.0.0/8", header, header, "203.0.113.7, 192.0.2.1", S::FORBIDDEN),
        ("127.0.0.0/8", header, header, "203.0.113.7, unknown", S::FORBIDDEN),
        ("127.0.0.0/8", header, "forwarded", "for=203.0.113.7", S::FORBIDDEN),
        ("127.0.0.0/8", "forwarded", "forwarded", "for=203.0.113.7;proto=https", S::OK),
        ("127.0.0.0/8", "forwarded", header, "203.0.113.7", S::FORBIDDEN),
        ("10.0.0.0/8", header, header, "203.0.113.7", S::FORBIDDEN),
    ] {
        let broker = Broker::embedded();
        let bridge = TestBridge::start_with(&broker, |config| {
            change(config, proxies, "203.0.113.0/24");
            config.http.forwarded_header = name.into();
        })
        .await;
        let request = sender().post(bridge.url()).bearer_auth("near").header(sent, value);
        let answer = request.body(click("7")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{proxies} {name} {sent}: {value}");
    }
}

#[tokio::test]
async fn the_log_names_the_sender_not_the_proxy() {
    let broker = Broker::embedded();
    let mut config = config(&broker);
    config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    broker.create_topic(&config.webhook[0].topic, 12).await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let request = sender().post(serve.url()).header("x-forwarded-for", "203.0.113.7");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    serve.wait_for_log("\"peer\":\"203.0.113.7\"");
    assert_eq!(serve.stop().0, 0);
}

/// Tests versions 1 and 2, and the proxy's own connections. A header that is wrong, late or from
/// another host is refused.
#[tokio::test]
async fn the_proxy_protocol_names_the_sender() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        change(config, "127.0.0.0/8", "203.0.113.0/24");
        config.http.proxy_protocol = true;
        config.http.header_timeout_ms = 3_000;
    })
    .await;
    let answer = |begin: &[u8]| {
        let mut raw = bridge.raw();
        raw.send([begin, post(&bridge).as_bytes()].concat());
        raw.read_all()
    };
    let binary = |command: u8, address: [u8; 4]| {
        let begin = *b"\r\n\r\n\0\r\nQUIT\n";
        let rest = [10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];
        [&begin[..], &[0x20 | command, 0x11, 0, 12], &address, &rest].concat()
    };
    for (begin, status) in [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n".to_vec(), 200),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n".to_vec(), 403),
        (b"PROXY UNKNOWN\r\n".to_vec(), 403),
        (binary(1, [203, 0, 113, 7]), 200),
        (binary(1, [192, 0, 2, 1]), 403),
        // The proxy's own connection (LOCAL).
        (binary(0, [203, 0, 113, 7]), 403),
    ] {
        let answer = answer(&begin);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{begin:?}: {answer}");
    }
    let broken = ["", "PROXY TCP4 203.0.113.7\r\n", &format!("PROXY {}", "1".repeat(200))];
    for (begin, count) in broken.iter().zip([1.0, 2.0, 3.0]) {
        assert_eq!(answer(begin.as_bytes()), "", "{begin}");
        assert_eq!(bridge.outcomes_without_webhook("not_http").await, count, "{begin}");
    }
    // A proxy that sends nothing.
    let slow = bridge.raw().read_all();
    assert_eq!((slow.as_str(), bridge.outcomes_without_webhook("slow_head").await), ("", 1.0));
    // A balancer's health check by connection alone is not counted.
    drop(bridge.raw());
    until("gone", async || bridge.metric("hookbridge_connections").await == 0.0).await;
    assert_eq!(bridge.outcomes_without_webhook("slow_head").await, 1.0);
    assert_eq!(bridge.outcomes_without_webhook("abandoned").await, 0.0);

    let elsewhere = TestBridge::start_with(&broker, |config| {
        change(config, "10.0.0.0/8", "127.0.0.0/8");
        config.http.proxy_protocol = true;
    })
    .await;
    let mut raw = elsewhere.raw();
    raw.send(post(&elsewhere));
    assert!(raw.read_all().starts_with("HTTP/1.1 200 "));
    let mut raw = elsewhere.raw();
    raw.send(format!("PROXY TCP4 127.0.0.1 10.0.0.1 1 2\r\n{}", post(&elsewhere)));
    assert!(raw.read_all().starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn the_connection_limit_counts_senders_not_proxies() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        change(config, "127.0.0.0/8", "203.0.113.0/24");
        config.http.proxy_protocol = true;
        config.http.max_connections_per_address = 2;
    })
    .await;
    let connect = |end: u8| {
        let mut raw = Raw::connect(bridge.http);
        raw.send(format!("PROXY TCP4 203.0.113.{end} 10.0.0.1 56324 443\r\n"));
        raw
    };
    let held: Vec<Raw> = [1, 1, 2, 2, 3].map(connect).into();
    let refused = "hookbridge_connections_refused_total{reason=\"address_limit\"}";
    until("held", async || bridge.metric("hookbridge_connections").await == 5.0).await;
    assert_eq!(connect(1).read_all(), "");
    assert_eq!(bridge.metric(refused).await, 1.0);
    let mut third = connect(3);
    third.send(post(&bridge));
    assert!(third.read_all().starts_with("HTTP/1.1 200 "));
    drop(held);
    until("given back", async || bridge.metric("hookbridge_connections").await == 0.0).await;
    let mut first = connect(1);
    first.send(post(&bridge));
    assert!(first.read_all().starts_with("HTTP/1.1 200 "));
}

/// HAProxy sends the PROXY protocol in both versions, before TLS.
#[tokio::test]
async fn haproxy_passes_the_address_on() {
    for option in ["send-proxy", "send-proxy-v2"] {
        let Some(mut program) = haproxy::program() else { return };
        let authority = tls::Authority::new();
        let pair = authority.issue("bridge", 2030);
        let mount = Mount::new(&pair.files());
        let broker = Broker::embedded();
        let bridge = TestBridge::start_with(&broker, |config| {
            change(config, "127.0.0.1/32", "127.0.0.2/32");
            config.http.proxy_protocol = true;
            config.http.tls = Some(tls::settings(&mount));
        })
        .await;
        let address = ports::free(Ipv4Addr::LOCALHOST);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let settings = format!(
            "defaults\n    mode tcp\n    timeout client 30s\n    timeout server 30s\n    \
             timeout connect 5s\nlisten senders\n    bind {address}\n    \
             server bridge {} {option}\n",
            bridge.http
        );
        std::fs::write(&file, settings).unwrap();
        let _haproxy = Running(program.arg("-f").arg(&file).spawn().unwrap());
        until("listening", async || TcpStream::connect(address).is_ok()).await;
        for (from, status) in [(2, StatusCode::OK), (3, StatusCode::FORBIDDEN)] {
            let client = authority.client().local_address(Some([127, 0, 0, from].into()));
            let url = format!("https://{address}{}", bridge.config.webhook[0].path);
            let request = client.build().unwrap().post(url).bearer_auth("near").body(click("7"));
            assert_eq!(request.send().await.unwrap().status(), status, "{option} 127.0.0.{from}");
        }
    }
}
