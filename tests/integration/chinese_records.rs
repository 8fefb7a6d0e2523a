//! What went wrong is on record in both languages, and the history says it in the language that is asked for.

use std::fs;
use std::os::unix::fs::symlink;

use crate::history::{INCREMENTAL, MINUTE};
use crate::support::exporter::{Exporter, Finished};
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_source};

/// Asks in Chinese and fails unless the answer quotes the Chinese and not the English wording.
#[track_caller]
fn assert_quotes(exporter: &Exporter<'_>, args: &[&str], zh: &str, en: &str) -> Finished {
    let said = exporter.run(args.iter().chain(&["--lang", "zh"])).expect(0);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains(zh) && !all.contains(en), "{args:?} says {en:?}, or not {zh:?}: {said}");
    let programs = exporter.run(args.iter().chain(&["--lang", "zh", "--format", "json"])).expect(0);
    assert!(programs.stdout.contains(en) && !programs.stdout.contains(zh), "programs get English: {programs}");
    said
}

/// An exporter with a run of which the tenant 10 failed, because its folder is a link, and an invoice was rejected.
fn with_failed_tenant(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table).env("INVOICE_EXPORT_RETRY_FOR", "0s");
    let time = table.ago(50 * MINUTE);
    table.insert(&Row { id: 1, tenant: "10", time: &time, ..Row::default() });
    table.insert(&Row { id: 2, number: "INV2", document: "\u{feff}{}", time: &time, ..Row::default() });
    fs::create_dir_all(exporter.output()).unwrap();
    symlink(exporter.home(), exporter.output().join("10")).unwrap();
    let run = exporter.run(INCREMENTAL.iter().chain(&["--lang", "zh"])).expect(3);
    assert!(run.stderr.contains("发票 INV2（id 2）无法导出: "), "{run}");
    exporter
}

#[test]
fn errors_of_tenants_and_invoices_are_kept_in_both_languages() {
    on_every_source(|table| {
        let exporter = with_failed_tenant(table);
        let (zh, en) = ("无法查看", "cannot look at");
        assert_quotes(&exporter, &["history", "1"], zh, en);
        assert_quotes(&exporter, &["history", "--tenant", "10"], zh, en);
        assert_quotes(&exporter, &["status", "--rejects"], "字节顺序标记", "byte order mark");
        assert_quotes(&exporter, &["history", "1"], "字节顺序标记", "byte order mark");
        let of_tenant = exporter.ask("SELECT error, error_zh FROM run_tenant WHERE error IS NOT NULL").join("");
        assert!(of_tenant.contains(en) && of_tenant.contains(zh), "sqlite3 reads both: {of_tenant}");
    });
}

#[test]
fn errors_of_starts_and_verifications_are_kept_in_both_languages() {
    let table = Table::embedded();
    let exporter = with_failed_tenant(&table);
    let file = table.url().replace("sqlite:", "");
    let hidden = format!("{file}.hidden");
    fs::rename(&file, &hidden).unwrap();
    let (zh, en) = ("无法打开数据源", "cannot open");
    exporter.run(INCREMENTAL).expect(1);
    assert_quotes(&exporter, &["history", "last-failed"], zh, en);
    assert_quotes(&exporter, &["history"], zh, en);
    assert_quotes(&exporter, &["status", "--source", ""], zh, en);
    exporter.run(["verify", "--against-source"]).expect(1);
    assert_quotes(&exporter, &["history", "last-failed"], zh, en);
    assert_eq!(exporter.ask_one("SELECT kind FROM run WHERE id = 3"), "verify");
    fs::rename(&hidden, &file).unwrap();
    table.execute("ALTER TABLE t_invoice RENAME TO t_other");
    exporter.run(INCREMENTAL).expect(1);
    assert_quotes(&exporter, &["history", "last-failed"], "没有表", "there is no table");
}

#[test]
fn what_earlier_versions_recorded_is_shown_as_they_worded_it() {
    let table = Table::embedded();
    let exporter = with_failed_tenant(&table);
    meddle(
        &exporter.state(),
        "DROP TRIGGER run_is_final; DROP TRIGGER run_tenant_is_final; UPDATE run SET error = 'no luck';
         UPDATE run_tenant SET error_zh = NULL; UPDATE reject SET detail_zh = NULL",
    );
    let said = exporter.run(["history", "1", "--lang", "zh"]).expect(0);
    for english in ["no luck", "cannot look at", "byte order mark"] {
        assert!(said.stdout.contains(english), "{english}: {said}");
    }
}
