//! Conditions that hold from run to run: a run warns of them when they begin, change or end, and once a day. What cron
//! mails is what `-q` leaves on stderr.

use std::time::Duration;

use crate::support::exporter::Finished;
use crate::support::state::meddle;
use crate::support::table::on_every_source;
use crate::support::{Exporter, Row, Table, on_every_flavor, server};

const HOUR: Duration = Duration::from_secs(3600);
const HOURLY: [&str; 4] = ["run", "--mode", "incremental", "-q"];

fn insert(table: &Table, id: i64, time: &str) {
    table.insert(&Row { id, number: &format!("INV{id}"), time, ..Row::default() });
}

/// The mail of a run that succeeds, without its hints.
fn mailed(exporter: &Exporter<'_>) -> Vec<String> {
    let finished = exporter.run(HOURLY).expect(0);
    finished.stderr.lines().filter(|line| !line.starts_with("[HINT]")).map(str::to_owned).collect()
}

fn assert_mailed(exporter: &Exporter<'_>, words: &[&str], when: &str) {
    assert_mailed_as("[WARN]", exporter, words, when);
}

/// That a condition ended is no warning, and is mailed all the same.
fn assert_ended(exporter: &Exporter<'_>, words: &[&str], when: &str) {
    assert_mailed_as("[SUCCESS]", exporter, words, when);
}

fn assert_mailed_as(level: &str, exporter: &Exporter<'_>, words: &[&str], when: &str) {
    let lines = mailed(exporter);
    let is_said = |(line, word): (&String, &&str)| line.starts_with(level) && line.contains(word);
    assert!(lines.len() == words.len() && lines.iter().zip(words).all(is_said), "{when}: {words:?} {lines:#?}");
}

/// What a finished command says of something, as a line of information.
fn assert_reminded(finished: &Finished, word: &str) {
    let is_said = |line: &&str| line.starts_with("[INFO]") && line.contains(word);
    assert_eq!(finished.stderr.lines().filter(is_said).count(), 1, "{word}: {finished}");
    assert!(!finished.stderr.contains("[WARN]"), "{finished}");
}

#[test]
fn an_account_without_the_privilege_is_mailed_once_a_day() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        insert(&table, 1, &table.ago(3 * HOUR));
        let root = table.url();
        let name = root.rsplit_once('/').expect("a database").1.to_owned();
        table.execute(&format!("CREATE USER small_{name}@'%'"));
        table.execute(&format!("GRANT SELECT ON {name}.* TO small_{name}@'%'"));
        let exporter =
            Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", root.replace("root@", &format!("small_{name}@")));

        let dry = exporter.run(["run", "--mode", "incremental", "--dry-run"]).expect(0);
        assert_reminded(&dry, "PROCESS privilege");
        assert_mailed(&exporter, &["PROCESS privilege"], "it begins");
        assert_mailed(&exporter, &[], "it goes on");
        assert_reminded(&exporter.run(["run", "--mode", "incremental"]).expect(0), "PROCESS privilege");
        assert_reminded(&exporter.run(["run", "--mode", "full"]).expect(0), "PROCESS privilege");
        assert_reminded(&exporter.run(["verify", "--against-source"]).expect(0), "PROCESS privilege");

        let day = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-1 day')";
        meddle(&exporter.state(), &format!("UPDATE standing_condition SET warned = {day}"));
        exporter.run(["run", "--mode", "incremental", "-q", "--tenant", "none"]).expect(2);
        exporter.run(["run", "--mode", "incremental", "-q", "--dry-run"]).expect(0);
        assert_mailed(&exporter, &["PROCESS privilege"], "a day later, after runs that are not on record");
        assert_mailed(&exporter, &[], "after that");

        table.execute(&format!("GRANT PROCESS ON *.* TO small_{name}@'%'"));
        assert_ended(&exporter, &["can be seen now"], "it ends");
        assert_mailed(&exporter, &[], "after its end");
        table.execute(&format!("REVOKE PROCESS ON *.* FROM small_{name}@'%'"));
        assert_mailed(&exporter, &["PROCESS privilege"], "it begins again");
        table.execute(&format!("DROP USER small_{name}@'%'"));
        exporter.assert_state_is_sound();
    });
}

#[test]
fn what_a_source_lacks_is_mailed_when_it_begins_and_when_it_ends() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        insert(&table, 1, &table.ago(3 * HOUR));
        let exporter = Exporter::new(&table);
        assert_mailed(&exporter, &[], "nothing is missing");
        table.execute("DROP INDEX idx_incremental_export ON t_invoice");
        insert(&table, 2, "2099-01-01 00:00:00");
        assert_mailed(&exporter, &["index", "ahead of the server's clock"], "both begin");
        insert(&table, 3, "2099-01-02 00:00:00");
        assert_mailed(&exporter, &[], "times that lie farther ahead are no news");
        // A full run reads times of the future, and does not look how far ahead they are.
        exporter.run(["run", "--mode", "full", "-q"]).expect(0);
        assert_mailed(&exporter, &[], "after a full run");
        let columns = "ftenant_id, fissue_status, fupdate_time";
        table.execute(&format!("CREATE INDEX idx_incremental_export ON t_invoice ({columns})"));
        table.execute("DELETE FROM t_invoice WHERE fid > 1");
        assert_ended(&exporter, &["index", "no source time lies ahead"], "both end");
        assert_mailed(&exporter, &[], "after their end");
    });
}

#[test]
fn invoices_without_a_tenant_are_mailed_when_there_are_others() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice MODIFY ftenant_id VARCHAR(64) NULL");
        insert(&table, 1, &table.ago(3 * HOUR));
        insert(&table, 2, &table.ago(3 * HOUR));
        table.execute("UPDATE t_invoice SET ftenant_id = NULL WHERE fid = 2");
        let exporter = Exporter::new(&table);
        let run = |code| exporter.run(HOURLY).expect(code);
        let says = |finished: &Finished| finished.stderr.contains("no tenant");
        assert!(says(&run(3)));
        assert_mailed(&exporter, &[], "the same one");
        insert(&table, 3, &table.ago(3 * HOUR));
        table.execute("UPDATE t_invoice SET ftenant_id = NULL WHERE fid = 3");
        assert!(says(&run(3)), "one more");
        exporter.run(["run", "--mode", "incremental", "-q", "--tenant", "1"]).expect(0);
        assert_mailed(&exporter, &[], "a run of one tenant does not look");
        table.execute("UPDATE t_invoice SET ftenant_id = '1' WHERE fid > 1");
        assert_ended(&exporter, &["no invoice is without a tenant"], "they have one");
    });
}

#[test]
fn the_conditions_of_a_source_are_forgotten_with_it() {
    let [table, other] = [Table::embedded(), Table::embedded()];
    for table in [&table, &other] {
        insert(table, 1, &table.ago(3 * HOUR));
        insert(table, 2, "2099-01-01 00:00:00");
    }
    let mut exporter = Exporter::new(&table);
    assert_mailed(&exporter, &["ahead of the server's clock"], "it begins");
    assert_mailed(&exporter, &[], "it goes on");
    exporter.set("INVOICE_EXPORT_SOURCE", other.url());
    exporter.run(["state", "adopt-source", "--reason", "a copy", "--yes"]).expect(0);
    let lines = mailed(&exporter);
    assert!(lines.iter().any(|line| line.contains("ahead of the server's clock")), "{lines:?}");
}

#[test]
fn a_row_of_the_present_second_is_not_ahead_of_the_clock() {
    on_every_source(|table| {
        // The clock of the run shows whole seconds, and rows go on coming after it was asked.
        insert(table, 1, &table.ahead(Duration::from_secs(5)));
        let exporter = Exporter::new(table).env("INVOICE_EXPORT_LANG", "en");
        let ran = exporter.run(["run", "--mode", "incremental"]).expect(0);
        assert!(!ran.stderr.contains("ahead of the server's clock"), "{ran}");
        insert(table, 2, &table.ahead(Duration::from_secs(600)));
        let ran = exporter.run(["run", "--mode", "incremental"]).expect(0);
        assert!(ran.stderr.contains("ahead of the server's clock"), "{ran}");
    });
}
