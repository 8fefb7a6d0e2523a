//! Wrong usage ends every command with exit 2: what was typed, or stands in a variable, is malformed, contradicts itself
//! or names what is not there.

use std::fs;
use std::net::TcpListener;

use crate::support::exporter::{Exporter, on_a_terminal};
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor};

/// Every command that asks the source.
const ASKING: [&[&str]; 8] = [
    &["run"],
    &["run", "--dry-run"],
    &["status"],
    &["why", "INV001"],
    &["verify", "--against-source"],
    &["verify", "--repair"],
    &["state", "set", "1", "2025-11-28", "--yes"],
    &["state", "adopt-source", "--yes"],
];

/// An output with a state.
fn with_state(table: &Table) -> Exporter<'_> {
    table.insert(&Row::default());
    let exporter = Exporter::in_memory(table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter
}

#[test]
fn a_source_that_cannot_be_one_is_wrong_usage_in_every_command() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    for source in ["db.example", "mysql://reader@db.example:3306", "mysql://reader@db.example/", "mysql://h:0x/db"] {
        for command in ASKING {
            for given in [&["--source", source][..], &[]] {
                let mut child = exporter.command([command, given].concat());
                child.env("INVOICE_EXPORT_SOURCE", source);
                let refused = crate::support::exporter::Running::new(&mut child).wait().expect(2);
                assert_eq!((refused.stdout.as_str(), refused.stderr.matches("[ERROR]").count()), ("", 1), "{refused}");
            }
        }
    }
}

#[test]
fn a_file_or_folder_that_cannot_be_what_it_is_named_for_is_wrong_usage() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    let file = exporter.home().join("file");
    fs::write(&file, "").unwrap();
    let (file, folder) = (file.to_str().unwrap(), exporter.home().to_str().unwrap());
    let [nothing, below] = ["nothing", "file/below"].map(|name| format!("{folder}/{name}"));
    let nowhere = format!("{nothing}/file");
    let cases: [&[&str]; 16] = [
        &["run", "--password-file", &nothing],
        &["run", "--password-file", folder],
        &["run", "--defaults-file", &nothing],
        &["status", "--defaults-file", folder],
        &["run", "--output", file],
        &["run", "--output", &below],
        &["history", "--output", file],
        &["run", "--state-dir", file],
        &["verify", "--state-dir", &below],
        &["state", "backup", file],
        &["state", "backup", &nowhere],
        &["state", "restore", &nothing, "--yes"],
        &["export-legacy-state", &nowhere],
        &["import-legacy-state", &nothing],
        &["import-legacy-state", folder],
        &["demo", folder],
    ];
    for args in cases {
        for lang in ["en", "zh"] {
            let refused = exporter.run([args, &["--lang", lang]].concat()).expect(2);
            assert_eq!((refused.stdout.as_str(), refused.stderr.matches("[ERROR]").count()), ("", 1), "{refused}");
            assert!(refused.stderr.is_ascii() == (lang == "en"), "{refused}");
        }
    }
}

#[test]
fn a_time_zone_that_the_server_does_not_know_is_wrong_usage() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let exporter = with_state(&table);
        for command in ASKING.iter().filter(|command| !["status", "why"].contains(&command[0])) {
            let refused = exporter.run([command, &["--time-zone", "Mars/Olympus"][..]].concat()).expect(2);
            assert!(refused.error().contains("Mars/Olympus") && refused.error().contains("+08:00"), "{refused}");
        }
    });
}

#[test]
fn a_server_that_refuses_is_waited_for_so_long_as_a_terminal_says_at_once() {
    let table = Table::embedded();
    // Freed again at once; nothing listens there now.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = format!("mysql://root@127.0.0.1:{port}/shop");
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &source).env("INVOICE_EXPORT_RETRY_FOR", "2s");
    for (lang, words) in [
        ("en", ["check the host and the port", "tried again for 2 s (--retry-for)"]),
        ("zh", ["请检查 --source 中的主机和端口", "将在 2 秒 内不断重试（--retry-for）"]),
    ] {
        let (code, shown) = on_a_terminal(&exporter, &format!("run --lang {lang}"), "");
        let warning = shown.split("[WARN] ").nth(1).unwrap_or_else(|| panic!("no warning: {shown}"));
        assert!(code == 1 && words.iter().all(|word| warning.contains(word)), "{shown}");
        assert_eq!(shown.matches("(--retry-for)").count() + shown.matches("（--retry-for）").count(), 1, "{shown}");
        let log = exporter.run(["run", "--lang", lang]).expect(1);
        assert!(log.stderr.contains("[WARN]") && !log.stderr.contains("--retry-for"), "{log}");
    }
}
