//! docker-compose.yml, by the commands at its top, with faults under load.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::{LONG, Result, SHORT, output, wait_for, within};
use crate::load::{Load, Row, now};
use crate::pages;

const FILE: &str = "docker-compose.yml";
const PROJECT: &str = "hookbridge-proof";
const URL: &str = "http://localhost:8080/webhooks/email-marketing/click";
const METRICS: &str = "http://localhost:8081/metrics";

/// Clicks a second.
const RATE: u32 = 200;

/// How long the images may take to build.
const BUILD: Duration = Duration::from_secs(1_800);

/// The services of docker-compose.yml, on this machine's engine.
pub struct Composition {
    compose: Vec<String>,
    image: String,
    key: String,
    services: Vec<&'static str>,
}

impl Composition {
    pub fn open() -> Result<Composition> {
        let compose = env::var("HOOKBRIDGE_COMPOSE").unwrap_or_else(|_| "docker compose".into());
        let image = env::var("HOOKBRIDGE_IMAGE").unwrap_or_else(|_| "hookbridge:0.1.0".into());
        let key = output(within(SHORT, "docker").args(["run", "--rm", &image, "key"]))?;
        let key = key.lines().find(|line| line.starts_with("hb_")).ok_or("no key")?.to_owned();
        let compose = compose.split(' ').map(str::to_owned).collect();
        let mut composition = Composition { compose, image, key, services: Vec::new() };
        if composition.run(&["pull", "--quiet", "grafana"]).is_err() {
            composition.services = vec!["bridge", "kafka", "topics", "prometheus"];
        }
        Ok(composition)
    }

    fn command(&self, time: Duration, program: &str) -> Command {
        let mut command = within(time, program);
        command.env("HOOKBRIDGE_API_KEY", &self.key).env("COMPOSE_PROJECT_NAME", PROJECT);
        command
    }

    fn compose(&self, time: Duration, arguments: &[&str]) -> Command {
        let mut command = self.command(time, &self.compose[0]);
        command.args(&self.compose[1..]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.compose(LONG, arguments))
    }

    /// Starts the services, and waits for those that have a health check.
    fn start(&self, arguments: &[&str]) -> Result<()> {
        let up = [&["up", "--detach", "--wait"], arguments, &self.services[..]].concat();
        // A service that has done its work and ended is one that `--wait` does not like.
        let _ = output(&mut self.compose(BUILD, &up));
        wait_for("the bridge is ready", LONG, || {
            Ok(self.get("http://localhost:8081/readyz").is_ok())
        })
    }

    fn get(&self, url: &str) -> Result<String> {
        output(self.command(SHORT, "curl").args(["--silent", "--fail", url]))
    }

    fn load(&self, seconds: u64) -> Result<Load> {
        let mut send = self.command(Duration::from_secs(seconds) + SHORT, "docker");
        send.args(["run", "--rm", "--network", "host", "--env", "HOOKBRIDGE_API_KEY"]);
        send.args([&self.image, "send", "--url", URL]);
        Load::start(send, RATE, seconds)
    }

    fn tail(&self, since: &str) -> Command {
        let tail = ["exec", "-T", "bridge", "hookbridge", "tail", "--json", "--from", since];
        self.compose(LONG, &tail)
    }

    fn waiting_events(&self) -> Result<u64> {
        let metrics = self.get(METRICS)?;
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix("hookbridge_spool_events "));
        Ok(value.ok_or("no hookbridge_spool_events")?.parse()?)
    }

    fn drained(&self) -> Result<()> {
        wait_for("no event waits on disk", LONG, || Ok(self.waiting_events()? == 0))
    }

    /// Sends clicks with Kafka stopped. How many wait on disk.
    fn fill_spool(&self) -> Result<u64> {
        self.run(&["stop", "kafka"])?;
        wait_for("clicks wait on disk", LONG, || Ok(self.waiting_events()? > 0))?;
        self.waiting_events()
    }
}

/// A click in, its record out.
pub fn up(compose: &Composition) -> Result<Row> {
    compose.run(&["down", "--volumes"])?;
    compose.start(&["--build"])?;
    let curl = pages::commented_curl(FILE)?;
    let answer = output(compose.command(SHORT, "bash").args(["-c", &curl]))?;
    let tail =
        ["exec", "-T", "bridge", "hookbridge", "tail", "--from", "beginning", "--count", "1"];
    let record = compose.run(&tail)?;
    let page = compose.get("http://localhost:8081/")?;
    for (text, expected) in [(&answer, "HTTP/1.1 200"), (&record, "12345"), (&page, "<html")] {
        if !text.contains(expected) {
            return Err(format!("no {expected:?} in {text}").into());
        }
    }
    let missing = if compose.services.is_empty() { "" } else { "; without Grafana" };
    Ok(Row::default().note(format!("a click in, its record out, the live page{missing}")))
}

/// Prometheus scrapes the bridge and has evaluated every alert, of which none fires.
pub fn prometheus(compose: &Composition) -> Result<Row> {
    let (since, load) = (now(), compose.load(30)?);
    let api = |path: &str| -> Result<Value> {
        let answer = compose.get(&format!("http://localhost:9090/api/v1/{path}"))?;
        Ok(serde_json::from_str(&answer)?)
    };
    let rules = || -> Result<Vec<Value>> {
        let answer = api("rules?type=alert")?;
        let groups = answer["data"]["groups"].as_array().ok_or("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    };
    wait_for("the bridge is scraped", LONG, || {
        let targets = api("targets")?;
        let targets = targets["data"]["activeTargets"].as_array().ok_or("no targets")?;
        Ok(targets
            .iter()
            .any(|target| target["health"] == "up" && target["labels"]["job"] == "hookbridge"))
    })?;
    wait_for("every alert is evaluated", LONG, || {
        let rules = rules()?;
        Ok(!rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok"))
    })?;
    let sent = load.end()?;
    sent.all_held()?;
    let rules = rules()?;
    let active = rules.iter().filter(|rule| rule["state"] != "inactive");
    let active: Vec<_> = active.map(|rule| rule["name"].to_string()).collect();
    if !active.is_empty() {
        return Err(format!("alerts: {}", active.join(", ")).into());
    }
    let row = sent.look_for(compose.tail(&since))?;
    Ok(row.note(format!("{} alerts evaluated, none active", rules.len())))
}

/// Kafka stops, the bridge is killed and started again.
pub fn kafka_stopped_and_bridge_killed(compose: &Composition) -> Result<Row> {
    let (since, load) = (now(), compose.load(60)?);
    let waiting = compose.fill_spool()?;
    compose.run(&["kill", "bridge"])?;
    compose.run(&["start", "bridge"])?;
    let start = Instant::now();
    wait_for("the bridge is ready", LONG, || {
        Ok(compose.get("http://localhost:8081/readyz").is_ok())
    })?;
    let took = start.elapsed();
    compose.run(&["start", "kafka"])?;
    let sent = load.end()?;
    compose.drained()?;
    let row = sent.look_for(compose.tail(&since))?;
    let seconds = took.as_secs_f64();
    Ok(row.note(format!("killed with {waiting} clicks on disk; ready again in {seconds:.1} s")))
}

/// All services stop.
pub fn stop(compose: &Composition) -> Result<Row> {
    let start = Instant::now();
    compose.run(&["stop", "bridge"])?;
    let took = start.elapsed().as_secs();
    let state = compose.run(&["ps", "--all", "--format", "json", "bridge"])?;
    let state: Value = serde_json::from_str(state.lines().next().ok_or("no bridge")?)?;
    if state["ExitCode"] != 0 || took >= 30 {
        return Err(format!("{took} s, {state}").into());
    }
    compose.run(&["stop"])?;
    Ok(Row::default().note(format!("exit code 0 after {took} s, of 30 that it has")))
}

/// Everything is removed but the volumes, with clicks on disk, and made again.
pub fn down_and_up(compose: &Composition) -> Result<Row> {
    compose.start(&[])?;
    let (since, load) = (now(), compose.load(30)?);
    compose.fill_spool()?;
    let sent = load.end()?;
    sent.all_held()?;
    let waiting = compose.waiting_events()?;
    compose.run(&["down"])?;
    compose.start(&[])?;
    compose.drained()?;
    let row = sent.look_for(compose.tail(&since))?;
    compose.run(&["down", "--volumes"])?;
    Ok(row.note(format!("{waiting} clicks waited on disk meanwhile")))
}
