//! What librdkafka tells of itself once a second (STATISTICS.md of librdkafka gives the fields).

use std::collections::HashMap;

use serde::Deserialize;

use crate::observe::sampler::Partition;

/// The fields that are used; the document has hundreds more.
#[derive(Debug, Deserialize)]
struct Document {
    msg_cnt: i64,
    brokers: HashMap<String, Broker>,
}

/// The same document, with what is only looked at while somebody looks.
#[derive(Deserialize)]
struct Sent {
    topics: HashMap<String, SentToTopic>,
}

#[derive(Deserialize)]
struct SentToTopic {
    partitions: HashMap<i32, SentToPartition>,
}

#[derive(Deserialize)]
struct SentToPartition {
    txmsgs: u64,
}

/// How many records were sent to each partition so far.
pub(super) fn partitions(json: &[u8]) -> serde_json::Result<Vec<Partition>> {
    let sent: Sent = serde_json::from_slice(json)?;
    let topics = sent.topics.into_iter().flat_map(|(topic, sent)| {
        // Partition -1 is that of records which have none yet.
        let known = sent.partitions.into_iter().filter(|(number, _)| *number >= 0);
        known.map(move |(number, sent)| (topic.clone(), number, sent.txmsgs))
    });
    let partition = |(topic, number, records)| Partition { topic, number, records };
    Ok(topics.map(partition).collect())
}

#[derive(Debug, Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    rx: u64,
}

/// What the bridge makes of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Records in the client, queued or on their way.
    pub queued: i64,
    /// Brokers that the client is connected to.
    pub brokers_up: i64,
    /// Responses received so far from the brokers that are up: one that refuses our password also
    /// responds.
    pub responses: u64,
}

impl Statistics {
    pub fn read(json: &[u8]) -> serde_json::Result<Statistics> {
        let document: Document = serde_json::from_slice(json)?;
        let up = || document.brokers.values().filter(|broker| broker.state == "UP");
        Ok(Statistics {
            queued: document.msg_cnt,
            // Entries without a node id are addresses that brokers were first asked at.
            brokers_up: up().filter(|broker| broker.nodeid >= 0).count() as i64,
            responses: up().map(|broker| broker.rx).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_document_gives_known_figures() {
        let json = br#"{
            "name": "hookbridge#producer-1", "msg_cnt": 17, "msg_size": 9001, "msg_max": 16384,
            "brokers": {
                "localhost:9092/bootstrap": {"nodeid": -1, "state": "UP", "rx": 3, "rxidle": 5},
                "localhost:9093/1": {"nodeid": 1, "state": "UP", "rx": 40, "rtt": {"p99": 7}},
                "localhost:9094/2": {"nodeid": 2, "state": "DOWN", "rx": 500}
            },
            "topics": {"clicks": {"partitions": {
                "0": {"msgq_cnt": 1, "txmsgs": 12}, "-1": {"msgq_cnt": 0, "txmsgs": 0}
            }}}
        }"#;
        let statistics = Statistics::read(json).expect("a document");
        assert_eq!(statistics, Statistics { queued: 17, brokers_up: 1, responses: 43 });
        let clicks = Partition { topic: "clicks".into(), number: 0, records: 12 };
        assert_eq!(partitions(json).expect("a document"), [clicks]);
    }
}
