//! The commands and their exit codes, on the built program.

use std::process::{Command, Stdio};

use hookbridge::config::InvalidBody;
use reqwest::StatusCode;

use crate::harness::brokers::Broker;
use crate::harness::process::{Running, Serve, hookbridge, lines, texts};
use crate::harness::support::{KEY, PATIENCE, TestBridge, click, config, count, sender, until};
use crate::on_every_broker;

#[track_caller]
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, out: &str, err: &str) {
    let mut command = hookbridge(arguments.iter().copied());
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    assert!(stdout.contains(out), "{arguments:?}: {stdout}");
    assert!(stderr.contains(err), "{arguments:?}: {stderr}");
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let key = ("HOOKBRIDGE__AUTH__API_KEY", "the-one-plain-key");
    check(&["--help"], &[], 0, "Usage: hookbridge", "");
    check(&["--version"], &[], 0, env!("CARGO_PKG_VERSION"), "");
    check(&["nonsense"], &[], 64, "", "unrecognized subcommand");
    check(&["dev", "--listen", "8080"], &[], 64, "", "such as 127.0.0.1:8080");
    check(&["check", "--nonsense"], &[], 64, "", "unexpected argument");
    check(&[], &[], 78, "", "auth: no key may call: run `hookbridge key`");
    check(&["serve", "--config", "/nowhere.toml"], &[key], 78, "", "/nowhere.toml");
    check(&["check"], &[], 78, "problem  auth: no key may call", "");
    check(&["check"], &[key], 0, "ok       every setting", "");
    let weak = ("HOOKBRIDGE__KAFKA__OPTIONS__ACKS", "1");
    check(&["check"], &[key, weak], 78, "kafka.options.\"acks\": is fixed at all", "");
    check(&["config"], &[key], 0, "api_key = \"(hidden)\"", "");
    let nobody = ("HOOKBRIDGE__KAFKA__BROKERS", "127.0.0.1:1");
    check(&["check", "--kafka"], &[key, nobody], 1, "no broker can be reached", "");
    let unused = ("HOOKBRIDGE__ADMIN__LISTEN", "127.0.0.1:1");
    check(&["health"], &[key, unused], 1, "", "127.0.0.1:1 does not answer");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let port = ("HOOKBRIDGE__HTTP__LISTEN", taken.as_str());
    check(&["serve"], &[key, port, unused], 1, "", "is another program there already?");
}

#[test]
fn completions_and_manual_know_every_command_and_option() {
    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef hookbridge"),
        ("fish", "complete -c hookbridge"),
    ] {
        check(&["completions", shell], &[], 0, words, "");
        check(&["completions", shell], &[], 0, "key-file", "");
    }
    check(&["completions", "cobol"], &[], 64, "", "invalid value 'cobol'");
    check(&["man"], &[], 0, ".TH hookbridge 1", "");
    check(&["man"], &[], 0, "hookbridge\\-replay(1)", "");
    check(&["man", "send"], &[], 0, "How long an answer may take", "");
    check(&["man", "nonsense"], &[], 1, "", "there is no nonsense");
}

/// A pipe gets no colour, nor does a terminal with NO_COLOR.
#[test]
fn colour_is_for_terminals_only() {
    let key = ("HOOKBRIDGE__AUTH__API_KEY", "the-one-plain-key");
    check(&["check"], &[key], 0, "  ok       every setting", "");
    let forced = ("CLICOLOR_FORCE", "1");
    check(&["check"], &[key, forced], 0, "\x1b[32mok\x1b[0m       every setting", "");
    check(&["check"], &[key, forced, ("NO_COLOR", "1")], 0, "  ok       every setting", "");
    check(&[], &[forced], 78, "", "\x1b[31mhookbridge\x1b[0m: auth: no key");
}

#[tokio::test]
async fn a_new_key_works_with_the_line_printed_for_it() {
    let output = hookbridge(["key", "--name", "partner \"x\""]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let key = printed.lines().find(|line| line.starts_with("hb_")).unwrap();
    let line = printed.lines().find(|line| line.starts_with("keys = ")).unwrap();
    assert!(!line.contains(key));
    let parsed: hookbridge::config::AuthSettings = toml::from_str(line).unwrap();
    assert_eq!(parsed.keys[0].name, "partner \"x\"");
    let broker = Broker::embedded();
    let bridge = TestBridge::start_with(&broker, |config| config.auth = parsed).await;
    let request = sender().post(bridge.url()).bearer_auth(key).body(click("7"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);

    // A key that the sender chose, from standard input.
    let mut command = hookbridge(["key", "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"the-key-of-its-own\n").unwrap();
    let printed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let hash = hookbridge::click::auth::format_hash(&hookbridge::click::auth::hash_key(
        b"the-key-of-its-own",
    ));
    assert!(
        printed.contains(&format!("{{ name = \"opptima\", sha256 = \"{hash}\" }}")),
        "{printed}"
    );
    assert!(!printed.contains("the-key-of-its-own"), "{printed}");

    // One that can be guessed has to be asked for by name.
    for (key, allowed, code, words) in [
        ("15-bytes-of-key", false, 1, "has 15 bytes, and fewer than 16 can be guessed"),
        ("15-bytes-of-key", true, 0, "sha256 = "),
        ("user:password", false, 1, "an example of the documentation"),
        ("a-long-user-name:password", false, 1, "the password of this pair has 8 bytes"),
        ("a-long-partner", false, 1, "is its own name"),
    ] {
        let mut command = hookbridge(["key", "--name", "a-long-partner", "--stdin"]);
        command.args(allowed.then_some("--allow-short"));
        let run =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = run.unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), key.as_bytes()).unwrap();
        let (out, err) = texts(&child.wait_with_output().unwrap(), code);
        assert!((out.clone() + &err).contains(words), "{key}: {out}{err}");
    }
}

on_every_broker! {
    /// `serve` logs JSON without secrets.
    async fn serve_runs_from_a_file_and_health_reports_the_probe(broker: Broker) {
        let mut config = config(&broker);
        config.webhook[0].invalid = InvalidBody::Reject;
        let folder = tempfile::tempdir().unwrap();
        let serve = Serve::launch(&config, folder.path(), "true");
        let healthy = || hookbridge(["health", "--config"]).arg(&serve.file).output().unwrap();
        until("ready", async || healthy().status.success()).await;
        // The topic is missing: the log says what to do.
        let post = async |body: Vec<u8>| serve.post(body).send().await.unwrap().status();
        assert_eq!(post(click("someone@example.com")).await, 503);
        broker.create_topic(&config.webhook[0].topic, 3).await;
        until("held", async || post(click("someone@example.com")).await == 200).await;
        assert_eq!(post(b"{\"email\":\"someone@example.com\"".to_vec()).await, 400);
        let (code, log) = serve.stop();
        assert_eq!(code, 0, "{log}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
        assert!(log.contains("create it: kafka-topics.sh"), "{log}");
        assert!(log.contains("\"outcome\":\"malformed\""), "{log}");
        assert!(log.contains("\"caller\":\"api_key\""), "{log}");
        for secret in [KEY, "someone@example.com"] {
            assert!(!log.contains(secret), "{log}");
        }
    }
}

/// The printed `curl` line works, and its record is shown.
#[tokio::test]
async fn dev_works_without_kafka_and_settings() {
    let mut dev = hookbridge(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut dev = Running(dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let lines = lines(dev.0.stdout.take().unwrap());
    let find = |start: &str| loop {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        if line.starts_with(start) {
            return line;
        }
    };
    let page = find("the live page is");
    let (curl, kcat) = (find("curl "), find("kcat "));
    find("Records as they land");
    let output = Command::new("sh").args(["-c", &curl]).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.ends_with("Webhook recibido correctamente"), "{curl}: {answer}");
    let record = lines.recv_timeout(PATIENCE).unwrap();
    assert!(record.starts_with("partition  8  offset    0  key 12345  {\"type\""), "{record}");
    let page = page.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let html = reqwest::get(page).await.unwrap().text().await.unwrap();
    assert!(html.contains("Last records") && !html.contains("admin.tail = true"), "{html}");
    let words: Vec<&str> = kcat.split(' ').collect();
    assert_eq!(count(words[2], words[4]), 1);
    dev.signal("INT");
    assert_eq!(dev.end(), 0);
}
