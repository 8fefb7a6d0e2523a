//! The account on record: the one that the process has, whatever the environment calls it, and the claim of sudo.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use serde_json::{Value, json};

use crate::history::history;
use crate::support::exporter::Exporter;
use crate::support::scene::INCREMENTAL;
use crate::support::state::meddle;
use crate::support::table::{Row, Table};

/// A number that the database of accounts does not have.
const WITHOUT_ENTRY: u32 = 54_321;

/// What `id` says of this process: `-un` the name of its account, `-u` its number.
pub(crate) fn id(flag: &str) -> String {
    let said = Command::new("id").arg(flag).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row { number: "INV1", ..Row::default() });
    table
}

fn recorded(of: &Value) -> [Value; 3] {
    ["user", "uid", "sudo_user"].map(|name| of[name].clone())
}

#[test]
fn the_account_is_on_record_and_not_what_the_environment_calls_it() {
    let table = table();
    let (name, uid) = (id("-un"), id("-u").parse::<u64>().unwrap());
    let exporter = Exporter::new(&table).env("USER", "mallory").env("LOGNAME", "mallory");
    exporter.run(INCREMENTAL).expect(0);
    let exporter = exporter.env("SUDO_USER", "ada");
    exporter.run(["state", "reset", "--all", "--yes"]).expect(0);
    exporter.run(INCREMENTAL).expect(0);
    let list = history(&exporter, &[]);
    let plain = [json!(name), json!(uid), Value::Null];
    let by_sudo = [json!(name), json!(uid), json!("ada")];
    for (entry, wanted) in [(0, &by_sudo), (1, &by_sudo), (2, &plain)] {
        assert_eq!(recorded(&list[entry]), *wanted, "{list}");
        let id = list[entry]["id"].as_str().unwrap();
        assert_eq!(recorded(&history(&exporter, &[id])), *wanted);
    }
    for (args, said) in [
        (vec!["history"], format!("{name}@{} (sudo: ada)", list[0]["host"].as_str().unwrap())),
        (vec!["history", "c1"], "sudo user ada".to_owned()),
        (vec!["history", "2", "--lang", "zh"], "sudo 用户".to_owned()),
        (vec!["history", "--format", "csv"], format!(",{name},{uid},ada,")),
    ] {
        let finished = exporter.run(&args).expect(0);
        let lines = finished.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(lines.into_iter().any(|line| line.contains(&said)), "{said:?} is missing: {finished}");
    }
}

#[test]
fn who_exported_an_invoice_by_doas_is_said_with_the_claim() {
    let table = table();
    let exporter = Exporter::new(&table).env("DOAS_USER", "ada");
    exporter.run(INCREMENTAL).expect(0);
    let why = exporter.run(["why", "INV1"]).expect(0);
    assert!(why.stdout.contains(&format!("by {} (sudo: ada) on", id("-un"))), "{why}");
}

#[test]
fn an_account_without_an_entry_is_on_record_with_its_number() {
    let table = table();
    let exporter = Exporter::new(&table).env("USER", "mallory");
    fs::create_dir(exporter.output()).unwrap();
    chown(exporter.output(), Some(WITHOUT_ENTRY), None).expect("this test needs root, who acts for both users");
    exporter.spawn_as(WITHOUT_ENTRY, WITHOUT_ENTRY, INCREMENTAL).wait().expect(0);
    let number = WITHOUT_ENTRY.to_string();
    assert_eq!(recorded(&history(&exporter, &["1"])), [json!(number), json!(WITHOUT_ENTRY), Value::Null]);
}

#[test]
fn of_the_time_before_accounts_were_recorded_no_number_is_said() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    crate::history::enter(&exporter, 2, &[("user", "ines")]);
    meddle(
        &exporter.state(),
        "INSERT INTO state_change (kind, at, last_run, user, host) VALUES ('set', '2025', 2, 'ines', 'db1')",
    );
    for id in ["2", "c1"] {
        assert_eq!(recorded(&history(&exporter, &[id])), [json!("ines"), Value::Null, Value::Null]);
    }
}
