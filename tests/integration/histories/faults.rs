//! What stands in the way of a run, and what happens while it is stopped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::{NamedTempFile, TempDir};

use super::steps::{Fate, OURS};
use crate::support::Exporter;
use crate::support::disk::Closed;
use crate::support::exporter::{Finished, Running, under};
use crate::support::listing::{Traces, everything_in};

/// In the output, for as long as a run lasts.
pub(super) enum Obstacle {
    Blocked(#[allow(dead_code, reason = "it opens the folder when it is dropped")] Closed),
    Link(Link),
}

/// Leads to a folder that looks like one of ours.
pub(super) struct Link {
    name: &'static str,
    at: PathBuf,
    /// Where what it stands for is meanwhile.
    kept: PathBuf,
    precious: TempDir,
    before: String,
}

impl Obstacle {
    /// None where the fate has none, or its place is not there.
    pub(super) fn put(exporter: &Exporter<'_>, fate: &Fate) -> Option<Self> {
        match *fate {
            Fate::Blocked(folder) => {
                let folder = exporter.output().join(folder);
                folder.is_dir().then(|| Self::Blocked(Closed::new(folder)))
            }
            Fate::Planted(name) => Link::put(exporter, name).map(Self::Link),
            _ => None,
        }
    }

    /// Whether every run must refuse it.
    pub(super) fn take_away(self) -> bool {
        match self {
            Self::Blocked(_) => false,
            Self::Link(link) => link.take_away(),
        }
    }
}

impl Link {
    fn put(exporter: &Exporter<'_>, name: &'static str) -> Option<Self> {
        let (at, kept) = (exporter.output().join(name), exporter.home().join("kept"));
        fs::symlink_metadata(&at).ok()?;
        let precious = tempfile::tempdir().expect("make a folder for the link to lead to");
        for file in ["lock", "state.db", "20251101+A.json", "CN/20251101+A.json", "staging/0", "backups/of-another.db"]
        {
            let file = precious.path().join(file);
            fs::create_dir_all(file.parent().expect("it is in a folder")).expect("make a folder");
            fs::write(file, "precious").expect("write what is precious");
        }
        fs::rename(&at, &kept).expect("move it away");
        let file = precious.path().join(at.file_name().expect("it has a name"));
        let to = if file.exists() { file } else { precious.path().to_owned() };
        symlink(to, &at).expect("plant a link");
        let before = Self::look(&precious);
        Some(Self { name, at, kept, precious, before })
    }

    fn look(precious: &TempDir) -> String {
        format!("{:?}", everything_in(&[precious.path()], Traces::None))
    }

    fn take_away(self) -> bool {
        let Self { name, at, kept, precious, before } = self;
        assert_eq!(Self::look(&precious), before, "a run touched what a link at {name} leads to");
        fs::remove_file(&at).expect("the link is still there");
        fs::rename(&kept, &at).expect("put it back");
        OURS.contains(&name)
    }
}

/// A run that a call stops.
pub(super) struct Overtaken {
    run: Running,
    log: NamedTempFile,
}

pub(super) fn overtake(exporter: &Exporter<'_>, call: &str, nth: u32, args: &[&str]) -> Overtaken {
    let log = NamedTempFile::new().expect("make a file for the log");
    let path = log.path().to_str().expect("the path of a temporary file is UTF-8");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", path, "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=STOP:when={nth}")]);
    let run = Running::new(&mut under(exporter, &strace, args));
    Overtaken { run, log }
}

impl Overtaken {
    /// Waits until it is stopped, or over.
    pub(super) fn is_stopped(&self) -> bool {
        loop {
            let is_alive = self.run.is_alive();
            if self.stops() > 0 || !is_alive {
                return is_alive;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn stops(&self) -> usize {
        let log = fs::read_to_string(self.log.path()).expect("read the log of strace");
        log.matches("--- stopped by SIGSTOP ---").count()
    }

    /// Calls are counted in each thread, so that another one may stop it again.
    pub(super) fn go_on(self) -> Finished {
        let mut answered = 0;
        while self.run.is_alive() {
            let stops = self.stops();
            if stops > answered {
                answered = stops;
                self.exporter().into_iter().for_each(|pid| _ = kill_process(pid, Signal::CONT));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.run.wait()
    }

    /// The child of strace.
    fn exporter(&self) -> Option<Pid> {
        let strace = self.run.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}
