//! The development broker: librdkafka's mock cluster, real protocol on a real port, in this process
//! and in memory. For `hookbridge dev` and for tests; nothing that it holds outlives it.

use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A cluster of development brokers.
pub struct DevelopmentBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl DevelopmentBroker {
    /// # Errors
    ///
    /// What librdkafka reports, such as no free port.
    pub fn start(brokers: i32) -> KafkaResult<DevelopmentBroker> {
        Ok(DevelopmentBroker { cluster: MockCluster::new(brokers)? })
    }

    /// The addresses, as `kafka.brokers` takes them.
    pub fn addresses(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// # Errors
    ///
    /// What librdkafka reports, such as a topic that is already there.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> KafkaResult<()> {
        self.cluster.create_topic(topic, partitions, 1)
    }

    /// The cluster itself, for the faults that tests inject.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }
}
