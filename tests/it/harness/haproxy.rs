//! HAProxy in front of several replicas, with the shipped `deploy/haproxy/haproxy.cfg` except for
//! addresses and the user.
//!
//! Where HAProxy is missing, its tests say so and pass; with `HOOKBRIDGE_REQUIRE_HAPROXY=1` they fail.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::brokers::without;
use super::ports;

/// How long HAProxy may take to start or to reload on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Debian installs it outside the PATH of ordinary users.
const PROGRAMS: [&str; 2] = ["haproxy", "/usr/sbin/haproxy"];

/// The settings as shipped.
pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy/haproxy.cfg");

/// A replica in HAProxy's settings.
pub struct Server {
    pub name: String,
    pub http: SocketAddr,
    pub admin: SocketAddr,
}

/// A running HAProxy; it ends when dropped.
pub struct HaProxy {
    /// Where senders post.
    pub address: SocketAddr,
    folder: TempDir,
    /// The master process. Of its workers the newest one serves.
    master: Child,
}

impl HaProxy {
    /// Starts HAProxy in front of these replicas; none where it is missing.
    pub async fn start(servers: &[Server]) -> Option<HaProxy> {
        let mut run = program()?;
        let folder = tempfile::tempdir().expect("a folder");
        let address = ports::free(Ipv4Addr::LOCALHOST);
        fs::write(folder.path().join("haproxy.cfg"), settings(address, folder.path(), servers))
            .expect("settings");
        let log = File::create(folder.path().join("log")).expect("a file");
        run.arg("-W").arg("-f").arg(folder.path().join("haproxy.cfg"));
        run.stdout(log.try_clone().expect("a file")).stderr(log);
        let haproxy = HaProxy { address, folder, master: run.spawn().expect("HAProxy") };
        haproxy.serves_after(None).await;
        Some(haproxy)
    }

    /// Reloads the settings with these replicas: a new worker takes over, the old one finishes its requests.
    pub async fn reload(&self, servers: &[Server]) {
        let former = self.worker();
        let text = settings(self.address, self.folder.path(), servers);
        fs::write(self.folder.path().join("haproxy.cfg"), text).expect("settings");
        self.signal("USR2");
        self.serves_after(former).await;
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.master.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits for a worker that is not this one.
    async fn serves_after(&self, former: Option<String>) {
        let deadline = Instant::now() + TIMEOUT;
        while self.worker().is_none_or(|worker| Some(worker) == former) {
            assert!(Instant::now() < deadline, "HAProxy does not start: {}", self.log());
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// The process that serves new connections.
    fn worker(&self) -> Option<String> {
        let info = self.command("show info").ok()?;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).map(str::to_owned)
    }

    /// Runs a command on the admin socket and returns the answer.
    fn command(&self, command: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("admin.sock"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// HAProxy's log: its state, and requests that failed or were tried again.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many requests failed or were tried again.
    pub fn unusual_requests(&self) -> usize {
        self.log().matches("\"POST ").count()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // On SIGTERM the master waits for its workers.
        self.signal("TERM");
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

/// HAProxy, if it is installed.
pub fn program() -> Option<Command> {
    let runs = |program: &&str| Command::new(program).arg("-v").output().is_ok();
    let found = PROGRAMS.iter().find(|program| runs(program));
    if found.is_none() {
        without("HOOKBRIDGE_REQUIRE_HAPROXY", "BEHIND A BALANCER", "haproxy cannot be run");
    }
    found.map(Command::new)
}

/// The settings as shipped, with these addresses and this folder.
fn settings(address: SocketAddr, folder: &Path, servers: &[Server]) -> String {
    let shipped = fs::read_to_string(SHIPPED).expect("the shipped settings");
    let socket: PathBuf = folder.join("admin.sock");
    let mut changed = Vec::new();
    let mut text = String::new();
    for line in shipped.lines() {
        let word = line.trim_start().split(' ').next().unwrap_or_default();
        match word {
            "bind" => text.push_str(&format!("    bind {address}\n")),
            "stats" => {
                text.push_str(&format!("    stats socket {} level admin\n", socket.display()));
            }
            // HAProxy runs as the user of the tests; the servers come below.
            "user" | "group" | "server" => {}
            _ => {
                text.push_str(line);
                text.push('\n');
                continue;
            }
        }
        changed.push(word);
    }
    let expected = ["user", "group", "stats", "bind", "server", "server", "server"];
    assert_eq!(changed, expected, "the shipped settings have other lines");
    for Server { name, http, admin } in servers {
        text.push_str(&format!("    server {name} {http} port {}\n", admin.port()));
    }
    text
}
