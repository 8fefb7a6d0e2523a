//! Runs the real binary on a table, and says what its output must be.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::de::IgnoredAny;
use tempfile::TempDir;
use walkdir::WalkDir;

use super::table::Table;

/// Far longer than any run of a test; a run that hangs fails its test instead of all tests.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// Relative path and content of every file.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

pub(crate) struct Exporter<'a> {
    table: &'a Table,
    folder: TempDir,
    env: Vec<(OsString, OsString)>,
}

/// What came of a process.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process at work, killed if the test does not wait for it.
pub(crate) struct Running {
    child: Option<Child>,
    /// What it said while the test listened.
    heard: String,
    log: Option<BufReader<ChildStderr>>,
}

impl<'a> Exporter<'a> {
    /// Exports this table into an output folder of its own, which does not exist yet.
    pub(crate) fn new(table: &'a Table) -> Self {
        Self::within(tempfile::tempdir().expect("make a folder for the output"), table)
    }

    /// Into a folder that needs no disk.
    pub(crate) fn in_memory(table: &'a Table) -> Self {
        Self::within(super::folder_in_memory(), table)
    }

    fn within(folder: TempDir, table: &'a Table) -> Self {
        let exporter = Self { table, folder, env: Vec::new() };
        let output = exporter.output();
        exporter.env("INVOICE_EXPORT_SOURCE", table.url()).env("INVOICE_EXPORT_OUTPUT", output)
    }

    /// A later value for the same name wins.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn table(&self) -> &'a Table {
        self.table
    }

    /// The folder that the exporter works in, with the output below it.
    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The same between two runs.
    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.into()));
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    pub(crate) fn state(&self) -> PathBuf {
        let given = self.env.iter().rev().find(|(name, _)| name == "INVOICE_EXPORT_STATE_DIR");
        given.map_or_else(|| self.output().join(".export_state"), |(_, folder)| folder.into()).join("state.db")
    }

    /// The binary with an environment that holds nothing of ours but PATH.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_invoice-export"));
        command.args(args).env_clear().current_dir(self.folder.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").envs(self.env.iter().cloned());
        command
    }

    pub(crate) fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
        self.spawn(args).wait()
    }

    pub(crate) fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        Running::new(&mut self.command(args))
    }

    /// Starts the binary as another user, who may search the exporter's folder and read an embedded source from now
    /// on. The way to the binary may be closed to that user, so it is started by a handle.
    pub(crate) fn spawn_as(&self, user: u32, group: u32, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        let plain = self.command(args);
        let binary = fs::File::open(plain.get_program()).expect("open the binary");
        let url = self.table.url();
        let source = url.strip_prefix("sqlite:").and_then(|file| Path::new(file).parent());
        for folder in [Some(self.home()), source].into_iter().flatten() {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("let the other user in");
        }
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.args(plain.get_args()).current_dir("/").env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Running::new(command.uid(user).gid(group))
    }

    /// What was written so far survives a power cut.
    pub(crate) fn settle(&self) {
        let home = fs::File::open(self.home()).expect("open the exporter's folder");
        rustix::fs::syncfs(&home).expect("sync the exporter's folder");
    }

    /// The plain run that makes good what a fault left. An invoice that nobody has refused yet is refused
    /// now.
    #[track_caller]
    pub(crate) fn run_plainly(&self, args: &[&str]) {
        let finished = self.run(args);
        assert!(matches!(finished.status.code(), Some(0 | 3)), "{finished}");
    }

    /// Everything in the output but `.export_state`.
    pub(crate) fn tree(&self) -> Tree {
        let content = |file: &Path| fs::read(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
        self.files().into_iter().map(|(path, file)| (path, content(&file))).collect()
    }

    /// Inode and time of every file: what changes when a file is touched.
    pub(crate) fn stamps(&self) -> BTreeMap<String, (u64, i128)> {
        let stamp = |file: &Path| {
            let data = fs::symlink_metadata(file).unwrap_or_else(|error| panic!("stat {}: {error}", file.display()));
            (data.ino(), i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()))
        };
        self.files().into_iter().map(|(path, file)| (path, stamp(&file))).collect()
    }

    /// The output is what the table says, and nothing else lies there.
    #[track_caller]
    pub(crate) fn assert_agrees(&self) {
        let hidden: Vec<_> = names(&self.output()).into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.iter().all(|name| name == ".export_state"), "hidden in the output: {hidden:?}");
        let staged = names(&self.output().join(".export_state/staging"));
        assert!(staged.is_empty(), "left in staging: {staged:?}");
        self.assert_tree_is_the_tables();
    }

    #[track_caller]
    pub(crate) fn assert_tree_is_the_tables(&self) {
        let differences = differences(&table_tree(self.table), &self.tree());
        assert!(differences.is_empty(), "the tree is not what the table says:\n{}", differences.join("\n"));
    }

    fn files(&self) -> Vec<(String, PathBuf)> {
        let output = self.output();
        let walk = WalkDir::new(&output).min_depth(1).into_iter();
        walk.filter_entry(|entry| entry.depth() != 1 || entry.file_name() != ".export_state")
            // There is no output before the first run.
            .filter_map(|entry| entry.ok().filter(|entry| !entry.file_type().is_dir()))
            .map(|entry| {
                let path = entry.path().strip_prefix(&output).expect("the walk stays below its root");
                (path.to_str().expect("names are UTF-8").to_owned(), entry.path().to_owned())
            })
            .collect()
    }
}

/// What the tree must hold: the documented query and the documented names, without what is no JSON. For
/// ordinary names only.
pub(crate) fn table_tree(table: &Table) -> Tree {
    let rows = table.query_bytes(
        "SELECT ftenant_id, fcountry, fissue_date, finvoice_no, fext_field FROM t_invoice WHERE fissue_status = 3
         AND fext_field IS NOT NULL AND finvoice_no IS NOT NULL AND fissue_date IS NOT NULL",
    );
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap_or_default()).expect("names are UTF-8");
    rows.into_iter()
        .filter(|row| row[4].as_ref().is_some_and(|document| serde_json::from_slice::<IgnoredAny>(document).is_ok()))
        .map(|row| {
            let country = Some(text(&row[1])).filter(|country| !country.is_empty()).unwrap_or("UNKNOWN".into());
            let (tenant, date, number) = (text(&row[0]), text(&row[2]).replace('-', ""), text(&row[3]));
            for name in [&tenant, &country, &number] {
                let ordinary = name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
                assert!(ordinary && !name.is_empty(), "{name:?} is no ordinary name: compare its file by hand");
            }
            let document = row[4].clone().expect("the query asks for documents that are not NULL");
            (format!("{tenant}/{country}/{date}+{number}.json"), document)
        })
        .collect()
}

/// Runs with something injected into a system call, as `renameat:signal=KILL:when=3`, or into several, with
/// spaces between them.
pub(crate) fn run_with(exporter: &Exporter<'_>, inject: &str, args: &[&str]) -> Finished {
    spawn_with(exporter, inject, args).wait()
}

/// The same for calls that concern one path below the output.
pub(crate) fn run_with_at(exporter: &Exporter<'_>, path: &str, inject: &str, args: &[&str]) -> Finished {
    spawn_with_at(exporter, path, inject, args).wait()
}

/// The same, without waiting for its end.
pub(crate) fn spawn_with_at(exporter: &Exporter<'_>, path: &str, inject: &str, args: &[&str]) -> Running {
    let path = exporter.output().join(path);
    let watch = ["-P".to_owned(), path.to_str().expect("the path of a temporary folder is UTF-8").to_owned()];
    spawn_watched(exporter, watch.into(), inject, args)
}

/// The same, without waiting for its end. The process that is waited for is not the exporter.
pub(crate) fn spawn_with(exporter: &Exporter<'_>, inject: &str, args: &[&str]) -> Running {
    spawn_watched(exporter, Vec::new(), inject, args)
}

/// A run that is held at one of its calls until it is told to go on. The process that is waited for is the exporter.
pub(crate) fn spawn_held(exporter: &Exporter<'_>, call: &str, nth: u32, args: &[&str]) -> Running {
    spawn_watched(exporter, vec!["-D".into()], &held(call, nth), args)
}

/// The same at its first call that names this, as it stands in the call.
pub(crate) fn spawn_held_at(exporter: &Exporter<'_>, name: &str, call: &str, args: &[&str]) -> Running {
    spawn_watched(exporter, ["-D", "-P", name].map(str::to_owned).into(), &held(call, 1), args)
}

/// For ten minutes, which end with the tracer.
fn held(call: &str, nth: u32) -> String {
    format!("{call}:delay_enter=600000000:when={nth}")
}

fn spawn_watched(exporter: &Exporter<'_>, mut watch: Vec<String>, inject: &str, args: &[&str]) -> Running {
    let calls: Vec<&str> = inject.split(' ').filter_map(|one| one.split(':').next()).collect();
    watch.extend(["-o", "/dev/null", "-e", &format!("trace={}", calls.join(","))].map(str::to_owned));
    watch.extend(inject.split(' ').flat_map(|one| ["-e".to_owned(), format!("inject={one}")]));
    Running::new(&mut strace(exporter, &watch, args))
}

/// How often a run calls each of these, in the thread that does so most: strace counts by thread.
pub(crate) fn count_calls<'c>(exporter: &Exporter<'_>, calls: &[&'c str], args: &[&str]) -> Vec<(&'c str, u32)> {
    let (by_thread, _) = calls_by_thread(exporter, calls, args);
    by_thread.into_iter().map(|(call, counts)| (call, counts.into_values().max().unwrap_or_default())).collect()
}

/// How often a run calls each of these in all its threads, and what came of it.
pub(crate) fn all_calls<'c>(
    exporter: &Exporter<'_>,
    calls: &[&'c str],
    args: &[&str],
) -> (Vec<(&'c str, u32)>, Finished) {
    let (by_thread, finished) = calls_by_thread(exporter, calls, args);
    (by_thread.into_iter().map(|(call, counts)| (call, counts.into_values().sum())).collect(), finished)
}

/// What strace writes of these calls: a line for each, with the thread before it.
pub(crate) fn log_of_calls(exporter: &Exporter<'_>, calls: &[&str], args: &[&str]) -> (String, Finished) {
    let log = tempfile::NamedTempFile::new().expect("make a file for the log");
    let path = log.path().to_str().expect("the path of a temporary file is UTF-8");
    let watch = ["-o", path, "-e", &format!("trace={}", calls.join(","))].map(str::to_owned);
    let finished = Running::new(&mut strace(exporter, &watch, args)).wait();
    (fs::read_to_string(log.path()).expect("read the log of strace"), finished)
}

type ByThread = BTreeMap<String, u32>;

fn calls_by_thread<'c>(
    exporter: &Exporter<'_>,
    calls: &[&'c str],
    args: &[&str],
) -> (Vec<(&'c str, ByThread)>, Finished) {
    let (log, finished) = log_of_calls(exporter, calls, args);
    let count = |call: &str| {
        let mut counts = ByThread::new();
        for (thread, rest) in log.lines().filter_map(|line| line.split_once(' ')) {
            if rest.trim_start().split('(').next() == Some(call) {
                *counts.entry(thread.to_owned()).or_default() += 1;
            }
        }
        counts
    };
    (calls.iter().map(|call| (*call, count(call))).collect(), finished)
}

fn strace(exporter: &Exporter<'_>, watch: &[String], args: &[&str]) -> Command {
    under(exporter, Command::new("strace").args(["-f", "-qq"]).args(watch), args)
}

/// The exporter, started by another program.
pub(crate) fn under(exporter: &Exporter<'_>, program: &Command, args: &[&str]) -> Command {
    let plain = exporter.command(args);
    let mut command = Command::new(program.get_program());
    command.args(program.get_args()).arg(plain.get_program()).args(plain.get_args()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// A command at a terminal, where this is answered: the exit code and what the terminal shows.
pub(crate) fn on_a_terminal(exporter: &Exporter<'_>, command: &str, answer: &str) -> (i32, String) {
    let plain = exporter.command([""; 0]);
    let program = format!("{} {command}", plain.get_program().to_str().unwrap());
    let mut terminal = Command::new("sh");
    let script = "printf '%s\\n' \"$2\" | script --quiet --return --command \"$1\" /dev/null";
    terminal.args(["-c", script, "sh", &program, answer]).env_clear();
    terminal.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let finished = Running::new(&mut terminal).wait();
    (finished.status.code().unwrap(), finished.stdout)
}

/// Numbers of a run's JSON.
#[track_caller]
pub(crate) fn numbers<const N: usize>(summary: &serde_json::Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| summary[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {summary}")))
}

/// The first differences, in words.
pub(crate) fn differences(wanted: &Tree, found: &Tree) -> Vec<String> {
    let missing = wanted.iter().filter_map(|(path, content)| match found.get(path) {
        None => Some(format!("missing: {path}")),
        Some(other) if other != content => Some(format!("other content: {path}: {}", excerpt(other))),
        Some(_) => None,
    });
    let extra = found.keys().filter(|path| !wanted.contains_key(*path)).map(|path| format!("not in the table: {path}"));
    missing.chain(extra).take(10).collect()
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(self.status.code() == Some(code), "expected exit {code}, got {self}");
        self
    }

    /// The error that ended the command, with its hint: the last one or two lines of the log.
    #[track_caller]
    pub(crate) fn last_error(&self) -> &str {
        let start = self.stderr.rfind("[ERROR]").unwrap_or_else(|| panic!("no error is said: {self}"));
        let lines = self.stderr[start..].lines().count();
        assert!(lines == 1 || lines == 2 && self.stderr[start..].contains("\n[HINT] "), "the end is no error: {self}");
        &self.stderr[start..]
    }

    /// The same, where it is the only error.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        assert!(self.stderr.matches("[ERROR]").count() == 1, "one error is expected: {self}");
        self.last_error()
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self}"))
    }

    /// Killed by SIGKILL, which leaves no exit code.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

impl Running {
    /// For a command that `Exporter::command` made and the test changed.
    pub(crate) fn new(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { child: Some(child.expect("start the exporter")), heard: String::new(), log: None }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a process that was not waited for takes signals");
    }

    /// Lets a held run go on: what its tracer holds is free when the tracer is gone.
    pub(crate) fn go_on(&self) {
        kill_process(self.tracer(), Signal::KILL).expect("a tracer that holds a run is there");
    }

    pub(crate) fn tracer(&self) -> Pid {
        tracer_of(self.pid()).expect("the run is traced")
    }

    pub(crate) fn is_alive(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid()), options), Ok(None))
    }

    /// Reads what it says on stderr up to the line with these words.
    #[track_caller]
    pub(crate) fn listen_for(&mut self, words: &str) {
        let child = self.child.as_mut().expect("it is waited for once");
        let log = self.log.get_or_insert_with(|| BufReader::new(child.stderr.take().expect("its stderr is piped")));
        loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).expect("what the exporter says is UTF-8");
            self.heard += &line;
            assert!(read > 0, "it ended without saying {words:?}:\n{}", self.heard);
            if line.contains(words) {
                return;
            }
        }
    }

    /// Waits for its end, and fails the test if that does not come.
    pub(crate) fn wait(mut self) -> Finished {
        let pid = self.pid();
        let child = self.child.take().expect("it is waited for once");
        let (mut heard, log) = (mem::take(&mut self.heard).into_bytes(), self.log.take());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let rest = log.map_or(Ok(0), |mut log| log.read_to_end(&mut heard));
            let output = rest.and_then(|_| child.wait_with_output());
            sender.send(output.map(|output| Output { stderr: [heard, output.stderr].concat(), ..output }))
        });
        let Ok(output) = receiver.recv_timeout(ENDS_WITHIN) else {
            let _ = kill_process(pid, Signal::KILL);
            panic!("the exporter did not end within {ENDS_WITHIN:?}");
        };
        let output = output.expect("read what the exporter says");
        let text = |bytes| String::from_utf8(bytes).expect("what the exporter says is UTF-8");
        Finished { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it is waited for once"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let tracer = tracer_of(Pid::from_child(child));
            let _ = child.kill();
            // The kernel gives a held process to its parent only after the tracer has let it go: a test that fails would
            // wait for the ten minutes of `held`.
            let _ = tracer.map(|tracer| kill_process(tracer, Signal::KILL));
            let _ = child.wait();
        }
    }
}

/// The process that traces this one; None if there is none.
pub(crate) fn tracer_of(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
    tracer.and_then(Pid::from_raw)
}

/// The names in a folder; none where there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("list the output").file_name().to_string_lossy().into_owned()).collect()
}

fn excerpt(content: &[u8]) -> String {
    String::from_utf8_lossy(content).chars().take(80).collect()
}
