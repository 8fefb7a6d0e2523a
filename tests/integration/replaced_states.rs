//! States that another one has replaced: which watermarks moved by that, and where their runs are found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::exporter::Exporter;
use crate::support::scene::INCREMENTAL;
use crate::support::table::{Row, Table, on_every_source};

fn arrive(table: &Table, id: i64, tenant: &str) {
    let time = table.ago(Duration::from_secs(3_000));
    table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &time, ..Row::default() });
}

fn watermark(exporter: &Exporter<'_>, tenant: &str) -> String {
    exporter.ask_one(&format!("SELECT watermark FROM tenant WHERE name = '{tenant}'"))
}

/// The newest change, in the list and in full.
#[track_caller]
fn newest_change(exporter: &Exporter<'_>) -> (Value, Value) {
    let listed = exporter.run(["history", "--kind", "restore", "--limit", "1", "--format", "json"]).expect(0).json();
    let full = exporter.run(["history", listed[0]["id"].as_str().unwrap(), "--format", "json"]).expect(0).json();
    (listed[0].clone(), full)
}

#[test]
fn a_restore_says_which_watermarks_moved_from_where_to_where() {
    on_every_source(|table| {
        (1..).zip(["1", "10", "20"]).for_each(|(id, tenant)| arrive(table, id, tenant));
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        exporter.run(["state", "set", "1", "2025-11-27", "--yes"]).expect(0);
        exporter.run(["state", "reset", "20", "--yes"]).expect(0);
        let then = watermark(&exporter, "10");
        let backup = exporter.home().join("backup.db");
        exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
        for (tenant, day) in [("10", "2025-11-26"), ("20", "2025-11-25"), ("30", "2025-11-24")] {
            arrive(table, 100 + tenant.parse::<i64>().unwrap(), tenant);
            exporter.run(["state", "set", tenant, day, "--yes"]).expect(0);
        }
        let restore = ["state", "restore", backup.to_str().unwrap(), "--yes", "--reason", "a test", "--format", "json"];
        let said = exporter.run(restore).expect(0).json();
        let moved = |tenant: &str, old: &str, new: Option<&str>| json!({ "tenant": tenant, "old_watermark": format!("{old} 00:00:00"), "new_watermark": new });
        let expected = json!([
            moved("10", "2025-11-26", Some(&then)),
            moved("20", "2025-11-25", None),
            moved("30", "2025-11-24", None)
        ]);
        let (listed, full) = newest_change(&exporter);
        assert_eq!((&listed["tenants"], &full["tenants"], &full["watermarks"]), (&json!(3), &json!(3), &expected));
        assert_eq!((&said["watermarks"], &said["change"]), (&expected, &full["id"]));
        let replaced = [("en", "3 watermarks", "the state before is /"), ("zh", "3 个水位线", "原状态文件保留为 /")];
        for (lang, words, replaced) in replaced {
            let text =
                exporter.run(["history", "--kind", "restore", "--limit", "1", "--lang", lang, "--format", "csv"]);
            let text = text.expect(0);
            assert!(text.stdout.contains(replaced) || lang == "zh", "{text}");
            let text = exporter.run(["history", "--kind", "restore", "--limit", "1", "--lang", lang]).expect(0);
            assert!(text.stdout.contains(words) && !text.stdout.contains("-> "), "{text}");
        }
        let of_tenant = exporter.run(["history", "--tenant", "10", "--kind", "restore", "--format", "json"]).expect(0);
        assert_eq!(of_tenant.json().as_array().unwrap().len(), 1, "{of_tenant}");
        exporter.run(["state", "check", "--deep"]).expect(0);
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        // Where there was no state, all of them are new.
        fs::remove_file(exporter.state()).unwrap();
        exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
        let (listed, full) = newest_change(&exporter);
        assert_eq!((&listed["tenants"], &full["watermarks"][0]["old_watermark"]), (&json!(2), &Value::Null), "{full}");
    });
}

/// An export of one invoice, and a backup of its state.
fn backed_up(table: &Table) -> (Exporter<'_>, PathBuf) {
    arrive(table, 1, "1");
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    let backup = exporter.home().join("backup.db");
    exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
    (exporter, backup)
}

#[test]
fn which_watermarks_moved_from_a_damaged_state_is_said_to_be_unknown() {
    let table = Table::embedded();
    let (exporter, backup) = backed_up(&table);
    let mut bytes = fs::read(exporter.state()).unwrap();
    bytes.truncate(20_000);
    fs::write(exporter.state(), bytes).unwrap();
    let said = exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
    assert!(said.stdout.contains("not known which watermarks moved"), "{said}");
    let (listed, full) = newest_change(&exporter);
    assert_eq!((&listed["tenants"], &full["tenants"]), (&Value::Null, &Value::Null), "{full}");
    for (lang, words) in [("en", "not known which watermarks moved"), ("zh", "无法得知移动了哪些水位线")] {
        let text = exporter.run(["history", "--kind", "restore", "--lang", lang]).expect(0);
        assert!(text.stdout.contains(words), "{text}");
    }
}

/// What `history` says of a number that the state does not have.
#[track_caller]
fn missing(exporter: &Exporter<'_>, which: &str, lang: &str) -> String {
    exporter.run(["history", which, "--lang", lang]).expect(2).stderr
}

/// The only file in a folder with these words in its name.
#[track_caller]
fn file_named(folder: &Path, words: &str) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let found: Vec<String> =
        entries.filter(|path| path.contains(words) && path.ends_with(char::is_alphanumeric)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn history_names_the_replaced_state_in_which_a_run_or_a_change_is() {
    let table = Table::embedded();
    let (exporter, backup) = backed_up(&table);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "set", "1", "2025-11-27", "--yes"]).expect(0);
    exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
    let private = exporter.output().join(".export_state");
    let replaced = file_named(&private.join("backups"), "before-restore");
    for (which, en, zh) in [("2", "no run 2", "没有运行 2"), ("c1", "no change c1", "没有变更 c1")] {
        let (english, chinese) = (missing(&exporter, which, "en"), missing(&exporter, which, "zh"));
        assert!(english.contains(en) && english.contains(&replaced), "{english}");
        assert!(chinese.contains(zh) && chinese.contains(&format!("它在被替换的状态文件 {replaced} 中")), "{chinese}");
    }
    // As the hint says.
    let folder = exporter.home().join("look");
    fs::create_dir(&folder).unwrap();
    fs::copy(&replaced, folder.join("state.db")).unwrap();
    let there = exporter.run(["history", "2", "--state-dir", folder.to_str().unwrap(), "--format", "json"]).expect(0);
    assert_eq!(there.json()["id"], "2");

    exporter.run(INCREMENTAL).expect(0);
    exporter.run([&INCREMENTAL[..], &["--fresh"]].concat()).expect(0);
    let aside = file_named(&private, "state.db.aside-");
    assert!(missing(&exporter, "3", "en").contains(&aside), "{}", missing(&exporter, "3", "en"));
    assert!(missing(&exporter, "2", "en").contains(&replaced), "{}", missing(&exporter, "2", "en"));
    let files = exporter.run(["history", "3", "--files"]).expect(2);
    assert!(files.stderr.contains(&aside), "{files}");
    for never in ["99", "c99"] {
        let said = missing(&exporter, never, "en");
        assert!(!said.contains("replaced") && said.contains("list them"), "{said}");
    }

    fs::write(&aside, "damaged").unwrap();
    let said = missing(&exporter, "3", "en");
    assert!(said.contains("runs 1 to 3 belong") && said.contains(&aside), "{said}");
    assert!(
        missing(&exporter, "3", "zh").contains("运行 1 至 3 属于被替换的状态文件"),
        "{}",
        missing(&exporter, "3", "zh")
    );
    fs::remove_file(&aside).unwrap();
    fs::remove_file(&replaced).unwrap();
    let said = missing(&exporter, "3", "en");
    assert!(said.contains("runs 1 to 3 belong") && said.contains("not beside it any more"), "{said}");
}
