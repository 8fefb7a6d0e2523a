//! The password in a file, and the one that a command prints: the first line of either.
//!
//! No message shows the file or the command: the operator may have given the password instead.

use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::fs::input::read_text;
use crate::lang::{Message, Text, span};
use crate::refusal::{Refusal, TextMark};

/// A command that asks a person, or a server that does not answer, ends the start after this time.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The password in a file.
///
/// # Errors
/// Refuses a file that cannot be read, one that begins with the mark of an editor, and one with an empty first line.
pub(super) fn of_file(file: &Path) -> anyhow::Result<String> {
    // The message does not show the path: the operator may have given the password instead.
    let cannot = || {
        text!(
            "cannot read the file that --password-file or INVOICE_EXPORT_PASSWORD_FILE names",
            "无法读取 --password-file 或 INVOICE_EXPORT_PASSWORD_FILE 指定的文件"
        )
    };
    let refused = |what: Text, hint| {
        let cannot = cannot();
        Refusal::usage(text!("{cannot}: {what}", "{cannot}: {what}"; cannot, what).with_hint(hint))
    };
    let text = read_text(file)
        .map_err(|error| Refusal::usage_because(cannot(), error))?
        .map_err(|mark| refused(mark.text(), TextMark::remedy()))?;
    let text = String::from_utf8(text).map_err(|error| Refusal::usage_because(cannot(), error.into()))?;
    match text.lines().next().unwrap_or_default() {
        line if line.trim().is_empty() => Err(refused(
            text!("its first line is empty", "第一行为空"),
            text!(
                "write the password into its first line, or leave the file out for an account without one",
                "请把密码写在第一行；账号没有密码时请不要指定该文件"
            ),
        )),
        line => Ok(line.to_owned()),
    }
}

/// The password that a command of the shell prints. What it says on stderr is for the operator.
///
/// # Errors
/// Refuses a command that fails, that prints an empty first line, and one that takes longer than 30 s.
pub(super) fn of_command(command: &str) -> anyhow::Result<String> {
    of_command_within(command, COMMAND_LIMIT)
}

fn of_command_within(command: &str, limit: Duration) -> anyhow::Result<String> {
    let mut shell = Command::new("/bin/sh");
    // A group of its own ends as a whole.
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child =
        shell.spawn().map_err(|error| Refusal::usage_because(fault(&Text::same("/bin/sh")), error.into()))?;
    let group = Pid::from_child(&child);
    let (told, answer) = bounded(1);
    let stdout = child.stdout.take();
    let started = thread::Builder::new().spawn(move || {
        let line = stdout.map_or(Ok(String::new()), first_line);
        let end = child.wait();
        // Nothing waits for it any more if it came too late.
        let _ = told.send((line, end));
    });
    started.map_err(|error| Refusal::NoThread { detail: error.to_string() })?;
    match answer.recv_timeout(limit) {
        Ok((line, end)) => password_in(line, end),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = kill_process_group(group, Signal::KILL);
            let limit = span(limit);
            Err(refused(&text!("it did not end within {limit}", "{limit}内没有结束"; limit)))
        }
    }
}

fn password_in(line: io::Result<String>, end: io::Result<ExitStatus>) -> anyhow::Result<String> {
    let failed = |error: io::Error| Refusal::usage_because(fault(&Text::same("/bin/sh")), error.into());
    let (line, end) = (line.map_err(failed)?, end.map_err(failed)?);
    if !end.success() {
        return Err(refused(&text!("it ended with {end}", "以 {end} 结束")));
    }
    if line.trim().is_empty() {
        return Err(refused(&text!("it printed no password", "没有输出密码")));
    }
    Ok(line)
}

/// The first line, without its end. The rest is read too, so that the command can end.
fn first_line(stdout: ChildStdout) -> io::Result<String> {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    stdout.read_until(b'\n', &mut line)?;
    io::copy(&mut stdout, &mut io::sink())?;
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn refused(what: &Text) -> anyhow::Error {
    Refusal::usage(Message::from(fault(what)))
}

fn fault(what: &Text) -> Text {
    text!(
        "cannot get the password from the command in --password-command or INVOICE_EXPORT_PASSWORD_COMMAND: {what}",
        "无法从 --password-command 或 INVOICE_EXPORT_PASSWORD_COMMAND 指定的命令取得密码: {what}";
        what
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: &str) -> Result<String, String> {
        of_command_within(command, Duration::from_secs(1)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_first_line_is_the_password_and_what_follows_is_not_kept() {
        for command in
            ["echo 'Hush1 #%'; echo more", "printf 'Hush1 #%%'", "printf 'Hush1 #%%\\r\\n'; yes | head -100000"]
        {
            assert_eq!(asked(command).unwrap(), "Hush1 #%", "{command}");
        }
    }

    #[test]
    fn a_command_that_fails_hangs_or_prints_nothing_is_refused_without_its_words() {
        let wrong = [
            ("echo Hush1; exit 3", "exit status: 3"),
            ("true", "no password"),
            ("echo; echo Hush1", "no password"),
            ("echo Hush1; kill -9 $$", "signal: 9"),
            ("echo Hush1; sleep 600", "did not end within 1 s"),
            ("(sleep 600; echo Hush1) & echo Hush1", "did not end within 1 s"),
            ("printf '\\377\\n'", "UTF-8"),
        ];
        for (command, word) in wrong {
            let refused = asked(command).unwrap_err().to_lowercase();
            assert!(refused.contains(&word.to_lowercase()) && !refused.contains("hush1"), "{command}: {refused}");
        }
    }
}
