//! `hookbridge check`: every problem with the settings at once, and whether the spool's folder will do; with
//! `--kafka` also what the brokers say of the topics and the rights.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use anstream::println;
use anstyle::Style;
use jiff::Timestamp;

use super::Exit;
use super::terminal::{BAD, GOOD, WARN};
use crate::config::{Config, Loaded, VERDICT_LAG_MS};
use crate::delivery::spool::{self, Finding};
use crate::http::TlsIdentity;
use crate::kafka::{InspectedTopic, Inspector, Severity};

/// How long the brokers may take for one question.
const TIMEOUT: Duration = Duration::from_secs(5);

pub fn check(loaded: &Loaded, with_kafka: bool) -> Exit {
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    println!("settings: {}", file.as_deref().unwrap_or("defaults and environment, no file"));
    for problem in &loaded.problems {
        print(BAD, "problem", problem);
    }
    if !loaded.problems.is_empty() {
        let count = loaded.problems.len();
        println!("{count} {}", if count == 1 { "problem" } else { "problems" });
        return Exit::Config;
    }
    ok("every setting");
    let Config { http, kafka, .. } = &loaded.config;
    ok(format_args!(
        "time-outs: acknowledgement {} ms, verdict {} ms, answer {} ms, drain {} ms",
        kafka.ack_timeout_ms,
        kafka.ack_timeout_ms + VERDICT_LAG_MS,
        http.answer_timeout_ms,
        http.drain_timeout_ms,
    ));
    match http.tls.as_ref().map(TlsIdentity::read).transpose() {
        Ok(None) => {}
        Ok(Some(TlsIdentity { ends, .. })) if ends > Timestamp::now() => {
            ok(format_args!("TLS: certificate and key; the certificate ends {ends}"));
        }
        Ok(Some(TlsIdentity { ends, .. })) => {
            warning(format_args!("TLS: the certificate ended {ends}"));
        }
        Err(problem) => {
            print(BAD, "problem", problem);
            return Exit::Config;
        }
    }
    let mut exit = check_spool(&loaded.config);
    if with_kafka {
        println!("kafka: {}", kafka.brokers);
        exit = exit.max(check_kafka(&loaded.config).unwrap_or_else(failed));
    }
    exit
}

/// Whether the folder of the spool, if that is on, will do on this machine.
fn check_spool(config: &Config) -> Exit {
    if !config.spool.is_on() {
        warning("spool: off; while Kafka is away every click is refused");
        return Exit::Clean;
    }
    let mut exit = Exit::Clean;
    for finding in spool::inspect(&config.spool) {
        match finding {
            Finding::Good(text) => ok(format_args!("spool: {text}")),
            Finding::Warning(text) => warning(format_args!("spool: {text}")),
            Finding::Problem(text) => exit = failed(format_args!("spool: {text}")),
        }
    }
    exit
}

fn check_kafka(config: &Config) -> Result<Exit, Box<dyn Error>> {
    let inspector = Inspector::new(config)?;
    let mut exit = Exit::Clean;
    for topic in inspector.inspect(TIMEOUT)? {
        let InspectedTopic { name, summary, findings, .. } = &topic;
        if findings.iter().all(|(severity, _)| *severity == Severity::Warning) {
            ok(format_args!("{name}: {summary}"));
            match inspector.may_write(&topic, TIMEOUT) {
                Ok(true) => {
                    ok(format_args!("{name}: the right to write (nothing was written)"));
                }
                Err(error) => exit = failed(format_args!("{name}: {error}")),
                Ok(false) => {
                    let unknown = "the right to write; the brokers do not tell the topic's settings, \
                                   which takes DESCRIBE_CONFIGS";
                    print(WARN, "unknown", format_args!("{name}: {unknown}"));
                }
            }
        }
        for (severity, text) in findings {
            let text = format_args!("{name}: {text}");
            match severity {
                Severity::Error => exit = failed(text),
                Severity::Warning | Severity::Missing => warning(text),
            }
        }
    }
    Ok(exit)
}

fn ok(text: impl Display) {
    print(GOOD, "ok", text);
}

fn warning(text: impl Display) {
    print(WARN, "warning", text);
}

fn failed(text: impl Display) -> Exit {
    print(BAD, "problem", text);
    Exit::Failed
}

fn print(style: Style, tag: &str, text: impl Display) {
    let gap = 9 - tag.len();
    println!("  {style}{tag}{style:#}{:gap$}{text}", "");
}
