//! The same id and number are the same invoice only in the same table: after a TRUNCATE, a reload, a restart or an
//! ALTER, no old file is removed for a new one.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{numbers, run_with, spawn_held_at};
use crate::support::scene::{FULL, INCREMENTAL};
use crate::support::server::{Server, server};
use crate::support::table::on_every_flavor;
use crate::support::{Exporter, Proxy, Row, Table, on_every_source, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const PRUNE: [&str; 3] = ["verify", "--against-source", "--prune"];

fn run(exporter: &Exporter<'_>, mode: &str) -> Value {
    let run = ["run", "--safety-lag", "1s", "--writers", "1", "--format", "json", "--mode", mode];
    let finished = exporter.run(run).expect(0);
    exporter.assert_state_is_sound();
    finished.json()
}

/// Ids 1 to 3 as the numbers 0001 to 0003 of a month, so many minutes ago; the third one of this tenant.
fn invoices_of(table: &Table, month: &str, third: &str, minutes: u32) {
    for id in 1..=3 {
        let (date, number) = (format!("{month}-0{id}"), format!("000{id}"));
        let document = format!("{{\"month\": \"{month}\", \"id\": {id}}}");
        let time = table.ago(minutes * MINUTE);
        let tenant = if id == 3 { third } else { "1" };
        let row = Row { id, tenant, date: &date, number: &number, document: &document, time: &time, ..Row::default() };
        table.insert(&row);
    }
}

fn move_to(table: &Table, date: &str, minutes: u32) {
    let time = table.ago(minutes * MINUTE);
    table.execute(&format!("UPDATE t_invoice SET fissue_date = '{date}', fupdate_time = '{time}' WHERE fid = 1"));
}

fn leftovers(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.ask("SELECT path, why FROM leftover ORDER BY path")
}

#[test]
fn a_table_that_is_filled_anew_with_the_same_numbers_costs_no_archived_file() {
    for mode in ["incremental", "full"] {
        on_every_source(|table| {
            let exporter = Exporter::new(table);
            invoices_of(table, "2025-01", "1", 50);
            run(&exporter, mode);
            let (archived, stamps) = (exporter.tree(), exporter.stamps());
            table.empty_anew();
            invoices_of(table, "2026-01", "2", 20);
            let summary = run(&exporter, mode);
            let tree = exporter.tree();
            assert!(archived.iter().all(|(path, content)| tree.get(path) == Some(content)), "{summary}");
            assert!(stamps.iter().all(|(path, stamp)| exporter.stamps()[path] == *stamp));
            assert_eq!(numbers(&summary, ["written", "removed", "leftovers"]), [3, 0, 3]);
            let kept =
                ["1/CN/20250101+0001.json table", "1/CN/20250102+0002.json table", "1/CN/20250103+0003.json tenant"];
            assert_eq!(leftovers(&exporter), kept);

            // Where operators look.
            let last = exporter.run(["history", "last", "--format", "json"]).expect(0).json();
            assert_eq!(last["leftovers"][2]["path"], "1/CN/20250103+0003.json", "{last}");
            assert_eq!(last["leftovers"][2]["why"], "tenant", "{last}");
            let why = exporter.run(["why", "0003", "--format", "json"]).expect(0).json();
            assert!(why.to_string().contains("1/CN/20250103+0003.json"), "{why}");

            // Kept means kept.
            exporter.run(PRUNE.iter().chain(&["--prune-up-to", "1000"])).expect(6);
            let refused = exporter.run(PRUNE.iter().chain(&["--prune-leftovers"])).expect(2);
            assert!(
                refused.stderr.contains("remove 3 files") && refused.stderr.contains("--prune-up-to 3"),
                "{refused}"
            );
            assert_eq!(exporter.tree(), tree);
            exporter.run(PRUNE.iter().chain(&["--prune-leftovers", "--prune-up-to", "3"])).expect(0);
            exporter.assert_agrees();
            assert_eq!(leftovers(&exporter), [""; 0]);
        });
    }
}

#[test]
fn rows_that_were_read_in_the_new_table_move_as_before() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        invoices_of(table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        table.empty_anew();
        invoices_of(table, "2026-01", "1", 40);
        run(&exporter, "incremental");
        move_to(table, "2026-02-01", 20);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["written", "removed", "leftovers"]), [1, 1, 0]);
    });
}

#[test]
fn after_an_alter_moves_leave_their_old_files_until_a_full_run() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        invoices_of(table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        // A second later, so that the server shows another time.
        thread::sleep(Duration::from_millis(1_100));
        table.execute("ALTER TABLE t_invoice ADD COLUMN note INT");
        move_to(table, "2025-02-01", 40);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["written", "removed", "leftovers"]), [1, 0, 1]);
        let summary = run(&exporter, "full");
        assert_eq!(numbers(&summary, ["written", "unchanged", "leftovers"]), [0, 3, 0]);
        table.execute(&format!(
            "UPDATE t_invoice SET fissue_date = '2025-03-01', fupdate_time = '{}' WHERE fid IN (1, 2)",
            table.ago(20 * MINUTE)
        ));
        assert_eq!(numbers(&run(&exporter, "incremental"), ["written", "removed", "leftovers"]), [2, 2, 0]);
        assert_eq!(leftovers(&exporter), ["1/CN/20250101+0001.json table"]);
    });
}

#[test]
fn a_table_that_is_exchanged_while_a_run_reads_it_costs_no_file() {
    for mode in ["incremental", "full"] {
        on_every_source(|table| {
            let exporter = Exporter::new(table);
            invoices_of(table, "2025-01", "1", 50);
            run(&exporter, mode);
            let archived = exporter.tree();
            // The staging folder is made when the run is on record, and before it reads any row.
            let args = ["run", "--mode", mode, "--safety-lag", "1s", "--writers", "1"];
            let working = spawn_held_at(&exporter, "staging", "mkdirat", &args);
            wait_for("its row", || !exporter.ask("SELECT id FROM run WHERE status = 'running'").is_empty());
            table.empty_anew();
            invoices_of(table, "2025-02", "1", 20);
            working.go_on();
            let finished = working.wait().expect(0);
            let tree = exporter.tree();
            assert!(archived.iter().all(|(path, content)| tree.get(path) == Some(content)), "{finished}");
            assert_eq!(tree.len(), 6, "{finished}");
            exporter.assert_state_is_sound();
        });
    }
}

#[test]
fn without_the_process_privilege_the_old_file_of_a_move_is_kept_and_it_is_said_why() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let Table::Server(database) = &table else { unreachable!("it is on a server") };
        let name = database.url().rsplit('/').next().unwrap().to_owned();
        database.execute(&format!("CREATE USER reader_{name}@'%'"));
        database.execute(&format!("GRANT SELECT ON {name}.* TO reader_{name}@'%'"));
        let exporter = Exporter::new(&table)
            .env("INVOICE_EXPORT_SOURCE", database.url().replace("root@", &format!("reader_{name}@")));
        invoices_of(&table, "2025-01", "1", 50);
        run(&exporter, "full");
        move_to(&table, "2025-02-01", 20);
        let finished = exporter.run(["run", "--mode", "full"]).expect(0);
        assert!(finished.stderr.contains("1 file kept") && finished.stderr.contains("PROCESS"), "{finished}");
        assert_eq!(leftovers(&exporter), ["1/CN/20250101+0001.json table"]);
        assert_eq!(exporter.tree().len(), 4);
        let chinese = exporter.run(["verify", "--lang", "zh"]).expect(6);
        assert!(chinese.stdout.contains("leftover"), "{chinese}");
    });
}

#[test]
fn after_a_restart_of_the_server_a_backup_may_have_been_put_back() {
    on_every_flavor(|flavor| {
        let mut server = Server::fresh(flavor);
        let table = Table::on(&server);
        let exporter = Exporter::new(&table);
        invoices_of(&table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        // The start of a server is known to the second.
        thread::sleep(Duration::from_millis(1_100));
        server.restart();
        move_to(&table, "2025-02-01", 20);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["written", "removed", "leftovers"]), [1, 0, 1]);
    });
}

#[test]
fn a_table_in_partitions_with_an_odd_name_is_known_too() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_TABLE", "发票-t$1 #P#x");
        table.execute("ALTER TABLE t_invoice PARTITION BY HASH (fid) PARTITIONS 2");
        invoices_of(&table, "2025-01", "1", 50);
        let odd = "`发票-t$1 #P#x`";
        table.execute(&format!("RENAME TABLE t_invoice TO {odd}"));
        run_odd(&exporter);
        let change = |set: &str, minutes: u32| {
            let time = table.ago(minutes * MINUTE);
            table.execute(&format!("UPDATE {odd} SET {set}, fupdate_time = '{time}' WHERE fid IN (1, 2)"));
        };
        change("fissue_date = '2025-02-01'", 40);
        assert_eq!(numbers(&run_odd(&exporter), ["written", "removed", "leftovers"]), [2, 2, 0]);
        // Invoice 1 is gone, and 2 moves, of which the other partition is as it was: that is not told apart.
        table.execute(&format!("ALTER TABLE {odd} TRUNCATE PARTITION p1"));
        change("fissue_date = '2025-03-01'", 20);
        assert_eq!(numbers(&run_odd(&exporter), ["written", "removed", "leftovers"]), [1, 0, 1]);
    });
}

/// The tree is not that of the table with the usual name.
fn run_odd(exporter: &Exporter<'_>) -> Value {
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s", "--format", "json"]).expect(0).json()
}

#[test]
fn an_sqlite_table_that_gives_ids_out_again_proves_nothing() {
    let table = Table::embedded();
    table.execute("DROP TABLE t_invoice");
    table.execute(
        "CREATE TABLE t_invoice (fid INTEGER PRIMARY KEY, ftenant_id TEXT NOT NULL, fcountry TEXT, fissue_date TEXT,
         finvoice_no TEXT, fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT NOT NULL)",
    );
    let exporter = Exporter::new(&table);
    invoices_of(&table, "2025-01", "1", 50);
    run(&exporter, "full");
    table.execute("DELETE FROM t_invoice");
    invoices_of(&table, "2026-01", "1", 20);
    assert_eq!(numbers(&run(&exporter, "full"), ["written", "removed", "leftovers"]), [3, 0, 3]);
}

#[test]
fn once_the_table_is_another_one_withdrawn_invoices_are_pruned_with_consent_only() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.load_sample(300, 6, "1:1.0");
        run(&exporter, "full");
        let delete =
            |rows: &str| table.execute(&format!("DELETE FROM t_invoice WHERE fid IN (SELECT * FROM ({rows}) x)"));
        let any = "SELECT MIN(fid) FROM t_invoice WHERE fissue_status = 3 AND fupdate_time < (SELECT MAX(fupdate_time) FROM t_invoice)";
        delete(any);
        exporter.run(PRUNE).expect(0);
        thread::sleep(Duration::from_millis(1_100));
        table.execute("ALTER TABLE t_invoice ADD COLUMN note INT");
        delete(any);
        let before = exporter.tree();
        let refused = exporter.run(PRUNE).expect(2);
        assert!(refused.stderr.contains("remove 1 file"), "{refused}");
        assert_eq!(exporter.tree(), before);
        exporter.run(PRUNE.iter().chain(&["--prune-up-to", "1"])).expect(0);
        assert_eq!(exporter.tree().len(), before.len() - 1);
    });
}

#[test]
fn a_file_that_a_dead_run_was_to_replace_is_not_removed_when_its_row_goes() {
    for mode in [FULL, INCREMENTAL] {
        let table = Table::embedded();
        let exporter = Exporter::new(&table);
        let of_script = exporter.output().join("1/CN/20251128+INV001.json");
        fs::create_dir_all(of_script.parent().unwrap()).unwrap();
        table.insert(&Row { id: 2, number: "OTHER", time: &table.ago(50 * MINUTE), ..Row::default() });
        if mode == INCREMENTAL {
            exporter.run(FULL).expect(0);
        }
        fs::write(&of_script, "{\"by\": \"the script\"}").unwrap();
        table.insert(&Row { time: &table.ago(40 * MINUTE), ..Row::default() });
        assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &mode).was_killed());
        assert_eq!(fs::read(&of_script).unwrap(), b"{\"by\": \"the script\"}");
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        let finished = exporter.run(mode).expect(0);
        assert_eq!(fs::read(&of_script).unwrap(), b"{\"by\": \"the script\"}", "{finished}");
        assert_eq!(exporter.ask("SELECT path FROM doubt_path UNION SELECT path FROM doubt_content"), [""; 0]);
    }
}

#[test]
fn what_a_dead_run_wrote_stays_when_the_table_is_another_one_since() {
    for (mode, death) in [(FULL, 1), (FULL, 2), (INCREMENTAL, 1), (INCREMENTAL, 2)] {
        on_every_source(|table| {
            let exporter = Exporter::new(table);
            invoices_of(table, "2025-01", "1", 50);
            run(&exporter, "full");
            let time = table.ago(40 * MINUTE);
            table.execute(&format!("UPDATE t_invoice SET fext_field = '{{\"version\": 2}}', fupdate_time = '{time}'"));
            assert!(run_with(&exporter, &format!("renameat:signal=KILL:when={death}"), &mode).was_killed());
            let archived = exporter.tree();
            table.empty_anew();
            invoices_of(table, "2026-01", "1", 20);
            let finished = exporter.run(mode).expect(0);
            let tree = exporter.tree();
            assert!(archived.iter().all(|(path, content)| tree.get(path) == Some(content)), "{finished}");
            assert_eq!((tree.len(), leftovers(&exporter).len()), (6, 3), "{finished}");
            exporter.assert_state_is_sound();
        });
    }
}

/// The ids 1 to 3 with the same tenant and numbers come again by a DELETE and INSERTs with ids.
fn delete_and_insert(table: &Table, month: &str, minutes: u32) {
    table.execute("DELETE FROM t_invoice");
    invoices_of(table, month, "1", minutes);
}

#[test]
fn rows_inserted_again_with_the_numbers_of_another_year_cost_no_file() {
    for mode in ["incremental", "full"] {
        on_every_source(|table| {
            let exporter = Exporter::new(table);
            invoices_of(table, "2025-01", "1", 50);
            run(&exporter, mode);
            let archived = exporter.tree();
            delete_and_insert(table, "2026-01", 20);
            assert_eq!(numbers(&run(&exporter, mode), ["written", "removed", "leftovers"]), [3, 0, 3]);
            let tree = exporter.tree();
            assert!(archived.iter().all(|(path, content)| tree.get(path) == Some(content)));
            let kept = ["1/CN/20250101+0001.json number", "1/CN/20250102+0002.json number"];
            assert_eq!(leftovers(&exporter)[..2], kept);
        });
    }
}

/// No fact of the database tells them from rows whose dates were corrected.
#[test]
fn rows_inserted_again_with_the_numbers_of_the_same_year_count_as_corrected() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        invoices_of(table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        delete_and_insert(table, "2025-01", 20);
        move_to(table, "2025-02-01", 10);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["removed", "leftovers"]), [1, 0]);
        assert!(!exporter.tree().contains_key("1/CN/20250101+0001.json"));
    });
}

#[test]
fn ids_of_the_applications_own_that_begin_anew_cost_no_file() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice MODIFY fid BIGINT NOT NULL");
        let exporter = Exporter::new(&table);
        invoices_of(&table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        move_to(&table, "2025-02-01", 40);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["removed", "leftovers"]), [1, 0]);
        delete_and_insert(&table, "2025-01", 20);
        table.execute("DELETE FROM t_invoice WHERE fid = 3");
        move_to(&table, "2025-03-01", 10);
        assert_eq!(numbers(&run(&exporter, "incremental"), ["removed", "leftovers"]), [0, 1]);
        assert_eq!(leftovers(&exporter), ["1/CN/20250201+0001.json table"]);
    });
}

/// A run tries a statement that took too long three times more.
const TOO_LONG: [(&str, u16); 4] = [("CAST(AUTO_INCREMENT AS CHAR)", 3024); 4];

#[test]
fn a_server_that_does_not_show_the_table_any_more_costs_no_file_and_no_run() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let proxy = Proxy::to(&table.url());
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        invoices_of(&table, "2025-01", "1", 50);
        run(&exporter, "incremental");
        for (date, refusals) in
            [("2025-02-01", &TOO_LONG[..]), ("2025-03-01", &[("CAST(AUTO_INCREMENT AS CHAR)", 1105)])]
        {
            move_to(&table, date, 40);
            let gate = proxy.hold("OCTET_LENGTH(`fext_field`)", 0);
            let run = exporter.spawn(["run", "--mode", "incremental", "--safety-lag", "1s", "--format", "json"]);
            gate.wait();
            proxy.refuse_each(refusals.iter().copied());
            drop(gate);
            let summary = run.wait().expect(0).json();
            assert_eq!(proxy.not_yet_refused(), [""; 0]);
            assert_eq!(numbers(&summary, ["written", "removed", "leftovers"]), [1, 0, 1]);
        }
        exporter.assert_state_is_sound();
    });
}
