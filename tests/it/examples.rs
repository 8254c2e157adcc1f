//! The examples for readers of the topic: each answers the same question over the same clicks. The long ones
//! are ignored here; `.ci/more` runs them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use hookbridge::kafka::{Reader, TopicPosition};
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::dead_letters::header;
use crate::harness::brokers::{Broker, Kafka, count, create_topic, fetch, run, unique};
use crate::harness::ports;
use crate::harness::postgres::Postgres;
use crate::harness::process::{Running, hookbridge, lines, settings_file, texts};
use crate::harness::support::{PATIENCE, TestBridge};

/// How long an example may take, including Java's compilation of the source.
const START_TIME: Duration = Duration::from_secs(300);

/// How long to wait for the next count before looking at the process.
const POLL_TIME: Duration = Duration::from_millis(500);

/// Bodies that are no clicks: one is not JSON, three are.
const DEAD_LETTERS: [&str; 4] = ["{", "[]", r#"{"campid":1.5}"#, r#"{"campid":7,"event":"open"}"#];

/// Each takes a JVM or two.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The clicks in a topic, the names of campaigns in another, and the answer: the name and the clicks of each
/// `CAMPAIGN@HOUR`.
struct Question {
    broker: Broker,
    bridge: TestBridge,
    campaigns: String,
    counts: String,
    answer: Answer,
    folder: TempDir,
    _kafka: Kafka,
    _turn: MutexGuard<'static, ()>,
}

type Answer = BTreeMap<String, (String, u64)>;

/// The campaigns by their keys, each as senders write it.
fn campaigns() -> Vec<(String, Vec<String>)> {
    let numbers = (1..=12).map(|id| (id.to_string(), vec![id.to_string(), format!("\"{id}\"")]));
    let texts =
        [("007", "\"007\""), ("café 😀", r#""caf\u00e9 \ud83d\ude00""#), ("a'b", "\"a'b\"")];
    let texts = texts.map(|(key, text)| (key.to_owned(), vec![text.to_owned()]));
    numbers.chain(texts).collect()
}

fn name(campaign: &str) -> String {
    format!("The \"name\" of {campaign}; d'été")
}

/// A click with this number, at this time, in one of the forms that senders write.
fn click(campaign: &str, number: usize, time: Timestamp) -> String {
    let offset = hookbridge::click::event::parse_offset("-05:00").unwrap();
    let time = offset.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let rest = format!(r#""contactId":{number},"timestamp":"{time}""#);
    match number % 8 {
        0 => format!(r#"{{"c\u0061mpid":{campaign},{rest}}}"#),
        1 => format!(r#"{{"campid":{campaign},"utm":{{"a":[1,{{"b":null}}]}},"n":1e400,{rest}}}"#),
        2 => format!(r#"{{"campid":{campaign},"latitude":"4.6","longitude":-74,{rest}}}"#),
        3 => format!(r#"{{"campid":{campaign},"latitude":"n/a","longitude":{{}},{rest}}}"#),
        4 => {
            format!(r#"{{"campid":{campaign},"subject":"\u0000 \ud83d\ude00 \"x\" \\ \n",{rest}}}"#)
        }
        5 => format!("\u{feff} {{\"campid\": {campaign} ,\t\"subject\":null,{rest}}}\r\n"),
        6 => format!(r#"{{"campid":"no","subject":[1],"campid":{campaign},{rest}}}"#),
        _ => format!(r#"{{"campid":{campaign},"type":"EMAIL Marketing","event":"Click",{rest}}}"#),
    }
}

impl Question {
    /// Posts the clicks: of whole hours, some of them late, each twice, and dead letters beside.
    async fn ask() -> Option<Question> {
        let turn = ONE_AT_A_TIME.lock().await;
        let kafka = Kafka::start()?;
        let broker = Broker::Kafka(kafka.plaintext());
        let bridge = TestBridge::start(&broker).await;
        let (names, counts) = (unique("campaigns"), unique("counts"));
        // Its rows are as old as can be; retention would delete them.
        let compact = [("cleanup.policy", "compact")];
        create_topic(&broker.addresses(), &names, 12, 1, &compact).await;
        broker.create_topic(&counts, 1).await;
        let streams = fetch("deploy/examples/streams/pom.xml", "streams-jars").expect("jars");
        let mut java = Command::new("java");
        java.arg("-cp").arg(streams.join("*")).arg(source("streams/Campaigns.java"));
        // Java reads its arguments in the locale's encoding.
        java.env("LC_ALL", "C.UTF-8").args([&broker.addresses(), &names]);
        run(java.args(campaigns().iter().map(|(key, _)| format!("{key}={}", name(key)))));

        let now = Timestamp::now().round(Unit::Hour).unwrap() - SignedDuration::from_hours(1);
        let hours = [0, 3, 100].map(|hours| now - SignedDuration::from_hours(hours));
        let (mut answer, mut bodies) = (Answer::new(), Vec::new());
        for (back, hour) in hours.iter().enumerate() {
            for (place, (key, texts)) in campaigns().iter().enumerate() {
                for nth in 0..=(place + back) % 3 {
                    let time = *hour + SignedDuration::from_secs(nth as i64);
                    bodies.push(click(&texts[nth % texts.len()], bodies.len(), time));
                    let count = answer.entry(format!("{key}@{hour}")).or_default();
                    *count = (name(key), count.1 + 1);
                }
            }
        }
        // This campaign has no name.
        bodies.push(click("\"unknown\"", bodies.len(), now));
        // The duplicates come after all others, and in another order.
        let again = bodies.iter().rev().cloned().collect::<Vec<_>>();
        for body in bodies.iter().chain(&again) {
            assert_eq!(bridge.post(body.clone()).await.status(), StatusCode::OK);
        }
        for body in DEAD_LETTERS {
            assert_eq!(bridge.post(body).await.status(), StatusCode::OK);
        }
        // An example starts once all is there; nothing that it needs comes later.
        assert_eq!(bridge.count(), 2 * bodies.len() as i64);
        assert_eq!(count(&broker.addresses(), &names), campaigns().len() as i64);
        let letters = bridge.config.webhook[0].dead_letters();
        assert_eq!(count(&broker.addresses(), &letters), DEAD_LETTERS.len() as i64);
        Some(Question {
            broker,
            bridge,
            campaigns: names,
            counts,
            answer,
            folder: tempfile::tempdir().unwrap(),
            _kafka: kafka,
            _turn: turn,
        })
    }

    /// The example's command, with its jars, the program and its settings.
    fn example(&self, example: &str) -> Command {
        let mut command = Command::new(source(&format!("{example}/run")));
        let pom = format!("deploy/examples/{example}/pom.xml");
        if std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&pom).exists() {
            command.env("JARS", fetch(&pom, &format!("{example}-jars")).expect("jars"));
        }
        command
            .env("HOOKBRIDGE", env!("CARGO_BIN_EXE_hookbridge"))
            .env("HOOKBRIDGE_CONFIG", settings_file(self.folder.path(), &self.bridge.config))
            .env("JAVA_OPTIONS", "-Xmx700m")
            .stdin(Stdio::null());
        command
    }

    /// What `hookbridge schema` prints of the webhook.
    fn schema(&self, format: &str) -> String {
        let mut schema = hookbridge(["schema", "--format", format, "--config"]);
        run(schema.arg(settings_file(self.folder.path(), &self.bridge.config)))
    }

    /// Starts the example, and waits until the last count of each campaign and hour is the right one. Returns
    /// how many counts came.
    fn is_answered_by(&self, mut command: Command) -> usize {
        let mut process = Running(command.spawn().expect("the example"));
        let reader =
            Reader::open(&self.bridge.config, &self.counts, TopicPosition::Beginning, PATIENCE);
        let reader = reader.expect("a reader");
        let (mut last, mut seen) = (Answer::new(), 0);
        let deadline = Instant::now() + START_TIME;
        while last != self.answer {
            let missing: Vec<_> =
                self.answer.iter().filter(|(k, v)| last.get(*k) != Some(v)).collect();
            assert!(Instant::now() < deadline, "wanted {missing:?}, got {last:?}");
            still_runs(&mut process);
            let Some(record) = reader.next(POLL_TIME).expect("a record") else { continue };
            // A deletion has no value.
            let Ok(count) = serde_json::from_slice::<Value>(&record.value) else { continue };
            let key = match count["campid"].as_str() {
                Some(campaign) => format!("{campaign}@{}", count["hour"].as_str().unwrap()),
                None => String::from_utf8(record.key.unwrap()).unwrap(),
            };
            let name = count["campaign"].as_str().unwrap().to_owned();
            last.insert(key, (name, count["clicks"].as_u64().unwrap()));
            seen += 1;
        }
        seen
    }
}

/// An example that reads on has no end: on an error it prints that, and ends.
#[track_caller]
fn still_runs(example: &mut Running) {
    let end = example.0.try_wait().expect("a process");
    assert!(end.is_none(), "the example ended: {end:?}");
}

/// The path of a file of the examples.
fn source(file: &str) -> String {
    format!("{}/deploy/examples/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// The join requires that hookbridge and the Java producer of names choose the same partition.
#[tokio::test]
async fn kafka_streams() {
    let Some(question) = Question::ask().await else { return };
    let mut streams = question.example("streams");
    let Question { broker, bridge, campaigns, counts, .. } = &question;
    streams.args([&broker.addresses(), bridge.topic(), campaigns, counts]);
    question.is_answered_by(streams);
}

/// The tables are those of `hookbridge schema`.
#[tokio::test]
async fn flink_sql() {
    let Some(question) = Question::ask().await else { return };
    let mut flink = question.example("flink-sql");
    flink.args([&question.broker.addresses(), &question.campaigns, &question.counts]);
    question.is_answered_by(flink);
}

/// What was not understood today, by reason.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn flink_sql_of_dead_letters() {
    let question = Question::ask().await.expect("a Kafka");
    let mut flink = question.example("flink-sql");
    flink.args([&question.broker.addresses(), &question.campaigns, &question.counts]);
    flink.arg("dead-letters-today.sql").stdout(Stdio::piped());
    let mut process = Running(flink.spawn().expect("the example"));
    let lines = lines(process.0.stdout.take().unwrap());
    // Each line is a change: the operation, reason, detail, sender, the number of bodies and the last time.
    let (mut bodies, deadline) = (BTreeMap::new(), Instant::now() + START_TIME);
    while bodies.values().sum::<u64>() < DEAD_LETTERS.len() as u64 {
        assert!(Instant::now() < deadline, "{bodies:?}");
        let Ok(line) = lines.recv_timeout(POLL_TIME) else {
            still_runs(&mut process);
            continue;
        };
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", "+I" | "+U", reason, detail, sender, count, ..] = cells[..] {
            let group = [reason, detail, sender].map(str::to_owned);
            bodies.insert(group, count.parse::<u64>().unwrap());
        }
    }
    let of = |reason: &str| -> u64 {
        bodies.iter().filter(|([found, ..], _)| found == reason).map(|(_, count)| count).sum()
    };
    assert_eq!((of("malformed"), of("invalid")), (1, 3), "{bodies:?}");
}

/// The lines that an example printed.
fn printed(text: &str) -> Answer {
    let line = |line: &str| {
        let (key, count) = line.split_once('\t').expect("a key and a count");
        let count: Value = serde_json::from_str(count).expect("JSON");
        (key.to_owned(), (count["campaign"].as_str()?.to_owned(), count["clicks"].as_u64()?)).into()
    };
    text.lines().filter_map(line).collect()
}

/// A Python with these packages.
fn python(requirements: &str, folder: &str) -> String {
    let venv = format!("{}/{folder}", env!("CARGO_TARGET_TMPDIR"));
    run(Command::new("python3").args(["-m", "venv", &venv]));
    let file = format!("{}/{requirements}", env!("CARGO_MANIFEST_DIR"));
    run(Command::new(format!("{venv}/bin/pip")).args(["install", "-q", "-r", &file]));
    venv
}

/// It reads with the CloudEvents SDK for Python.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn python_client() {
    let question = Question::ask().await.expect("a Kafka");
    let mut client = question.example("python");
    client.env("VENV", python("deploy/examples/python/requirements.txt", "python-venv"));
    client.args([&question.broker.addresses(), question.bridge.topic(), &question.campaigns]);
    assert_eq!(printed(&run(&mut client)), question.answer);
}

/// Each click makes one record, although the job is killed again and again.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn flink() {
    let mut question = Question::ask().await.expect("a Kafka");
    let command = |question: &Question| {
        let mut flink = question.example("flink");
        let Question { broker, bridge, campaigns, counts, folder, .. } = question;
        flink.args([&broker.addresses(), bridge.topic(), campaigns, counts]);
        flink.arg(folder.path().join("checkpoints"));
        flink
    };
    let hour = Timestamp::now().round(Unit::Hour).unwrap() - SignedDuration::from_hours(2);
    let count = |question: &Question| count(&question.broker.addresses(), &question.counts);
    let (mut more, deadline) = (0, Instant::now() + 2 * START_TIME);
    for _ in 0..2 {
        let mut flink = Running(command(&question).spawn().expect("the example"));
        let before = count(&question);
        // What is counted has an offset for the end of each transaction, too.
        while count(&question) < before + 20 {
            assert!(Instant::now() < deadline, "the job does not go on");
            still_runs(&mut flink);
            let body = click("\"1\"", 1_000 + more, hour);
            assert_eq!(question.bridge.post(body).await.status(), StatusCode::OK);
            more += 1;
        }
    }
    question.answer.insert(format!("1@{hour}"), (name("1"), more as u64));
    let clicks: u64 = question.answer.values().map(|(_, clicks)| clicks).sum();
    assert_eq!(question.is_answered_by(command(&question)) as u64, clicks);
}

#[tokio::test]
#[ignore = "long: .ci/more"]
async fn spark() {
    let question = Question::ask().await.expect("a Kafka");
    let mut spark = question.example("spark");
    spark.args([&question.broker.addresses(), &question.campaigns, &question.counts]);
    spark.arg(question.folder.path().join("checkpoints"));
    question.is_answered_by(spark);
}

/// The clicks, and the dead letters beside, in PostgreSQL.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn connect() {
    let question = Question::ask().await.expect("a Kafka");
    let postgres = Postgres::start();
    let mut tables = question.schema("postgres");
    tables.push_str("CREATE TABLE campaigns (campid text PRIMARY KEY, name text NOT NULL);\n");
    for (key, _) in campaigns() {
        let row = [key.clone(), name(&key)].map(|text| format!("'{}'", text.replace('\'', "''")));
        tables.push_str(&format!("INSERT INTO campaigns VALUES ({});\n", row.join(", ")));
    }
    postgres.query(&tables);
    let mut connect = question.example("connect");
    let url = format!("connection.url=jdbc:postgresql://127.0.0.1:{}/postgres", postgres.port);
    connect.args([&question.broker.addresses(), &url]);
    connect.env("LISTENERS", format!("http://{}", ports::free(Ipv4Addr::LOCALHOST)));
    let mut connect = Running(connect.spawn().expect("the example"));
    let query = |file: &str| postgres.query(&std::fs::read_to_string(source(file)).unwrap());
    let deadline = Instant::now() + START_TIME;
    loop {
        let found = printed(&query("connect/clicks-per-hour.sql"));
        let letters = query("connect/dead-letters-today.sql");
        if found == question.answer && letters.lines().count() == 4 {
            assert!(
                letters.contains("invalid\tThe event has no usable key\tapi_key\t1\t"),
                "{letters}"
            );
            break;
        }
        still_runs(&mut connect);
        assert!(Instant::now() < deadline, "{found:?} {letters}");
        tokio::time::sleep(POLL_TIME).await;
    }
    // Of each eighth click the latitude is 4.6, as text; jsonb takes no \u0000, and the row is there.
    let fields = "SELECT count(*) FILTER (WHERE latitude = 4.6), count(*) FILTER (WHERE latitude <> 4.6), \
                  count(*) FILTER (WHERE \"contactId\" IS NULL), count(*) FROM email_marketing_click_fields";
    let clicks = (question.bridge.count() / 2) as usize;
    let of_form = |form: usize| (0..clicks).filter(|number| number % 8 == form).count();
    let expected = format!("{}\t0\t{}\t{clicks}", of_form(2), of_form(4));
    assert_eq!(postgres.query(fields).trim(), expected);
}

/// ClickHouse as a library, without its Kafka engine.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn clickhouse() {
    let question = Question::ask().await.expect("a Kafka");
    let venv = python("tests/clickhouse/requirements.txt", "clickhouse-venv");
    let ddl = question.folder.path().join("clickhouse.sql");
    std::fs::write(&ddl, question.schema("clickhouse")).unwrap();
    let mut check = Command::new(format!("{venv}/bin/python"));
    check.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clickhouse/check.py"));
    check.args([&question.broker.addresses(), question.bridge.topic(), &question.campaigns]);
    check.arg(ddl).arg(source("clickhouse/clicks-per-hour.sql"));
    let out = run(check.env("PYTHONPATH", source("python")));
    let (counts, fields) = out.split_once("fields\t").expect("fields");
    assert_eq!(printed(counts), question.answer);
    let clicks = (question.bridge.count() / 2) as usize;
    let latitudes = (0..clicks).filter(|number| number % 8 == 2).count();
    let fields: Value = serde_json::from_str(fields.trim()).expect("JSON");
    assert_eq!(fields, serde_json::json!([latitudes, clicks - latitudes, clicks]));
}

/// The official SDK for Java reads records as valid CloudEvents, dead letters too.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn cloudevents() {
    let question = Question::ask().await.expect("a Kafka");
    let jars = fetch("tests/cloudevents/pom.xml", "cloudevents-jars").expect("jars").join("*");
    let folder = question.folder.path();
    let class = folder.join("EmailMarketingClick.java");
    std::fs::write(&class, question.schema("java")).unwrap();
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloudevents/Read.java");
    let mut javac = Command::new("javac");
    run(javac.arg("-d").arg(folder).arg("-cp").arg(&jars).arg(reader).arg(&class));
    let read = |topic: &str, count: usize| {
        let mut java = Command::new("java");
        java.arg("-cp").arg(format!("{}:{}", folder.display(), jars.display()));
        java.env("LC_ALL", "C.UTF-8");
        java.args(["-Xmx300m", "Read", &question.broker.addresses(), topic, &count.to_string()]);
        let out = run(&mut java);
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let topic = question.bridge.topic();
    let records = question.bridge.records(question.bridge.count() as usize);
    let events = read(topic, records.len());
    assert_eq!(events.len(), records.len());
    for record in records {
        let id = header(&record, "ce_id");
        let event = events.iter().find(|event| event["id"] == id).expect("the event");
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["source"], question.bridge.config.webhook[0].path);
        assert_eq!(event["type"], topic);
        assert_eq!(event["datacontenttype"], "application/json");
        let time: Timestamp = event["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(Some(time), record.timestamp);
        assert_eq!(event["data"].as_str().unwrap().as_bytes(), record.value);
        // What `hookbridge schema --format java` prints reads the fields, whatever their type.
        assert_eq!(event["campid"].as_str().unwrap().as_bytes(), record.key.unwrap());
        let number: usize = event["contactId"].as_str().unwrap().parse().unwrap();
        let latitude = if number % 8 == 2 { Value::from(4.6) } else { Value::Null };
        assert_eq!(event["latitude"], latitude, "{event}");
    }
    let letters = read(&question.bridge.config.webhook[0].dead_letters(), 4);
    assert!(letters.iter().all(|one| one["datacontenttype"] == "application/octet-stream"));
}

/// A schema registry with Confluent's API takes the schemas, and gives the same one the same id.
#[tokio::test]
#[ignore = "long: .ci/more"]
async fn registry() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let archives = fetch("tests/registry/pom.xml", "registry-jars").expect("the registry");
    let folder = tempfile::tempdir().unwrap();
    let archive = std::fs::read_dir(archives).unwrap().map(|file| file.unwrap().path());
    let archive = archive.into_iter().find(|file| file.extension().is_some_and(|end| end == "gz"));
    run(Command::new("tar")
        .arg("-xzf")
        .arg(archive.expect("an archive"))
        .arg("-C")
        .arg(folder.path()));
    let port = ports::free(Ipv4Addr::LOCALHOST).port();
    let mut java = Command::new("java");
    java.args(["-Xmx500m", &format!("-Dquarkus.http.port={port}")]);
    java.args(["-Dquarkus.http.host=127.0.0.1", "-jar"]);
    let runner = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let is_runner = |file: &std::path::PathBuf| file.to_string_lossy().ends_with("-runner.jar");
    java.arg(runner.into_iter().find(is_runner).expect("a runner")).current_dir(folder.path());
    let mut registry = Running(java.spawn().expect("java"));
    let url = format!("http://127.0.0.1:{port}/apis/ccompat/v7");
    let opptima = concat!(env!("CARGO_MANIFEST_DIR"), "/config/opptima.toml");
    let register = || {
        let mut command = hookbridge(["schema", "--config", opptima, "--register", &url]);
        let output = command.output().unwrap();
        (output.status.success(), texts(&output, output.status.code().unwrap()))
    };
    let deadline = Instant::now() + START_TIME;
    let first = loop {
        let (is_done, (out, err)) = register();
        if is_done {
            break out;
        }
        still_runs(&mut registry);
        assert!(Instant::now() < deadline, "{err}");
        tokio::time::sleep(POLL_TIME).await;
    };
    assert_eq!(first.lines().count(), 5);
    assert!(first.starts_with("opptima.email-marketing.click-value: id "), "{first}");
    assert_eq!(register(), (true, (first, String::new())));
    let get =
        reqwest::get(format!("{url}/subjects/opptima.email-marketing.click-value/versions/1"));
    let version: Value = serde_json::from_str(&get.await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(version["schemaType"], "JSON");
    let schema: Value = serde_json::from_str(version["schema"].as_str().unwrap()).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schemas/email-marketing-click.json");
    assert_eq!(schema, serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap());
}
