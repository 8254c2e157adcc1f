//! A real Prometheus with the shipped settings and alerts, which scrapes the test's bridge.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use serde_norway::Value as Yaml;
use tempfile::TempDir;

use crate::harness::brokers::without;
use crate::harness::ports;
use crate::harness::process::Running;
use crate::harness::support::{sender, until};

/// The labels of one series.
pub type Series = BTreeMap<String, String>;

pub struct Prometheus {
    address: SocketAddr,
    _process: Running,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with the shipped settings and alerts, except for the bridge's address and
    /// shorter intervals. Where it is not installed: none, with a message.
    pub async fn start(bridge: SocketAddr) -> Option<Prometheus> {
        if let Err(error) = Command::new("prometheus").arg("--version").output() {
            let reason = format!("prometheus cannot be run ({error})");
            without("HOOKBRIDGE_REQUIRE_PROMETHEUS", "WITH A REAL PROMETHEUS", &reason);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("prometheus.yml");
        std::fs::write(&settings, settings_for(bridge)).unwrap();
        let rules = super::RULES;
        std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
        let address = ports::free(Ipv4Addr::LOCALHOST);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", settings.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Running(command.spawn().unwrap());
        let prometheus = Prometheus { address, _process: process, _folder: folder };
        until("Prometheus is ready", async || {
            let ready = sender().get(format!("http://{address}/-/ready")).send().await;
            ready.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        Some(prometheus)
    }

    /// The answer of the API, which must be a success.
    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Json {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let answer = sender().get(url).query(parameters).send().await.unwrap();
        let answer: Json = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// The present values of a query.
    pub async fn query(&self, query: &str) -> Vec<f64> {
        let data = self.get("query", &[("query", query)]).await;
        let results = data["result"].as_array().unwrap().iter();
        results.map(|result| result["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// The single present value of a query.
    pub async fn value(&self, query: &str) -> f64 {
        let values = self.query(query).await;
        assert_eq!(values.len(), 1, "{query}: {values:?}");
        values[0]
    }

    /// Every series of a metric.
    pub async fn series(&self, metric: &str) -> Vec<Series> {
        let data = self.get("series", &[("match[]", metric)]).await;
        serde_json::from_value(data).unwrap()
    }

    /// Every loaded alert, with its state.
    pub async fn alerts(&self) -> Vec<Json> {
        let data = self.get("rules", &[]).await;
        let groups = data["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

fn settings_for(bridge: SocketAddr) -> String {
    let mut settings: Yaml = serde_norway::from_str(super::SETTINGS).unwrap();
    for (place, value) in [("scrape_interval", "200ms"), ("evaluation_interval", "500ms")] {
        let interval = settings["global"].get_mut(place).expect("an interval");
        *interval = value.into();
    }
    let targets = &mut settings["scrape_configs"][0]["static_configs"][0]["targets"];
    *targets = vec![bridge.to_string()].into();
    serde_norway::to_string(&settings).unwrap()
}
