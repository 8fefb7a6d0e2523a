//! Documents that would take more memory than there is: they are named as rejects, in every command, and nothing
//! else waits for them.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Finished, Running, under};
use crate::support::server::{Flavor, Server, Settings};
use crate::support::{Exporter, Row, Table, on_every_flavor, server};

const MINUTE: Duration = Duration::from_secs(60);
const SIZE: usize = 100_000_000;
/// What a run has for everything: less than twice such a document, and twice what it takes without one.
const ADDRESS_SPACE: &str = "--as=200000000";
const LIMIT: [&str; 2] = ["--max-document", "1MiB"];

/// On servers and in a file that take such documents.
fn on_every_source(scenario: impl Fn(&Table)) {
    for flavor in [Flavor::MariaDb, Flavor::MySql] {
        let options = &["--max-allowed-packet=1G"];
        let own = Server::fresh_with(flavor, Settings { options, ..Settings::default() });
        let table = Table::on(&own);
        // InnoDB takes none that is larger than a tenth of its log.
        table.execute("ALTER TABLE t_invoice ENGINE = MyISAM");
        scenario(&table);
    }
    scenario(&Table::embedded());
}

/// Makes a document large, and leaves its source time as it was.
fn enlarge(table: &Table, id: i64) {
    let document = match table {
        Table::Server(_) => format!("REPEAT('0', {SIZE})"),
        Table::Embedded(_) => format!("hex(zeroblob({}))", SIZE / 2),
    };
    let change = format!("fext_field = '[\"' || {document} || '\"]', fupdate_time = fupdate_time");
    table.execute(&format!("UPDATE t_invoice SET {change} WHERE fid = {id}"));
}

fn run(exporter: &Exporter<'_>, args: &[&str]) -> Finished {
    let args: Vec<&str> = args.iter().chain(&LIMIT).copied().collect();
    let mut command = under(exporter, Command::new("prlimit").arg(ADDRESS_SPACE), &args);
    // Otherwise the C library sets aside 64 MiB for each thread.
    Running::new(command.env("MALLOC_ARENA_MAX", "1")).wait()
}

fn open_rejects(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.ask("SELECT id, number, reason FROM reject WHERE closed_run IS NULL ORDER BY id")
}

fn insert(table: &Table, minutes: u32, row: &Row<'_>) {
    table.insert(&Row { time: &table.ago(minutes * MINUTE), ..*row });
}

#[test]
fn a_document_larger_than_memory_is_a_reject_of_every_run_and_keeps_nobody_waiting() {
    on_every_source(|table| {
        insert(table, 50, &Row { id: 1, number: "LARGE", ..Row::default() });
        insert(table, 50, &Row { id: 2, number: "NEXT", ..Row::default() });
        insert(table, 50, &Row { id: 3, tenant: "9", ..Row::default() });
        enlarge(table, 1);
        for args in [
            &["run", "--mode", "full"][..],
            &["run", "--mode", "full", "--tenant", "1", "--tenant", "9"],
            &["run", "--mode", "incremental"],
            &["run", "--since", "2000-01-01"],
        ] {
            let exporter = Exporter::new(table);
            let finished = run(&exporter, args).expect(3);
            assert!(finished.stderr.contains(&format!("the document has {} bytes", SIZE + 4)), "{args:?}: {finished}");
            assert_eq!(open_rejects(&exporter), ["1 LARGE too-large"], "{args:?}");
            assert_eq!(exporter.tree().len(), 2, "{args:?}");
            run(&exporter, args).expect(0);
            exporter.assert_state_is_sound();
        }
    });
}

#[test]
fn a_document_that_grew_larger_than_memory_is_told_by_why_and_verify_and_gives_way() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        insert(table, 50, &Row { id: 1, document: "[1]", ..Row::default() });
        insert(table, 50, &Row { id: 2, tenant: "9", ..Row::default() });
        run(&exporter, &["run", "--mode", "incremental"]).expect(0);
        enlarge(table, 1);
        let too_large = format!("the document has {} bytes", SIZE + 4);
        for args in [&["why", "INV001"][..], &["verify", "--against-source", "--documents"]] {
            let finished = run(&exporter, args).expect(6);
            assert!(finished.stdout.contains(&too_large), "{args:?}: {finished}");
        }
        let pruned = run(&exporter, &["verify", "--against-source", "--prune", "--documents"]).expect(6);
        assert!(pruned.stdout.contains(&too_large), "{pruned}");
        // Both want one path, so both are read once more.
        insert(table, 20, &Row { id: 3, document: "[3]", ..Row::default() });
        let summary = run(&exporter, &["run", "--mode", "incremental", "--format", "json"]).expect(3).json();
        assert_eq!(summary["failed_tenants"], Value::Array(Vec::new()), "{summary}");
        assert_eq!(open_rejects(&exporter), ["1 INV001 too-large"]);
        exporter.assert_state_is_sound();
        run(&exporter, &["run", "--mode", "incremental"]).expect(0);
        table.execute(
            "UPDATE t_invoice SET fext_field = '[]', finvoice_no = 'SMALL', fupdate_time = fupdate_time WHERE fid = 1",
        );
        run(&exporter, &["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
    });
}

/// The limit holds for the bytes that would lie in the file, whatever the column makes of them.
#[test]
fn the_limit_is_that_of_the_file_in_every_type_and_character_set() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let fits = format!(r#"["{}"]"#, "é".repeat(510));
        let documents = [fits.clone(), format!(r#"["{}x"]"#, "é".repeat(510)), format!(r#"["{}"]"#, "é".repeat(1_100))];
        for (id, document) in (1..).zip(&documents) {
            table.insert(&Row { id, number: &format!("INV{id}"), document, ..Row::default() });
        }
        let texts = ["latin1", "gbk", "gb18030", "utf16", "utf32", "utf8mb3", "utf8mb4"];
        // Once it is a BLOB, the server knows of no character set that it could change.
        let types = texts.iter().map(|charset| format!("LONGTEXT CHARACTER SET {charset}"));
        // MariaDB's gb18030 is not there before 11.
        for kind in types.chain(["VARCHAR(2000)", "JSON", "LONGTEXT", "LONGBLOB"].map(str::to_owned)) {
            if flavor == Flavor::MariaDb && kind.ends_with("gb18030") {
                continue;
            }
            table.execute(&format!("ALTER TABLE t_invoice MODIFY fext_field {kind}"));
            let exporter = Exporter::new(&table);
            exporter.run(["run", "--max-document", "1KiB"]).expect(3);
            assert_eq!(open_rejects(&exporter), ["2 INV2 too-large", "3 INV3 too-large"], "{kind}");
            let files: Vec<_> = exporter.tree().into_values().collect();
            assert_eq!(files, [fits.clone().into_bytes()], "{kind}");
        }
    });
}
