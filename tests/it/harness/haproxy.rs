//! HAProxy before several replicas, with the settings that users are given
//! (`deploy/haproxy/haproxy.cfg`), but for addresses and whose process it is.
//!
//! Where HAProxy is missing, what needs it says so and passes without it; with
//! `HOOKBRIDGE_REQUIRE_HAPROXY=1` it fails.

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

/// How long it may take to start or to take over new settings on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Debian puts it where only root looks.
const PROGRAMS: [&str; 2] = ["haproxy", "/usr/sbin/haproxy"];

/// The settings as shipped.
pub const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy/haproxy.cfg");

/// A replica, as HAProxy is told of it.
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
    /// Of the workers, the newest of which serves.
    master: Child,
}

impl HaProxy {
    /// One before these replicas; none where HAProxy is missing.
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

    /// Reloads its settings, now with these replicas: a new worker takes over, the old one finishes what
    /// it has.
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
        let info = self.ask("show info").ok()?;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).map(str::to_owned)
    }

    /// What it says to a command on its administrator's socket.
    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("admin.sock"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// What it has logged: its own state, and requests that failed or were tried again.
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
        // By itself, so that it waits for its workers; those of a master that is killed end, too.
        self.signal("TERM");
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

/// HAProxy, if it is there.
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
            // It runs as whoever runs it.
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
