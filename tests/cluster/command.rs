//! Programs that the proof runs, each with a deadline.

use std::error::Error;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a command may take that only asks or changes something.
pub const SHORT: Duration = Duration::from_secs(60);

/// How long pods may take to start, to stop, or to be replaced one by one.
pub const LONG: Duration = Duration::from_secs(400);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(500);

/// This program, killed when it has not ended in time.
pub fn within(time: Duration, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &time.as_secs().to_string(), program]);
    command
}

/// What the program prints.
///
/// # Errors
///
/// What it printed to stderr, if it did not end with 0.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(out);
    }
    let err = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {out}{err}", output.status).into())
}

/// Waits until the condition holds. A condition that cannot be looked at does not hold yet.
///
/// # Errors
///
/// It does not hold in time.
pub fn wait_for(what: &str, time: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        let found = holds();
        if matches!(found, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            let reason = found.err().map_or(String::new(), |error| format!(": {error}"));
            return Err(format!("not in {} s: {what}{reason}", time.as_secs()).into());
        }
        std::thread::sleep(POLL);
    }
}

/// Ends a program that was started by `within`, with what it started itself.
pub fn stop(child: &mut Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM)?;
    child.wait()?;
    Ok(())
}
