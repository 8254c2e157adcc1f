//! `hookbridge check`: every problem with the settings at once; with `--kafka` also what the brokers
//! say of the topics, the rights and the time-out chain.

use std::time::Duration;

use anstream::println;
use clap::Args;
use jiff::Timestamp;

use super::Exit;
use super::paint::{BAD, GOOD, WARN};
use crate::config::{Config, Loaded, VERDICT_LAG_MS};
use crate::http::TlsIdentity;
use crate::kafka::{InspectedTopic, Inspector, Severity};

/// How long the brokers may take for one question.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Check {
    /// Also connect to Kafka and check topics, replicas and rights
    #[arg(long)]
    kafka: bool,
}

impl Check {
    pub fn run(self, loaded: Loaded) -> Exit {
        let file = loaded.file.as_ref().map(|file| file.display().to_string());
        println!("settings: {}", file.as_deref().unwrap_or("defaults and environment, no file"));
        for problem in &loaded.problems {
            println!("  {BAD}problem{BAD:#}  {problem}");
        }
        if !loaded.problems.is_empty() {
            println!("{} problems", loaded.problems.len());
            return Exit::Config;
        }
        println!("  {GOOD}ok{GOOD:#}       every setting");
        let Config { http, kafka, .. } = &loaded.config;
        println!(
            "  {GOOD}ok{GOOD:#}       time-outs: acknowledgement {} ms, verdict {} ms, answer {} ms, drain {} ms",
            kafka.ack_timeout_ms,
            kafka.ack_timeout_ms + VERDICT_LAG_MS,
            http.answer_timeout_ms,
            http.drain_timeout_ms,
        );
        if let Some(tls) = &http.tls {
            match TlsIdentity::read(tls) {
                Ok(identity) if identity.ends > Timestamp::now() => {
                    println!(
                        "  {GOOD}ok{GOOD:#}       TLS: certificate and key; the certificate ends {}",
                        identity.ends
                    )
                }
                Ok(identity) => {
                    println!(
                        "  {WARN}warning{WARN:#}  TLS: the certificate ended {}",
                        identity.ends
                    )
                }
                Err(problem) => {
                    println!("  {BAD}problem{BAD:#}  {problem}");
                    return Exit::Config;
                }
            }
        }
        if self.kafka { check_kafka(&loaded.config) } else { Exit::Clean }
    }
}

fn check_kafka(config: &Config) -> Exit {
    println!("kafka: {}", config.kafka.brokers);
    let problem = |text: String| {
        println!("  {BAD}problem{BAD:#}  {text}");
        Exit::Failed
    };
    let inspector = match Inspector::new(config) {
        Ok(inspector) => inspector,
        Err(error) => return problem(error.to_string()),
    };
    let topics = match inspector.inspect(TIMEOUT) {
        Ok(topics) => topics,
        Err(error) => return problem(error.to_string()),
    };
    let mut exit = Exit::Clean;
    for topic in topics {
        let InspectedTopic { name, summary, findings, .. } = &topic;
        if findings.iter().all(|(severity, _)| *severity == Severity::Warning) {
            println!("  {GOOD}ok{GOOD:#}       {name}: {summary}");
            match inspector.may_write(&topic, TIMEOUT) {
                Some(Ok(())) => {
                    println!(
                        "  {GOOD}ok{GOOD:#}       {name}: the right to write (nothing was written)"
                    )
                }
                Some(Err(error)) => exit = problem(format!("{name}: {error}")),
                None => println!(
                    "  {WARN}unknown{WARN:#}  {name}: the right to write; the brokers do not tell the topic's \
                     settings, which takes DESCRIBE_CONFIGS"
                ),
            }
        }
        for (severity, text) in findings {
            match severity {
                Severity::Error => exit = problem(format!("{name}: {text}")),
                Severity::Warning | Severity::Missing => {
                    println!("  {WARN}warning{WARN:#}  {name}: {text}")
                }
            }
        }
    }
    exit
}
