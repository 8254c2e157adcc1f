//! HTTP byte for byte: requests, and how the bridge answers them.

use crate::harness::brokers::Broker;
use crate::harness::frames::{self, frame, head};
use crate::harness::support::{KEY, Raw, TestBridge, click, until};

/// Name, expected result, and the bytes to send; then the sender closes its half. The result is the
/// status and outcome of each answer up to the connection's end; `closed` is an end without an answer.
type Case = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        // How long a body is.
        ("a length", "200 accepted",
            "<head><sized>"),
        ("a length, then chunks: the chunks, and nothing after them", "200 accepted",
            "<head>content-length: 3\ntransfer-encoding: chunked\n\n<chunks><next>"),
        ("chunks, then a length: the same", "200 accepted",
            "<head>transfer-encoding: chunked\ncontent-length: 3\n\n<chunks><next>"),
        ("the same length twice", "200 accepted",
            "<head>content-length: <length>\n<sized>"),
        ("two lengths", "400 not_http",
            "<head>content-length: <length>\ncontent-length: 3\n\n<body>"),
        ("a list of lengths", "400 not_http",
            "<head>content-length: <length>, <length>\n\n<body>"),
        ("a length with a sign", "400 not_http",
            "<head>content-length: +<length>\n\n<body>"),
        ("a negative length", "400 not_http",
            "<head>content-length: -1\n\n<body>"),
        ("a length in hex", "400 not_http",
            "<head>content-length: 0x<hex>\n\n<body>"),
        ("no length in the header", "400 not_http",
            "<head>content-length:\n\n<body>"),
        ("a length beyond 64 bits", "400 not_http",
            "<head>content-length: 18446744073709551617\n\n<body>"),
        ("the largest length", "431 head_too_large",
            "<head>content-length: 18446744073709551615\n\n<body>"),
        ("a request after the body", "200 accepted, 404 unknown_path",
            "<head><sized><next>"),
        ("a body cut short", "400 abandoned",
            "<head>content-length: 9999\n\n<body>"),
        ("no length: no body, and then no request", "200 dead_lettered, 400 not_http",
            "<head>\n<body>"),
        ("a coding below the chunks", "400 not_http",
            "<head>transfer-encoding: gzip, chunked\n\n<chunks><next>"),
        ("a coding above the chunks", "400 not_http",
            "<head>transfer-encoding: chunked, gzip\n\n<chunks>"),
        ("chunked twice", "400 not_http",
            "<head>transfer-encoding: chunked\ntransfer-encoding: chunked\n\n<chunks><next>"),
        ("not quite chunked", "400 not_http",
            "<head>transfer-encoding: xchunked\n\n<chunks>"),
        ("chunks that are none", "400 not_http",
            "<head>transfer-encoding: identity\n\n<chunks>"),
        ("chunked in capitals", "200 accepted",
            "<head>transfer-encoding: CHUNKED\n\n<chunks>"),
        ("a space before the colon of chunked", "400 not_http",
            "<head>transfer-encoding : chunked\n\n<chunks>"),
        ("a vertical tab before chunked", "400 not_http",
            "<head>transfer-encoding: <VT>chunked\n\n<chunks>"),
        ("chunks in HTTP/1.0", "400 not_http",
            "POST <path> HTTP/1.0\nhost: t\n<auth>\ntransfer-encoding: chunked\n\n<chunks>"),
        ("a refused body that looks like a request", "401 unauthorized",
            "POST <path> HTTP/1.1\nhost: t\ncontent-length: 27\n\n<next>"),
        // Chunks.
        ("chunks", "200 accepted",
            "<head>transfer-encoding: chunked\n\n<chunks>"),
        ("an extension", "200 accepted",
            "<head>transfer-encoding: chunked\n\n<hex>;a=b\n<body>\n0\n\n"),
        ("a bare LF in an extension", "400 not_http",
            "<head>transfer-encoding: chunked\n\n<hex>;a<LF><body>\n0\n\n"),
        ("an endless extension", "400 not_http",
            "<head>transfer-encoding: chunked\n\n<hex>;<long>\n<body>\n0\n\n"),
        ("a bare LF after a size", "400 not_http",
            "<head>transfer-encoding: chunked\n\n<hex><LF><body><LF>0<LF><LF>"),
        ("a bare LF after a chunk", "400 not_http",
            "<head>transfer-encoding: chunked\n\n<hex>\n<body><LF>0\n\n"),
        ("a size with 0x", "400 not_http",
            "<head>transfer-encoding: chunked\n\n0x<hex>\n<body>\n0\n\n"),
        ("a size with a sign", "400 not_http",
            "<head>transfer-encoding: chunked\n\n+<hex>\n<body>\n0\n\n"),
        ("a negative size", "400 not_http",
            "<head>transfer-encoding: chunked\n\n-1\n<body>\n0\n\n"),
        ("no size", "400 not_http",
            "<head>transfer-encoding: chunked\n\n\n<body>\n0\n\n"),
        ("a size beyond 64 bits", "400 not_http",
            "<head>transfer-encoding: chunked\n\nffffffffffffffff1\n<body>\n0\n\n"),
        ("a size too small", "400 not_http",
            "<head>transfer-encoding: chunked\n\n3\n<body>\n0\n\n"),
        ("a space after a size", "200 accepted",
            "<head>transfer-encoding: chunked\n\n<hex> \n<body>\n0\n\n"),
        ("no last chunk", "400 abandoned",
            "<head>transfer-encoding: chunked\n\n<hex>\n<body>\n"),
        ("trailers that look like headers", "200 accepted, 404 unknown_path",
            "<head>transfer-encoding: chunked\n\n<hex>\n<body>\n0\nhost: u\ncontent-length: 5\n\n\
             <next>"),
        ("an endless trailer", "400 not_http",
            "<head>transfer-encoding: chunked\n\n<hex>\n<body>\n0\nx: <long>\n\n"),
        // Lines and headers.
        ("a bare LF ends a line (RFC 9112, section 2.2)", "200 accepted",
            "POST <path> HTTP/1.1<LF>host: t<LF><auth><LF>content-length: <length><LF><LF><body>"),
        ("a bare CR does not", "400 not_http",
            "POST <path> HTTP/1.1\nhost: t<CR>x: y\n<auth>\n<sized>"),
        ("a folded line", "400 not_http",
            "<head>x: a\n b\n<sized>"),
        ("a folded length", "400 not_http",
            "<head>content-length:\n <length>\n\n<body>"),
        ("a space before the first header", "400 not_http",
            "POST <path> HTTP/1.1\n host: t\n<auth>\n<sized>"),
        ("a space before a colon", "400 not_http",
            "<head>content-length : <length>\n\n<body>"),
        ("no colon", "400 not_http",
            "<head>nonsense\n<sized>"),
        ("no name", "400 not_http",
            "<head>: x\n<sized>"),
        ("a NUL", "400 not_http",
            "<head>x: a<NUL>b\n<sized>"),
        ("the same Authorization twice", "401 unauthorized",
            "<head><auth>\n<sized>"),
        ("two Authorizations", "401 unauthorized",
            "POST <path> HTTP/1.1\nhost: t\nauthorization: Bearer x\n<auth>\n<sized>"),
        // Host.
        ("no Host", "400 not_http",
            "POST <path> HTTP/1.1\n<auth>\n<sized><next>"),
        ("no Host in HTTP/1.0", "200 accepted",
            "POST <path> HTTP/1.0\n<auth>\n<sized>"),
        ("the same Host twice", "400 not_http",
            "POST <path> HTTP/1.1\nhost: t\nhost: t\n<auth>\n<sized><next>"),
        ("a Host that is none", "400 not_http",
            "POST <path> HTTP/1.1\nhost: t/x u\n<auth>\n<sized>"),
        ("a Host with a user", "400 not_http",
            "POST <path> HTTP/1.1\nhost: a@t\n<auth>\n<sized>"),
        ("an empty Host", "200 accepted",
            "POST <path> HTTP/1.1\nhost:\n<auth>\n<sized>"),
        // Expectations and upgrades.
        ("100-continue", "100, 200 accepted",
            "<head>expect: 100-continue\n<sized>"),
        ("100-continue in HTTP/1.0", "200 accepted",
            "POST <path> HTTP/1.0\nhost: t\n<auth>\nexpect: 100-continue\n<sized>"),
        ("100-continue without a key", "401 unauthorized",
            "POST <path> HTTP/1.1\nhost: t\nexpect: 100-continue\ncontent-length: <length>\n\n"),
        ("another expectation", "200 accepted",
            "<head>expect: wonder\n<sized>"),
        ("an upgrade to HTTP/2", "200 accepted",
            "<head>connection: upgrade, http2-settings\nupgrade: h2c\n\
             http2-settings: AAMAAABkAAQAAP__\n<sized>"),
        ("a WebSocket", "405 wrong_method",
            "GET <path> HTTP/1.1\nhost: t\n<auth>\nconnection: upgrade\nupgrade: websocket\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-version: 13\n\n"),
        // What nobody needs.
        ("no Content-Type", "200 accepted",
            "<head><sized>"),
        ("a Content-Type that is none", "200 accepted",
            "<head>content-type: ;;json\n<sized>"),
        ("two Content-Types", "200 accepted",
            "<head>content-type: text/plain\ncontent-type: application/json\n<sized>"),
        ("a charset in capitals and quotes", "200 accepted",
            "<head>content-type: application/json; charset=\"UTF8\"\n<sized>"),
        ("another method in a header", "200 accepted",
            "<head>x-http-method-override: DELETE\n<sized>"),
        ("a date, a digest, a cookie, a range", "200 accepted",
            "<head>date: yesterday\ncontent-md5: x\ncookie: a=b\nrange: bytes=0-1\nte: trailers\n<sized>"),
        // Methods.
        ("GET", "405 wrong_method",
            "GET <path> HTTP/1.1\nhost: t\n<auth>\n\n"),
        ("HEAD", "405 wrong_method, 404 unknown_path",
            "HEAD <path> HTTP/1.1\nhost: t\n<auth>\n\n<next>"),
        ("OPTIONS", "405 wrong_method",
            "OPTIONS <path> HTTP/1.1\nhost: t\n<auth>\n\n"),
        ("OPTIONS *", "404 unknown_path",
            "OPTIONS * HTTP/1.1\nhost: t\n<auth>\n\n"),
        ("TRACE", "405 wrong_method",
            "TRACE <path> HTTP/1.1\nhost: t\n<auth>\n\n"),
        ("post", "405 wrong_method",
            "post <path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("PURR", "405 wrong_method",
            "PURR <path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("bad method", "400 not_http",
            "PO(ST <path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("CONNECT", "404 unknown_path",
            "CONNECT t:80 HTTP/1.1\nhost: t\n<auth>\n\n"),
        // Targets.
        ("a whole URL", "200 accepted",
            "POST http://t<path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a whole URL of another host", "200 accepted",
            "POST http://u<path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a URL without a path", "404 unknown_path",
            "POST http://t HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a slash at the end", "200 accepted",
            "POST <path>/ HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a slash too many", "200 accepted",
            "POST /<path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("dots", "200 accepted",
            "POST /x/..<path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a percent-encoded hyphen", "200 accepted",
            "POST /webhooks/email%2Dmarketing/click HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("everything at once", "200 accepted",
            "POST //x/%2e%2E/./webhooks/%65mail%2dmarketing//click/// HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a percent-encoded slash", "404 unknown_path",
            "POST /webhooks/email-marketing%2Fclick HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a capital", "404 unknown_path",
            "POST /Webhooks/email-marketing/click HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("parameters", "404 unknown_path",
            "POST <path>;a=b HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a query", "200 accepted",
            "POST <path>?a=b HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a fragment", "200 accepted",
            "POST <path>#a HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("no slash", "404 unknown_path",
            "POST webhooks HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("a NUL in the path", "400 not_http",
            "POST <path><NUL> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("UTF-8 in the path", "404 unknown_path",
            "POST <path>é HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("70,000 bytes of query", "431 head_too_large",
            "POST <path>?<long> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        // The first line, and versions.
        ("a space in the path", "400 not_http",
            "POST <path> x HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("two spaces", "400 not_http",
            "POST  <path> HTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("tabs", "400 not_http",
            "POST\t<path>\tHTTP/1.1\nhost: t\n<auth>\n<sized>"),
        ("empty lines before", "200 accepted",
            "\n\n<head><sized>"),
        ("a space before", "400 not_http",
            " <head><sized>"),
        ("HTTP/1.0 closes", "200 accepted",
            "POST <path> HTTP/1.0\nhost: t\n<auth>\n<sized><next>"),
        ("HTTP/1.0 that keeps alive", "200 accepted, 404 unknown_path",
            "POST <path> HTTP/1.0\nhost: t\n<auth>\nconnection: keep-alive\n<sized><next>"),
        ("half a head", "closed not_http",
            "POST <path>\n"),
        ("HTTP/1.2", "400 not_http",
            "POST <path> HTTP/1.2\nhost: t\n<auth>\n<sized>"),
        ("HTTP/2.0 in words", "400 not_http",
            "POST <path> HTTP/2.0\nhost: t\n<auth>\n<sized>"),
        ("http in lower case", "400 not_http",
            "POST <path> http/1.1\nhost: t\n<auth>\n<sized>"),
        ("two at once", "200 accepted, 200 accepted",
            "<head><sized><head><sized>"),
        // Not HTTP.
        ("TLS", "400 not_http",
            "<TLS>"),
        ("nothing", "nothing",
            ""),
        ("a broken preface of HTTP/2", "400 not_http",
            "PRI * HTTP/2.0\n\nSX\n\n"),
        ("garbage in HTTP/2", "closed not_http",
            "PRI * HTTP/2.0\n\nSM\n\ngarbage garbage garbage garbage"),
    ]
}

/// Replaces the placeholders in angle brackets.
fn spell(words: &str) -> Vec<u8> {
    let body = String::from_utf8(click("7")).unwrap();
    let (length, hex) = (body.len().to_string(), format!("{:x}", body.len()));
    let (auth, long) = (format!("authorization: Bearer {KEY}"), "a".repeat(70_000));
    let mut text = words.replace('\n', "\r\n");
    for (word, meaning) in [
        ("<head>", "POST <path> HTTP/1.1\r\nhost: t\r\n<auth>\r\n"),
        ("<sized>", "content-length: <length>\r\n\r\n<body>"),
        ("<chunks>", "<hex>\r\n<body>\r\n0\r\n\r\n"),
        ("<next>", "GET / HTTP/1.1\r\nhost: t\r\n\r\n"),
        ("<path>", "/webhooks/email-marketing/click"),
        ("<auth>", &auth),
        ("<hex>", &hex),
        ("<length>", &length),
        ("<body>", &body),
        ("<long>", &long),
        ("<LF>", "\n"),
        ("<CR>", "\r"),
        ("<NUL>", "\0"),
        ("<VT>", "\u{b}"),
        ("<TLS>", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}"),
    ] {
        text = text.replace(word, meaning);
    }
    assert!(!text.contains('<'), "{words}");
    text.into_bytes()
}

/// Checks for each case the answers, the end of the connection, the counts, and that only clicks
/// answered 200 are in the topic.
#[tokio::test]
async fn http_1_is_read_strictly_byte_for_byte() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let mut ends = bridge.ends().await;
    let mut clicks = 0;
    for (what, expected, words) in cases() {
        let mut raw = bridge.raw();
        // The bridge may close before it has read everything.
        let _ = raw.try_send(spell(words));
        raw.stop_writing();
        let answers = raw.read_all();
        let statuses: Vec<&str> =
            answers.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)).collect();
        let expected: Vec<(&str, &str)> = expected
            .split(", ")
            .map(|end| end.split_once(' ').unwrap_or((end, "")))
            .filter(|(status, _)| *status != "nothing")
            .collect();
        let is_answer = |status: &&str| *status != "closed";
        let answered: Vec<&str> = expected.iter().map(|end| end.0).filter(is_answer).collect();
        assert_eq!(statuses, answered, "{what}: {answers:.300}");
        for (_, outcome) in expected.iter().filter(|end| !end.1.is_empty()) {
            *ends.entry((*outcome).to_owned()).or_default() += 1.0;
        }
        let closed = async || bridge.metric("hookbridge_connections").await == 0.0;
        until("closed", closed).await;
        assert_eq!(bridge.ends().await, ends, "{what}");
        clicks += expected.iter().filter(|end| end.1 == "accepted").count();
        assert_eq!(bridge.count(), i64::try_from(clicks).unwrap(), "{what}");
    }
}

/// An ambiguous request publishes nothing and leaves the connection open; only an upper-case letter in
/// a header name closes it.
#[tokio::test]
async fn http_2_is_read_strictly_frame_by_frame() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let path = &bridge.config.webhook[0].path;
    let key = format!("Bearer {KEY}");
    let body = click("7");
    let (longer, length) = ((body.len() + 1).to_string(), body.len().to_string());
    let good = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "t")];
    let with = |more: &[(&str, &str)]| head(&[&good, more, &[("authorization", &key)]].concat());
    let send = |raw: &mut Raw, stream, head: &[u8]| {
        raw.send(frame(frames::HEADERS, frames::END_HEADERS, stream, head));
        raw.send(frame(frames::DATA, frames::END_STREAM, stream, &body));
    };
    // No outcome is counted: a request that HTTP/2 itself refuses never reaches the bridge.
    let cases = [
        ("a length that is too long", "abandoned", with(&[("content-length", &longer)])),
        ("two lengths", "", with(&[("content-length", &length), ("content-length", &longer)])),
        ("chunks", "", with(&[("transfer-encoding", "chunked")])),
        ("a header of a connection", "", with(&[("connection", "close")])),
        ("two paths", "", with(&[(":path", "/other")])),
        ("two Authorizations", "unauthorized", with(&[("authorization", "Bearer other")])),
        ("two hosts", "not_http", with(&[("host", "t"), ("host", "u")])),
    ];
    let mut ends = bridge.ends().await;
    for (what, outcome, bad) in cases {
        let mut raw = bridge.raw();
        raw.send(frames::hello(&[]));
        send(&mut raw, 1, &bad);
        send(&mut raw, 3, &with(&[]));
        raw.read_until("correctamente", 1);
        for outcome in [outcome, "accepted"].into_iter().filter(|outcome| !outcome.is_empty()) {
            *ends.get_mut(outcome).unwrap() += 1.0;
        }
        assert_eq!(bridge.ends().await, ends, "{what}");
        assert_eq!(bridge.count() as f64, ends["accepted"], "{what}");
    }
    let mut raw = bridge.raw();
    raw.send(frames::hello(&[]));
    send(&mut raw, 1, &with(&[("X-Capital", "1")]));
    raw.read_all();
    *ends.get_mut("not_http").unwrap() += 1.0;
    until("the end is counted", async || bridge.ends().await == ends).await;
    assert_eq!(bridge.count() as f64, ends["accepted"]);
}

/// hyper leaves it to us: a client resets a request whose answer has a body that it may not have.
#[tokio::test]
async fn head_over_http_2_has_no_body() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let sender = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = sender.head(bridge.url()).bearer_auth(KEY).send().await.unwrap();
    assert_eq!(answer.status(), reqwest::StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.bytes().await.unwrap(), "");
}
