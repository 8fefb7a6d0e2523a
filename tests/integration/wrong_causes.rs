//! What goes wrong on this machine is said as what it is: a mark before a text, an empty file, a path that is too
//! long, a limit on the size of files, a permission to read, a host name of any characters.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Finished, Running, under};
use crate::support::{Exporter, Row, Table, on_every_source};

const BOM: &[u8] = b"\xef\xbb\xbf";
const UTF_16: &[u8] = b"\xff\xfes\0e\0c\0r\0e\0t\0";
const NOBODY: u32 = 65_534;

fn invoice() -> Table {
    let table = Table::embedded();
    table.insert(&Row::default());
    table
}

#[track_caller]
fn assert_says(finished: Finished, code: i32, words: &[&str]) {
    let finished = finished.expect(code);
    assert!(words.iter().all(|words| finished.last_error().contains(words)), "{words:?}: {finished}");
    assert!(!finished.to_string().contains("secret"), "{finished}");
}

#[test]
fn a_file_with_a_mark_before_its_text_or_nothing_in_it_is_named_as_that() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", "mysql://reader@127.0.0.1:1/invoices");
    let file = exporter.home().join("file");
    let certificate = "-----BEGIN CERTIFICATE-----\n";
    let two = [certificate.as_bytes(), BOM, certificate.as_bytes()].concat();
    let marked = |text: &str| [BOM, text.as_bytes()].concat();
    let (bom, utf_16) = (["byte order mark (BOM)", "字节顺序标记（BOM）"], ["UTF-16", "UTF-16"]);
    let empty = ["its first line is empty", "第一行为空"];
    let ca = &["--ssl-mode", "VERIFY_CA", "--ssl-ca"][..];
    let key = &["--ssl-mode", "DISABLED", "--server-public-key"][..];
    for (flags, content, code, words) in [
        (&["--password-file"][..], marked("secret"), 2, bom),
        (&["--password-file"], UTF_16.to_vec(), 2, utf_16),
        (&["--password-file"], Vec::new(), 2, empty),
        (&["--password-file"], b" \r\nsecret\n".to_vec(), 2, empty),
        (&["--defaults-file"], marked("[client]\npassword=secret\n"), 2, bom),
        (&["--defaults-file"], UTF_16.to_vec(), 2, utf_16),
        (ca, marked(certificate), 1, bom),
        (ca, two, 1, bom),
        (ca, UTF_16.to_vec(), 1, utf_16),
        (key, UTF_16.to_vec(), 1, utf_16),
    ] {
        fs::write(&file, content).unwrap();
        for (lang, words) in ["en", "zh"].into_iter().zip(words) {
            let arguments = [&["run"], flags, &[file.to_str().unwrap(), "--lang", lang]].concat();
            assert_says(exporter.run(arguments), code, &[words]);
        }
    }
}

#[test]
fn a_state_file_of_the_script_in_utf_16_is_named_as_that() {
    let table = invoice();
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    let file = exporter.home().join("state");
    fs::write(&file, UTF_16).unwrap();
    for (lang, words) in [("en", "UTF-16"), ("zh", "UTF-16")] {
        let imported = exporter.run(["import-legacy-state", file.to_str().unwrap(), "--lang", lang]);
        assert_says(imported, 1, &[words]);
    }
}

#[test]
fn a_document_with_a_byte_order_mark_is_rejected_for_that() {
    on_every_source(|table| {
        table.insert(&Row { document: "\u{feff}{\"total\": 1}", ..Row::default() });
        let exporter = Exporter::new(table);
        let run = exporter.run(["run"]).expect(3);
        assert!(run.stderr.contains("begins with a byte order mark (BOM)"), "{run}");
        let status = exporter.run(["status", "--rejects", "--lang", "zh"]).expect(0);
        assert!(status.stdout.contains("以字节顺序标记（BOM）开头"), "{status}");
        assert_eq!(exporter.ask("SELECT id, reason FROM reject"), ["1 not-json"]);
    });
}

/// A folder with a path of so many bytes.
fn folder_of(home: &Path, length: usize) -> PathBuf {
    let mut folder = fs::canonicalize(home).unwrap();
    while length - folder.as_os_str().len() > 202 {
        folder.push("d".repeat(200));
    }
    folder.push("e".repeat(length - folder.as_os_str().len() - 1));
    folder
}

#[test]
fn a_path_that_is_too_long_for_sqlite_is_refused_with_the_limit() {
    let table = invoice();
    let exporter = Exporter::new(&table);
    let too_long = |path: &Path, flag: &str| {
        for (lang, words) in [("en", "too long for SQLite"), ("zh", "过长")] {
            let arguments = ["run", "--lang", lang, flag, path.to_str().unwrap()];
            assert_says(exporter.run(arguments), 5, &[words, "--state-dir"]);
        }
    };
    // `/.export_state/state.db` takes 23 bytes, `/state.db` 9.
    let most = 504 - "/backups/20251128T163000Z-before-restore-999.db.new".len() + "state.db".len();
    too_long(&folder_of(exporter.home(), most - 22), "--output");
    too_long(&folder_of(exporter.home(), most - 8), "--state-dir");
    let state_dir = folder_of(exporter.home(), most - 9);
    let output = folder_of(exporter.home(), 1_000);
    let place = ["--output", output.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()];
    exporter.run(["run"].iter().chain(&place)).expect(0);
    // With a backup before it.
    exporter.run(["state", "set", "1", "2025-01-01", "--yes"].iter().chain(&place)).expect(0);
    exporter.run(["status"].iter().chain(&place)).expect(0);

    // Moved to where SQLite cannot open it.
    let far = folder_of(exporter.home(), 500);
    fs::create_dir_all(far.parent().unwrap()).unwrap();
    fs::rename(&state_dir, &far).unwrap();
    let place = ["--output", output.to_str().unwrap(), "--state-dir", far.to_str().unwrap()];
    for command in [&["status"][..], &["history"], &["why", "INV001"], &["verify"], &["state", "check"]] {
        let refused = exporter.run(command.iter().chain(&place)).expect(5);
        assert!(refused.error().contains("too long for SQLite"), "{command:?}: {refused}");
    }
    fs::rename(&far, &state_dir).unwrap();
    let backup = far.with_extension("database");
    let place = ["--output", output.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()];
    fs::copy(state_dir.join("state.db"), &backup).unwrap();
    let restore = ["state", "restore", backup.to_str().unwrap(), "--yes"];
    assert_says(exporter.run(restore.iter().chain(&place)), 5, &["too long for SQLite", "504"]);

    let source = folder_of(exporter.home(), 500);
    fs::create_dir_all(&source).unwrap();
    let file = source.join("source.db");
    fs::copy(table.url().strip_prefix("sqlite:").unwrap(), &file).unwrap();
    let refused = exporter.run(["run", "--source", &format!("sqlite:{}", file.display())]);
    assert_says(refused, 2, &["the path of the source is too long for SQLite", "504"]);
}

fn limited_to(exporter: &Exporter<'_>, bytes: u64, args: &[&str]) -> Finished {
    let limit = format!("--fsize={bytes}");
    Running::new(&mut under(exporter, Command::new("prlimit").arg(limit), args)).wait()
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_names_it() {
    let table = Table::embedded();
    table.insert(&Row { id: 8_000, ..Row::default() });
    let exporter = Exporter::new(&table);
    let words = ["ulimit -f", "LimitFSIZE="];
    // The new state exceeds this.
    assert_says(limited_to(&exporter, 20_000, &["run"]), 1, &["files of this process may have 20000 bytes", words[0]]);
    exporter.run(["run"]).expect(0);
    let large = format!("[\"{}\"]", "x".repeat(300_000));
    table.insert(&Row { id: 9_000, number: "LARGE", document: &large, ..Row::default() });
    for lang in ["en", "zh"] {
        assert_says(limited_to(&exporter, 250_000, &["run", "--lang", lang]), 1, &words);
    }
    // The log of the state grows with each batch.
    table.load_sample(2_000, 7, "3:1.0");
    assert_says(limited_to(&exporter, 400_000, &["run"]), 1, &words);
    exporter.run(["run"]).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn where_reading_would_do_no_permission_to_write_is_asked_for() {
    let table = invoice();
    let exporter = Exporter::new(&table);
    fs::set_permissions(exporter.home(), Permissions::from_mode(0o777)).unwrap();
    let file = exporter.home().join("closed");
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (file, url) = (file.to_str().unwrap(), format!("sqlite:{}", file.display()));
    let server = ["--source", "mysql://reader@127.0.0.1:1/invoices"];
    for (lang, words) in [("en", "make it readable"), ("zh", "读权限，")] {
        for arguments in [
            &["run", "--password-file", file, server[0], server[1]][..],
            &["run", "--defaults-file", file, server[0], server[1]],
            &["run", "--source", &url],
        ] {
            let mut command = exporter.command(arguments.iter().chain(&["--lang", lang]));
            let refused = Running::new(command.uid(NOBODY).gid(NOBODY)).wait();
            assert!(!refused.stderr.contains("writable") && !refused.stderr.contains("write to it"), "{refused}");
            assert!(refused.last_error().contains(words) && refused.last_error().contains("os error 13"), "{refused}");
            assert!(matches!(refused.status.code(), Some(1 | 2)), "{refused}");
        }
    }
}

#[test]
fn a_host_name_of_any_characters_fits_into_the_lock() {
    let table = invoice();
    let exporter = Exporter::new(&table);
    for name in ["发票导出服务器".repeat(3), "\u{1}".repeat(64), "é".repeat(32)] {
        let script = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])";
        let python = ["--uts", "python3", "-c", script, name.as_str()];
        let run =
            |args: &[&str]| Running::new(&mut under(&exporter, Command::new("unshare").args(python), args)).wait();
        run(&["run"]).expect(0);
        run(&["verify"]).expect(0);
    }
    let lock = fs::read(exporter.output().join(".export_state/lock")).unwrap();
    assert_eq!(lock.len(), 3 * 512);
}

#[test]
fn a_repair_is_not_advised_where_only_mending_the_row_helps() {
    on_every_source(|table| {
        let time = table.ago(Duration::from_secs(3_000));
        for (id, number) in [(1, "BROKEN"), (2, "CHANGED")] {
            table.insert(&Row { id, number, time: &time, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let change = |id, document: &str| {
            table.execute(&format!(
                "UPDATE t_invoice SET fext_field = '{document}', fupdate_time = '{time}' WHERE fid = {id}"
            ));
        };
        let verify = |more: &[&str]| {
            let verify = ["verify", "--against-source", "--documents", "--format", "json"];
            exporter.run(verify.iter().chain(more)).json()
        };
        change(1, "{");
        let what_to_do = |answer: &Value| answer["kinds"][0]["what_to_do"].as_str().unwrap().to_owned();
        let only = what_to_do(&verify(&[]));
        assert!(only.starts_with("mend the row in the source") && !only.contains("--repair"), "{only}");
        change(2, "[2]");
        let both = what_to_do(&verify(&[]));
        assert!(both.contains("--repair exports it") && both.contains("1 of 2: mend the row"), "{both}");
        let repaired = verify(&["--repair"]);
        let outcomes: Vec<&str> =
            repaired["findings"].as_array().unwrap().iter().map(|found| found["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["rejected", "mended"], "{repaired}");
    });
}
