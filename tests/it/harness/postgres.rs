//! A PostgreSQL for the examples that write into one.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::brokers::run;
use super::ports;
use super::process::Running;

const START_TIME: Duration = Duration::from_secs(120);

/// How often to look whether it has started.
const POLL_TIME: Duration = Duration::from_millis(500);

/// A PostgreSQL of its own, which does not run as root.
pub struct Postgres {
    pub port: u16,
    _server: Running,
    _folder: TempDir,
}

impl Postgres {
    pub fn start() -> Postgres {
        let folder = tempfile::tempdir().unwrap();
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL");
        let version = versions.map(|version| version.unwrap().path()).max().expect("PostgreSQL");
        let is_root = run(Command::new("id").arg("-u")).trim() == "0";
        let data = folder.path().join("data").display().to_string();
        let program = |name: &str| {
            let program = version.join("bin").join(name);
            if !is_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        };
        if is_root {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let mut initdb = program("initdb");
        run(initdb.args(["-D", &data, "-A", "trust", "-U", "clicks", "-E", "UTF8", "--no-sync"]));
        let port = ports::free(Ipv4Addr::LOCALHOST).port();
        let mut server = program("postgres");
        server.args(["-D", &data, "-h", "127.0.0.1", "-k", &data, "-p", &port.to_string()]);
        let server = Running(server.stderr(Stdio::null()).spawn().expect("a server"));
        let postgres = Postgres { port, _server: server, _folder: folder };
        let deadline = Instant::now() + START_TIME;
        while !postgres.psql("SELECT 1").output().expect("psql").status.success() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(POLL_TIME);
        }
        postgres
    }

    fn psql(&self, sql: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "clicks",
            "-d",
            "postgres",
        ]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-qAt", "-F", "\t", "-c", sql]);
        psql
    }

    /// What these statements print, a line for each row, with tabs between the columns.
    pub fn query(&self, sql: &str) -> String {
        run(&mut self.psql(sql))
    }
}
