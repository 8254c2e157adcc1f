//! `hookbridge check` on the folder of the spool.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::harness::brokers::Broker;
use crate::harness::process::{hookbridge, may_mount, texts};
use crate::harness::support::{KEY, TestBridge};

/// A user without rights.
const NOBODY: u32 = 65_534;

/// The command for a spool in this folder.
fn command(folder: &Path) -> Command {
    with_settings(hookbridge(["check"]), folder)
}

fn with_settings(mut command: Command, folder: &Path) -> Command {
    command
        .env("HOOKBRIDGE__AUTH__API_KEY", KEY)
        .env("HOOKBRIDGE__HTTP__MAX_BODY_BYTES", "10000")
        .env("HOOKBRIDGE__SPOOL__MAX_BYTES", "3000000")
        .env("HOOKBRIDGE__SPOOL__DIR", folder);
    command
}

/// What is printed of the spool, when the command ends with this code.
#[track_caller]
fn of_spool(mut command: Command, code: i32) -> String {
    let (out, _) = texts(&command.output().unwrap(), code);
    out.lines().filter(|line| line.contains("spool: ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_folder_that_is_not_there_is_made_by_serve_and_not_by_check() {
    let folder = tempfile::tempdir().unwrap();
    let out = of_spool(command(&folder.path().join("a/spool")), 0);
    let made = format!("serve makes it in {}\n", folder.path().display());
    assert!(out.starts_with("  ok ") && out.contains(&made) && out.contains("room: "), "{out}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let out = of_spool(command(Path::new("")), 0);
    assert!(out.contains("warning  spool: off"), "{out}");
}

#[test]
fn a_folder_that_serve_cannot_write_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(folder.path(), 0o755);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(of_spool(command(&file), 1).contains("problem  spool: "));
    let spool = folder.path().join("spool");
    fs::create_dir(&spool).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let as_user = |folder: &Path| {
        let mut command = command(folder);
        if is_root {
            // Root may write anywhere.
            command.uid(NOBODY);
        }
        command
    };
    set_mode(&spool, 0o555);
    let out = of_spool(as_user(&spool), 1);
    assert!(out.contains("problem ") && out.contains("has mode 555; give the user"), "{out}");
    let out = of_spool(as_user(&spool.join("below")), 0);
    assert!(out.contains("warning ") && out.contains("cannot be made in "), "{out}");
    // The store's own file.
    set_mode(&spool, 0o777);
    fs::write(spool.join("owner"), "").unwrap();
    set_mode(&spool.join("owner"), 0o444);
    let out = of_spool(as_user(&spool), 1);
    assert!(out.contains("owner cannot be written"), "{out}");
    if is_root {
        chown(&spool, Some(NOBODY), None).unwrap();
        let out = of_spool(command(&spool), 0);
        assert!(out.contains("warning ") && out.contains("check as the user of serve"), "{out}");
    }
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_disk_that_is_too_small_or_read_only_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = |options: &str| {
        let mount = format!("mount -t tmpfs -o {options} none {}", folder.path().display());
        let unshare = may_mount(&mount)?;
        let run = format!("{mount} && exec {} check", env!("CARGO_BIN_EXE_hookbridge"));
        let mut command = Command::new("unshare");
        command.args([unshare, "sh", "-c", &run]).current_dir(folder.path());
        Some(with_settings(command, folder.path()))
    };
    let (Some(small), Some(read_only)) = (on_disk("size=1m"), on_disk("ro")) else {
        eprintln!("NOT TESTED ON A SMALL DISK: no right to mount one");
        return;
    };
    let out = of_spool(small, 0);
    let room = out.split_once("room: ").unwrap().1;
    let numbers = room.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    let [room, missing, needed] = numbers.collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(room > 0 && room <= 1 << 20 && needed == 4_000_000, "{out}");
    assert_eq!(room + missing, needed, "{out}");
    assert!(out.contains("warning  spool: room: "), "{out}");
    let out = of_spool(read_only, 1);
    assert!(out.contains("problem ") && out.contains("Read-only file system"), "{out}");
}

/// That is as it should be.
#[tokio::test]
async fn a_spool_in_use_is_noted() {
    let bridge = TestBridge::start_spooling(&Broker::embedded(), |_| {}).await;
    let names = || {
        let files = fs::read_dir(&bridge.config.spool.dir).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let out = of_spool(command(&bridge.config.spool.dir), 0);
    let owner = format!("ok       spool: process {} on ", std::process::id());
    assert!(out.contains(&owner) && out.contains("can be written"), "{out}");
    assert_eq!(names(), before);
}
