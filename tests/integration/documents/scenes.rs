//! What a document's reader has before the first command: accounts, invoices, an export with a history.

use std::time::Duration;

use super::place::Place;
use crate::support::table::{Row, Table};

const MINUTE: Duration = Duration::from_secs(60);
const INDEX: &str = "CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)";
/// The settings that the runs before a document are made with.
const SETTINGS: &str = "export INVOICE_EXPORT_SOURCE=mysql://reader@db.example:3306/invoices
export INVOICE_EXPORT_OUTPUT=/srv/context INVOICE_EXPORT_PASSWORD_FILE=/etc/invoice-export.pw
PATH=$PATH:$HOME/invoice-export/target/release
";

/// The machine on which this document is read, in whatever language.
pub(crate) fn scene(document: &str) -> Place {
    let place = Place::new();
    place.table().load_sample(300, 1, "1:0.6,10:0.3,89:0.1");
    let name = document.rsplit('/').next().unwrap_or_default();
    match name.split('.').next().unwrap_or_default() {
        "install" => {}
        "README" => account(&place),
        "sources" => installed(&place),
        "coming-from-the-script" => {
            account(&place);
            installed(&place);
            left_by_the_script(&place);
        }
        "state" => {
            with_history(&place);
            audited(&place);
        }
        _ => with_history(&place),
    }
    place
}

/// The account that exports, and its password file.
fn account(place: &Place) {
    let table = place.table();
    table.execute("CREATE USER reader@'%' IDENTIFIED BY 'the password'");
    table.execute("GRANT SELECT ON invoices.t_invoice TO reader@'%'");
    table.execute("GRANT PROCESS ON *.* TO reader@'%'");
    prepare(place, "umask 077; echo 'the password' >/etc/invoice-export.pw", &[0]);
}

/// The binary where an administrator puts it.
fn installed(place: &Place) {
    prepare(place, "install -m 755 target/release/invoice-export /usr/local/bin/", &[0]);
}

/// Five runs: all invoices, nothing new, changes with a reject, one that was refused, nothing new.
fn with_history(place: &Place) {
    account(place);
    installed(place);
    let table = place.table();
    table.execute(INDEX);
    insert(table, &[301, 302, 303], 50);
    // What changes afterwards lies above their boundary.
    export(place, "--mode full --safety-lag 20m", &[0]);
    export(place, "--mode incremental --safety-lag 20m", &[0]);
    changes(table);
    export(place, "--mode incremental", &[3]);
    prepare(place, "echo wrong >/tmp/wrong", &[0]);
    export(place, "--mode incremental --password-file /tmp/wrong", &[1]);
    export(place, "--mode incremental", &[0]);
}

/// A day's work: updates, a new invoice of each tenant, one that moves, one that is spoiled, and one that comes late.
fn changes(table: &Table) {
    let change = |ids: &str, set: &str| {
        table.execute(&format!("UPDATE t_invoice SET fissue_status = 3, fupdate_time = NOW() - INTERVAL 8 MINUTE, {set} WHERE fid IN ({ids})"));
    };
    change("11, 12, 13, 14, 15", "fext_field = CONCAT('{\"paid\":true,', SUBSTRING(fext_field, 2))");
    change("110", "fissue_date = fissue_date + INTERVAL 1 DAY");
    change("200", "fext_field = LEFT(fext_field, 210)");
    insert(table, &[304, 305, 306], 7);
    insert(table, &[307], 40);
}

/// A verification, and a watermark that an operator set.
fn audited(place: &Place) {
    prepare(place, &format!("{SETTINGS}invoice-export verify --against-source"), &[0]);
    prepare(
        place,
        &format!("{SETTINGS}invoice-export state set 10 2025-11-20 --yes --reason 'the archive lost files'"),
        &[0],
    );
}

/// The tree as the script exported it, with its state file and no state of ours.
fn left_by_the_script(place: &Place) {
    let table = place.table();
    table.execute(INDEX);
    export(place, "--mode full", &[0]);
    let script = "
        cd /srv/context && rm -r .export_state && mkdir .export_state
        for tenant in 1 10 89; do echo \"$tenant|2025-11-27 23:00:00|$(find $tenant -name '*.json' | wc -l)|SUCCESS\"; done >.export_state/.last_export_time
    ";
    prepare(place, script, &[0]);
    insert(table, &[301, 302, 303], 50);
}

/// Rows of the three tenants in turn, with source times so many minutes ago and fixed issue dates.
fn insert(table: &Table, ids: &[i64], minutes: u32) {
    for &id in ids {
        let tenant = ["1", "10", "89"][id as usize % 3];
        let country = ["CN", "DE", "FR"][id as usize % 3];
        let number = format!("INV{id:09}");
        let document = format!(r#"{{"invoiceNo":"{number}","tenant":"{tenant}","total":0.1000}}"#);
        let (country, time) = (Some(country), table.ago(minutes * MINUTE));
        table.insert(&Row { id, tenant, country, number: &number, document: &document, time: &time, ..Row::default() });
    }
}

fn export(place: &Place, options: &str, codes: &[i32]) {
    prepare(place, &format!("{SETTINGS}invoice-export run {options}"), codes);
}

fn prepare(place: &Place, script: &str, codes: &[i32]) {
    let done = place.run(script);
    assert!(
        done.status.code().is_some_and(|code| codes.contains(&code)),
        "the scene could not be made: {script}: {done}"
    );
}
