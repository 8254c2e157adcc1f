//! A resolver that takes questions and does not answer.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use crate::config::from;
use crate::harness::brokers::Broker;
use crate::harness::process::{Running, Serve, lines, may_mount};
use crate::harness::support::{KEY, config, numbered, sender, until};
use crate::sns;
use crate::tls::Authority;

/// The command that gives a process such a resolver, and the options of `unshare` for it; and the socket.
fn silent_resolver(address: &str, folder: &Path) -> Option<(UdpSocket, String, &'static str)> {
    let Ok(socket) = UdpSocket::bind((address, 53)) else {
        eprintln!("NOT TESTED WITHOUT A RESOLVER: no right to port 53");
        return None;
    };
    let settings = folder.join("resolv.conf");
    // The longest that the C library allows: minutes for one name.
    let text = format!("nameserver {address}\noptions timeout:30 attempts:5\n");
    std::fs::write(&settings, text).unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf", settings.display());
    let Some(options) = may_mount(&mount) else {
        eprintln!("NOT TESTED WITHOUT A RESOLVER: no right to mount its settings");
        return None;
    };
    Some((socket, mount, options))
}

/// The program with these arguments, after this mount.
fn command(mount: &str, options: &str, arguments: &str) -> Command {
    let run = format!("{mount} && exec {} {arguments}", env!("CARGO_BIN_EXE_hookbridge"));
    let mut command = Command::new("unshare");
    command.args([options, "sh", "-c", &run]).stdout(Stdio::null());
    command
}

/// Neither the start nor the stop waits for it, nor the stop for a Kafka that is away.
#[tokio::test]
async fn serve_does_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_silent, mount, options)) = silent_resolver("127.0.0.9", folder.path()) else {
        return;
    };
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, Authority::new().pem()).unwrap();
    let mut config = config(&Broker::embedded());
    config.kafka.brokers = "kafka.example.com:9092".into();
    config.spool.dir = folder.path().join("spool");
    config.http.drain_delay_ms = 0;
    config.http.drain_timeout_ms = 3_600_000;
    config.tracing.otlp_endpoint = "http://collector.example.com:4318".into();
    config.tracing.sample_ratio = 1.0;
    let sns = format!(
        "[[webhook]]\nprofile = \"amazon-ses\"\nauth = {{ type = \"sns\", topics = [\"{}\"], ca_file = \
         \"{}\" }}",
        sns::ARN,
        authorities.display()
    );
    config.webhook.extend(from(&sns, &[]).into_result().unwrap().webhook);
    let serve = Serve::launch_in(&["unshare", options, "sh"], &config, folder.path(), &mount);
    until("serving", async || serve.is_ready().await).await;
    let answer = serve.post(numbered("7", 0)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // The certificate cannot be fetched.
    let url = format!("http://{}{}", serve.http, config.webhook[1].path);
    let message = sns::signed(&sns::pair(), sns::message("Notification", 0));
    let answer = sender().post(url).body(message).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let file = serve.file.clone();
    let (code, log) = serve.stop();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("\"spooled\":1"), "{log}");
    let drain = format!("spool drain --config {}", file.display());
    let mut drain = command(&mount, options, &drain);
    let mut drain = Running(drain.stderr(Stdio::piped()).spawn().unwrap());
    let log = lines(drain.0.stderr.take().unwrap());
    assert!(log.iter().any(|line| line.contains("Events wait in the spool.")));
    drain.signal("INT");
    assert_eq!(drain.end(), 1);
}

/// They say that nobody answers, and end.
#[test]
fn commands_do_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_silent, mount, options)) = silent_resolver("127.0.0.10", folder.path()) else {
        return;
    };
    let commands = ["check --kafka", "tail", "replay", "send --url http://bridge.example.com/"];
    let started = Instant::now();
    let running = commands.map(|arguments| {
        let mut process = command(&mount, options, arguments);
        process
            .current_dir(folder.path())
            .env("HOOKBRIDGE__AUTH__API_KEY", KEY)
            .env("HOOKBRIDGE__KAFKA__BROKERS", "kafka.example.com:9092")
            .stderr(Stdio::null());
        Running(process.spawn().unwrap())
    });
    for (mut process, command) in running.into_iter().zip(commands) {
        assert_eq!(process.end(), 1, "{command}");
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(45), "{command} took {elapsed:?}");
    }
}
