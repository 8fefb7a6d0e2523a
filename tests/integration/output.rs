//! What a run says: the one JSON object, the lines of the users' documentation, and nothing on the wrong
//! stream.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::Finished;
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// The fields that docs/operations.md lists.
const FIELDS: [&str; 31] = [
    "run",
    "dry_run",
    "kind",
    "outcome",
    "boundary",
    "since",
    "tenants",
    "failed_tenants",
    "seen",
    "written",
    "new",
    "replaced",
    "moved",
    "unchanged",
    "taken_over",
    "rejected",
    "gone",
    "late",
    "late_by_seconds",
    "leftovers",
    "unread",
    "removed",
    "bytes",
    "new_rejects",
    "open_rejects",
    "retries",
    "source_statements",
    "state_statements",
    "seconds",
    "output",
    "state",
];

/// The users' documentation, but for the line of progress, which is told after some seconds only.
const FULL: &str = "\
[INFO] 运行模式: full
[INFO] ==========================================
[INFO] 执行全量导出
[INFO] ==========================================
[INFO] 开始处理租户: 1
[SUCCESS] 租户 1 处理完成
[SUCCESS] ==========================================
[SUCCESS] 全量导出完成!
[SUCCESS] ==========================================
[INFO] 租户数量: 3
[INFO] 成功导出: 24556 条记录
";

/// The users' documentation, with the state's present name.
const SINCE_LAST_TIME: &str = "\
[INFO] 运行模式: incremental
[INFO] ==========================================
[INFO] 执行增量导出
[INFO] ==========================================
[INFO] 导出时间边界: 2025-11-28 16:30:00
[INFO] 获取租户列表...
[INFO] 租户 1: 2025-11-28 15:00:00 -> 2025-11-28 16:30:00
[SUCCESS] 租户 1: 导出 127 条新记录
[INFO] 租户 10: 首次导出，基线时间: 1970-01-01 00:00:00
[SUCCESS] 租户 10: 导出 85 条新记录
[INFO] 租户 89: 2025-11-28 14:30:00 -> 2025-11-28 16:30:00
[INFO] 租户 89: 无新增数据
[SUCCESS] ==========================================
[SUCCESS] 增量导出完成!
[SUCCESS] ==========================================
[INFO] 处理租户数: 3
[INFO] 成功导出: 212 条新记录
[INFO] 状态文件: ../context/.export_state/state.db
";

fn insert(table: &Table, id: i64, tenant: &str, minutes: u32) {
    let (number, time) = (format!("INV{id}"), table.ago(minutes * MINUTE));
    table.insert(&Row { id, tenant, number: &number, time: &time, ..Row::default() });
}

/// Log and result as one reads them, with every number as `#`.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_digit() && shape.ends_with('#') => {}
            c if c.is_ascii_digit() => shape.push('#'),
            c => shape.push(c),
        }
    }
    shape
}

fn told(finished: &Finished, output: &Path) -> String {
    shape(&format!("{}{}", finished.stderr, finished.stdout).replace(&output.display().to_string(), "../context"))
}

/// In an environment as cron and shells of the users have it.
fn chinese(table: &Table) -> Exporter<'_> {
    Exporter::new(table).env("LC_ALL", "").env("LANG", "zh_CN.UTF-8")
}

#[test]
fn a_full_run_speaks_the_lines_of_the_documentation() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        let exporter = chinese(table);
        let finished = exporter.run(["run"]).expect(0);
        assert_eq!(told(&finished, &exporter.output()), shape(FULL));
        assert!(finished.stdout.starts_with("[SUCCESS] =="), "the result alone is on stdout: {finished}");
        assert!(finished.stdout.contains("租户数量: 1\n[INFO] 成功导出: 1 条记录"), "{finished}");
    });
}

#[test]
fn an_incremental_run_speaks_the_lines_of_the_documentation() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        insert(table, 2, "89", 60);
        let exporter = chinese(table);
        exporter.run(INCREMENTAL.iter().chain(&["--safety-lag", "20m"])).expect(0);
        insert(table, 3, "1", 10);
        insert(table, 4, "10", 10);
        let finished = exporter.run(INCREMENTAL).expect(0);
        assert_eq!(told(&finished, &exporter.output()), shape(SINCE_LAST_TIME));
        assert!(finished.stdout.contains("处理租户数: 3\n[INFO] 成功导出: 2 条新记录"), "{finished}");
    });
}

#[test]
fn json_is_one_object_with_the_documented_fields_and_nothing_else() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        insert(table, 2, "10", 60);
        let exporter = Exporter::new(table).env("INVOICE_EXPORT_LANG", "zh");
        for (args, kind) in [
            (&["run", "--dry-run"][..], "full"),
            (&["run"], "full"),
            (&["run", "--mode", "incremental"], "incremental"),
            (&["run", "--since", "2025-11-28"], "backfill"),
        ] {
            let finished = exporter.run(args.iter().chain(&["--format", "json"])).expect(0);
            assert_eq!(finished.stdout.lines().count(), 1, "{finished}");
            let summary = finished.json();
            assert_eq!((&summary["kind"], &summary["outcome"]), (&Value::from(kind), &Value::from("success")));
            let mut fields = FIELDS;
            fields.sort_unstable();
            assert_eq!(summary.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>(), fields);
            assert_eq!(summary["output"], exporter.output().display().to_string());
            assert_eq!(summary["state"], exporter.state().display().to_string());
            assert!(finished.stderr.contains("运行模式"), "the log speaks the reader's language: {finished}");
        }
    });
}

#[test]
fn json_of_a_run_that_fails_is_one_object_too() {
    let table = Table::embedded();
    insert(&table, 1, "1", 60);
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_LANG", "zh");
    for (args, code) in [
        (&["run", "--require-state"][..], 5),
        (&["run", "--tenant", "nobody"], 2),
        (&["run", "--source", "sqlite:/none"], 1),
    ] {
        let finished = exporter.run(args.iter().chain(&["--format", "json"])).expect(code);
        let object = finished.json();
        assert_eq!(object["exit_code"], code);
        assert!(object["error"].as_str().unwrap().is_ascii(), "JSON is English: {object}");
        let hint = object["hint"].as_str().unwrap_or_default();
        assert!(object["error"].as_str().unwrap().ends_with(hint), "the error says the whole of it: {object}");
        assert_eq!(object.as_object().unwrap().len(), 3);
        assert!(finished.stderr.contains("[ERROR]"), "{finished}");
    }
}

#[test]
fn a_quiet_run_says_its_trouble_and_programs_get_its_result() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        let exporter = Exporter::new(table);
        let quiet = exporter.run(["run", "-q"]).expect(0);
        assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
        let quiet = exporter.run(["run", "-q", "--format", "json"]).expect(0);
        assert_eq!((quiet.stderr.as_str(), quiet.stdout.lines().count()), ("", 1));
        table.execute("UPDATE t_invoice SET fext_field = '{', fupdate_time = fupdate_time");
        let quiet = exporter.run(["run", "-q"]).expect(3);
        assert_eq!(quiet.stderr.lines().count(), 1, "{quiet}");
        assert!(quiet.stderr.contains("INV1"), "{quiet}");
    });
}

#[test]
fn a_verbose_run_tells_all_the_numbers_of_a_tenant() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        let exporter = Exporter::new(table);
        let verbose = exporter.run(["run", "-v", "--mode", "incremental"]).expect(0);
        assert!(
            verbose
                .stderr
                .contains("tenant 1: 1 seen, 1 written (1 new, 0 replaced, 0 moved), 0 unchanged (0 taken over)"),
            "{verbose}"
        );
        assert!(verbose.stdout.contains("took: "), "{verbose}");
    });
}

#[test]
fn a_run_whose_result_nobody_reads_is_done_all_the_same() {
    let table = Table::embedded();
    insert(&table, 1, "1", 60);
    for (name, closed) in [("a closed pipe", true), ("a full disk", false)] {
        let exporter = Exporter::new(&table);
        let stdout: Stdio = match closed {
            true => std::io::pipe().unwrap().1.into(),
            false => File::options().write(true).open("/dev/full").unwrap().into(),
        };
        let done = exporter.command(["run"]).stdout(stdout).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{name}: {done:?}");
        let warned = String::from_utf8_lossy(&done.stderr).contains("standard output");
        assert_eq!(warned, !closed, "{name}: {done:?}");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn only_a_tenant_that_no_run_has_exported_has_its_first_export() {
    on_every_source(|table| {
        insert(table, 1, "1", 60);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "full"]).expect(0);
        insert(table, 2, "2", 60);
        let said = exporter.run(["run", "--mode", "incremental"]).expect(0).stderr;
        assert!(said.contains("tenant 1: no watermark, from the baseline 1970-01-01 00:00:00\n"), "{said}");
        assert!(said.contains("tenant 2: first export, from the baseline 1970-01-01 00:00:00\n"), "{said}");
        exporter.run(["state", "reset", "2", "--yes"]).expect(0);
        let said = exporter.run(["run", "--mode", "incremental", "--lang", "zh"]).expect(0).stderr;
        assert!(said.contains("租户 2: 没有水位线，基线时间: 1970-01-01 00:00:00\n"), "{said}");
    });
}

#[test]
fn a_dry_run_that_meets_rejects_says_as_well_that_nothing_was_written() {
    on_every_source(|table| {
        table.insert(&Row { document: "{", ..Row::default() });
        let exporter = Exporter::new(table);
        let dry = |lang: &str| exporter.run(["run", "--dry-run", "--lang", lang]).expect(3).stdout;
        let (en, zh) = (dry("en"), dry("zh"));
        assert!(
            en.contains("[WARN] full dry run done, nothing was written, but 1 more invoice cannot be exported\n"),
            "{en}"
        );
        assert!(zh.contains("[WARN] 全量导出试运行完成（未写入任何文件），但新增 1 条记录无法导出\n"), "{zh}");
    });
}
