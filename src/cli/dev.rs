//! `hookbridge dev`: the bridge with a development broker inside, and every record shown as it lands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::serve::run_until_signal;
use super::{Exit, fail, key, show};
use crate::bridge::Listeners;
use crate::config::{Config, Secret};
use crate::kafka::{ConsumedRecord, DevelopmentBroker, Reader, TopicPosition};
use crate::observe::log::Log;

/// As many as docker-compose.yml gives the topic.
const PARTITIONS: i32 = 12;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Dev {
    /// Where to take webhooks; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where to serve the live page, metrics and probes
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    admin_listen: SocketAddr,
}

impl Dev {
    pub fn run(self) -> Exit {
        self.try_run().unwrap_or_else(fail)
    }

    fn try_run(self) -> Result<Exit, String> {
        let broker = DevelopmentBroker::start(1).map_err(|error| error.to_string())?;
        let api_key = key::make()?;
        let mut config = Config::default();
        config.http.listen = self.listen;
        config.http.drain_delay_ms = 0;
        config.admin.listen = self.admin_listen;
        // Nobody's clicks but one's own.
        config.admin.tail = true;
        config.kafka.brokers = broker.addresses();
        // What the development broker forgets, the next one should not get.
        config.spool.dir.clear();
        config.auth.api_key = Some(Secret::new(&api_key));
        // That one broker in memory keeps one copy is no news here.
        config.log.level = "info,hookbridge::kafka::supervisor=error".into();
        let _log = Log::start(&config.log);
        for (topic, _) in config.topics() {
            let created = broker.create_topic(&topic, PARTITIONS);
            created.map_err(|error| error.to_string())?;
        }
        let listeners = Listeners::bind(&config).map_err(|error| {
            format!("{error} Choose others with --listen and --admin-listen, port 0 for any.")
        })?;
        welcome(&config, &listeners, &api_key)?;
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = config
            .webhook
            .iter()
            .map(|webhook| {
                let (config, topic, stop) = (config.clone(), webhook.topic.clone(), stop.clone());
                std::thread::spawn(move || show(&config, &topic, &stop))
            })
            .collect();
        let exit = run_until_signal(config, listeners, None);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let _ = reader.join();
        }
        Ok(exit)
    }
}

/// What to paste to see it work.
fn welcome(config: &Config, listeners: &Listeners, key: &str) -> Result<(), String> {
    let http = listeners.http_address().map_err(|error| error.to_string())?;
    let admin = listeners.admin_address().map_err(|error| error.to_string())?;
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

/// Prints every record of a topic, read back by a consumer like any other.
fn show(config: &Config, topic: &str, stop: &AtomicBool) {
    let reader = match Reader::open(config, topic, TopicPosition::Beginning, TIMEOUT) {
        Ok(reader) => reader,
        Err(error) => return eprintln!("hookbridge: {topic} cannot be read back: {error}"),
    };
    while !stop.load(Ordering::Relaxed) {
        match reader.next(Duration::from_millis(100)) {
            Ok(Some(seen)) => println!("{}", line(&seen)),
            Ok(None) => {}
            Err(error) => eprintln!("hookbridge: {topic}: {error}"),
        }
    }
}

/// One line for a record.
fn line(seen: &ConsumedRecord) -> String {
    const LENGTH_MAX: usize = 160;
    let key = String::from_utf8_lossy(seen.key.as_deref().unwrap_or_default());
    format!(
        "partition {:>2}  offset {:>4}  key {}  {}",
        seen.partition,
        seen.offset,
        key.escape_debug(),
        show::folded(&String::from_utf8_lossy(&seen.value), LENGTH_MAX),
    )
}
