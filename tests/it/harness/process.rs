//! The built program as a process, with settings from a file.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use hookbridge::config::Config;
use reqwest::RequestBuilder;
use tokio::time::Instant;

use super::ports;
use super::support::{KEY, PATIENCE, metric, sender};

/// The built program, without settings from the environment.
pub fn hookbridge<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbridge"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env_remove("HOOKBRIDGE_CONFIG");
    command
}

/// Runs a program that must end with this code; returns its standard output and standard error.
#[track_caller]
pub fn printed(mut command: Command, code: i32) -> (String, String) {
    texts(&command.output().unwrap(), code)
}

/// Checks the exit code; returns standard output and standard error.
#[track_caller]
pub fn texts(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

/// Writes the settings to a file, secrets included.
pub fn settings_file(folder: &Path, config: &Config) -> PathBuf {
    let mut settings: toml::Table = toml::from_str(&toml::to_string(config).unwrap()).unwrap();
    let api_key = config.auth.api_key.as_ref().map_or("", |key| key.reveal());
    settings["auth"].as_table_mut().unwrap().insert("api_key".into(), api_key.into());
    if let Some(key) = &config.pseudonym.key {
        settings["pseudonym"].as_table_mut().unwrap().insert("key".into(), key.reveal().into());
    }
    let options = settings["kafka"]["options"].as_table_mut().unwrap();
    for (name, value) in config.kafka.options.iter() {
        options.insert(name.into(), value.into());
    }
    let file = folder.join("hookbridge.toml");
    std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
    file
}

/// A process that is killed when dropped.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, name: &str) {
        // `kill` is built into the shell; the program is not on every machine.
        let kill = format!("kill -s {name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit code, once it has ended.
    pub fn end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of log lines to print when a test fails.
const LAST_LINES: usize = 40;

/// `hookbridge serve` with its log.
pub struct Serve {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub file: PathBuf,
    url: String,
    process: Running,
    lines: Receiver<String>,
    log: String,
}

impl Serve {
    /// Starts the bridge on free ports, with a settings file in this folder, from a shell that first runs
    /// this command.
    pub fn launch(config: &Config, folder: &Path, first: &str) -> Serve {
        Serve::launch_in(&["sh"], config, folder, first)
    }

    /// Like [`Serve::launch`], with another shell.
    pub fn launch_in(shell: &[&str], config: &Config, folder: &Path, first: &str) -> Serve {
        let mut config = config.clone();
        ports::listen_on_free(&mut config, Ipv4Addr::LOCALHOST);
        Serve::resume_in(shell, &config, folder, first)
    }

    /// Starts the bridge on the ports of its settings.
    pub fn resume(config: &Config, folder: &Path) -> Serve {
        Serve::resume_in(&["sh"], config, folder, "true")
    }

    fn resume_in(shell: &[&str], config: &Config, folder: &Path, first: &str) -> Serve {
        let (http, admin) = (config.http.listen, config.admin.listen);
        let file = settings_file(folder, config);
        let program = env!("CARGO_BIN_EXE_hookbridge");
        let command = format!("{first} && exec {program} serve --config {}", file.display());
        let mut run = Command::new(shell[0]);
        run.args(&shell[1..]).args(["-c", &command]).stderr(Stdio::piped());
        let mut process = Running(run.spawn().unwrap());
        let lines = lines(process.0.stderr.take().unwrap());
        let url = format!("http://{http}{}", config.webhook[0].path);
        Serve { http, admin, file, url, process, lines, log: String::new() }
    }

    pub async fn is_ready(&self) -> bool {
        let answer = sender().get(format!("http://{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        sender().post(&self.url).bearer_auth(KEY).body(body)
    }

    pub async fn metric(&self, series: &str) -> f64 {
        let scrape = sender().get(format!("http://{}/metrics", self.admin)).send().await;
        metric(&scrape.unwrap().text().await.unwrap(), series)
    }

    /// Waits until the log has these words.
    pub fn wait_for_log(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(rest);
            let line = line.unwrap_or_else(|_| panic!("no {words:?} in the log: {}", self.log));
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(words) {
                return;
            }
        }
    }

    /// Whether the log has these words by now.
    pub fn has_logged(&mut self, words: &str) -> bool {
        self.log.extend(self.lines.try_iter().flat_map(|line| [line, "\n".into()]));
        self.log.contains(words)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Crashes the process. Whether the system has written a core dump.
    pub fn dumps_core(mut self) -> bool {
        self.signal("ABRT");
        assert_eq!(self.process.end(), -1);
        self.process.0.wait().unwrap().core_dumped()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_some()
    }

    /// Its exit code and its whole log, once it has ended.
    pub fn end(mut self) -> (i32, String) {
        let code = self.process.end();
        self.log.extend(self.lines.iter().flat_map(|line| [line, "\n".into()]));
        (code, std::mem::take(&mut self.log))
    }

    pub fn stop(self) -> (i32, String) {
        self.signal("TERM");
        self.end()
    }
}

impl Drop for Serve {
    /// Prints the last log lines when a test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.log.extend(self.lines.try_iter().flat_map(|line| [line, "\n".into()]));
            let lines: Vec<_> = self.log.lines().rev().take(LAST_LINES).collect();
            lines.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

/// A program's lines as they are printed, for a reader with a time-out.
pub fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    #[expect(clippy::disallowed_methods, reason = "a program that is not read stops")]
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The options of `unshare` with which this `mount` succeeds, in a name space of its own; none where there
/// is no right to it.
pub fn may_mount(mount: &str) -> Option<&'static str> {
    ["-m", "-rm"].into_iter().find(|options| {
        let mut try_it = Command::new("unshare");
        try_it.args([options, "sh", "-c", mount]).status().is_ok_and(|status| status.success())
    })
}
