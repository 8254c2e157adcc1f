//! The live page: its parts, and the whole in a browser.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookbridge::config::Config;
use reqwest::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, sleep};

use crate::harness::brokers::Broker;
use crate::harness::browser::Browser;
use crate::harness::support::{KEY, PATIENCE, Raw, TestBridge, fixture, numbered, until};

fn with_tail(config: &mut Config) {
    config.admin.tail = true;
}

impl TestBridge {
    async fn page(&self, path: &str) -> Response {
        reqwest::get(format!("http://{}{path}", self.admin)).await.unwrap()
    }
}

/// The parts of the page, updated by its events.
struct Events {
    answer: Response,
    /// The beginning of the next event, which may end within a character.
    rest: Vec<u8>,
    parts: HashMap<String, String>,
}

impl Events {
    /// Opens the stream and reads the first event.
    async fn of(bridge: &TestBridge) -> Events {
        let answer = bridge.page("/page/events").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
        let mut events = Events { answer, rest: Vec::new(), parts: HashMap::new() };
        assert!(events.next().await && events.parts.len() > 10, "{:?}", events.parts);
        events
    }

    /// Reads an event; false at the end of the stream.
    async fn next(&mut self) -> bool {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let event = self.rest.drain(..end + 2).collect::<Vec<u8>>();
                let parts: HashMap<String, String> =
                    serde_json::from_slice(event.strip_prefix(b"data: ").unwrap()).unwrap();
                self.parts.extend(parts);
                return true;
            }
            let Ok(Some(chunk)) = self.answer.chunk().await else { return false };
            self.rest.extend(chunk);
        }
    }

    /// Waits until this part has these words.
    async fn until(&mut self, part: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.parts[part].contains(words) {
            let is_late = Instant::now() > deadline;
            assert!(!is_late && self.next().await, "{part} has no {words}: {:?}", self.parts);
        }
    }
}

/// The page loads nothing from other hosts, and all its policies are strict.
#[tokio::test]
async fn the_page_is_whole_without_a_script() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, with_tail).await;
    assert_eq!(bridge.post(fixture("email-marketing-click.json")).await.status(), 200);
    // The counters are read at most twice a second.
    let mut html = String::new();
    until("shown", async || {
        html = bridge.page("/").await.text().await.unwrap();
        html.contains("1 held since the start")
    })
    .await;
    for words in [
        "Are clicks coming in?",
        "role=\"img\" aria-label=\"Clicks a second: held",
        "api_key = &quot;(hidden)&quot;",
        "<meta http-equiv=\"refresh\" content=\"5\">",
        "accepted",
    ] {
        assert!(html.contains(words), "no {words} in {html}");
    }
    for words in ["http://", "https://", " style=", " onclick", "<script>", KEY] {
        // XML namespaces and addresses in the settings load nothing.
        let html = html.replace("http://www.w3.org/2000/svg", "");
        let (html, _settings) = html.split_once("<pre").unwrap();
        assert!(!html.contains(words), "{words} in {html}");
    }
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/script.js", "text/javascript; charset=utf-8"),
        ("/page/events", "text/event-stream"),
    ] {
        let answer = bridge.page(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let headers = answer.headers();
        assert_eq!(headers[CONTENT_TYPE], kind);
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
        for part in ["script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
    }
    assert_eq!(bridge.page("/page/other").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn records_are_shown_redacted_and_only_while_somebody_looks() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, with_tail).await;
    assert_eq!(bridge.post(numbered("before", 1)).await.status(), 200);
    let mut events = Events::of(&bridge).await;
    assert!(!events.parts["tail"].contains("before"), "{:?}", events.parts);
    assert_eq!(bridge.post(fixture("email-marketing-click.json")).await.status(), 200);
    assert_eq!(bridge.post("{\"email\":\"jo@example.com\"").await.status(), 200);
    events.until("tail", "***@testdomain.com").await;
    events.until("tail", "dead letter").await;
    events.until("campaigns", "12345").await;
    events.until("letters", ">1<").await;
    events.until("partitions", "12 partitions").await;
    let html = bridge.page("/").await.text().await.unwrap();
    for address in ["test@testdomain.com", "jo@example.com"] {
        assert!(html.contains(&format!("***@{}", address.split_once('@').unwrap().1)));
        assert!(!html.contains(address), "{html}");
    }
    // Without a viewer for a while the page forgets its records.
    drop(events);
    sleep(Duration::from_secs(14)).await;
    let first = Events::of(&bridge).await.parts;
    assert!(!first["tail"].contains("testdomain"), "{}", first["tail"]);
    assert!(first["campaigns"].contains("None yet"), "{}", first["campaigns"]);
    assert!(first["clicks"].contains("3 held since the start"), "{}", first["clicks"]);
}

/// Records are not shown by default.
#[tokio::test]
async fn the_page_and_its_records_can_be_off() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let mut events = Events::of(&bridge).await;
    assert_eq!(bridge.post(fixture("email-marketing-click.json")).await.status(), 200);
    events.until("campaigns", "12345").await;
    let html = bridge.page("/").await.text().await.unwrap();
    assert!(html.contains("admin.tail = true") && !html.contains("testdomain"), "{html}");
    let bridge = TestBridge::start_with(&broker, |config| config.admin.page = false).await;
    for path in ["/", "/page/events", "/page/script.js"] {
        assert_eq!(bridge.page(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert!(bridge.admin("/metrics").await.0.is_success());
}

#[tokio::test]
async fn at_most_eight_viewers_and_none_delays_the_stop() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, with_tail).await;
    let mut viewers = Vec::new();
    for _ in 0..8 {
        viewers.push(Events::of(&bridge).await);
    }
    assert_eq!(bridge.page("/page/events").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(bridge.admin("/readyz").await.0.is_success());
    viewers.truncate(6);
    let freed = async || bridge.page("/page/events").await.status().is_success();
    until("freed", freed).await;
    let stopping = Instant::now();
    let (sender, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || sender.send(bridge.stopped()));
    assert!(stopped.await.unwrap().is_clean());
    assert!(stopping.elapsed() < Duration::from_secs(15), "{:?}", stopping.elapsed());
    for mut viewer in viewers {
        while viewer.next().await {}
    }
}

/// Updates are not queued for it.
#[tokio::test]
async fn a_viewer_that_does_not_read_is_disconnected() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, with_tail).await;
    let ask = "GET /page/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut viewer = Raw::connect_small(bridge.admin).await;
        viewer.send(ask);
        silent.push(viewer);
    }
    let is_full = async || bridge.page("/page/events").await.status() == 503;
    until("all places are taken", is_full).await;
    // Long rows make each frame large, so that it soon does not fit.
    let value = format!(r#"{{"campid":"7","x":"{}"}}"#, "&".repeat(500));
    until("they are let go", async || {
        for _ in 0..40 {
            assert_eq!(bridge.post(value.clone()).await.status(), 200);
        }
        bridge.page("/page/events").await.status().is_success()
    })
    .await;
    drop(silent);
}

/// The folder of the pictures.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("page")
}

/// Checks the browser's log, live figures, both themes, a phone's width and the keyboard.
#[tokio::test]
async fn the_page_works_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let broker = Broker::embedded();
    let bridge = TestBridge::start_spooling(&broker, with_tail).await;
    browser.look_like(1_280, 900, "light").await;
    browser.page.goto(&format!("http://{}/", bridge.admin)).await.unwrap();
    let text = async |id: &str| {
        let script = format!("document.getElementById('{id}').innerText");
        browser.evaluate(&script).await.as_str().unwrap().to_owned()
    };
    until("live", async || text("link").await == "live").await;
    let before = text("clicks").await;
    assert!(before.contains("0 held since the start"), "{before}");
    let click = String::from_utf8(fixture("email-marketing-click.json")).unwrap();
    for number in 0..400 {
        // Few campaigns have most of the clicks.
        let campaign = 12_345 + 400 / (number + 1);
        let body = click.replace("\"12345\"", &format!("\"{campaign}\""));
        let body = body.replace("test@", &format!("someone{number}@"));
        assert_eq!(bridge.post(body).await.status(), 200);
    }
    assert_eq!(bridge.post("not JSON, from jo@example.com").await.status(), 200);
    until("moved", async || text("clicks").await.contains("401 held since the start")).await;
    until("campaigns", async || text("campaigns").await.contains("12346")).await;
    until("partitions", async || text("partitions").await.contains("12 partitions")).await;
    // The line has two points after ten seconds.
    let line = "document.querySelector('#chart-clicks polyline[stroke=\"#030303\"]')";
    let points = format!("{line}?.getAttribute('points').trim().split(' ').length ?? 0");
    until("drawn", async || browser.evaluate(&points).await.as_i64().unwrap() > 1).await;
    for (name, width, theme) in [
        ("light", 1_280, "light"),
        ("dark", 1_280, "dark"),
        ("phone-light", 360, "light"),
        ("phone-dark", 360, "dark"),
    ] {
        browser.look_like(width, 800, theme).await;
        let overflow = "document.documentElement.scrollWidth - window.innerWidth";
        assert!(browser.evaluate(overflow).await.as_i64().unwrap() <= 0, "{name} is too wide");
        browser.picture(&pictures().join(format!("{name}.png"))).await;
    }
    keyboard(&browser).await;
    assert_eq!(browser.complaints().await, Vec::<serde_json::Value>::new());
    browser.page.close().await.unwrap();
}

/// Tab reaches every control in order, with a visible focus; the page can be paused.
async fn keyboard(browser: &Browser) {
    let body = browser.page.find(fantoccini::Locator::Css("body")).await.unwrap();
    let mut reached = Vec::new();
    browser.evaluate("document.activeElement.blur()").await;
    for _ in 0..5 {
        body.send_keys("\u{e004}").await.unwrap();
        let focused = "(e => e.id || e.textContent.slice(0, 16))(document.activeElement)";
        reached.push(browser.evaluate(focused).await.as_str().unwrap().to_owned());
        let outline =
            browser.evaluate("getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(outline, "solid", "{reached:?}");
    }
    let expected = ["To the figures", "pause", "Metrics", "tail", "Settings of this"];
    assert_eq!(reached, expected);
    let pause = browser.page.find(fantoccini::Locator::Id("pause")).await.unwrap();
    pause.send_keys(" ").await.unwrap();
    assert_eq!(browser.evaluate("document.getElementById('link').innerText").await, "paused");
    assert_eq!(pause.attr("aria-pressed").await.unwrap().unwrap(), "true");
}

#[tokio::test]
async fn hostile_values_are_only_text_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, with_tail).await;
    browser.look_like(360, 800, "light").await;
    browser.page.goto(&format!("http://{}/", bridge.admin)).await.unwrap();
    let ask = async |id: &str| {
        browser.evaluate(&format!("document.getElementById('{id}').innerText")).await.to_string()
    };
    until("live", async || ask("link").await.contains("live")).await;
    let markup =
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let hostile = [
        markup.to_owned(),
        "</td></table><style>*{display:none}</style>".into(),
        "\u{202e}txt.exe\u{2066}\u{200f}".into(),
        "\u{0}\u{1b}[2J\r\n\n data: {}".into(),
        "&lt;b&gt;&amp;".into(),
        "W".repeat(64 << 10),
        "Z\u{335}\u{321}".repeat(200),
    ];
    for value in &hostile {
        let body = serde_json::json!({"campid": value, "browser": value, "subject": value});
        assert_eq!(bridge.post(body.to_string()).await.status(), 200);
        // This includes a value that is not JSON and becomes a dead letter.
        assert_eq!(bridge.post(value.clone()).await.status(), 200);
    }
    until("shown", async || ask("tail").await.contains("</td></table><style>")).await;
    until("counted", async || ask("campaigns").await.contains("<img src=x")).await;
    for id in ["tail", "campaigns"] {
        let shown = ask(id).await;
        // The character is escaped; within JSON the backslash is escaped again.
        assert!(shown.contains("u{202e}"), "{shown}");
        assert!(!shown.contains('\u{202e}') && !shown.contains(&"W".repeat(1_000)), "{shown}");
    }
    let injected = "document.querySelectorAll('main img, main script, main style, main b').length";
    assert_eq!(browser.evaluate(injected).await, 0);
    assert_eq!(browser.evaluate("document.title").await, "hookbridge");
    let overflow = "document.documentElement.scrollWidth - window.innerWidth";
    assert!(browser.evaluate(overflow).await.as_i64().unwrap() <= 0);
    browser.picture(&pictures().join("hostile.png")).await;
    assert_eq!(browser.complaints().await, Vec::<serde_json::Value>::new());
    browser.page.close().await.unwrap();
}
