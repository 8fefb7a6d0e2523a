//! What is said of a command that cannot do what it should: the true cause, and a way out that can be gone, in both
//! languages.

use std::fs;
use std::time::Duration;

use crate::support::exporter::{Exporter, Finished};
use crate::support::scene::INCREMENTAL;
use crate::support::table::{Row, Table, on_every_source};

/// What a command says in English and in Chinese, each with an exit code.
#[track_caller]
fn says(exporter: &Exporter<'_>, args: &[&str], code: i32, english: &[&str], chinese: &[&str]) -> [Finished; 2] {
    [("en", english), ("zh", chinese)].map(|(lang, words)| {
        let (command, rest) = args.split_at(1);
        let said = exporter.run([command, &["--lang", lang], rest].concat()).expect(code);
        words.iter().for_each(|words| assert!(said.stderr.contains(words), "{words}: {said}"));
        said
    })
}

fn exported(table: &Table) -> Exporter<'_> {
    table.insert(&Row::default());
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

#[test]
fn a_watermark_is_set_to_a_time_by_the_sources_clock() {
    on_every_source(|table| {
        let exporter = exported(table);
        let set = |time: &str| {
            let said = exporter.run(["state", "set", "1", time, "--yes", "--format", "json"]).expect(0).json();
            said["watermarks"][0]["new_watermark"].as_str().unwrap().to_owned()
        };
        assert!(set("yesterday").ends_with(" 00:00:00"));
        let two_days_ago = || table.ago(Duration::from_secs(2 * 86_400))[..19].to_owned();
        let (before, set_to, after) = (two_days_ago(), set("2d"), two_days_ago());
        assert!(before <= set_to && set_to <= after, "{before} {set_to} {after}");
        let (one, other) = (set("2025-11-01T10:00:00+08:00"), set("2025-11-01T02:00:00Z"));
        assert_eq!(one, other);
        says(&exporter, &["state", "set", "1", "xx"], 2, &["\"2d\" for two days ago"], &["\"2d\" 表示两天前"]);
    });
}

#[test]
fn a_question_without_a_terminal_is_a_sentence() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let english =
        ["to take away the watermarks of all 1 tenants", ") needs a yes, and there is no terminal", "add --yes"];
    says(&exporter, &["state", "reset", "--all"], 2, &english, &["）需要确认，但当前没有终端", "请加上 --yes"]);
    says(&exporter, &["state", "reset", "--yes"], 2, &["name a tenant, or --all"], &["请指定租户，或用 --all"]);
}

#[test]
fn a_lost_state_is_answered_with_a_way_out() {
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::remove_dir_all(exporter.output().join(".export_state")).unwrap();
    let english = ["there is no backup", "`state restore FILE`", "`run --mode full` without --require-state"];
    let chinese = ["旁边没有备份", "`state restore FILE`", "不带 --require-state"];
    says(&exporter, &["state", "restore", "latest", "--yes"], 2, &english, &chinese);
    let required = [&INCREMENTAL[..], &["--require-state"]].concat();
    says(&exporter, &required, 5, &["the volume is mounted"], &["磁盘是否已挂载"]);
    says(&exporter, &["status"], 5, &["the volume is mounted"], &["磁盘是否已挂载"]);
}

#[test]
fn a_state_of_another_user_is_said_to_be_that() {
    let table = Table::embedded();
    let exporter = exported(&table);
    for args in [
        &["run"][..],
        &INCREMENTAL,
        &["state", "set", "1", "2025-11-01", "--yes"],
        &["verify", "--repair"],
        &["status"],
    ] {
        for (lang, words, remedy) in [("en", "belongs to another user", "chown"), ("zh", "属于另一个用户", "chown")]
        {
            let said = exporter.spawn_as(1_234, 4_242, [args, &["--lang", lang]].concat()).wait().expect(5);
            assert_eq!(said.stderr.matches(words).count(), 1, "{said}");
            assert!(said.stderr.contains(remedy), "{said}");
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_named_once() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let file = exporter.home().join("x.db");
    fs::write(&file, "hello").unwrap();
    let source = format!("sqlite:{}", file.display());
    let said = says(
        &exporter,
        &["run", "--source", &source],
        1,
        &["x.db: it is no SQLite database"],
        &["x.db: 它不是 SQLite 数据库"],
    );
    said.iter().for_each(|said| assert!(!said.stderr.contains("file is not a database"), "{said}"));
    fs::write(&file, "").unwrap();
    says(&exporter, &["run", "--source", &source], 1, &["or, on a server, grant"], &["若是数据库服务器"]);
}

#[test]
fn no_device_is_to_be_removed_and_no_empty_list_is_shown() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let said = says(&exporter, &["export-legacy-state", "/dev/full"], 5, &["name another path"], &["请指定其他路径"]);
    said.iter().for_each(|said| assert!(!said.stderr.contains("remove") && !said.stderr.contains("删除"), "{said}"));
    let said = exporter.run(["run", "--lang", "zh", "--tenant"]).expect(2);
    assert!(!said.stderr.contains("可选值"), "{said}");
    let said = exporter.run(["status", "--lang", "zh", "--stale-after", "1"]).expect(2);
    assert!(said.stderr.contains("请写一段时长") && !said.stderr.contains("time unit"), "{said}");
}

#[test]
fn a_window_that_begins_after_its_end_is_refused() {
    on_every_source(|table| {
        let exporter = exported(table);
        for since in ["now", "2099-01-01"] {
            let english = ["is not before the boundary", "there is nothing to read"];
            says(&exporter, &["run", "--since", since], 2, &english, &["不早于时间边界", "没有可读取的数据"]);
        }
    });
}
