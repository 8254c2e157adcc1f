//! Compressed bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use hookbridge::config::InvalidBody;
use hookbridge::kafka::ConsumedRecord;
use reqwest::{RequestBuilder, StatusCode};

use crate::dead_letters::header;
use crate::harness::brokers::Broker;
use crate::harness::process::Serve;
use crate::harness::support::{TestBridge, click, config, records, until};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Without the head and the checksum of zlib.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 19).unwrap()
}

/// A click padded to this length with bytes that hardly compress.
fn padded(length: usize) -> Vec<u8> {
    let noise: String = (0..length).map(|n| char::from(b'a' + (n * n % 7919 % 26) as u8)).collect();
    format!(r#"{{"campid":"7","noise":"{noise}"}}"#).into_bytes()
}

/// The record has the value, key and id of the uncompressed click.
#[tokio::test]
async fn a_compressed_click_lands_as_plain_json() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let body = padded(100_000);
    let (front, back) = body.split_at(1_000);
    let cases = [
        ("gzip", gzip(&body)),
        ("GZIP", gzip(&body)),
        ("x-gzip", gzip(&body)),
        ("gzip", [gzip(front), gzip(back)].concat()),
        ("zstd", zstd(&body)),
        ("zstd", [zstd(front), zstd(back)].concat()),
        ("deflate", zlib(&body)),
        ("Deflate", deflate(&body)),
        ("identity", body.clone()),
        ("identity, gzip,", gzip(&body)),
    ];
    assert_eq!(bridge.post(body.clone()).await.status(), StatusCode::OK);
    for (coding, packed) in &cases {
        let request = bridge.request(packed.clone()).header("content-encoding", *coding);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{coding}");
    }
    let records = bridge.records(cases.len() + 1);
    for record in &records {
        assert_eq!(record.key.as_deref(), Some(b"7".as_slice()));
        assert!(record.value == body, "{:.100}", String::from_utf8_lossy(&record.value));
        assert_eq!(header(record, "ce_id"), header(&records[0], "ce_id"));
    }
    assert_eq!(bridge.outcomes("accepted").await, records.len() as f64);
    assert_eq!(bridge.metric("hookbridge_body_bytes_in_flight").await, 0.0);
}

/// Its header says how it is compressed. With `invalid = "reject"` the answer names the encodings that are
/// accepted.
#[tokio::test]
async fn a_body_of_an_unknown_encoding_is_a_dead_letter() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let reject = TestBridge::start_with(&broker, |config| {
        config.webhook[0].invalid = InvalidBody::Reject;
    })
    .await;
    // {"campid":"7"} by brotli.
    let brotli = b"\x8f\x06\x80{\"campid\":\"7\"}\x03".to_vec();
    let twice = gzip(&gzip(&click("7")));
    let long = "x".repeat(1_000);
    let cases: [(&[&str], &[u8], &str); 5] = [
        (&["br"], &brotli, "br"),
        (&["gzip", "gzip"], &twice, "gzip, gzip"),
        (&["gzip, gzip"], &twice, "gzip, gzip"),
        (&["aes128gcm"], &brotli, "aes128gcm"),
        (&[&long], &brotli, &long[..128]),
    ];
    for (codings, body, _) in cases {
        let with = |request: RequestBuilder| {
            codings
                .iter()
                .fold(request, |request, coding| request.header("content-encoding", *coding))
        };
        let answer = with(reject.request(body.to_vec())).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{codings:?}");
        assert_eq!(answer.headers()["accept-encoding"], "gzip, deflate, zstd", "{codings:?}");
        let answer = with(bridge.request(body.to_vec())).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{codings:?}");
    }
    assert_eq!(reject.outcomes("unknown_encoding").await, cases.len() as f64);
    let reasons = "hookbridge_dead_letters_total{reason=\"unknown_encoding\",\
                   webhook=\"email-marketing-click\"}";
    assert_eq!(bridge.metric(reasons).await, cases.len() as f64);
    let topic = bridge.config.webhook[0].dead_letters();
    let letters = records(&bridge.config, &topic, cases.len());
    for (_, body, encoding) in cases {
        let is_it = |letter: &&ConsumedRecord| {
            letter.value == body && header(letter, "content-encoding") == encoding
        };
        let letter = letters.iter().find(is_it).expect(encoding);
        assert_eq!(header(letter, "hookbridge-reason"), "unknown_encoding");
    }
    assert_eq!((bridge.count(), reject.count()), (0, 0));
}

/// Senders that do not compress may say that they do, or say something else there.
#[tokio::test]
async fn a_body_that_is_readable_as_it_came_is_taken_so() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let codings = ["gzip", "deflate", "zstd", "br", "utf-8", "none", "gzip, br", ""];
    for coding in codings {
        let request = bridge.request(click("7")).header("content-encoding", coding);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{coding}");
    }
    for record in bridge.records(codings.len()) {
        assert_eq!(record.value, click("7"));
        assert_eq!(record.header("content-encoding"), None);
    }
    let request = bridge.request("no click").header("content-encoding", "gzip");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let letter = bridge.dead_letter();
    assert_eq!(header(&letter, "hookbridge-reason"), "malformed");
    assert_eq!(header(&letter, "content-encoding"), "gzip");
}

/// Checks the limit of one body, the budget of all bodies, and the ratio of 100.
#[tokio::test]
async fn limits_hold_for_the_unpacked_body() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| {
        config.http.max_body_bytes = 200_000;
        config.http.max_bytes_in_flight = 200_000;
    })
    .await;
    let blank = |count: usize| [click("7"), vec![b' '; count]].concat();
    let (large, over_ratio) = (padded(200_000), blank(20_000));
    let exact = padded(200_000 - 25);
    assert_eq!(exact.len(), 200_000);
    for (coding, pack) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("deflate", zlib),
        ("deflate", deflate),
        ("zstd", zstd),
    ] {
        for (body, status, words) in [
            (&large, 413, "larger than the limit"),
            (&over_ratio, 413, "100 times"),
            (&exact, 503, "bytes are in flight"),
            (&padded(100_000), 200, "correctamente"),
        ] {
            let request = bridge.request(pack(body)).header("content-encoding", coding);
            let answer = request.send().await.unwrap();
            let (actual, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(actual, status, "{coding} {}: {text}", body.len());
            assert!(text.contains(words), "{coding} {}: {text}", body.len());
        }
    }
    assert_eq!(bridge.count(), 4);
    assert_eq!(bridge.metric("hookbridge_body_bytes_in_flight").await, 0.0);
}

/// The dead letter is the compressed body.
#[tokio::test]
async fn a_body_that_cannot_be_unpacked_is_a_dead_letter() {
    let broker = Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    let reject = TestBridge::start_with(&broker, |config| {
        config.webhook[0].invalid = InvalidBody::Reject;
    })
    .await;
    let body = padded(1_000);
    let cut = |packed: Vec<u8>| packed[..packed.len() - 5].to_vec();
    let flipped = |mut packed: Vec<u8>| {
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        packed
    };
    let checked = |bytes: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let cases = [
        ("gzip", cut(gzip(&body))),
        ("gzip", flipped(gzip(&body))),
        ("gzip", [gzip(&body), body.clone()].concat()),
        ("gzip", zstd(&body)),
        ("deflate", cut(zlib(&body))),
        ("deflate", cut(deflate(&body))),
        ("deflate", flipped(zlib(&body))),
        ("deflate", [zlib(&body), body.clone()].concat()),
        ("deflate", gzip(&body)),
        ("zstd", cut(zstd(&body))),
        ("zstd", flipped(checked(&body))),
        ("zstd", [zstd(&body), body.clone()].concat()),
        ("zstd", gzip(&body)),
    ];
    for (number, (coding, packed)) in cases.iter().enumerate() {
        let send = async |bridge: &TestBridge| {
            let request = bridge.request(packed.clone()).header("content-encoding", *coding);
            request.send().await.unwrap().status()
        };
        assert_eq!(send(&reject).await, StatusCode::BAD_REQUEST, "{number}");
        assert_eq!(send(&bridge).await, StatusCode::OK, "{number}");
    }
    assert_eq!(reject.outcomes("malformed").await, cases.len() as f64);
    let topic = bridge.config.webhook[0].dead_letters();
    let letters = records(&bridge.config, &topic, cases.len());
    for (coding, packed) in &cases {
        let detail = format!("The body is not valid {coding}");
        let is_it = |letter: &&ConsumedRecord| {
            letter.value == *packed && header(letter, "hookbridge-detail") == detail
        };
        let letter = letters.iter().find(is_it).expect("the dead letter");
        assert_eq!(header(letter, "hookbridge-reason"), "malformed");
        assert_eq!(header(letter, "content-encoding"), *coding);
    }
    assert_eq!((bridge.count(), reject.count()), (0, 0));
}

#[tokio::test]
async fn compression_bombs_cost_no_memory_and_no_click() {
    let broker = Broker::embedded();
    let config = config(&broker);
    broker.create_topic(&config.webhook[0].topic, 3).await;
    broker.create_topic(&config.webhook[0].dead_letters(), 3).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::launch(&config, folder.path(), "true");
    until("ready", async || serve.is_ready().await).await;
    let resident = async || serve.metric("process_resident_memory_bytes").await;
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), StatusCode::OK);
    let before = resident().await;
    let zeros = vec![0; 1 << 20];
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&zeros).unwrap();
    let bombs = [
        ("gzip", gzip(&zeros).repeat(700), 413),
        ("zstd", zstd(&zeros).repeat(10_000), 413),
        ("deflate", zlib(&zeros), 413),
        ("deflate", deflate(&zeros), 413),
        // A window that must be allocated before the first byte is unpacked.
        ("zstd", wide.finish().unwrap(), 200),
    ];
    let mut requests = Vec::new();
    for _ in 0..30 {
        for (coding, bomb, status) in &bombs {
            let request = serve.post(bomb.clone()).header("content-encoding", *coding);
            requests.push((tokio::spawn(request.send()), *status));
        }
    }
    for (request, status) in requests {
        assert_eq!(request.await.unwrap().unwrap().status().as_u16(), status);
    }
    let grown = resident().await - before;
    assert!(grown < 64e6, "{grown} bytes");
    assert_eq!(serve.post(click("7")).send().await.unwrap().status(), StatusCode::OK);
}
