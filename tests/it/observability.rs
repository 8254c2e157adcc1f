//! The alerts and the dashboard, with a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hookbridge::click::outcome::Outcome;
use reqwest::StatusCode;
use serde_json::Value as Json;
use serde_norway::Value as Yaml;

use crate::harness::brokers::Broker;
use crate::harness::support::{TestBridge, click, sender, until};

mod prometheus;
mod query;

use prometheus::{Prometheus, Series};
use query::{Names, names};

use State::{Active, Inactive};

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/hookbridge.json");
const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const RULES_TEST: &str = include_str!("../../deploy/prometheus/rules_test.yml");
const RUNBOOK: &str = include_str!("../../deploy/prometheus/RUNBOOK.md");
const SETTINGS: &str = include_str!("../../deploy/prometheus/prometheus.yml");

/// The window of the dashboard's rates, longer than the test.
const WINDOW_SECONDS: f64 = 300.0;

fn items(yaml: &Yaml) -> &[Yaml] {
    yaml.as_sequence().map_or(&[], Vec::as_slice)
}

fn text(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_default()
}

/// The alerts, in the order of the file.
fn alerts() -> Vec<Yaml> {
    let rules: Yaml = serde_norway::from_str(RULES).unwrap();
    let groups = items(&rules["groups"]).iter();
    let alerts: Vec<Yaml> = groups.flat_map(|group| items(&group["rules"])).cloned().collect();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    alerts
}

fn dashboard() -> Json {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// The panels that have queries.
fn panels() -> Vec<Json> {
    let mut panels = dashboard()["panels"].as_array().unwrap().clone();
    panels.retain(|panel| panel["type"] != "row");
    assert!(panels.len() > 20, "{}", panels.len());
    panels
}

/// A panel's queries, as Grafana sends them when every replica of the job is selected.
fn queries(panel: &Json) -> Vec<String> {
    let targets = panel["targets"].as_array().unwrap().iter();
    targets
        .map(|target| {
            let query = target["expr"].as_str().unwrap();
            let window = format!("{WINDOW_SECONDS}s");
            let query = query.replace("$__rate_interval", &window).replace("$__range", &window);
            let query = query.replace("$job", "hookbridge").replace("$instance", ".+");
            assert!(!query.contains('$'), "a variable without a value: {query}");
            query
        })
        .collect()
}

/// The queries of the panel with this title.
fn queries_of(title: &str) -> Vec<String> {
    let panels = panels();
    let panel = panels.iter().find(|panel| panel["title"] == title);
    queries(panel.unwrap_or_else(|| panic!("no panel {title:?}")))
}

/// Every section also has an alert.
#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let sections: BTreeSet<String> =
        RUNBOOK.lines().filter_map(|line| Some(line.strip_prefix("### ")?.to_owned())).collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]).to_owned();
        let severity = text(&alert["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity:?}");
        let note = |kind: &str| text(&alert["annotations"][kind]).to_owned();
        assert!(!note("summary").is_empty() && !note("description").is_empty(), "{name}");
        let section = format!("deploy/prometheus/RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(note("runbook"), section);
        names.insert(name);
    }
    assert_eq!(names, sections);
    for link in RUNBOOK.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(sections.iter().any(|section| section.to_lowercase() == link), "#{link}");
    }
}

#[test]
fn every_alert_fires_and_rests_in_its_test() {
    let tests: Yaml = serde_norway::from_str(RULES_TEST).unwrap();
    for alert in alerts() {
        let name = format!("alertname=\"{}\"", text(&alert["alert"]));
        let is_tested = items(&tests["tests"]).iter().any(|test| {
            let looks = items(&test["promql_expr_test"]);
            let fires = |look: &&Yaml| {
                items(&look["exp_samples"]).iter().any(|s| text(&s["labels"]).contains(&name))
            };
            let firing = looks.iter().filter(fires).count();
            firing > 0 && firing < looks.len()
        });
        assert!(is_tested, "rules_test.yml does not have it fire and be silent: {name}");
    }
}

#[test]
fn every_outcome_that_loses_a_click_raises_an_alert() {
    let outcomes = |query: &str| -> BTreeSet<String> {
        let matchers = names(query).selectors.into_iter().flat_map(|selector| selector.matchers);
        let values = matchers.filter(|(label, _)| label == "outcome").map(|(_, value)| value);
        values.flat_map(|value| value.split('|').map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let alerts = alerts();
    let of = |name: &str| {
        let alert = alerts.iter().find(|alert| text(&alert["alert"]) == name);
        outcomes(text(&alert.unwrap()["expr"]))
    };
    let by_us = of("HookbridgeClicksRefused");
    let by_others = of("HookbridgeClicksNotTaken");
    let no_key = of("HookbridgeSenderUnauthorized");
    // Refused before a key was read: most likely not from a sender.
    let before_the_key = [
        "not_http",
        "unknown_path",
        "wrong_method",
        "slow_head",
        "head_too_large",
        "address_over_rate",
    ];
    for outcome in Outcome::all() {
        let facts = outcome.facts();
        let lists = [
            matches!(outcome, Outcome::Held(_)),
            matches!(outcome, Outcome::NoClick(_)),
            by_us.contains(facts.tag),
            by_others.contains(facts.tag),
            no_key.contains(facts.tag),
            before_the_key.contains(&facts.tag),
        ];
        assert_eq!(lists.iter().filter(|is_in| **is_in).count(), 1, "{}: {lists:?}", facts.tag);
        let is_our_doing = facts.status.is_server_error();
        assert_eq!(by_us.contains(facts.tag), is_our_doing, "{}", facts.tag);
    }
    let lost: BTreeSet<String> = by_us.union(&by_others).cloned().collect();
    assert_eq!(outcomes(&queries_of("Are any lost or refused?")[0]), lost);
    assert_eq!(outcomes(&queries_of("Clicks refused, by outcome")[0]), lost);
    let held = Outcome::all().filter(|outcome| matches!(outcome, Outcome::Held(_)));
    let held: BTreeSet<String> = held.map(|outcome| outcome.facts().tag.to_owned()).collect();
    assert_eq!(outcomes(&queries_of("Are clicks coming in?")[0]), held);
}

/// Every panel has a description.
#[test]
fn the_dashboard_depends_on_no_installation() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "hookbridge");
    assert_eq!(dashboard.get("id"), None);
    let source = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        let places = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        for place in places {
            assert!(x + w <= 24 && taken.insert(place), "{} overlaps", panel["title"]);
        }
    }
    for panel in panels() {
        assert!(panel["description"].as_str().unwrap().len() > 10, "{}", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        let sources = targets.iter().chain([&panel]).map(|asker| &asker["datasource"]);
        sources.for_each(|found| assert_eq!(*found, source, "{}", panel["title"]));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        assert_eq!(variable["datasource"], source);
    }
}

/// Grafana finds the dashboard and the Prometheus of docker-compose.yml.
#[test]
fn grafana_is_given_what_compose_has() {
    let read = |path: &str| -> Yaml {
        serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let compose = read("docker-compose.yml");
    let services = &compose["services"];
    let mounts: Vec<_> = items(&services["grafana"]["volumes"]).iter().map(text).collect();
    let folder = "./deploy/grafana/provisioning";
    for kind in ["datasources", "dashboards"] {
        let mount = format!("{folder}/{kind}:/etc/grafana/provisioning/{kind}:ro");
        assert!(mounts.contains(&&*mount), "{mounts:?}");
    }
    let dashboards = read(&format!("{folder}/dashboards/hookbridge.yml"));
    let [provider] = items(&dashboards["providers"]) else { panic!("{dashboards:?}") };
    let path = text(&provider["options"]["path"]);
    let dashboard = format!("./deploy/grafana/hookbridge.json:{path}/hookbridge.json:ro");
    assert!(mounts.contains(&&*dashboard), "{mounts:?}");
    let home = &services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(text(home), format!("{path}/hookbridge.json"));
    let sources = read(&format!("{folder}/datasources/prometheus.yml"));
    let [source] = items(&sources["datasources"]) else { panic!("{sources:?}") };
    assert_eq!(text(&source["type"]), "prometheus");
    let address = text(&source["url"]).strip_prefix("http://").unwrap();
    let (service, port) = address.split_once(':').unwrap();
    let ports = items(&services[service]["ports"]);
    assert!(ports.iter().any(|mapping| text(mapping).ends_with(port)), "{ports:?}");
    let scraped = read("deploy/prometheus/prometheus.yml");
    assert_eq!(source["jsonData"]["timeInterval"], scraped["global"]["scrape_interval"]);
}

#[test]
fn compose_mounts_files_that_exist() {
    let compose: Yaml = serde_norway::from_str(COMPOSE).unwrap();
    let services = compose["services"].as_mapping().unwrap().values();
    let volumes = services.flat_map(|service| items(&service["volumes"])).map(text);
    let files: Vec<&str> =
        volumes.filter_map(|v| v.strip_prefix("./")?.split(':').next()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file}");
    }
}

/// Every name in a query exists, and the first row shows clicks, a refusal, an outage of Kafka and its
/// end.
#[tokio::test]
async fn alerts_and_dashboard_work_on_a_real_prometheus() {
    let broker = Broker::embedded();
    let bridge =
        TestBridge::start_spooling(&broker, |config| config.http.max_body_bytes = 10_000).await;
    let Some(prometheus) = Prometheus::start(bridge.admin).await else { return };
    // Prometheus sees every increase after the second scrape.
    until("scraped twice", async || {
        let scrapes = prometheus.query("min(count_over_time(hookbridge_requests_total[1m]))").await;
        scrapes.first().is_some_and(|count| *count >= 2.0)
    })
    .await;
    send_and_refuse(&bridge).await;
    first_row(&prometheus, Expected { held: 6, brokers: 1, waiting: 0 }).await;
    alerts_are_healthy(&prometheus).await;
    queries_find_what_they_ask_for(&prometheus).await;

    broker.development().cluster().broker_down(-1).unwrap();
    for _ in 0..3 {
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    }
    first_row(&prometheus, Expected { held: 9, brokers: 0, waiting: 3 }).await;
    alert_is(&prometheus, "HookbridgeKafkaUnreachable", Active).await;
    alert_is(&prometheus, "HookbridgeClicksNotTaken", Active).await;
    alert_is(&prometheus, "HookbridgeDeadLetters", Active).await;
    alert_is(&prometheus, "HookbridgeClicksRefused", Inactive).await;

    broker.development().cluster().broker_up(-1).unwrap();
    first_row(&prometheus, Expected { held: 9, brokers: 1, waiting: 0 }).await;
    alert_is(&prometheus, "HookbridgeKafkaUnreachable", Inactive).await;
}

/// Five clicks, one dead letter, one body that is too large, one client without a valid key.
async fn send_and_refuse(bridge: &TestBridge) {
    for _ in 0..5 {
        assert_eq!(bridge.post(click("7")).await.status(), StatusCode::OK);
    }
    assert_eq!(bridge.post("{").await.status(), StatusCode::OK);
    assert_eq!(bridge.post("1".repeat(10_001)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let refused = sender().post(bridge.url()).bearer_auth("another-key").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

struct Expected {
    held: u32,
    brokers: u32,
    waiting: u32,
}

/// Waits until the four panels of the first row show this.
async fn first_row(prometheus: &Prometheus, expected: Expected) {
    let is = async |title: &str, index: usize, check: &dyn Fn(f64) -> bool| {
        let query = &queries_of(title)[index];
        until(query, async || check(prometheus.value(query).await)).await;
    };
    // Prometheus extrapolates by up to half a scrape, so counts are only near whole numbers.
    let about = |number: u32| move |value: f64| value.round() == f64::from(number);
    is("Are clicks coming in?", 0, &|rate| about(expected.held)(rate * WINDOW_SECONDS)).await;
    is("Are any lost or refused?", 0, &about(1)).await;
    is("Are any lost or refused?", 1, &about(0)).await;
    is("Are any lost or refused?", 2, &about(1)).await;
    is("Is Kafka keeping up?", 0, &|p99| p99 > 0.0 && p99 <= 5.0).await;
    is("Is Kafka keeping up?", 1, &about(expected.brokers)).await;
    is("Is Kafka keeping up?", 2, &about((expected.brokers == 0).into())).await;
    is("Is something waiting on disk?", 0, &about(expected.waiting)).await;
    let waits = expected.waiting > 0;
    is("Is something waiting on disk?", 1, &|age| (age >= 1.0) == waits).await;
    is("Is something waiting on disk?", 2, &|share| (share > 0.0) == waits && share < 1.0).await;
}

async fn alerts_are_healthy(prometheus: &Prometheus) {
    until("every alert is evaluated", async || {
        prometheus.alerts().await.iter().all(|alert| alert["health"] != "unknown")
    })
    .await;
    let loaded = prometheus.alerts().await;
    assert_eq!(loaded.len(), alerts().len());
    for alert in loaded {
        assert_eq!(alert["health"], "ok", "{alert}");
    }
}

#[derive(Debug, PartialEq)]
enum State {
    /// Firing, or pending until its `for` time has passed.
    Active,
    Inactive,
}

/// Waits until an alert is in this state; its annotations must render without error.
async fn alert_is(prometheus: &Prometheus, name: &str, state: State) {
    until(&format!("{name} is {state:?}"), async || {
        let alerts = prometheus.alerts().await;
        let alert = alerts.iter().find(|alert| alert["name"] == name).unwrap();
        let notes = alert["alerts"].to_string();
        assert!(!notes.contains("error expanding template"), "{notes}");
        state == if alert["state"] == "inactive" { Inactive } else { Active }
    })
    .await;
}

/// Prometheus accepts every query, each panel shows data, and the bridge exports every metric, label
/// and value in a query.
async fn queries_find_what_they_ask_for(prometheus: &Prometheus) {
    let mut scrape = Scrape { prometheus, metrics: BTreeMap::new() };
    for panel in panels() {
        for query in queries(&panel) {
            assert!(!prometheus.query(&query).await.is_empty(), "nothing to show: {query}");
            scrape.has_all(&query).await;
        }
    }
    for alert in alerts() {
        let query = text(&alert["expr"]);
        prometheus.query(query).await;
        scrape.has_all(query).await;
    }
    let dashboard = dashboard();
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let definition = variable["definition"].as_str().unwrap().replace("$job", "hookbridge");
        let query = definition.strip_prefix("label_values(").unwrap();
        let (query, label) = query.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        scrape.has_all(&format!("sum by ({label}) ({query})")).await;
    }
}

/// The bridge's series in Prometheus, by metric.
struct Scrape<'p> {
    prometheus: &'p Prometheus,
    metrics: BTreeMap<String, Vec<Series>>,
}

impl Scrape<'_> {
    async fn has_all(&mut self, query: &str) {
        let Names { selectors, groups } = names(query);
        assert!(!selectors.is_empty(), "it asks for no metric: {query}");
        let mut labels = BTreeSet::new();
        for selector in &selectors {
            let series = self.series(&selector.metric).await;
            assert!(!series.is_empty(), "no metric {}: {query}", selector.metric);
            labels.extend(series.iter().flat_map(BTreeMap::keys).cloned());
            for (label, value) in &selector.matchers {
                let has =
                    |value: &str| series.iter().any(|s| s.get(label).is_some_and(|v| v == value));
                let is_ours = ["job", "instance"].contains(&label.as_str());
                let found =
                    if is_ours { series[0].contains_key(label) } else { value.split('|').all(has) };
                assert!(found, "no {label}=\"{value}\" of {}: {query}", selector.metric);
            }
        }
        let missing: Vec<_> = groups.difference(&labels).collect();
        assert!(missing.is_empty(), "no label {missing:?}: {query}");
    }

    async fn series(&mut self, metric: &str) -> &[Series] {
        if !self.metrics.contains_key(metric) {
            self.metrics.insert(metric.to_owned(), self.prometheus.series(metric).await);
        }
        &self.metrics[metric]
    }
}
