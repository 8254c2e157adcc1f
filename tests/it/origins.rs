//! The admin listener answers no page of another origin, whatever name leads to it.

use std::net::SocketAddr;

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::brokers::Broker;
use crate::harness::browser::Browser;
use crate::harness::support::{TestBridge, sender, until};

/// The paths that need a known host.
const GUARDED: [&str; 6] =
    ["/", "/page/script.js", "/page/events", "/openapi.json", "/asyncapi.json", "/nothing"];

/// As when the owner of a name points it at this machine.
#[tokio::test]
async fn only_known_hosts_are_answered() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.admin.hosts = vec!["hooks.example.com".into()];
    })
    .await;
    let port = bridge.admin.port();
    for version in ["HTTP/1.1", "HTTP/2"] {
        for (host, is_known) in [
            ("127.0.0.1", true),
            ("localhost", true),
            ("hooks.example.com", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
        ] {
            let mut client = reqwest::Client::builder().resolve(host, bridge.admin);
            if version == "HTTP/2" {
                client = client.http2_prior_knowledge();
            }
            let client = client.build().unwrap();
            let status = async |path: &str| {
                let answer =
                    client.get(format!("http://{host}:{port}{path}")).send().await.unwrap();
                assert_eq!(answer.headers()["x-frame-options"], "DENY", "{host} {path}");
                answer.status()
            };
            for path in GUARDED {
                let expected = match path {
                    _ if !is_known => StatusCode::MISDIRECTED_REQUEST,
                    "/nothing" => StatusCode::NOT_FOUND,
                    _ => StatusCode::OK,
                };
                assert_eq!(status(path).await, expected, "{version} {host} {path}");
            }
            for path in ["/metrics", "/livez", "/readyz"] {
                assert_eq!(status(path).await, StatusCode::OK, "{version} {host} {path}");
            }
        }
    }
}

/// Viewers' places are not for the pages of others.
#[tokio::test]
async fn requests_of_other_pages_are_refused() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    for (name, value) in [
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "cross-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        for path in GUARDED {
            let request = sender().get(format!("http://{}{path}", bridge.admin));
            let answer = request.header(name, value).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value} {path}");
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
        }
    }
}

/// Serves an empty page on a port of its own.
async fn other_page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n\
                        <!DOCTYPE html><title>other</title><body>";
            let _ = socket.write_all(page.as_bytes()).await;
        }
    });
    address
}

/// What a page of another origin gets, by each way to ask.
const ATTACK: &str = r#"(async admin => {
    const tried = {};
    const attempt = async (name, ask) => {
        try { tried[name] = String(await ask()); } catch { tried[name] = "refused"; }
    };
    const loads = (kind, more) => new Promise((resolve, reject) => {
        const element = Object.assign(document.createElement(kind), more);
        element.onload = () => resolve("loaded");
        element.onerror = reject;
        document.body.append(element);
    });
    for (const path of ["/", "/page/events", "/openapi.json"]) {
        await attempt(`fetch ${path}`, async () => (await fetch(admin + path)).status);
        const opaque = { mode: "no-cors" };
        await attempt(`opaque ${path}`, async () => (await fetch(admin + path, opaque)).type);
    }
    await attempt("post", async () => (await fetch(admin, { method: "POST" })).status);
    await attempt("put", async () => (await fetch(admin, { method: "PUT" })).status);
    await attempt("script", () => loads("script", { src: admin + "/page/script.js" }));
    await attempt("module", () => loads("script", { src: admin + "/page/script.js", type: "module" }));
    await attempt("style", () => loads("link", { rel: "stylesheet", href: admin + "/page/style.css" }));
    await attempt("events", () => new Promise((resolve, reject) => {
        const events = new EventSource(admin + "/page/events");
        events.onmessage = () => resolve("read");
        events.onerror = () => { events.close(); reject(); };
    }));
    await attempt("frame", async () => {
        await loads("iframe", { src: admin });
        return frames[0].document.body.innerText;
    });
    return tried;
})"#;

#[tokio::test]
async fn a_browser_lets_no_other_page_in() {
    let Some(browser) = Browser::start().await else { return };
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let (admin, other) = (format!("http://{}", bridge.admin), other_page().await);
    browser.page.goto(&format!("http://{other}/")).await.unwrap();
    let tried = browser.evaluate(&format!("{ATTACK}(\"{admin}\")")).await;
    assert_eq!(tried.as_object().unwrap().len(), 13, "{tried}");
    assert!(tried.as_object().unwrap().values().all(|result| result == "refused"), "{tried}");
    // It cannot be framed.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().any(|line| line.to_string().contains("frame")), "{complaints:?}");

    // A link leads to the page, which works.
    browser.evaluate(&format!("location.assign(\"{admin}/\")")).await;
    let link = "document.getElementById('link')?.innerText ?? ''";
    until("live", async || browser.evaluate(link).await == "live").await;

    // A name that was pointed here reads nothing but what probes and scrapers may.
    let rebound = format!("http://evil.example:{}/", bridge.admin.port());
    browser.page.goto(&rebound).await.unwrap();
    let text = browser.evaluate("document.body.innerText").await;
    assert!(text.as_str().unwrap().contains("admin.hosts"), "{text}");
    for (path, status) in [("/", 421), ("/asyncapi.json", 421), ("/metrics", 200)] {
        let script = format!("fetch(\"{path}\").then(answer => answer.status)");
        assert_eq!(browser.evaluate(&script).await, status, "{path}");
    }
    browser.page.close().await.unwrap();
}
