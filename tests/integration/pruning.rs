//! `verify --prune` asks before it removes much, and what happens in the source meanwhile counts.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ChildStderr, Stdio};

use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use crate::support::{Exporter, Row, Table};

const PRUNE: [&str; 5] = ["verify", "--against-source", "--prune", "--format", "json"];

/// How a question ends, in English and in Chinese.
const PROMPTS: [&str; 2] = ["[y/N] ", "[是（y）/否（N）] "];

/// A process that has asked something at its terminal.
struct Asking {
    child: Child,
    terminal: File,
    log: BufReader<ChildStderr>,
    said: Vec<u8>,
}

impl Asking {
    fn about(exporter: &Exporter<'_>, args: &[&str], question: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let seat = OpenOptions::new().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let mut command = exporter.command(args);
        let mut child = command.stdin(seat.unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut asking = Self { child, terminal: terminal.into(), log, said: Vec::new() };
        while !PROMPTS.iter().any(|prompt| asking.said.ends_with(prompt.as_bytes())) {
            let mut letter = [0];
            let read = asking.log.read(&mut letter).unwrap();
            assert_eq!(read, 1, "it ended without asking: {}", String::from_utf8_lossy(&asking.said));
            asking.said.push(letter[0]);
        }
        let said = String::from_utf8_lossy(&asking.said);
        assert!(said.contains(question), "{said}");
        asking
    }

    /// Its exit code, stdout and stderr.
    fn answer(mut self, answer: &str) -> (Option<i32>, String, String) {
        writeln!(self.terminal, "{answer}").unwrap();
        self.log.read_to_end(&mut self.said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(self.said))
    }
}

/// Six invoices, of which 5 and 6 share a file; all but the first are withdrawn since.
fn withdrawn(table: &Table) -> Exporter<'_> {
    for id in 1..=6 {
        let number = format!("INV{}", id.min(5));
        let document = format!("{{\"number\": {}}}", id.min(5));
        table.insert(&Row { id, number: &number, document: &document, ..Row::default() });
    }
    let exporter = Exporter::new(table);
    exporter.run(["run"]).expect(0);
    assert_eq!(exporter.tree().len(), 5);
    table.execute("UPDATE t_invoice SET fissue_status = 4 WHERE fid > 1");
    exporter
}

#[test]
fn an_invoice_that_comes_back_during_the_question_keeps_its_file_also_a_shared_one() {
    let table = Table::embedded();
    let exporter = withdrawn(&table);
    let asking = Asking::about(&exporter, &PRUNE, "remove 5 files (the ledger has 6 invoices)?");
    table.execute("UPDATE t_invoice SET fissue_status = 3 WHERE fid IN (2, 6)");
    let (code, answer, said) = asking.answer("y");
    assert_eq!(code, Some(0), "{answer}{said}");
    assert_eq!(exporter.ask("SELECT id FROM ledger ORDER BY id"), ["1", "2", "6"]);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn nothing_is_removed_unless_the_answer_is_yes() {
    let table = Table::embedded();
    let exporter = withdrawn(&table);
    for answer in ["", "n", "no", "yikes"] {
        let before = exporter.tree();
        let (code, stdout, said) = Asking::about(&exporter, &PRUNE, "remove 5 files").answer(answer);
        assert_eq!(code, Some(1), "{stdout}{said}");
        assert!(said.contains("aborted; nothing was changed"), "{said}");
        assert_eq!(exporter.tree(), before);
        assert_eq!(exporter.ask("SELECT count(*) FROM ledger"), ["6"]);
    }
}

#[test]
fn a_question_in_chinese_takes_a_chinese_yes() {
    for (answer, code) in [("否", 1), ("是的吗", 1), ("是", 0)] {
        let table = Table::embedded();
        let exporter = withdrawn(&table).env("LC_ALL", "zh_CN.UTF-8");
        let (ended, stdout, said) = Asking::about(&exporter, &PRUNE, "删除 5 个文件").answer(answer);
        assert_eq!(ended, Some(code), "{stdout}{said}");
        assert_eq!(said.contains("已取消，没有做任何更改"), code == 1, "{said}");
    }
}

#[test]
fn while_one_verify_waits_for_its_answer_nobody_else_works_in_the_tree() {
    let table = Table::embedded();
    let exporter = withdrawn(&table);
    let asking = Asking::about(&exporter, &PRUNE, "remove 5 files");
    for args in [&["verify"][..], &["verify", "--against-source"], &["verify", "--repair"], &["run"]] {
        let refused = exporter.run(args.iter().chain(&["--lock-wait", "0s", "--format", "json"])).expect(4);
        assert_eq!(refused.json()["exit_code"], 4, "{refused}");
    }
    asking.answer("n");
    exporter.run(["verify", "--lock-wait", "0s"]).expect(0);
}
