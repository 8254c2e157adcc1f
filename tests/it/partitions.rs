//! Partitions: a key has the partition that a Java producer would choose.

use std::collections::HashMap;

use reqwest::StatusCode;

use crate::harness::brokers::{jars, run};
use crate::harness::support::{TestBridge, fixture};
use crate::on_every_broker;

/// Keys, each with the partition of 12 that Java's producer chooses.
///
/// tests/kafka/PartitionTable.java made the table with the jars of the tests' broker:
/// `java -cp "target/tmp/kafka-jars/*" tests/kafka/PartitionTable.java`.
fn table() -> Vec<(String, i32)> {
    let table = String::from_utf8(fixture("partitions.tsv")).unwrap();
    let line = |line: &str| {
        let (partition, key) = line.split_once('\t').unwrap();
        (key.to_owned(), partition.parse().unwrap())
    };
    table.lines().map(line).collect()
}

on_every_broker! {
    async fn a_thousand_campaigns_land_where_java_puts_them(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let table = table();
        assert_eq!(table.len(), 1_000);
        let sender = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for chunk in table.chunks(100) {
            let posts = chunk.iter().map(|(key, _)| {
                let body = serde_json::json!({ "campid": key }).to_string();
                let request = sender.post(bridge.url()).bearer_auth("a-key-of-the-tests").body(body);
                tokio::spawn(request.send())
            });
            for post in posts.collect::<Vec<_>>() {
                assert_eq!(post.await.unwrap().unwrap().status(), StatusCode::OK);
            }
        }
        let records = bridge.records(table.len());
        let landed: HashMap<Vec<u8>, i32> =
            records.into_iter().map(|record| (record.key.unwrap(), record.partition)).collect();
        for (key, partition) in table {
            assert_eq!(landed[key.as_bytes()], partition, "{key}");
        }
    }
}

#[test]
fn the_table_is_what_java_prints() {
    let Some(jars) = jars() else { return };
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/PartitionTable.java");
    let mut java = std::process::Command::new("java");
    let printed = run(java.arg("-cp").arg(jars.join("*")).arg(source));
    assert_eq!(printed, String::from_utf8(fixture("partitions.tsv")).unwrap());
}
