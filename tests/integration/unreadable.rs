//! Rows that a source cannot return, wherever a run reads rows by their key: beside a rival for one path, and on the
//! to-do list. They are named, and hold up no tenant that they do not concern.

use std::fs;
use std::time::Duration;

use crate::retries::{documents_worked_out, limit_time, set_slow};
use crate::support::exporter::{Finished, numbers};
use crate::support::{Exporter, Proxy, Row, Table, on_every_flavor, server};
use crate::tenantless::nullable;

const MINUTE: Duration = Duration::from_secs(60);
const CN: &str = "1/CN/20251128+INV001.json";

/// A table of documents that are worked out when they are read.
fn table_of_slow_documents(table: &Table) {
    table.execute("ALTER TABLE t_invoice DROP COLUMN fext_field, ADD slow INT NOT NULL DEFAULT 0, ADD content TEXT");
    let document = documents_worked_out("', \"content\": ', content");
    table.execute(&format!("ALTER TABLE t_invoice ADD fext_field LONGTEXT AS ({document}) VIRTUAL"));
}

fn insert(table: &Table, id: i64, tenant: &str, number: &str, minutes: u32) {
    let time = table.ago(minutes * MINUTE);
    table.execute(&format!(
        "INSERT INTO t_invoice (fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, content, fupdate_time)
         VALUES ({id}, '{tenant}', 'CN', '2025-11-28', '{number}', 3, '{id}', '{time}')"
    ));
}

fn open_rejects(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.ask("SELECT id, reason FROM reject WHERE closed_run IS NULL ORDER BY id")
}

fn watermark(exporter: &Exporter<'_>, tenant: &str) -> String {
    exporter.ask_one(&format!("SELECT watermark FROM tenant WHERE name = '{tenant}'"))
}

#[test]
fn a_row_that_cannot_be_read_gives_its_path_to_its_rival_and_is_a_reject() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table_of_slow_documents(&table);
        let proxy = Proxy::to(&table.url());
        limit_time(&proxy);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        let run = |mode: &str, code| {
            let args = ["run", "--mode", mode, "--safety-lag", "1s", "--retry-for", "0s", "--format", "json"];
            let finished: Finished = exporter.run(args).expect(code);
            exporter.assert_state_is_sound();
            finished.json()
        };
        insert(&table, 1, "1", "INV001", 50);
        run("incremental", 0);
        let before = fs::read(exporter.output().join(CN)).unwrap();
        // No run sees that by itself.
        set_slow(&table, "fid = 1", true);
        insert(&table, 2, "1", "INV001", 20);
        insert(&table, 3, "9", "OTHER", 20);
        let summary = run("incremental", 3);
        assert_eq!(numbers(&summary, ["seen", "written", "rejected", "new_rejects"]), [3, 2, 1, 1], "{summary}");
        assert_eq!(summary["failed_tenants"].as_array().unwrap().len(), 0, "{summary}");
        assert_eq!(open_rejects(&exporter), ["1 unreadable"]);
        assert_eq!(exporter.ask("SELECT tenant FROM reject"), ["1"]);
        assert_ne!(fs::read(exporter.output().join(CN)).unwrap(), before);
        assert!(exporter.tree().contains_key("9/CN/20251128+OTHER.json"));
        assert_ne!(watermark(&exporter, "9"), "NULL");
        for mode in ["incremental", "full"] {
            run(mode, 0);
            assert_eq!(open_rejects(&exporter), ["1 unreadable"]);
        }
        set_slow(&table, "fid = 1", false);
        run("incremental", 0);
        assert_eq!(open_rejects(&exporter), ["1 path-taken"]);
        table.execute("UPDATE t_invoice SET finvoice_no = 'FREE', fupdate_time = fupdate_time WHERE fid = 1");
        run("incremental", 0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_to_do_list_that_cannot_be_read_fails_only_the_tenants_that_it_concerns() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table_of_slow_documents(&table);
        let proxy = Proxy::to(&table.url());
        limit_time(&proxy);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        let run_behind = |lag, code| {
            let finished = exporter.run(["run", "--mode", "incremental", "--safety-lag", lag, "--retry-for", "0s"]);
            exporter.assert_state_is_sound();
            finished.expect(code)
        };
        let run = |code| run_behind("1s", code);
        // Enough for every row that is tried instead of the one on the list.
        for id in 1..=21 {
            insert(&table, id, "1", &format!("INV{id}"), 50);
        }
        table.execute("UPDATE t_invoice SET content = '', fupdate_time = fupdate_time WHERE fid = 1");
        insert(&table, 100, "9", "FIRST", 50);
        // The boundary of the next run lies behind that of this one, however soon it comes.
        run_behind("1m", 3);
        assert_eq!(open_rejects(&exporter), ["1 not-json"]);
        let before = ["1", "9"].map(|tenant| watermark(&exporter, tenant));
        set_slow(&table, "fid <= 21", true);
        insert(&table, 101, "9", "SECOND", 20);
        let finished = run(3);
        assert!(finished.stderr.contains("tenant 1: failed"), "{finished}");
        assert!(!finished.stderr.contains("tenant 9: failed"), "{finished}");
        assert!(exporter.tree().contains_key("9/CN/20251128+SECOND.json"));
        assert_eq!(open_rejects(&exporter), ["1 not-json"]);
        assert_eq!(watermark(&exporter, "1"), before[0]);
        assert!(watermark(&exporter, "9") > before[1]);
        set_slow(&table, "1 = 1", false);
        table.execute("UPDATE t_invoice SET content = '1', fupdate_time = fupdate_time WHERE fid = 1");
        run(0);
        exporter.assert_agrees();
        assert_eq!(open_rejects(&exporter), [""; 0]);
    });
}

#[test]
fn an_invoice_without_a_tenant_that_takes_too_long_stops_no_tenant() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table_of_slow_documents(&table);
        nullable(&table);
        let proxy = Proxy::to(&table.url());
        limit_time(&proxy);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        let run = |code| {
            let args = ["run", "--mode", "incremental", "--safety-lag", "1s", "--retry-for", "0s", "--format", "json"];
            let finished = exporter.run(args).expect(code);
            exporter.assert_state_is_sound();
            numbers(&finished.json(), ["written", "rejected", "new_rejects", "unread"])
        };
        insert(&table, 1, "1", "INV001", 50);
        insert(&table, 2, "9", "INV002", 50);
        insert(&table, 3, "1", "INV003", 50);
        table.execute("UPDATE t_invoice SET ftenant_id = NULL, fupdate_time = fupdate_time WHERE fid IN (1, 2)");
        set_slow(&table, "fid = 1", true);
        assert_eq!(run(3), [1, 2, 2, 0]);
        assert_eq!(open_rejects(&exporter), ["1 unreadable", "2 unreadable"]);
        let details = exporter.ask("SELECT detail FROM reject ORDER BY id");
        assert!(details[0].contains("took too long") && details[1].contains("ftenant_id is NULL"), "{details:?}");
        assert!(exporter.tree().contains_key("1/CN/20251128+INV003.json"));
        exporter.run(["verify", "--against-source", "--retry-for", "0s"]).expect(0);
        insert(&table, 4, "9", "INV004", 20);
        assert_eq!(run(0), [1, 2, 0, 0]);
        // Where no other row can be read, the row may not be to blame.
        set_slow(&table, "1 = 1", true);
        assert_eq!(run(3), [0, 0, 0, 2]);
    });
}

/// Makes the documents on pages of their own unreadable.
fn damage(table: &Table) -> Vec<u8> {
    let url = table.url();
    let file = url.strip_prefix("sqlite:").unwrap();
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    // Each of these pages begins with the number of the next one.
    let pages = damaged.chunks_mut(4_096).filter(|page| page[4..].iter().all(|byte| *byte == b'x'));
    pages.for_each(|page| page[..4].copy_from_slice(&[0x7f; 4]));
    fs::write(file, damaged).unwrap();
    whole
}

/// An exporter of tenant 9 and of thirty invoices, one of them without a tenant, on pages that are damaged then: no
/// row is tried that could be read instead of the one without a tenant.
fn unreadable_but_for_tenant_9(table: &Table) -> Exporter<'_> {
    nullable(table);
    let exporter = Exporter::new(table);
    let document = format!("[\"{}\"]", "x".repeat(20_000));
    for id in 1..=30 {
        table.insert(&Row { id, number: &format!("INV{id}"), document: &document, ..Row::default() });
    }
    table.execute("UPDATE t_invoice SET ftenant_id = NULL WHERE fid = 1");
    table.insert(&Row { id: 100, tenant: "9", ..Row::default() });
    exporter.run(["run", "--mode", "incremental"]).expect(3);
    damage(table);
    exporter
}

#[test]
fn a_run_that_could_not_read_a_reject_without_a_tenant_says_so_and_is_partial() {
    let table = Table::embedded();
    let exporter = unreadable_but_for_tenant_9(&table);
    let time = table.ago(20 * MINUTE);
    table.insert(&Row { id: 101, tenant: "9", number: "NEXT", time: &time, ..Row::default() });
    let finished = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(3);
    assert_eq!(numbers(&finished.json(), ["seen", "written", "unread"]), [1, 1, 1], "{finished}");
    assert!(finished.stderr.contains("1 invoice without a known tenant could not be read: "), "{finished}");
    assert_eq!(exporter.ask_one("SELECT status FROM run WHERE id = 2"), "partial");
    let error = exporter.ask_one("SELECT error FROM run WHERE id = 2");
    assert!(error.starts_with("invoices without a known tenant that could not be read: 1: "), "{error}");
    let said = exporter.run(["--lang", "zh", "run", "--mode", "incremental"]).expect(3);
    assert!(said.stderr.contains("1 张租户不明的发票未能读取: "), "{said}");
    assert!(said.stdout.contains("，但有 1 张发票未能读取"), "{said}");
    exporter.assert_state_is_sound();

    // A scan reads by other ways, and does not skip the row.
    exporter.run(["run", "--mode", "full"]).expect(3);
    let detail = exporter.ask_one("SELECT detail FROM reject WHERE id = '1'");
    assert!(!detail.contains("ftenant_id is NULL"), "{detail}");
}

#[test]
fn a_verification_compares_what_can_be_read_and_says_what_cannot() {
    let table = Table::embedded();
    let exporter = unreadable_but_for_tenant_9(&table);
    fs::write(exporter.output().join("9/CN/20251128+FOREIGN.json"), "{}").unwrap();
    table.execute("DELETE FROM t_invoice WHERE fid = 100");
    let found = |args: &[&str]| {
        let verify = ["verify", "--against-source", "--format", "json"];
        let found = exporter.run(verify.iter().chain(args)).expect(6).json();
        let found = found["findings"].as_array().unwrap().iter();
        found.map(|f| format!("{} {}", f["difference"], f["tenant"]).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]), ["withdrawn 9", "foreign null", "unread null"]);
    // The deleted row is asked for together with those of tenant 1, and then alone.
    assert_eq!(found(&["--documents"]), ["withdrawn 9", "foreign null", "unread null", "unread 1"]);
}

#[test]
fn a_row_on_a_damaged_page_gives_its_path_to_its_rival_and_is_a_reject() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let insert = |id, minutes, row: &Row<'_>| table.insert(&Row { id, time: &table.ago(minutes * MINUTE), ..*row });
    insert(1, 50, &Row { document: &format!("[\"{}\"]", "x".repeat(20_000)), ..Row::default() });
    insert(2, 50, &Row { number: "NEXT", ..Row::default() });
    let run = |code| exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(code);
    run(0);
    insert(3, 20, &Row { document: "[3]", ..Row::default() });
    insert(4, 20, &Row { tenant: "9", ..Row::default() });
    let whole = damage(&table);
    for code in [3, 0] {
        run(code);
        assert_eq!(open_rejects(&exporter), ["1 unreadable"]);
        assert_eq!(exporter.tree().len(), 3);
        assert_eq!(fs::read_to_string(exporter.output().join(CN)).unwrap(), "[3]");
        exporter.assert_state_is_sound();
    }
    fs::write(table.url().strip_prefix("sqlite:").unwrap(), whole).unwrap();
    run(0);
    assert_eq!(open_rejects(&exporter), ["1 path-taken"]);
}
