//! Metrics: names, labels, and that every series exists from the start.

use std::time::Duration;

use hookbridge::config::{Config, InvalidBody};
use tokio::time::Instant;

use crate::harness::support::{TestBridge, click};
use crate::on_every_broker;

on_every_broker! {
    async fn every_series_exists_from_the_start_and_counts(broker: Broker) {
        let reject = |config: &mut Config| config.webhook[0].invalid = InvalidBody::Reject;
        let bridge = TestBridge::start_with(&broker, reject).await;
        for outcome in hookbridge::click::outcome::Outcome::all() {
            assert_eq!(bridge.outcomes(outcome.facts().tag).await, 0.0);
            assert_eq!(bridge.outcomes_without_webhook(outcome.facts().tag).await, 0.0);
        }
        for result in hookbridge::observe::metrics::RecordResult::ALL {
            assert_eq!(bridge.results(result.tag()).await, 0.0);
        }
        for reason in hookbridge::observe::metrics::DeadLetterReason::ALL {
            let webhook = &bridge.config.webhook[0].name;
            let reason = reason.tag();
            let series =
                format!("hookbridge_dead_letters_total{{reason=\"{reason}\",webhook=\"{webhook}\"}}");
            assert_eq!(bridge.metric(&series).await, 0.0);
        }
        for series in [
            "hookbridge_spool_events",
            "hookbridge_spool_bytes",
            "hookbridge_spool_refused_total{reason=\"full\"}",
            "hookbridge_breaker_open",
        ] {
            assert_eq!(bridge.metric(series).await, 0.0);
        }
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(bridge.metric(&format!("hookbridge_build_info{{version=\"{version}\"}}")).await, 1.0);
        assert!(bridge.metric("process_resident_memory_bytes").await > 0.0);

        for _ in 0..3 {
            assert!(bridge.post(click("7")).await.status().is_success());
        }
        assert!(bridge.post("{").await.status().is_client_error());
        assert_eq!(bridge.outcomes("accepted").await, 3.0);
        assert_eq!(bridge.outcomes("malformed").await, 1.0);
        assert_eq!(bridge.results("acknowledged").await, 3.0);
        let topic = bridge.topic();
        let acks = format!("hookbridge_kafka_ack_duration_seconds_count{{topic=\"{topic}\"}}");
        assert_eq!(bridge.metric(&acks).await, 3.0);
        let webhook = &bridge.config.webhook[0].name;
        let answers =
            format!("hookbridge_request_duration_seconds_count{{webhook=\"{webhook}\"}}");
        assert_eq!(bridge.metric(&answers).await, 4.0);
        crate::harness::support::until("one broker", async || {
            bridge.metric("hookbridge_kafka_brokers_up").await == 1.0
        })
        .await;
    }
}

#[tokio::test]
async fn the_admin_listener_has_its_routes() {
    let broker = crate::harness::brokers::Broker::embedded();
    let bridge = TestBridge::start(&broker).await;
    assert_eq!(bridge.admin("/livez").await.0, 200);
    assert_eq!(bridge.admin("/readyz").await, (reqwest::StatusCode::OK, "ready\n".into()));
    assert_eq!(bridge.admin("/nowhere").await.0, 404);
    assert!(bridge.admin("/metrics").await.1.contains("# HELP hookbridge_requests_total "));
}

on_every_broker! {
    /// The bridge is idle for longer than brokers may be silent.
    async fn an_idle_bridge_stays_ready(broker: Broker) {
        let bridge = TestBridge::start(&broker).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(14) {
            assert!(bridge.admin("/readyz").await.0.is_success(), "after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
