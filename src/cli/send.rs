//! `hookbridge send`: sends clicks to a deployment, one to try it or many to load it, and reports the result.

mod hints;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::Uri;
use jiff::SignedDuration;
use tokio::time::{interval, timeout};

use super::serve::{Signals, signals};
use super::terminal::{BAR_INTERVAL, bar};
use super::{CommandResult, Exit, block_on};
use crate::config;
use crate::load::{AuthMethod, Bodies, Clicks, ExchangeError, Load, Plan, Target};
use report::LoadReport;

const KEY_VARIABLE: &str = "HOOKBRIDGE_API_KEY";

/// Far above any key; a larger file is a mistake.
const KEY_BYTES_MAX: u64 = 1 << 20;
/// The bodies are kept in memory.
const BODIES_BYTES_MAX: u64 = 256 << 20;

/// How long a load runs by default.
const DURATION: Duration = Duration::from_secs(10);

/// Connections of an open loop by default: enough for answers that take a tenth of a second.
const OPEN_CONNECTIONS: (u32, u32) = (8, 512);

#[derive(Debug, Args)]
pub struct SendArgs {
    /// Where to post: the webhook's path on a bridge, or on the balancer before it; http or https
    #[arg(long, default_value = "http://127.0.0.1:8080/webhooks/email-marketing/click")]
    url: Uri,
    /// The file that holds the key; without it HOOKBRIDGE_API_KEY does
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How the key is sent, as the webhook's `auth` has it
    #[arg(long, value_enum, default_value_t)]
    auth: AuthMethod,
    /// The authorities of the server's certificate, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Clicks a second, whether or not earlier ones are answered; timed from when they were due
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Connections; without --rate each sends its next click when the last one is answered
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    /// How many clicks to send; one, if nothing else is said
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long to send, such as 30s or 5m; 10s with --rate or --connections, if nothing else is said
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s")]
    timeout: Duration,
    /// Send these bodies, one JSON object a line, in turn, instead of made-up clicks
    #[arg(long, value_name = "FILE")]
    bodies: Option<PathBuf>,
    /// Campaigns of the made-up clicks; the first has most of them
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    campaigns: u32,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Reads a time such as `30s`.
fn time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration = text.parse().map_err(|_| "write it like 500ms, 30s or 5m")?;
    let time = Duration::try_from(time).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| "must be longer than nothing".into())
}

impl SendArgs {
    pub fn run(self) -> CommandResult {
        let report = block_on(self.send())?;
        if self.json {
            println!("{:#}", report.json());
        } else {
            report.print();
        }
        Ok(if report.is_clean() { Exit::Clean } else { Exit::Failed })
    }

    async fn send(&self) -> CommandResult<LoadReport> {
        let mut signals = signals()?;
        let key = self.key()?;
        let authorities = self.ca_file.as_ref().map(|file| config::read_file("--ca-file", file));
        let authorities = authorities.transpose()?;
        let target = Target::new(&self.url, key.as_deref(), self.auth, authorities.as_deref());
        let target = Arc::new(target.map_err(|reason| format!("--url: {reason}"))?);
        let run = format!("{:016x}", fastrand::u64(..));
        let (bodies, plan) = (self.bodies(&run)?, self.plan());
        let explain = |failure| hints::explain(&failure, &self.url, key.is_some());
        // No load is started for a server that does not answer.
        let connected = timeout(plan.timeout, target.connect()).await;
        if let Err(failure) = connected.unwrap_or(Err(ExchangeError::Late)) {
            return Err(explain(Err(failure)).into());
        }
        let mut load = Load::start(target, &bodies, plan);
        self.watch(&mut load, plan.total(), &mut signals).await;
        let elapsed = load.elapsed();
        let (mut tally, unsent) = load.end();
        let first_failure = tally.first_failure.take().map(explain);
        Ok(LoadReport {
            url: self.url.to_string(),
            run,
            plan,
            elapsed,
            tally,
            unsent,
            first_failure,
        })
    }

    /// Shows the progress until the load is done. The first signal stops sending; the second one also
    /// gives up what is not answered.
    async fn watch(&self, load: &mut Load, total: Option<u64>, signals: &mut Signals) {
        let bar = bar(total, "clicks");
        let (mut ticks, mut is_stopped) = (interval(BAR_INTERVAL), false);
        loop {
            tokio::select! {
                () = load.done() => break,
                _ = ticks.tick() => {
                    let tally = load.tally();
                    let failed = tally.failed();
                    bar.set_position(tally.sent());
                    bar.set_message(if failed > 0 { format!("{failed} failed") } else { String::new() });
                }
                () = signals.next() => {
                    if std::mem::replace(&mut is_stopped, true) {
                        break;
                    }
                    load.stop();
                }
            }
        }
        bar.finish_and_clear();
    }

    fn plan(&self) -> Plan {
        let SendArgs { rate, count, timeout, .. } = *self;
        let is_load = rate.is_some() || self.connections.is_some();
        let is_open_ended = count.is_none() && self.duration.is_none();
        let connections = match (self.connections, rate) {
            (Some(connections), _) => connections.into(),
            (None, Some(rate)) => {
                (rate / 10).clamp(OPEN_CONNECTIONS.0, OPEN_CONNECTIONS.1) as usize
            }
            (None, None) => 1,
        };
        let duration = self.duration.or((is_load && is_open_ended).then_some(DURATION));
        let count = count.or((!is_load && is_open_ended).then_some(1));
        Plan { connections, rate, count, duration, timeout }
    }

    /// The key, from its file or the environment.
    fn key(&self) -> CommandResult<Option<String>> {
        let text = match &self.key_file {
            Some(file) => {
                let bytes = config::read_file_within("--key-file", file, KEY_BYTES_MAX)?;
                let text = String::from_utf8(bytes);
                Some(text.map_err(|_| format!("--key-file: {} is no text", file.display()))?)
            }
            None => config::environment().remove(KEY_VARIABLE),
        };
        Ok(text.map(|text| text.trim().to_owned()).filter(|key| !key.is_empty()))
    }

    fn bodies(&self, run: &str) -> CommandResult<Bodies> {
        let Some(file) = &self.bodies else {
            return Ok(Bodies::Made(Clicks::new(run, self.campaigns)));
        };
        let text = Bytes::from(config::read_file_within("--bodies", file, BODIES_BYTES_MAX)?);
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let bodies: Vec<_> =
            lines.filter(|line| !line.is_empty()).map(|line| text.slice_ref(line)).collect();
        if bodies.is_empty() {
            return Err(format!("--bodies: {} holds no body", file.display()).into());
        }
        Ok(Bodies::Given(bodies.into()))
    }
}
