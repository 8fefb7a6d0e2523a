//! What `why` and the closing lines of a run say is what a person finds by looking: who wrote a file, what mends it, how
//! many tenants were exported.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Exporter, run_with};
use crate::support::table::{Row, Table, on_every_source};

const FULL: [&str; 3] = ["run", "--mode", "full"];
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];
const MINUTE: Duration = Duration::from_secs(60);
const EXPORTED: &str = r#"{"a":1}"#;

fn insert(table: &Table, id: i64, number: &str, document: &str) {
    let time = table.ago(MINUTE * 60);
    table.insert(&Row { id, number, time: &time, document, ..Row::default() });
}

/// Gives the rows a new document, a source time that lies in the next window, and more.
fn update(table: &Table, set: &str, condition: &str) {
    let now = table.ago(MINUTE * 10);
    table.execute(&format!("UPDATE t_invoice SET {set}, fupdate_time = '{now}' WHERE {condition}"));
}

fn file(exporter: &Exporter<'_>, number: &str) -> std::path::PathBuf {
    exporter.output().join(format!("1/CN/20251128+{number}.json"))
}

fn verdicts(exporter: &Exporter<'_>, asked: &str, code: i32) -> Vec<Value> {
    exporter.run(["why", asked, "--format", "json"]).expect(code).json().as_array().unwrap().clone()
}

/// Which run first exported, wrote and took over the file of an invoice; 0: none did.
fn runs(verdict: &Value) -> [u32; 3] {
    ["first_exported_by", "written_by", "taken_over_by"].map(|field| {
        let run = verdict[field].as_str().and_then(|run| run.strip_prefix("run ")?.split(' ').next());
        run.map_or(0, |number| number.parse().unwrap())
    })
}

#[test]
fn a_run_that_took_a_file_over_is_not_said_to_have_written_it() {
    on_every_source(|table| {
        for number in ["A", "B"] {
            insert(table, if number == "A" { 1 } else { 2 }, number, EXPORTED);
        }
        let exporter = Exporter::new(table);
        fs::create_dir_all(exporter.output().join("1/CN")).unwrap();
        fs::write(file(&exporter, "A"), EXPORTED).unwrap();
        exporter.run(FULL).expect(0);
        assert_eq!(runs(&verdicts(&exporter, "A", 0)[0]), [0, 0, 1]);
        assert_eq!(runs(&verdicts(&exporter, "B", 0)[0]), [1, 1, 0]);
        let chinese = exporter.run(["why", "A", "--lang", "zh"]).expect(0).stdout;
        assert!(chinese.contains("文件接管") && !chinese.contains("文件写入"), "{chinese}");
        exporter.run(INCREMENTAL).expect(0);
        update(table, "fext_field = '[2]'", "fid IN (1, 2)");
        insert(table, 3, "TWIN", EXPORTED);
        exporter.run(INCREMENTAL).expect(0);
        assert_eq!(runs(&verdicts(&exporter, "A", 0)[0]), [0, 3, 1]);
        assert_eq!(runs(&verdicts(&exporter, "B", 0)[0]), [1, 3, 0]);
        insert(table, 4, "TWIN", EXPORTED);
        exporter.run(INCREMENTAL).expect(0);
        let mut twins: Vec<_> = verdicts(&exporter, "TWIN", 0).iter().map(runs).collect();
        twins.sort_unstable();
        assert_eq!(twins, [[0, 0, 4], [3, 3, 0]]);
    });
}

#[test]
fn after_a_restore_the_run_that_takes_over_is_no_first_exporter() {
    on_every_source(|table| {
        insert(table, 1, "OLD", EXPORTED);
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let backup = exporter.home().join("backup.db");
        exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
        insert(table, 2, "NEW", EXPORTED);
        update(table, "fext_field = '[3]'", "fid = 1");
        exporter.run(INCREMENTAL).expect(0);
        exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
        let run = exporter.run(INCREMENTAL).expect(0);
        assert!(run.stdout.contains("- taken over: 2 files that were right already and not on record as they were"));
        let [new, old] = ["NEW", "OLD"].map(|number| runs(&verdicts(&exporter, number, 0)[0]));
        assert!(new[..2] == [0, 0] && new[2] > 1, "{new:?}");
        assert!(old[..2] == [1, 0] && old[2] > 1, "{old:?}");
    });
}

#[test]
fn the_remedy_for_a_wrong_file_mends_it() {
    on_every_source(|table| {
        for (id, number) in [(1, "ALTERED"), (2, "LOST"), (3, "BLOCKED")] {
            insert(table, id, number, EXPORTED);
        }
        let exporter = Exporter::new(table);
        fs::create_dir_all(file(&exporter, "BLOCKED")).unwrap();
        exporter.run(INCREMENTAL).expect(3);
        let times = fs::metadata(file(&exporter, "ALTERED")).unwrap();
        let altered = fs::File::options().write(true).open(file(&exporter, "ALTERED")).unwrap();
        std::io::Write::write_all(&mut &altered, EXPORTED.replace('1', "2").as_bytes()).unwrap();
        altered.set_modified(times.modified().unwrap()).unwrap();
        fs::remove_file(file(&exporter, "LOST")).unwrap();
        for (number, next) in [
            ("ALTERED", "verify --hash --repair writes it again"),
            ("LOST", "a full run (run --mode full) writes it again"),
            ("BLOCKED", "move away what lies at 1/CN/20251128+BLOCKED.json; every run tries again until then"),
        ] {
            assert_eq!(verdicts(&exporter, number, 6)[0]["next"], next);
        }
        fs::remove_dir(file(&exporter, "BLOCKED")).unwrap();
        exporter.run(FULL).expect(0);
        verdicts(&exporter, "LOST", 0);
        verdicts(&exporter, "BLOCKED", 0);
        exporter.run(["verify", "--hash", "--repair"]).expect(0);
        verdicts(&exporter, "ALTERED", 0);
    });
}

#[test]
fn a_file_that_is_missing_is_not_said_to_stay() {
    on_every_source(|table| {
        insert(table, 1, "GONE", EXPORTED);
        insert(table, 2, "LEFT", EXPORTED);
        insert(table, 3, "KEPT", EXPORTED);
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        table.execute("DELETE FROM t_invoice WHERE fid IN (1, 3)");
        table.execute("UPDATE t_invoice SET fissue_status = 5 WHERE fid = 2");
        for number in ["GONE", "LEFT"] {
            fs::remove_file(file(&exporter, number)).unwrap();
        }
        for number in ["GONE", "LEFT"] {
            let said = &verdicts(&exporter, number, 6)[0];
            assert_eq!(said["verdict"], "not exported", "{said}");
            assert!(said["because"].as_str().unwrap().ends_with("; its file is missing too"), "{said}");
            let chinese = exporter.run(["why", number, "--lang", "zh"]).expect(6).stdout;
            assert!(chinese.contains("；其文件也已缺失") && !chinese.contains("文件保留"), "{chinese}");
        }
        let kept = &verdicts(&exporter, "KEPT", 6)[0];
        assert!(kept["verdict"] == "orphaned" && kept["because"].as_str().unwrap().ends_with("; the file stays"));
        let listed = exporter.run(["verify", "--against-source"]).expect(6).stdout;
        assert!(["GONE", "LEFT", "KEPT"].iter().all(|number| listed.contains(number)), "{listed}");
    });
}

#[test]
fn a_moved_file_in_doubt_and_the_file_on_record_are_both_named() {
    on_every_source(|table| {
        for (id, number) in [(1, "A"), (2, "B")] {
            insert(table, id, number, EXPORTED);
        }
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        update(table, "fcountry = 'DE'", "fid IN (1, 2)");
        assert!(run_with(&exporter, "linkat:signal=KILL:when=2", &INCREMENTAL).was_killed());
        let is_moved = |number: &&str| exporter.output().join(format!("1/DE/20251128+{number}.json")).exists();
        let number = ["A", "B"].into_iter().find(is_moved).expect("one file was moved");
        let [before, now] = ["CN", "DE"].map(|country| format!("1/{country}/20251128+{number}.json"));
        for asked in [number, &before, &now] {
            let said = &verdicts(&exporter, asked, 6)[0];
            let files = ["file", "file_on_record"].map(|field| said[field].as_str().unwrap_or_default());
            assert_eq!(files, [&now, &before], "{said}");
        }
    });
}

#[test]
fn the_run_after_a_killed_one_counts_and_names_the_tenants_that_it_exports() {
    on_every_source(|table| {
        for (id, tenant) in [(1, "1"), (2, "10"), (3, "89")] {
            let time = table.ago(MINUTE * 60);
            table.insert(&Row { id, tenant, time: &time, ..Row::default() });
        }
        for (mode, done) in [("full", "tenant 89: done"), ("incremental", "tenant 89: 1 invoice exported")] {
            let exporter = Exporter::new(table);
            assert!(run_with(&exporter, "linkat:signal=KILL:when=3", &["run", "--mode", mode]).was_killed());
            let healed = exporter.run(["run", "--mode", mode]).expect(0);
            assert!(healed.stdout.contains("tenants: 3\n"), "{healed}");
            assert!(healed.stderr.contains(&format!("[SUCCESS] {done}\n")), "{healed}");
            assert_eq!(exporter.ask("SELECT tenants FROM run WHERE status = 'success'"), ["3"]);
            fs::remove_dir_all(exporter.output()).unwrap();
        }
    });
}

#[test]
fn strict_is_said_to_hold_a_watermark_only_by_a_run_that_moves_one() {
    on_every_source(|table| {
        insert(table, 1, "SPOILED", "{");
        let exporter = Exporter::new(table);
        let window = ["run", "--since", "2001-01-01", "--strict"];
        for (args, holds) in [(&["run", "--mode", "full", "--strict"][..], false), (&window, false)] {
            let run = exporter.run(args).expect(3);
            assert!(run.stderr.contains("--strict"), "{run}");
            assert_eq!(run.stderr.contains("holds its watermark"), holds, "{run}");
        }
        let run = exporter.run(["run", "--mode", "incremental", "--strict"]).expect(3);
        assert!(run.stderr.contains("holds its watermark"), "{run}");
    });
}
