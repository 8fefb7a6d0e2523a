//! A table that is another one in the middle of a run: a migration tool swaps it for its copy, or an ALTER
//! changes it. Statements that are worded for the first would read the second wrongly.

use invoice_export::invoice::{InvoiceId, Key};
use invoice_export::source::{KeyCursor, Source, SourceError};
use invoice_export::window::Span;

use crate::support::exporter::Exporter;
use crate::support::reader::open;
use crate::support::server::server;
use crate::support::table::{Table, on_every_flavor, on_every_source};
use crate::support::{Proxy, Row};

const FULL: [&str; 3] = ["run", "--mode", "full"];
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// Puts a copy with these changes in the table's place, as tools for online changes do.
fn swap(table: &Table, changes: &str) {
    table.execute("CREATE TABLE t_new LIKE t_invoice");
    table.execute(&format!("ALTER TABLE t_new {changes}"));
    table.execute("INSERT INTO t_new SELECT * FROM t_invoice");
    table.execute("RENAME TABLE t_invoice TO t_old, t_new TO t_invoice");
}

/// A swap at a statement of the run.
struct Moment {
    run: &'static [&'static str],
    /// The statement is the one with these words, or one that is executed later.
    words: &'static str,
    executions: u32,
    /// So many that the statement is not the last of its kind: a page has 10,000 keys, 500 documents of keys or 1,000
    /// rows of a full run.
    rows: u32,
}

fn assert_swap_is_noticed(before: &str, after: &str, moment: &Moment) {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.load_sample(moment.rows, 1, "1:0.95,10:0.05");
        table.execute(&format!("ALTER TABLE t_invoice {before}"));
        let proxy = Proxy::to(&table.url());
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        let gate = proxy.hold(moment.words, moment.executions);
        let run = exporter.spawn(moment.run);
        gate.wait();
        swap(&table, after);
        drop(gate);
        let finished = run.wait().expect(1);
        assert!(finished.stderr.contains("the table t_invoice was changed while it was read"), "{finished}");
        assert!(finished.stderr.contains("run again"), "{finished}");
        exporter.assert_state_is_sound();
        exporter.run(moment.run).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_swap_between_two_pages_for_a_table_with_textual_ids_loses_nothing() {
    assert_swap_is_noticed(
        "MODIFY fid BIGINT NOT NULL",
        "MODIFY fid VARCHAR(40) NOT NULL",
        &Moment { run: &FULL, words: "`fid` > ?", executions: 0, rows: 3_000 },
    );
}

#[test]
fn a_swap_before_a_page_that_was_prepared_earlier_loses_nothing() {
    assert_swap_is_noticed(
        "MODIFY fid BIGINT NOT NULL",
        "MODIFY fid VARCHAR(40) NOT NULL",
        &Moment { run: &FULL, words: "`fid` > ?", executions: 4, rows: 7_500 },
    );
}

#[test]
fn a_swap_back_to_ids_that_are_numbers_loses_nothing() {
    assert_swap_is_noticed(
        "MODIFY fid VARCHAR(40) NOT NULL",
        "MODIFY fid BIGINT NOT NULL",
        &Moment { run: &FULL, words: "`fid` > ?", executions: 2, rows: 5_000 },
    );
}

#[test]
fn a_swap_between_keys_and_documents_loses_nothing() {
    for executions in [0, 3] {
        assert_swap_is_noticed(
            "MODIFY fid BIGINT NOT NULL",
            "MODIFY fid VARCHAR(40) NOT NULL",
            &Moment { run: &INCREMENTAL, words: "`fid` IN (", executions, rows: 3_500 },
        );
    }
}

#[test]
fn a_swap_between_two_pages_of_keys_loses_nothing() {
    assert_swap_is_noticed(
        "MODIFY fid BIGINT NOT NULL",
        "MODIFY fid VARCHAR(40) NOT NULL",
        &Moment { run: &INCREMENTAL, words: "`fupdate_time` >= ?", executions: 0, rows: 12_000 },
    );
}

#[test]
fn a_swap_after_the_tenants_were_listed_for_a_stricter_collation_loses_nothing() {
    assert_swap_is_noticed(
        "MODIFY ftenant_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
        "MODIFY ftenant_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
        &Moment { run: &INCREMENTAL, words: "`fupdate_time` <= ?", executions: 0, rows: 1_500 },
    );
}

/// The usual case: the copy has another column or index, and the run goes on in it.
#[test]
fn a_swap_for_a_table_that_is_read_in_the_same_way_costs_nothing() {
    on_every_flavor(|flavor| {
        for (run, words) in [(&FULL, "`fid` > ?"), (&INCREMENTAL, "`fid` IN (")] {
            let table = Table::on(server(flavor));
            table.load_sample(4_000, 1, "1:0.9,10:0.1");
            let proxy = Proxy::to(&table.url());
            let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
            let gate = proxy.hold(words, 1);
            let running = exporter.spawn(run);
            gate.wait();
            table.execute("CREATE TABLE t_new LIKE t_invoice");
            table.execute("ALTER TABLE t_new MODIFY fid INT NOT NULL, MODIFY ftenant_id VARCHAR(200), ADD more INT");
            table.execute("INSERT INTO t_new SELECT *, 7 FROM t_invoice");
            table.execute("RENAME TABLE t_invoice TO t_old, t_new TO t_invoice");
            drop(gate);
            running.wait().expect(0);
            exporter.assert_agrees();
        }
    });
}

type Step = fn(&mut dyn Source) -> Result<usize, SourceError>;

/// What a run, `state set` and `why` ask of rows.
const STEPS: [(&str, Step); 9] = [
    ("tenants", |source| source.tenants(&"9999-12-31 23:59:59".into()).map(|listing| listing.tenants.len())),
    // The rows lie above that time, so that the newest one below it is asked for.
    ("newest", |source| source.tenants(&"2025-11-28 14:00:00".into()).map(|listing| listing.tenants.len())),
    ("tenantless", |source| source.tenantless(10).map(|ids| ids.len() + 1)),
    ("has_tenant", |source| source.has_tenant(&"1".into()).map(usize::from)),
    ("find", |source| source.find("INV2", &[]).map(|rows| rows.len())),
    ("page", |source| source.page(Some(&InvoiceId::from("1")), 10, &mut |_| Ok(()))),
    ("documents", |source| source.documents(&["2".into()], &mut |_| Ok(())).map(|()| 1)),
    ("keys", |source| {
        let first = Key { id: "1".into(), tenant: "1".into(), time: Some("2025-11-28 15:00:00".into()) };
        source.keys(&"1".into(), &Span::default(), &KeyCursor::After(first), 10).map(|keys| keys.len())
    }),
    ("ids", |source| source.ids(Some(&InvoiceId::from("1")), 10).map(|ids| ids.len())),
];

/// Which steps of a source notice that the table has been changed since it was opened.
fn noticed(table: &Table, change: impl Fn()) -> Vec<&'static str> {
    let mut source = open(&table.url());
    for (name, step) in STEPS {
        assert!(step(&mut *source).is_ok(), "{name}");
    }
    change();
    let noticed = STEPS.into_iter().filter_map(|(name, step)| match step(&mut *source) {
        Ok(_) => None,
        Err(SourceError::Final(error)) if error.to_string().contains("was changed while it was read") => Some(name),
        // The server itself refuses what is worded for another character set.
        Err(SourceError::Statement(error)) if error.to_string().contains("is not valid for CHARACTER SET") => {
            Some(name)
        }
        Err(other) => panic!("{name}: {other:?}"),
    });
    let noticed = noticed.collect();
    let mut anew = open(&table.url());
    for (name, step) in STEPS {
        assert_eq!(step(&mut *anew).unwrap(), 1, "{name}");
    }
    noticed
}

fn filled(table: &Table) {
    for id in [1, 2] {
        table.insert(&Row { id, number: &format!("INV{id}"), ..Row::default() });
    }
}

#[test]
fn every_statement_notices_that_the_type_of_a_column_is_another() {
    let by_id = ["newest", "tenantless", "find", "page", "documents", "keys", "ids"];
    let by_time = ["tenants", "newest", "tenantless", "find", "page", "documents", "keys"];
    let by_tenant = ["tenants", "newest", "tenantless", "has_tenant", "find", "page", "documents", "keys"];
    let by_rows = ["find", "page", "documents"];
    let changes: [(&str, &str, &[&str]); 9] = [
        ("MODIFY fid BIGINT NOT NULL", "MODIFY fid VARCHAR(40) NOT NULL", &by_id),
        ("MODIFY fid VARCHAR(40) NOT NULL", "MODIFY fid BIGINT NOT NULL", &by_id),
        (
            "MODIFY fid VARCHAR(40) COLLATE utf8mb4_general_ci NOT NULL",
            "MODIFY fid VARCHAR(40) COLLATE utf8mb4_bin NOT NULL",
            &by_id,
        ),
        ("MODIFY fupdate_time DATETIME", "MODIFY fupdate_time DATETIME(3)", &by_time),
        ("MODIFY fupdate_time DATETIME", "MODIFY fupdate_time TIMESTAMP NULL", &by_time),
        ("MODIFY ftenant_id VARCHAR(64) NOT NULL", "MODIFY ftenant_id BIGINT NOT NULL", &by_tenant),
        ("MODIFY fext_field LONGTEXT CHARACTER SET utf8mb4", "MODIFY fext_field LONGTEXT CHARACTER SET gbk", &by_rows),
        ("MODIFY fext_field LONGBLOB", "MODIFY fext_field LONGTEXT CHARACTER SET gbk", &by_rows),
        (
            "MODIFY finvoice_no VARCHAR(64) CHARACTER SET gbk",
            "MODIFY finvoice_no VARCHAR(64) CHARACTER SET big5",
            &by_rows,
        ),
    ];
    on_every_flavor(|flavor| {
        for (before, after, by) in changes {
            let table = Table::on(server(flavor));
            table.execute(&format!("ALTER TABLE t_invoice {before}"));
            filled(&table);
            assert_eq!(noticed(&table, || swap(&table, after)), by, "{before}, {after}");
            table.execute(&format!("ALTER TABLE t_invoice {before}"));
            assert_eq!(noticed(&table, || table.execute(&format!("ALTER TABLE t_invoice {after}"))), by, "{after}");
        }
    });
}

#[test]
fn an_embedded_table_that_is_made_anew_with_other_types_is_noticed() {
    let table = Table::embedded();
    filled(&table);
    let columns = "ftenant_id TEXT NOT NULL, fcountry TEXT, fissue_date TEXT, finvoice_no TEXT, \
                   fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT NOT NULL";
    let make_anew = |id: &str| {
        table.execute(&format!("CREATE TABLE t_new (fid {id} PRIMARY KEY, {columns})"));
        table.execute("INSERT INTO t_new SELECT * FROM t_invoice");
        table.execute("DROP TABLE t_invoice");
        table.execute("ALTER TABLE t_new RENAME TO t_invoice");
    };
    make_anew("INTEGER NOT NULL");
    assert_eq!(noticed(&table, || make_anew("TEXT NOT NULL")), STEPS.map(|(name, _)| name));
    assert_eq!(noticed(&table, || make_anew("TEXT NOT NULL")), [""; 0], "it is read in the same way");
    assert_eq!(noticed(&table, || table.execute("CREATE TABLE other (a)")), [""; 0]);
}

#[test]
fn a_change_of_other_columns_is_no_change() {
    on_every_source(|table| {
        filled(table);
        assert_eq!(noticed(table, || table.execute("ALTER TABLE t_invoice ADD COLUMN more INTEGER")), [""; 0]);
    });
}
