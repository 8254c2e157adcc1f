//! `hookbridge dev`: the bridge with a development broker inside, and every record shown as it lands.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::serve::run_until_signal;
use super::terminal::one_line;
use super::{CommandResult, key};
use crate::bridge::Listeners;
use crate::config::{Config, Secret};
use crate::kafka::{DevelopmentBroker, Reader, TopicPosition};
use crate::observe::log::Log;

/// As many as docker-compose.yml gives the topic.
const PARTITIONS: i32 = 12;

/// How long the development broker may take for one question.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often to look whether the bridge has stopped.
const POLL: Duration = Duration::from_millis(100);

/// A value is cut to this many characters.
const VALUE_MAX: usize = 160;

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where to take webhooks; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Where to serve the live page, metrics and probes
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = address)]
    admin_listen: SocketAddr,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080")
}

impl DevArgs {
    pub fn run(self) -> CommandResult {
        let broker = DevelopmentBroker::start(1)?;
        let api_key = key::make()?;
        let mut config = Config::default();
        config.http.listen = self.listen;
        config.http.drain_delay_ms = 0;
        config.admin.listen = self.admin_listen;
        // Every click is the developer's own.
        config.admin.tail = true;
        config.kafka.brokers = broker.addresses();
        // The next development broker should not get what this one forgets.
        config.spool.dir.clear();
        config.auth.api_key = Some(Secret::new(&api_key));
        // The warning that the one broker, in memory, keeps only one copy is no news here.
        config.log.level = "info,hookbridge::kafka::supervisor=error".into();
        let _log = Log::start(&config.log);
        for (topic, _) in config.topics() {
            broker.create_topic(&topic, PARTITIONS)?;
        }
        let listeners = Listeners::bind(&config).map_err(|error| {
            format!("{error} Choose others with --listen and --admin-listen, port 0 for any.")
        })?;
        welcome(&config, &listeners, &api_key)?;
        let (config, is_over) = (&config, &AtomicBool::new(false));
        std::thread::scope(|scope| {
            for webhook in &config.webhook {
                scope.spawn(move || show(config, &webhook.topic, is_over));
            }
            let exit = run_until_signal(config.clone(), listeners, None);
            is_over.store(true, Ordering::Relaxed);
            exit
        })
    }
}

/// Prints the addresses, and commands to try.
fn welcome(config: &Config, listeners: &Listeners, key: &str) -> io::Result<()> {
    let http = listeners.http.local_addr()?;
    let admin = listeners.admin.local_addr()?;
    let brokers = &config.kafka.brokers;
    println!("hookbridge takes clicks on http://{http}");
    println!("the live page is           http://{admin}/ (and /metrics, /livez, /readyz)");
    println!("the development broker is  {brokers} (in memory, gone with this process)");
    for webhook in &config.webhook {
        let offset = crate::click::event::parse_offset(&webhook.utc_offset);
        let time = offset.map(|offset| offset.to_datetime(Timestamp::now()));
        let time = time.map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        println!("\nSend a click:\n");
        println!(
            "curl -i http://{http}{} -H 'Authorization: Bearer {key}' -d '{{\"type\":\"{}\",\
             \"event\":\"{}\",\"campid\":\"12345\",\"timestamp\":\"{}\",\
             \"destination\":\"https://www.example.com/\"}}'",
            webhook.path,
            webhook.r#type,
            webhook.event,
            time.unwrap_or_default(),
        );
        println!("\nRead the topic with any Kafka client:\n");
        println!("kcat -b {brokers} -t {} -C\n", webhook.topic);
    }
    println!("Records as they land (Ctrl-C ends):");
    Ok(())
}

/// Prints every record of a topic until the bridge has stopped.
fn show(config: &Config, topic: &str, is_over: &AtomicBool) {
    let reader = match Reader::open(config, topic, TopicPosition::Beginning, TIMEOUT) {
        Ok(reader) => reader,
        Err(error) => return eprintln!("hookbridge: {topic} cannot be read back: {error}"),
    };
    while !is_over.load(Ordering::Relaxed) {
        match reader.next(POLL) {
            Ok(Some(record)) => {
                let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
                let value = one_line(&String::from_utf8_lossy(&record.value), VALUE_MAX);
                let (partition, offset, key) =
                    (record.partition, record.offset, key.escape_debug());
                println!("partition {partition:>2}  offset {offset:>4}  key {key}  {value}");
            }
            Ok(None) => {}
            Err(error) => eprintln!("hookbridge: {topic}: {error}"),
        }
    }
}
