//! Clients and proxies that senders use, as programs. What Debian has must be installed, as `.ci/run` does it;
//! what PyPI and npm have is fetched once, into the target folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::brokers::without;
use super::ports;
use super::process::Running;

/// How long one program may take on a busy machine, in seconds.
const TIMEOUT_S: &str = "300";

/// How long a proxy may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A file of `tests/clients`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Says that these are not tested, or fails where they are required.
pub fn missing(what: &str, reason: &str) {
    without("HOOKBRIDGE_REQUIRE_CLIENTS", &format!("{what} AS SENDERS"), reason);
}

/// The statuses of a client's requests, by their names: it prints each with a tab between. None where the
/// program is missing.
pub fn run(program: &Path, arguments: &[&str]) -> Option<BTreeMap<String, String>> {
    let name = program.display().to_string();
    let output = Command::new("timeout").arg(TIMEOUT_S).arg(program).args(arguments).output();
    let output = output.expect("timeout, of coreutils");
    // What `timeout` says of a program that is not there.
    if output.status.code() == Some(127) {
        missing(&name, "it cannot be run");
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {text}\n{errors}");
    let line = |line: &str| {
        let (name, status) = line.split_once('\t').unwrap_or((line, ""));
        (name.to_owned(), status.to_owned())
    };
    Some(text.lines().map(line).collect())
}

/// A folder in the target folder for what a list of packages needs; the command that fetches it runs once
/// for each version of the list.
fn fetched(list: &str, folder: &str, fetch: impl FnOnce(&Path) -> Option<()>) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    // One at a time, since several tests and threads may want the same.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let (wanted, done) = (fs::read(file(list)).expect("a list"), folder.join("fetched-for"));
    if fs::read(&done).is_ok_and(|have| have == wanted) {
        return Some(folder);
    }
    fs::create_dir_all(&folder).expect("a folder");
    fetch(&folder)?;
    fs::write(done, wanted).expect("written");
    Some(folder)
}

/// Runs a command of a package manager; none where it fails, which is said.
fn succeeds(what: &str, command: &mut Command) -> Option<()> {
    let output = command.stdin(Stdio::null()).output();
    let why = match &output {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    missing(what, &why);
    None
}

/// The folder of the programs of a Python with the packages of `requirements.txt`.
pub fn python() -> Option<PathBuf> {
    let environment = fetched("requirements.txt", "clients-python", |folder| {
        succeeds("Python", Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--require-hashes", "--requirement"]);
        succeeds("Python", pip.arg(file("requirements.txt")))
    });
    environment.map(|folder| folder.join("bin"))
}

/// The folder of Node's client with its packages.
pub fn node() -> Option<PathBuf> {
    let folder = fetched("package-lock.json", "clients-node", |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(file(name), folder.join(name)).expect("copied");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
        succeeds("Node", &mut npm)
    })?;
    fs::copy(file("client.mjs"), folder.join("client.mjs")).expect("copied");
    Some(folder)
}

/// A proxy in front of a bridge; it ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    _process: Running,
    _folder: TempDir,
}

impl Proxy {
    /// Starts a proxy with settings of `tests/clients/proxies`, whose path ends the arguments; none where it is
    /// missing.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        settings: &str,
        bridge: SocketAddr,
    ) -> Option<Proxy> {
        let name = program.display().to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let address = ports::free(Ipv4Addr::LOCALHOST);
        let text = fs::read_to_string(file("proxies").join(settings)).expect("settings");
        let text = text
            .replace("@PORT@", &address.port().to_string())
            .replace("@BRIDGE@", &bridge.port().to_string())
            .replace("@FOLDER@", &folder.path().display().to_string());
        let path = folder.path().join(settings);
        fs::write(&path, text).expect("written");
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(program);
        command.args(arguments).arg(&path).env("HOME", folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let process = match command.spawn() {
            Ok(process) => Running(process),
            Err(error) => {
                missing(&name, &error.to_string());
                return None;
            }
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{name} does not listen: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Proxy { address, _process: process, _folder: folder })
    }
}
