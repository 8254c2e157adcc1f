//! The servers, each in its own process, and their use of CPU and memory.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hookbridge::config::Config;
use procfs::WithCurrentSystemInfo;
use procfs::process::{Process, Stat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::{Instant, sleep};

use crate::brokers::unique;
use crate::load::PATH;
use crate::peers::Peer;
use crate::{KEY, bare, floor, ports};

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The polling interval.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A running server; it ends when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where it takes clicks.
    pub url: String,
    /// The admin listener of the bridge.
    pub admin: SocketAddr,
    /// From its start until it was ready.
    pub start_time: Duration,
}

impl Server {
    pub async fn bare() -> Server {
        let address = ports::free(Ipv4Addr::LOCALHOST);
        let mut run = Command::new(std::env::current_exe().expect("this program"));
        run.args([bare::ARGUMENT, &address.to_string()]);
        Server::start(run, [address; 2], || listens(address)).await
    }

    pub async fn floor(brokers: &str, topic: &str) -> Server {
        let address = ports::free(Ipv4Addr::LOCALHOST);
        let mut run = Command::new(std::env::current_exe().expect("this program"));
        run.args([floor::ARGUMENT, &address.to_string(), brokers, topic]);
        Server::start(run, [address; 2], || listens(address)).await
    }

    pub async fn peer(peer: &Peer, brokers: &str, topic: &str, folder: &Path) -> Server {
        let free = ports::free(Ipv4Addr::LOCALHOST);
        let address = peer.start.port.map_or(free, |port| (Ipv4Addr::LOCALHOST, port).into());
        let folder = folder.join(unique("peer"));
        std::fs::create_dir(&folder).expect("a folder");
        let mut run = Command::new("sh");
        run.args(["-c", &peer.start.command]).current_dir(&peer.folder);
        run.env("BROKERS", brokers).env("TOPIC", topic).env("KEY", KEY).env("DIR", folder);
        run.env("PORT", address.port().to_string());
        let mut server = Server::start(run, [address; 2], || listens(address)).await;
        server.url = format!("http://{address}{}", peer.start.path);
        server
    }

    /// Starts the bridge with these settings, on free addresses.
    pub async fn bridge(config: &Config, folder: &Path) -> Server {
        let mut config = config.clone();
        ports::listen_on_free(&mut config, Ipv4Addr::LOCALHOST);
        let file = folder.join("hookbridge.toml");
        let settings = toml::to_string(&config).expect("settings");
        std::fs::write(&file, settings).expect("a settings file");
        let mut run = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
        run.args(["serve", "--config"]).arg(file).env("HOOKBRIDGE__AUTH__API_KEY", KEY);
        let url = format!("http://{}/readyz", config.admin.listen);
        let client = reqwest::Client::new();
        let is_ready = || {
            let answer = client.get(&url).send();
            async { answer.await.is_ok_and(|answer| answer.status().is_success()) }
        };
        Server::start(run, [config.http.listen, config.admin.listen], is_ready).await
    }

    async fn start<F: Future<Output = bool>>(
        mut run: Command,
        [address, admin]: [SocketAddr; 2],
        is_ready: impl Fn() -> F,
    ) -> Server {
        let began = Instant::now();
        let child = run.stderr(Stdio::null()).spawn().expect("a process");
        while !is_ready().await {
            assert!(began.elapsed() < START_TIMEOUT, "{run:?} does not become ready");
            sleep(LOOK_INTERVAL).await;
        }
        let url = format!("http://{address}{PATH}");
        Server { child, address, url, admin, start_time: began.elapsed() }
    }

    /// One of the bridge's metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("http://{}/metrics", self.admin)).await.expect("a scrape");
        let text = text.text().await.expect("a text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric").parse().expect("a number")
    }

    /// The CPU time of all its threads, user and system.
    pub fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        stat(self.child.id()).rss_bytes().get()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// The CPU time of a process.
pub fn cpu(pid: u32) -> Duration {
    let stat = stat(pid);
    let ticks = stat.utime + stat.stime;
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

fn stat(pid: u32) -> Stat {
    let pid = i32::try_from(pid).expect("a process id");
    Process::new(pid).and_then(|process| process.stat()).expect("a running process")
}

/// Raises the limit of descriptors to the maximum, for this process and its children.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("descriptors");
}
