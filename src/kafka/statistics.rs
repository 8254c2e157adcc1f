//! What librdkafka reports of itself once a second (STATISTICS.md of librdkafka lists the fields).

use std::collections::HashMap;

use serde::Deserialize;

use crate::observe::sampler::Partition;

/// The fields that are used; the document has hundreds more.
#[derive(Deserialize)]
pub(super) struct Statistics {
    /// Records in the client, queued or in flight.
    #[serde(rename = "msg_cnt")]
    pub queued: i64,
    brokers: HashMap<String, BrokerFields>,
    topics: HashMap<String, TopicFields>,
}

#[derive(Deserialize)]
struct BrokerFields {
    nodeid: i32,
    state: String,
    rx: u64,
}

#[derive(Deserialize)]
struct TopicFields {
    partitions: HashMap<i32, PartitionFields>,
}

#[derive(Deserialize)]
struct PartitionFields {
    txmsgs: u64,
}

impl Statistics {
    fn up(&self) -> impl Iterator<Item = &BrokerFields> {
        self.brokers.values().filter(|broker| broker.state == "UP")
    }

    /// How many brokers the client is connected to.
    pub fn brokers_up(&self) -> i64 {
        // Entries without a node id are the addresses of `kafka.brokers`.
        self.up().filter(|broker| broker.nodeid >= 0).count() as i64
    }

    /// Responses received so far from the brokers that are up. A broker that refuses our password also
    /// responds.
    pub fn responses(&self) -> u64 {
        self.up().map(|broker| broker.rx).sum()
    }

    /// How many records were sent to each partition so far.
    pub fn partitions(&self) -> Vec<Partition> {
        let mut partitions = Vec::new();
        for (topic, fields) in &self.topics {
            // Partition -1 holds the records that have none yet.
            for (&number, fields) in fields.partitions.iter().filter(|(number, _)| **number >= 0) {
                partitions.push(Partition { topic: topic.clone(), number, records: fields.txmsgs });
            }
        }
        partitions
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
        let statistics: Statistics = serde_json::from_slice(json).expect("a document");
        let partitions = vec![Partition { topic: "clicks".into(), number: 0, records: 12 }];
        assert_eq!(
            (statistics.queued, statistics.brokers_up(), statistics.responses()),
            (17, 1, 43)
        );
        assert_eq!(statistics.partitions(), partitions);
    }
}
