//! What a document has a reader do: the commands of its blocks, one after the other, with the exit codes that it
//! announces, and how all of them are run in one shell.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use regex::Regex;

use super::excused;
use super::markdown::{Block, Document};
use super::place::{EXCHANGE, Place, WORK};

/// The info strings that a block may have.
const KNOWN: [&str; 11] = ["", "sh", "text", "cron", "sql", "sql state", "json", "ini", "csv", "rust", "toml"];

/// One command, and the blocks that show what it prints.
pub(crate) struct Step {
    /// The index of its first line in the document.
    pub(crate) line: usize,
    pub(crate) shown: String,
    /// As bash runs it.
    script: String,
    pub(crate) codes: Vec<i32>,
    /// Its output is compared with this block of the document.
    pub(crate) output: Option<usize>,
}

/// What came of a step; no code where the shell did not get past it.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
}

/// The steps of a document, and what in its blocks is not as the conventions want it.
pub(crate) fn steps(document: &Document) -> (Vec<Step>, Vec<String>) {
    let (mut steps, mut faults): (Vec<Step>, Vec<String>) = Default::default();
    // The section of the last block with commands, and whether its last command was run.
    let mut last: Option<(usize, bool)> = None;
    for (number, block) in document.blocks.iter().enumerate() {
        let at = format!("{}:{}", document.path, block.start);
        let made = match block.info.as_str() {
            "sh" => of_shell(block),
            "cron" => of_cron(block),
            "sql" => vec![of_sql(block, "mariadb --table -h db.example -u admin invoices")],
            "sql state" => vec![of_sql(block, "sqlite3 -readonly /srv/context/.export_state/state.db")],
            "text" | "json" => {
                match last {
                    Some((section, true)) if section == block.section => match steps.last_mut() {
                        Some(step) if step.output.is_none() => step.output = Some(number),
                        _ => faults.push(format!("{at}: the command before it has its output shown already")),
                    },
                    Some((section, false)) if section == block.section => {
                        faults.push(format!("{at}: the command that printed this is not run"));
                    }
                    _ => faults.push(format!("{at}: no command of this section could have printed this")),
                }
                continue;
            }
            other => {
                if !KNOWN.contains(&other) {
                    faults.push(format!("{at}: a block of the unknown kind {other:?}"));
                }
                continue;
            }
        };
        let runs = |step: &Step| !excused::is_excused(&document.path, &step.shown);
        last = Some((block.section, made.last().is_some_and(runs)));
        steps.extend(made.into_iter().filter(runs));
    }
    (steps, faults)
}

/// Runs all of them in one shell.
pub(crate) fn run(document: &Document, steps: &[Step], place: &Place) -> Vec<Outcome> {
    let mut script = format!("cd {WORK}\nexec </dev/null\n");
    for (n, step) in steps.iter().enumerate() {
        let is_json = step.output.is_some_and(|number| document.blocks[number].info == "json");
        let errors = if is_json { "/dev/null" } else { "&1" };
        script += &format!("exec >>{EXCHANGE}/{n}.out 2>{errors}\n{}\necho $? >{EXCHANGE}/{n}.code\n", step.script);
    }
    // A command that never ends is then the first that has no code.
    let _ = catch_unwind(AssertUnwindSafe(|| place.run(&script)));
    let outcome = |n| Outcome {
        code: place.get(&format!("{n}.code")).and_then(|code| code.trim().parse().ok()),
        printed: place.get(&format!("{n}.out")).unwrap_or_default(),
    };
    (0..steps.len()).map(outcome).collect()
}

/// The commands of a block of shell, with the index of the first line of each.
pub(crate) fn commands(block: &Block) -> Vec<(usize, String)> {
    let (mut commands, mut open): (Vec<(usize, String)>, String) = Default::default();
    let mut first = block.start;
    for (index, line) in (block.start..).zip(&block.lines) {
        if open.is_empty() {
            first = index;
            if without_comment(line).is_empty() {
                continue;
            }
        }
        open += line;
        open.push('\n');
        if is_complete(&open) || index + 1 == block.end() {
            commands.push((first, std::mem::take(&mut open)));
        }
    }
    commands
}

/// The line without its comment and the blanks before that.
pub(crate) fn without_comment(line: &str) -> &str {
    comment_at(line).map_or(line, |at| &line[..at]).trim_end()
}

fn of_shell(block: &Block) -> Vec<Step> {
    let commands = commands(block).into_iter();
    let step = |(line, text): (usize, String)| {
        let codes = text.lines().find_map(announced).unwrap_or(vec![0]);
        Step { line, shown: text.trim_end().into(), script: text, codes, output: None }
    };
    commands.map(step).collect()
}

fn of_sql(block: &Block, program: &str) -> Step {
    let script = format!("{program} <<'END OF SQL'\n{}END OF SQL", block.text());
    Step { line: block.start, shown: block.text(), script, codes: vec![0], output: None }
}

/// The jobs of a crontab, each as cron would run it.
fn of_cron(block: &Block) -> Vec<Step> {
    let assignment = Regex::new(r#"^\s*(\w+)\s*=\s*["']?(.*?)["']?\s*$"#).unwrap();
    let job = Regex::new(r"^\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+(.+)$").unwrap();
    let (mut steps, mut variables, mut codes) = (Vec::new(), String::new(), vec![0]);
    for (line, text) in (block.start..).zip(&block.lines) {
        if text.trim_start().starts_with('#') || text.trim().is_empty() {
            codes = announced(text).unwrap_or(codes);
        } else if let Some(found) = assignment.captures(text) {
            variables += &format!(" {}", quoted(&format!("{}={}", &found[1], &found[2])));
        } else {
            let command = job.captures(text).map_or(text.clone(), |found| found[1].replace(r"\%", "%"));
            let plain = "env -i -C /root HOME=/root LOGNAME=root SHELL=/bin/sh PATH=/usr/bin:/bin";
            let script = format!("{plain}{variables} sh -c {}", quoted(&command));
            let codes = std::mem::replace(&mut codes, vec![0]);
            steps.push(Step { line, shown: text.clone(), script, codes, output: None });
        }
    }
    steps
}

/// The exit codes that the comment of a line announces: one where it begins with it, two where it names a condition.
fn announced(line: &str) -> Option<Vec<i32>> {
    let comment = line[comment_at(line)?..].trim_start_matches('#').trim();
    let exit = Regex::new(r"(?:exit|退出码)\s*(?:为|是)?\s*(\d+)").unwrap();
    let condition = Regex::new(r"^\s*(?:if|where|when|unless)\b").unwrap();
    let found = exit.captures(comment)?;
    let code = found[1].parse().ok()?;
    let whole = found.get(0)?;
    let certain = whole.start() == 0 && !condition.is_match(&comment[whole.end()..]);
    Some(if certain { vec![code] } else { vec![0, code] })
}

/// Where the comment of a line of shell begins.
fn comment_at(line: &str) -> Option<usize> {
    let (mut quote, mut before) = (None, ' ');
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if before.is_whitespace() => return Some(at),
            _ => {}
        }
        before = c;
    }
    None
}

/// Bash reads it as whole commands.
fn is_complete(text: &str) -> bool {
    let last = text.lines().last().unwrap_or_default();
    if without_comment(last).ends_with('\\') {
        return false;
    }
    let read = Command::new("bash").args(["-n", "-c", text]).output().expect("start bash");
    read.status.success() && read.stderr.is_empty()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
