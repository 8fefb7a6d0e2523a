//! A process that outlives us by a moment: it owns a folder and the server in it, and removes both
//! when we are gone.
//!
//! It reads its orders from a pipe whose other end only we hold. However we die, the kernel closes
//! that end, and the supervisor kills the server and removes the folder.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Orders: `run COMMAND` answers its exit code, `start COMMAND` the server's process id, `kill`
/// a 0 once the server is gone.
const SCRIPT: &str = r#"
server=
dir=$(mktemp -d "${TMPDIR:-/tmp}/invoice-export-test.XXXXXXXX") || exit 1
end() {
    [ -z "$server" ] || { kill -9 "$server"; wait "$server"; } 2>/dev/null
    server=
}
trap 'end; rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
echo "$dir"
while read -r order command; do
    case $order in
    run) eval "$command" '>>"$dir/server.log" 2>&1 </dev/null'; echo "$?" ;;
    start) eval "$command" '>>"$dir/server.log" 2>&1 </dev/null &'; server=$!; echo "$server" ;;
    kill) end; echo 0 ;;
    esac
done
"#;

pub(crate) struct Supervisor {
    dir: PathBuf,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl Supervisor {
    /// The zone is the `TZ` of everything it starts.
    pub(crate) fn new(zone: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .env("TZ", zone)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C must reach us and not the one who cleans up after us.
            .process_group(0)
            .spawn()
            .expect("start sh");
        let mut answers = BufReader::new(child.stdout.take().expect("its stdout is piped"));
        let dir = PathBuf::from(line(&mut answers));
        Self { dir, answers, child }
    }

    /// Removed when we end.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything that `run` and `start` printed so far.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit code of a command that ends by itself.
    pub(crate) fn run(&mut self, command: &[String]) -> u32 {
        self.order(&format!("run {}", quoted(command)))
    }

    /// The process id of a server, which from now on is ended by `kill` or by our own end.
    pub(crate) fn start(&mut self, command: &[String]) -> u32 {
        self.order(&format!("start {}", quoted(command)))
    }

    /// Ends the server like a power cut would: SIGKILL, and it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.order("kill");
    }

    fn order(&mut self, order: &str) -> u32 {
        let orders = self.child.stdin.as_mut().expect("its stdin is piped");
        writeln!(orders, "{order}").expect("the supervisor takes orders until we end");
        line(&mut self.answers).parse().expect("the supervisor answers with numbers")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Waiting closes the pipe first.
        let _ = self.child.wait();
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    answers.read_line(&mut line).expect("read the supervisor's answer");
    line.trim_end().to_owned()
}

fn quoted(command: &[String]) -> String {
    command.iter().map(|word| format!("'{}' ", word.replace('\'', r"'\''"))).collect()
}
