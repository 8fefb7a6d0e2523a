//! One verdict on one invoice, and it is right: what it says comes next is what the next run does.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Exporter, run_with, spawn_held};
use crate::support::listing::{Traces, everything_in};
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor, on_every_source};

const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];
const MINUTE: Duration = Duration::from_secs(60);

/// The only verdict on a number.
fn verdict(exporter: &Exporter<'_>, number: &str, code: i32) -> Value {
    let finished = exporter.run(["why", number, "--format", "json"]).expect(code);
    let verdicts = finished.json();
    assert_eq!(verdicts.as_array().map(Vec::len), Some(1), "{finished}");
    verdicts[0].clone()
}

#[track_caller]
fn assert_says(exporter: &Exporter<'_>, number: &str, code: i32, standing: &str, because: &str, next: &str) -> Value {
    let said = verdict(exporter, number, code);
    assert_eq!(said["verdict"], standing, "{said}");
    assert!(said["because"].as_str().unwrap_or_default().contains(because), "{said}");
    assert!(said["next"].as_str().unwrap_or_default().contains(next), "{said}");
    said
}

fn insert(table: &Table, id: i64, number: &str, minutes: u32, more: Row<'_>) {
    let time = table.ago(MINUTE * minutes);
    table.insert(&Row { id, number, time: &time, ..more });
}

#[test]
fn an_invoice_is_followed_from_its_row_to_its_file() {
    on_every_source(|table| {
        let plain = Row::default;
        insert(table, 1, "GOOD", 60, plain());
        insert(table, 2, "DRAFT", 60, Row { status: 1, ..plain() });
        insert(table, 3, "SPOILED", 60, Row { document: "{", ..plain() });
        let exporter = Exporter::new(table).env("SUDO_USER", "ada");
        exporter.run(INCREMENTAL).expect(3);

        let good = assert_says(&exporter, "GOOD", 0, "exported", "intact", "");
        assert_eq!(good["file"], "1/CN/20251128+GOOD.json");
        assert!(good["written_by"].as_str().unwrap().starts_with("run 1 (incremental)"), "{good}");
        assert!(good["first_exported_by"].as_str().unwrap().contains("(sudo: ada) on"), "{good}");
        assert_says(&exporter, "DRAFT", 6, "not exported", "its status is 1", "source time has moved");
        let spoiled = assert_says(&exporter, "SPOILED", 6, "not exported", "not JSON", "mend the row");
        assert!(spoiled["reject"].as_str().unwrap().starts_with("not-json: "), "{spoiled}");
        assert_says(&exporter, "good", 6, "not exported", "no row has this number", "upper and lower case");

        insert(table, 4, "AHEAD", 1, plain());
        assert_says(&exporter, "AHEAD", 6, "waiting", "after the boundary", "once the boundary has passed");
        insert(table, 5, "LATE", 90, plain());
        assert_says(&exporter, "LATE", 6, "waiting", "below the watermark", "the next incremental run");
        table.insert(&Row { id: 6, number: "ANCIENT", time: "2001-01-01 00:00:00", ..plain() });
        assert_says(&exporter, "ANCIENT", 6, "waiting", "below what the next incremental run reads", "--mode full");

        // What it says of the next run is what that does.
        exporter.run(INCREMENTAL).expect(0);
        assert_says(&exporter, "LATE", 0, "exported", "intact", "");
        assert_says(&exporter, "ANCIENT", 6, "waiting", "below", "--mode full");
        exporter.run(["run", "--mode", "full"]).expect(0);
        let ancient = assert_says(&exporter, "ANCIENT", 0, "exported", "", "");
        assert!(ancient["written_by"].as_str().unwrap().starts_with("run 3 (full)"), "{ancient}");
    });
}

#[test]
fn what_changed_after_the_export_is_told_apart() {
    on_every_source(|table| {
        for (id, number) in [
            (1, "SAME"),
            (2, "TOUCHED"),
            (3, "SILENT"),
            (4, "DELETED"),
            (5, "LEFT"),
            (6, "BROKEN"),
            (7, "LOST"),
            (8, "EDITED"),
        ] {
            insert(table, id, number, 60, Row::default());
        }
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let now = table.ago(MINUTE * 10);
        let same_time = |id| {
            table.query(&format!("SELECT CAST(fupdate_time AS CHAR) FROM t_invoice WHERE fid = {id}"))[0][0]
                .clone()
                .unwrap()
        };
        table.execute(&format!("UPDATE t_invoice SET fext_field = '[2]', fupdate_time = '{now}' WHERE fid = 2"));
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '[3]', fupdate_time = '{}' WHERE fid = 3",
            same_time(3)
        ));
        table.execute("DELETE FROM t_invoice WHERE fid = 4");
        table.execute(&format!("UPDATE t_invoice SET fissue_status = 5, fupdate_time = '{now}' WHERE fid = 5"));
        table.execute(&format!("UPDATE t_invoice SET fext_field = '{{', fupdate_time = '{now}' WHERE fid = 6"));
        let file = |number: &str| exporter.output().join(format!("1/CN/20251128+{number}.json"));
        fs::remove_file(file("LOST")).unwrap();
        fs::write(file("EDITED"), "[]").unwrap();

        assert_says(&exporter, "SAME", 0, "exported", "intact", "");
        assert_says(
            &exporter,
            "TOUCHED",
            6,
            "stale",
            "changed after it was exported",
            "next incremental run exports it",
        );
        assert_says(&exporter, "SILENT", 6, "stale", "did not move", "full run");
        assert_says(&exporter, "DELETED", 6, "orphaned", "not in the source any more", "verify --against-source");
        assert_says(&exporter, "LEFT", 6, "orphaned", "its status is 5", "verify --against-source");
        assert_says(&exporter, "BROKEN", 6, "stale", "not JSON", "mend the row");
        assert_says(&exporter, "LOST", 6, "not exported", "its file is missing", "full run");
        assert_says(&exporter, "EDITED", 6, "not exported", "its file is altered", "verify --hash --repair");

        exporter.run(INCREMENTAL).expect(3);
        assert_says(&exporter, "TOUCHED", 0, "exported", "", "");
        assert_says(&exporter, "SILENT", 6, "stale", "did not move", "full run");
        let broken = assert_says(&exporter, "BROKEN", 6, "stale", "not JSON", "mend the row");
        assert_eq!(broken["file_is"], "intact");
    });
}

#[test]
fn one_number_of_several_tenants_gives_a_verdict_on_each() {
    let table = Table::embedded();
    for (id, tenant) in [(1, "1"), (2, "ACME"), (3, "acme")] {
        insert(&table, id, "INV|1", 60, Row { tenant, ..Row::default() });
    }
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let all = exporter.run(["why", "INV|1", "--format", "json"]).expect(0).json();
    let mut tenants: Vec<_> =
        all.as_array().unwrap().iter().map(|said| said["tenant"].as_str().unwrap().to_owned()).collect();
    tenants.sort();
    assert_eq!(tenants, ["1", "ACME", "acme"]);
    let one = exporter.run(["why", "INV|1", "--tenant", "acme"]).expect(0);
    assert!(one.stdout.contains("acme/CN/20251128+INV%7C1.json") && !one.stdout.contains("ACME/"), "{one}");
    exporter.run(["why", "INV|1", "--tenant", "11"]).expect(2);
}

#[test]
fn without_the_source_it_says_what_the_state_knows_and_leaves_no_trace() {
    let table = Table::embedded();
    insert(&table, 1, "GOOD", 60, Row::default());
    insert(&table, 2, "SPOILED", 60, Row { document: "{", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(3);
    let exporter = exporter.env("INVOICE_EXPORT_SOURCE", "mysql://nobody@127.0.0.1:1/nothing");
    let before = everything_in(&[&exporter.output()], Traces::None);
    let good = exporter.run(["why", "GOOD"]).expect(0);
    assert!(good.stderr.contains("only what the state knows is shown"), "{good}");
    assert!(good.stdout.contains("the source was not asked"), "{good}");
    let spoiled = exporter.run(["why", "SPOILED"]).expect(6);
    assert!(spoiled.stdout.contains("not JSON"), "{spoiled}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);
}

#[test]
fn a_number_that_ends_like_another_one_is_another_one() {
    on_every_source(|table| {
        insert(table, 1, "A+77", 60, Row::default());
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        assert_says(&exporter, "A+77", 0, "exported", "intact", "");
        assert_says(&exporter, "77", 6, "not exported", "no row has this number", "");
    });
}

#[test]
fn what_the_next_run_will_refuse_again_is_not_called_waiting() {
    on_every_source(|table| {
        insert(table, 1, "TWIN", 60, Row { document: "[1]", ..Row::default() });
        insert(table, 2, "TWIN", 59, Row { document: "[2]", ..Row::default() });
        let large = format!("[\"{}\"]", "x".repeat(2_000));
        insert(table, 3, "LARGE", 60, Row { document: &large, ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental", "--max-document", "1KB"]).expect(3);
        assert_says(&exporter, "LARGE", 6, "not exported", "--max-document", "greater --max-document");
        let twins = exporter.run(["why", "TWIN", "--format", "json"]).expect(6).json();
        let mut said: Vec<_> = twins.as_array().unwrap().iter().map(|twin| twin["verdict"].as_str().unwrap()).collect();
        said.sort_unstable();
        assert_eq!(said, ["exported", "not exported"], "{twins}");
    });
}

/// What is said of each invoice with a file.
fn all(exporter: &Exporter<'_>, asked: &str, code: i32) -> Vec<Value> {
    exporter.run(["why", asked, "--format", "json"]).expect(code).json().as_array().unwrap().clone()
}

#[test]
fn a_file_is_asked_for_by_any_path_that_leads_to_it() {
    on_every_source(|table| {
        insert(table, 1, "INV/1", 60, Row::default());
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let file = exporter.output().join("1/CN/20251128+INV%2F1.json");
        assert!(file.exists());
        std::os::unix::fs::symlink(exporter.output(), exporter.home().join("link")).unwrap();
        let linked = exporter.home().join("link/1/CN/20251128+INV%2F1.json");
        for asked in [
            file.to_str().unwrap(),
            linked.to_str().unwrap(),
            "context/1/CN/20251128+INV%2F1.json",
            "link/../context/1/CN/20251128+INV%2F1.json",
            "1/CN/20251128+INV%2F1.json",
            "./1/CN/20251128+INV%2F1",
            "20251128+INV%2F1.json",
            "20251128+INV%2F1",
            "INV/1",
        ] {
            let said = assert_says(&exporter, asked, 0, "exported", "intact", "");
            assert_eq!((&said["number"], &said["id"]), (&"INV/1".into(), &"1".into()), "{asked}: {said}");
        }
        for (asked, because, next) in [
            ("/srv/elsewhere/1/CN/20251128+INV%2F1.json", "lies outside the output", "--output"),
            ("1/DE/20251128+INV%2F1.json", "has its number and another file", "why \"INV/1\""),
        ] {
            assert_says(&exporter, asked, 6, "not exported", because, next);
        }
    });
}

#[test]
fn a_file_of_two_invoices_and_a_name_in_two_folders_give_a_verdict_on_each() {
    on_every_source(|table| {
        for (id, country) in [(1, "CN"), (2, "CN"), (3, "DE")] {
            insert(table, id, "TWIN", 60, Row { country: Some(country), ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let ids = |asked: &str| {
            let mut ids: Vec<String> =
                all(&exporter, asked, 0).iter().map(|said| said["id"].as_str().unwrap().to_owned()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids("1/CN/20251128+TWIN.json"), ["1", "2"]);
        assert_eq!(ids("1/DE/20251128+TWIN.json"), ["3"]);
        assert_eq!(ids("20251128+TWIN.json"), ["1", "2", "3"]);
    });
}

#[test]
fn of_a_file_that_no_invoice_has_any_more_the_runs_that_touched_it_are_told() {
    on_every_source(|table| {
        insert(table, 1, "MOVED", 60, Row::default());
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let now = table.ago(MINUTE * 10);
        table.execute(&format!("UPDATE t_invoice SET fcountry = 'DE', fupdate_time = '{now}' WHERE fid = 1"));
        exporter.run(INCREMENTAL).expect(0);
        for asked in ["1/CN/20251128+MOVED.json", "context/1/CN/20251128+MOVED"] {
            let said = assert_says(&exporter, asked, 6, "not exported", "no invoice has this file any more", "MOVED");
            let past = said["past"].as_str().unwrap();
            assert!(past.starts_with("written by run 1 (incremental)"), "{said}");
            assert!(past.contains("; removed by run 2 (incremental)"), "{said}");
        }
        let both = all(&exporter, "20251128+MOVED.json", 0);
        let files: Vec<&str> = both.iter().map(|said| said["file"].as_str().unwrap()).collect();
        assert_eq!(files, ["1/DE/20251128+MOVED.json", "1/CN/20251128+MOVED.json"]);
        fs::write(exporter.output().join("1/CN/20251128+MOVED.json"), "{}").unwrap();
        assert_says(&exporter, "1/CN/20251128+MOVED.json", 6, "not exported", "a file lies there", "");
        let other = exporter.run(["why", "1/CN/20251128+MOVED.json", "--tenant", "2"]).expect(2);
        assert!(!other.stdout.contains("written by"), "{other}");
    });
}

#[test]
fn a_server_that_refuses_the_account_is_said_to_do_so_once() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        insert(&table, 1, "INV001", 60, Row::default());
        let exporter = Exporter::new(&table);
        exporter.run(INCREMENTAL).expect(0);
        let exporter = exporter.env("INVOICE_EXPORT_SOURCE", table.url().replace("root@", "stranger@"));
        for (arguments, code) in [(&["why", "INV001"][..], 0), (&["status"], 0)] {
            let told = exporter.run(arguments).expect(code);
            let warnings: Vec<&str> = told.stderr.lines().filter(|line| line.starts_with("[WARN]")).collect();
            let [warning] = warnings[..] else { panic!("one warning is expected: {told}") };
            assert!(warning.contains("cannot connect to"), "{told}");
            for word in ["asked", "answer", "asked"] {
                assert!(!warning.contains(word), "{told}");
            }
            assert!(told.stderr.contains("[HINT] check the user in --source"), "{told}");
        }
    });
}

/// The file of a number, in the folder of tenant 1.
fn file(number: &str) -> String {
    format!("1/CN/20251128+{number}.json")
}

/// Kills a run when it has put one of two files in place, and none on record. Returns first the number of that file.
fn killed_between<'n>(exporter: &Exporter<'_>, numbers: [&'n str; 2], content: &str) -> [&'n str; 2] {
    assert!(run_with(exporter, "renameat:signal=KILL:when=2", &["run"]).was_killed());
    let is_there = |number: &str| {
        fs::read_to_string(exporter.output().join(file(number))).is_ok_and(|found| found.contains(content))
    };
    let [first, second] = numbers;
    assert_ne!(is_there(first), is_there(second), "one of two files is expected");
    if is_there(first) { [first, second] } else { [second, first] }
}

#[test]
fn a_file_that_a_dead_run_rewrote_is_in_doubt_and_not_altered() {
    on_every_source(|table| {
        for (id, number) in [(1, "A"), (2, "B")] {
            insert(table, id, number, 60, Row::default());
        }
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        table
            .execute(&format!("UPDATE t_invoice SET fext_field = '[77]', fupdate_time = '{}'", table.ago(MINUTE * 10)));
        let [written, untouched] = killed_between(&exporter, ["A", "B"], "77");
        for asked in [written, &file(written)] {
            let said =
                assert_says(&exporter, asked, 6, "waiting", "run 2, which died, may have written", "next run settles");
            assert_eq!((&said["file"], &said["file_is"]), (&file(written).into(), &"in doubt".into()), "{said}");
            let chinese = exporter.run(["why", asked, "--lang", "zh"]).expect(6).stdout;
            assert!(chinese.contains("文件待确认: 意外终止的运行 2 可能已写入或删除它，但尚未登记"), "{chinese}");
        }
        let said = assert_says(&exporter, untouched, 6, "stale", "changed after it was exported", "");
        assert_eq!(said["file_is"], "intact");
        let status = exporter.run(["status"]).expect(0);
        assert!(status.stderr.contains(", died with 0 invoices on record and 2 files in doubt;"), "{status}");
        let status = exporter.run(["status", "--lang", "zh"]).expect(0);
        assert!(status.stderr.contains("意外终止，已登记 0 条记录，另有 2 个文件待确认；"), "{status}");
        exporter.run(INCREMENTAL).expect(0);
        assert_says(&exporter, &file(written), 0, "exported", "intact", "");
        assert!(exporter.run(["status"]).expect(0).stderr.is_empty());
    });
}

#[test]
fn a_new_file_of_a_dead_run_is_known_by_its_number_and_its_path() {
    on_every_source(|table| {
        insert(table, 1, "OLD", 60, Row::default());
        let mut exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        for (id, number) in [(2, "A"), (3, "B")] {
            insert(table, id, number, 30, Row { document: "[77]", ..Row::default() });
        }
        let [written, missing] = killed_between(&exporter, ["A", "B"], "77");
        let all = [written.to_owned(), missing.to_owned(), file(written), format!("20251128+{missing}.json")];
        let told = |exporter: &Exporter<'_>| {
            for asked in &all {
                assert_says(exporter, asked, 6, "waiting", "run 2, which died, may have written", "next run settles");
            }
        };
        told(&exporter);
        let source = table.url();
        exporter.set("INVOICE_EXPORT_SOURCE", "mysql://nobody@127.0.0.1:1/nothing");
        told(&exporter);
        exporter.set("INVOICE_EXPORT_SOURCE", source);
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        fs::remove_file(exporter.output().join(file("OLD"))).unwrap();
        let old =
            assert_says(&exporter, "OLD", 6, "not exported", "not in the source any more; its file is missing too", "");
        assert_eq!(old["file_is"], "missing", "the dead run did not touch it");
        exporter.run(INCREMENTAL).expect(0);
        for asked in &all {
            assert_says(&exporter, asked, 0, "exported", "intact", "");
        }
    });
}

#[test]
fn the_path_of_an_invoice_that_is_not_exported_leads_to_the_verdict_on_its_number() {
    on_every_source(|table| {
        insert(table, 1, "GOOD", 60, Row::default());
        insert(table, 2, "DRAFT", 60, Row { status: 1, ..Row::default() });
        insert(table, 3, "SPOILED", 60, Row { document: "{", ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(3);
        insert(table, 4, "NEW/1", 30, Row::default());
        insert(table, 5, "NEW/1", 30, Row { tenant: "2", ..Row::default() });
        insert(table, 6, "DRAFT", 60, Row { tenant: "2", ..Row::default() });
        for (path, verdict, because) in [
            ("1/CN/20251128+NEW%2F1.json", "waiting", "below the watermark"),
            ("context/1/CN/20251128+NEW%2F1", "waiting", "below the watermark"),
            ("1/CN/20251128+DRAFT.json", "not exported", "its status is 1"),
            ("1/CN/20251128+SPOILED.json", "not exported", "not JSON"),
        ] {
            let said = assert_says(&exporter, path, 6, verdict, because, "");
            assert_eq!((&said["tenant"], &said["file"]), (&"1".into(), &Value::Null), "{said}");
        }
        assert_eq!(all(&exporter, "20251128+NEW%2F1.json", 6).len(), 2, "a bare name may be of both tenants");
        let because = "no run has exported a file of this name; 1 invoice has its number and another file";
        assert_says(&exporter, "1/DE/20251128+GOOD.json", 6, "not exported", because, "why \"GOOD\"");
        assert_says(&exporter, "1/CN/20251128+NONE.json", 6, "not exported", "no row has this number", "");
        exporter.run(INCREMENTAL).expect(0);
        assert_says(&exporter, "1/CN/20251128+NEW%2F1.json", 0, "exported", "intact", "");
    });
}

#[test]
fn of_a_file_that_no_run_wrote_that_is_said_with_the_verdict_on_its_number() {
    on_every_source(|table| {
        insert(table, 1, "GOOD", 60, Row { country: Some("DE"), ..Row::default() });
        insert(table, 2, "SPOILED", 60, Row { document: "{", ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(3);
        for number in ["GOOD", "SPOILED", "NONE", "NEW", "RIGHT"] {
            fs::create_dir_all(exporter.output().join("1/CN")).unwrap();
            fs::write(exporter.output().join(file(number)), Row::default().document).unwrap();
        }
        let not_ours = "a file lies there, and no run on record wrote it";
        for (number, verdict, because) in [("GOOD", "exported", "intact"), ("SPOILED", "not exported", "not JSON")] {
            let said = all(&exporter, &file(number), 6);
            assert_eq!(said.len(), 2, "{said:?}");
            assert_eq!((&said[0]["file"], &said[0]["because"]), (&file(number).into(), &not_ours.into()));
            assert_eq!(said[1]["verdict"], verdict);
            assert!(said[1]["because"].as_str().unwrap().contains(because), "{said:?}");
        }
        let none = assert_says(&exporter, &file("NONE"), 6, "not exported", not_ours, "`verify` lists all such files");
        assert!(
            none["because"].as_str().unwrap().ends_with("no row has this number, and the state knows none"),
            "{none}"
        );
        let chinese = exporter.run(["why", &file("NONE"), "--lang", "zh"]).expect(6).stdout;
        assert!(chinese.contains("该处有一个文件，但没有任何运行记录写入过它"), "{chinese}");
        insert(table, 3, "NEW", 30, Row { document: "[77]", ..Row::default() });
        insert(table, 4, "RIGHT", 30, Row::default());
        assert_says(&exporter, &file("NEW"), 6, "waiting", "another file lies at its path", "next incremental run");
        assert_says(&exporter, &file("RIGHT"), 6, "waiting", "its file is right already, but not on record", "");
        let silent = exporter.env("INVOICE_EXPORT_SOURCE", "mysql://nobody@127.0.0.1:1/nothing");
        assert_says(&silent, &file("NONE"), 6, "not exported", "the source was not asked", "");
        assert_says(&silent, "ELSE", 6, "not exported", "the state knows no invoice with this number", "");
    });
}

#[test]
fn a_file_that_a_run_at_work_has_rewritten_is_in_doubt_until_that_ends() {
    let table = Table::embedded();
    for (id, number) in [(1, "A"), (2, "B")] {
        insert(&table, id, number, 60, Row::default());
    }
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    table.execute("UPDATE t_invoice SET fext_field = '[77]'");
    let run = spawn_held(&exporter, "renameat", 2, &["run"]);
    let is_written = |number: &&str| fs::read(exporter.output().join(file(number))).unwrap() == b"[77]";
    let written = loop {
        let written: Vec<&str> = ["A", "B"].into_iter().filter(is_written).collect();
        if !written.is_empty() || !run.is_alive() {
            break written;
        }
        std::thread::yield_now();
    };
    let said: Vec<_> = written.iter().map(|number| exporter.run(["why", number])).collect();
    let status = exporter.run(["status"]);
    run.go_on();
    run.wait().expect(0);
    let [number] = written[..] else { panic!("one of two files is expected: {written:?}") };
    let said = &said[0].stdout;
    assert!(said.contains("in doubt: run 2, which is at work, may have written"), "{said}");
    assert!(said.contains("ask again when the run has ended"), "{said}");
    assert!(status.stderr.contains("is at work") && !status.stderr.contains("in doubt"), "{status}");
    assert_says(&exporter, number, 0, "exported", "intact", "");
}
