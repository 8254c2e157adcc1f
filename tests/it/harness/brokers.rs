//! The brokers that tests run on.
//!
//! - [`Broker::embedded`]: librdkafka's mock cluster, one for each test.
//! - [`Broker::kafka`]: an Apache Kafka that this file starts (KRaft, one node, free ports, a
//!   temporary folder) from jars that Maven fetches, or the one that `HOOKBRIDGE_TEST_BROKERS` names.
//!   All tests share it, each with a topic of its own. Where Java or Maven is missing, the tests say
//!   so and pass without it; with `HOOKBRIDGE_REQUIRE_KAFKA=1` they fail.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use hookbridge::kafka::DevelopmentBroker;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::Instant;

use super::ports;

/// How long a broker may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// The SASL user with every right.
pub const USER: (&str, &str) = ("clicks", "correct-horse");
/// A SASL user without any right.
pub const UNPRIVILEGED: (&str, &str) = ("unprivileged", "battery-staple");

pub enum Broker {
    Embedded(DevelopmentBroker),
    Kafka(String),
}

impl Broker {
    pub fn embedded() -> Broker {
        Broker::Embedded(DevelopmentBroker::start(1).expect("a development broker"))
    }

    /// The shared Apache Kafka, if it is available.
    pub fn kafka() -> Option<Broker> {
        if let Some(addresses) = variable("HOOKBRIDGE_TEST_BROKERS") {
            return Some(Broker::Kafka(addresses));
        }
        shared().map(|kafka| Broker::Kafka(kafka.plaintext()))
    }

    pub fn addresses(&self) -> String {
        match self {
            Broker::Embedded(broker) => broker.addresses(),
            Broker::Kafka(addresses) => addresses.clone(),
        }
    }

    pub async fn create_topic(&self, topic: &str, partitions: i32) {
        match self {
            Broker::Embedded(broker) => {
                broker.create_topic(topic, partitions).expect("a topic");
            }
            Broker::Kafka(addresses) => {
                create_topic(addresses, topic, partitions, 1, &[]).await;
            }
        }
    }

    /// The development broker, for faults that only it can simulate.
    pub fn development(&self) -> &DevelopmentBroker {
        match self {
            Broker::Embedded(broker) => broker,
            Broker::Kafka(_) => panic!("this scenario is for the development broker"),
        }
    }
}

pub async fn create_topic(
    addresses: &str,
    topic: &str,
    partitions: i32,
    replicas: i32,
    options: &[(&str, &str)],
) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", addresses).create().expect("a client");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    let new = options.iter().fold(new, |new, (name, value)| new.set(name, value));
    let created = admin.create_topics([&new], &AdminOptions::new()).await.expect("an answer");
    created.into_iter().for_each(|result| drop(result.expect("a topic")));
    // Clients see a new topic with a short delay.
    let consumer = consumer(addresses);
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), START_TIMEOUT).expect("metadata");
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.is_some_and(|found| {
            found.partitions().len() == partitions as usize
                && found.partitions().iter().all(|partition| partition.leader() >= 0)
        }) {
            return;
        }
        assert!(Instant::now() < deadline, "{topic} does not come up");
    }
}

pub async fn delete_topic(addresses: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", addresses).create().expect("a client");
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
    deleted.into_iter().for_each(|result| drop(result.expect("deleted")));
}

/// Whether these brokers know the topic.
pub fn has_topic(addresses: &str, topic: &str) -> bool {
    let metadata = consumer(addresses).fetch_metadata(None, START_TIMEOUT).expect("metadata");
    metadata.topics().iter().any(|found| found.name() == topic)
}

pub fn consumer(addresses: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", addresses)
        .set("group.id", "test")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config.create().expect("a consumer")
}

/// How many records a topic holds.
pub fn count(brokers: &str, topic: &str) -> i64 {
    counts(brokers, topic).into_iter().sum()
}

/// How many records each partition of a topic holds.
pub fn counts(brokers: &str, topic: &str) -> Vec<i64> {
    let consumer = consumer(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), START_TIMEOUT).expect("metadata");
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| partition_count(&consumer, topic, partition.id())).collect()
}

fn partition_count(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match consumer.fetch_watermarks(topic, partition, START_TIMEOUT) {
            Ok((low, high)) => return high - low,
            // Its leader may be moving.
            Err(error) => assert!(Instant::now() < deadline, "no watermarks: {error}"),
        }
    }
}

/// A unique name with this prefix.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// The Apache Kafka that all tests use; none where Java or Maven is missing.
pub fn shared() -> Option<&'static Kafka> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    SHARED.get_or_init(Kafka::start).as_ref()
}

/// Defines a test for each broker.
#[macro_export]
macro_rules! on_every_broker {
    ($(#[$doc:meta])* async fn $name:ident($broker:ident: Broker) $body:block) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn scenario($broker: $crate::harness::brokers::Broker) $body

            #[tokio::test]
            async fn embedded() {
                scenario($crate::harness::brokers::Broker::embedded()).await;
            }

            #[tokio::test]
            async fn kafka() {
                if let Some(broker) = $crate::harness::brokers::Broker::kafka() {
                    scenario(broker).await;
                }
            }
        }
    };
}

/// A node of Apache Kafka in KRaft mode: the first, which is also the controller, or a further broker.
///
/// It listens in plain text, and over TLS with SCRAM-SHA-512 or PLAIN for [`USER`] and [`UNPRIVILEGED`].
pub struct Kafka {
    node: u16,
    folder: PathBuf,
    ports: Ports,
    more: More,
    process: Mutex<Option<Process>>,
}

/// What a broker has beyond the usual.
#[derive(Clone, Default)]
pub struct More {
    /// Name, port and protocol; all on localhost.
    pub listeners: Vec<(&'static str, u16, &'static str)>,
    pub super_users: &'static str,
    pub properties: String,
    pub classes: PathBuf,
    pub java_options: String,
}

struct Ports {
    plaintext: u16,
    sasl_ssl: u16,
    controller: u16,
    /// A plain-text listener that advertises `proxy` as its address.
    proxied: u16,
    proxy: u16,
}

impl Ports {
    fn free() -> Ports {
        let [plaintext, sasl_ssl, controller, proxied, proxy] =
            [(); 5].map(|()| ports::free(Ipv4Addr::LOCALHOST).port());
        Ports { plaintext, sasl_ssl, controller, proxied, proxy }
    }
}

/// The broker's guard: a shell that kills the broker when its standard input closes. It also closes
/// when the tests are killed.
struct Process {
    shell: Child,
    _lifeline: ChildStdin,
}

impl Kafka {
    /// A new cluster of one node; none where Java or Maven is missing.
    pub fn start() -> Option<Kafka> {
        jars()?;
        Some(Kafka::node(1, Ports::free(), More::default()))
    }

    /// A new cluster of one node that has more; none where Java or Maven is missing.
    pub fn start_with(more: More) -> Option<Kafka> {
        jars()?;
        Some(Kafka::node(1, Ports::free(), more))
    }

    /// Adds a broker to the cluster.
    pub fn add_broker(&self) -> Kafka {
        self.add_node(self.node + 1)
    }

    fn add_node(&self, node: u16) -> Kafka {
        let ports = Ports { controller: self.ports.controller, ..Ports::free() };
        Kafka::node(node, ports, More::default())
    }

    /// A new cluster of three nodes; none where Java or Maven is missing.
    pub fn start_three() -> Option<[Kafka; 3]> {
        let first = Kafka::start()?;
        let (second, third) = (first.add_node(2), first.add_node(3));
        Some([first, second, third])
    }

    /// The advertised port and the real port, for a proxy between the two.
    pub fn proxy_ports(&self) -> (u16, u16) {
        (self.ports.proxy, self.ports.proxied)
    }

    fn node(node: u16, ports: Ports, more: More) -> Kafka {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("kafka"));
        fs::create_dir_all(&folder).expect("a folder");
        let kafka = Kafka { node, folder, ports, more, process: Mutex::new(None) };
        kafka.make_certificate();
        fs::write(kafka.settings(), kafka.properties()).expect("settings");
        kafka.format();
        kafka.resume();
        kafka
    }

    pub fn plaintext(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plaintext)
    }

    pub fn sasl_ssl(&self) -> String {
        format!("localhost:{}", self.ports.sasl_ssl)
    }

    /// The certificate that signs the broker's.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("broker.pem")
    }

    /// Kills the broker; its disk stays.
    pub fn kill(&self) {
        fs::write(self.keep(), "").expect("a mark");
        self.end();
    }

    /// The file that tells the guard to keep the disk.
    fn keep(&self) -> PathBuf {
        self.folder.join("keep")
    }

    /// How many bytes of records this broker has of a topic.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn bytes_of(&self, topic: &str) -> u64 {
        let partitions = fs::read_dir(self.folder.join("data")).expect("the broker's data");
        let of_topic = partitions.map(|entry| entry.expect("a partition").path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.rsplit_once('-').is_some_and(|(name, _)| name == topic)
        });
        let files = of_topic.flat_map(|partition| fs::read_dir(partition).expect("its files"));
        let files = files.map(|entry| entry.expect("a file"));
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.map(|log| log.metadata().expect("its length").len()).sum()
    }

    /// The broker's process.
    pub fn pid(&self) -> u32 {
        let pid = fs::read_to_string(self.folder.join("pid")).expect("a process");
        pid.trim().parse().expect("a number")
    }

    /// Sends the broker a signal, such as STOP.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    fn end(&self) {
        let Some(Process { mut shell, _lifeline }) = self.process.lock().unwrap().take() else {
            return;
        };
        drop(_lifeline);
        shell.wait().expect("the broker's guard ends");
    }

    /// Starts the broker on its disk and waits until it answers.
    pub fn resume(&self) {
        let command = format!(
            "java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=error {} -cp '{}/*:{}' kafka.Kafka {} > {} 2>&1 & broker=$!; \
             echo $broker > {folder}/pid; cat > /dev/null; kill -9 $broker; wait $broker 2> /dev/null; \
             [ -e {keep} ] || rm -rf {folder}",
            self.more.java_options,
            jars().expect("jars").display(),
            self.more.classes.display(),
            self.settings().display(),
            self.folder.join("broker.log").display(),
            keep = self.keep().display(),
            folder = self.folder.display(),
        );
        let _ = fs::remove_file(self.keep());
        let mut shell = Command::new("sh")
            .args(["-c", &command])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let lifeline = shell.stdin.take().expect("a pipe");
        *self.process.lock().unwrap() = Some(Process { shell, _lifeline: lifeline });
        let deadline = Instant::now() + START_TIMEOUT;
        let consumer = consumer(&self.plaintext());
        while consumer.fetch_metadata(None, Duration::from_secs(1)).is_err() {
            assert!(!self.has_ended(), "the broker ended: {}", self.log());
            assert!(Instant::now() < deadline, "the broker does not start: {}", self.log());
        }
    }

    /// Whether the broker has ended by itself. Its guard notices that only when it kills the broker.
    fn has_ended(&self) -> bool {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    }

    /// The broker's log.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("broker.log")).unwrap_or_default()
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn properties(&self) -> String {
        let Ports { plaintext, sasl_ssl, controller, proxied, proxy } = self.ports;
        let folder = self.folder.display();
        let (user, password) = USER;
        let (other, other_password) = UNPRIVILEGED;
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let node = self.node;
        let mut roles = "broker".to_owned();
        let mut listeners =
            format!("PLAINTEXT://127.0.0.1:{plaintext},SASL_SSL://localhost:{sasl_ssl}");
        let mut protocols = String::new();
        for (name, port, protocol) in &self.more.listeners {
            listeners.push_str(&format!(",{name}://localhost:{port}"));
            protocols.push_str(&format!(",{name}:{protocol}"));
        }
        let (more, super_users) = (&self.more.properties, self.more.super_users);
        let advertised = format!("{listeners},PROXIED://127.0.0.1:{proxy}");
        listeners.push_str(&format!(",PROXIED://127.0.0.1:{proxied}"));
        if node == 1 {
            roles.push_str(",controller");
            listeners.push_str(&format!(",CONTROLLER://127.0.0.1:{controller}"));
        }
        format!(
            "process.roles={roles}\n\
             node.id={node}\n\
             broker.session.timeout.ms=3000\n\
             replica.lag.time.max.ms=3000\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listeners}\n\
             advertised.listeners={advertised}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
             SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT{protocols}\n\
             inter.broker.listener.name=PLAINTEXT\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config={plain} \
             user_{user}=\"{password}\" user_{other}=\"{other_password}\";\n\
             listener.name.sasl_ssl.ssl.keystore.location={folder}/broker.p12\n\
             listener.name.sasl_ssl.ssl.keystore.password=changeit\n\
             listener.name.sasl_ssl.ssl.keystore.type=PKCS12\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:{user}{super_users}\n\
             log.dirs={folder}/data\n\
             auto.create.topics.enable=true\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             {more}"
        )
    }

    fn make_certificate(&self) {
        let keystore = self.folder.join("broker.p12");
        run(Command::new("keytool")
            .args(["-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-validity", "30"])
            .args(["-dname", "CN=localhost", "-ext", "SAN=dns:localhost,ip:127.0.0.1"])
            .args(["-ext", "bc=ca:true", "-storetype", "PKCS12", "-storepass", "changeit"])
            .arg("-keystore")
            .arg(&keystore));
        run(Command::new("keytool")
            .args(["-exportcert", "-rfc", "-alias", "broker", "-storepass", "changeit"])
            .arg("-keystore")
            .arg(&keystore)
            .arg("-file")
            .arg(self.ca_file()));
    }

    fn format(&self) {
        let mut format = Command::new("java");
        format
            .arg("-cp")
            .arg(jars().expect("jars").join("*"))
            .args(["kafka.tools.StorageTool", "format", "-t", "aG9va2JyaWRnZS10ZXN0cw", "-c"])
            .arg(self.settings());
        for (user, password) in [USER, UNPRIVILEGED] {
            let credential = format!("SCRAM-SHA-512=[name={user},password={password}]");
            format.args(["--add-scram", &credential]);
        }
        run(&mut format);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A broker's jars, fetched once. Where Java or Maven is missing: none, with a message.
pub fn jars() -> Option<PathBuf> {
    static JARS: OnceLock<Option<PathBuf>> = OnceLock::new();
    JARS.get_or_init(|| match fetch_jars() {
        Ok(folder) => Some(folder),
        Err(reason) => {
            without("HOOKBRIDGE_REQUIRE_KAFKA", "ON A REAL KAFKA, only on the mock", &reason);
            None
        }
    })
    .clone()
}

/// Prints what is not tested because a program is missing; fails where the variable requires it.
pub fn without(requires: &str, what: &str, reason: &str) {
    let is_required = variable(requires).is_some_and(|value| value == "1");
    assert!(!is_required, "{requires} is set: {reason}");
    // The test runner captures the output of print macros.
    let line = format!("\nNOT TESTED {what}: {reason}\n\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
}

fn fetch_jars() -> Result<PathBuf, String> {
    let version = Command::new("java").arg("-version").output();
    version.map_err(|error| format!("java cannot be run ({error})"))?;
    fetch("tests/kafka/pom.xml", "kafka-jars")
}

/// Fetches the jars that a POM of this repository names, once.
///
/// # Errors
///
/// Maven's output, when it fails.
pub fn fetch(pom: &str, folder: &str) -> Result<PathBuf, String> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join(pom);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let fetched = folder.join("fetched-for.xml");
    let wanted = fs::read(&pom).map_err(|error| error.to_string())?;
    if fs::read(&fetched).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    let output = Command::new("mvn")
        // A file whose checksum is wrong is refused; without -C Maven only warns.
        .args(["-q", "-B", "-C", "dependency:copy-dependencies", "-f"])
        .arg(&pom)
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .output()
        .map_err(|error| format!("mvn cannot be run ({error})"))?;
    if !output.status.success() {
        return Err(format!("Maven failed: {}", String::from_utf8_lossy(&output.stdout)));
    }
    fs::write(fetched, wanted).map_err(|error| error.to_string())?;
    Ok(folder)
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed: {out}{err}");
    out.into_owned()
}

#[expect(clippy::disallowed_methods, reason = "tests are told where the broker is")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
