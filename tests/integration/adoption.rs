//! The tree of another tool: equal to ours byte for byte, and taken over without a rewrite. Then what
//! changed, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::exporter::{Exporter, numbers};
use crate::support::server::server;
use crate::support::table::{Row, Table, on_every_flavor, on_every_source};

const ROWS: u32 = 10_000;
const TENANTS: &str = "1:0.6,10:0.3,89:0.1";
const MINUTE: Duration = Duration::from_secs(60);

/// What a colleague's script makes of the table: temporary file and rename, no sync, no state.
fn run_peer(table: &Table, output: &Path) {
    let url: url::Url = table.url().parse().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers/peer.py");
    let run = |python: &str| {
        let mut command = Command::new(python);
        command.arg(&script).arg(output).args([url.host_str().unwrap(), &url.port().unwrap().to_string()]);
        command.args([url.username(), url.path().trim_start_matches('/')]).output()
    };
    // Debian's module belongs to Debian's Python, which need not be the first on the PATH.
    let outputs = ["/usr/bin/python3", "python3"].map(|python| run(python).ok());
    let done = outputs.iter().flatten().any(|output| output.status.success());
    assert!(done, "peer.py failed (python3-pymysql is missing? run scripts/test): {outputs:?}");
}

#[test]
fn the_tree_of_a_colleagues_script_equals_ours_and_is_taken_over_without_a_rewrite() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.load_sample(ROWS, 7, TENANTS);
        let ours = Exporter::new(&table);
        ours.run(["run"]).expect(0);
        ours.assert_agrees();

        let theirs = Exporter::new(&table);
        fs::create_dir_all(theirs.output()).unwrap();
        run_peer(&table, &theirs.output());
        assert!(ours.tree() == theirs.tree(), "the trees differ");

        let refused = theirs.run(["run", "--mode", "incremental"]).expect(5);
        assert!(refused.stderr.contains("run --mode full"), "{refused}");
        let (path, _) = ours.tree().pop_first().unwrap();
        fs::write(theirs.output().join(&path), "altered").unwrap();
        let before = theirs.stamps();
        let summary = theirs.run(["run", "--format", "json"]).expect(0).json();
        assert_eq!(summary["written"], 1, "{summary}");
        theirs.assert_agrees();
        let touched: Vec<String> = theirs
            .stamps()
            .into_iter()
            .filter(|(path, stamp)| before.get(path) != Some(stamp))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(touched, [path]);
        let log = theirs.ask("SELECT action, count(*) > 8000 FROM file_log GROUP BY action");
        assert_eq!(log, ["adopted 1", "written 0"]);
        theirs.assert_state_is_sound();
    });
}

#[test]
fn after_an_incremental_export_tree_and_table_agree_and_nothing_else_was_touched() {
    on_every_source(|table| {
        table.load_sample(5_000, 7, TENANTS);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        // The watermark is fresh: ten minutes ago.
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "10m"]).expect(0);
        let before = exporter.stamps();
        // Source times between the safety lag and a minute below the watermark.
        let late = table.ago(11 * MINUTE);
        let new = table.ago(6 * MINUTE);
        for (time, ids) in [(&late, "fid % 49 = 0 AND fid <= 2450"), (&new, "fid % 49 = 0 AND fid > 2450")] {
            table.execute(&format!(
                "UPDATE t_invoice SET fext_field = '{{\"updated\": true}}', fupdate_time = '{time}' WHERE {ids}"
            ));
        }
        for id in 30_001..=30_050 {
            table.execute(&format!(
                "INSERT INTO t_invoice VALUES ({id}, '10', 'CN', '2025-11-28', 'NEW{id}', 3, '{{\"new\": {id}}}', '{new}')"
            ));
        }
        let moved = table
            .query("SELECT min(fid) FROM t_invoice WHERE fissue_status = 3 AND fid % 49 = 1")
            .remove(0)
            .remove(0)
            .unwrap();
        let old = table.query(&format!("SELECT fissue_date, finvoice_no FROM t_invoice WHERE fid = {moved}")).remove(0);
        table.execute(&format!(
            "UPDATE t_invoice SET fissue_date = '2025-12-24', fupdate_time = '{new}' WHERE fid = {moved}"
        ));
        let updated =
            table.query("SELECT finvoice_no FROM t_invoice WHERE fissue_status = 3 AND fid % 49 = 0 AND fid < 30000");

        let summary =
            exporter.run(["run", "--mode", "incremental", "--safety-lag", "5m", "--format", "json"]).expect(0).json();
        exporter.assert_agrees();
        assert_eq!(summary["written"], updated.len() + 51, "{summary}");
        assert_eq!(summary["removed"], 1, "{summary}");
        assert_eq!(summary["late"], 0, "other versions of what was there: {summary}");
        let after = exporter.stamps();
        let touched: BTreeSet<&str> = after
            .iter()
            .filter(|(path, stamp)| before.get(*path) != Some(stamp))
            .filter_map(|(path, _)| path.rsplit_once('+').map(|(_, file)| file.trim_end_matches(".json")))
            .collect();
        let number = old[1].clone().unwrap();
        let expected: BTreeSet<String> = updated
            .into_iter()
            .filter_map(|mut row| row.remove(0))
            .chain((30_001..=30_050).map(|id| format!("NEW{id}")))
            .chain([number])
            .collect();
        assert!(touched.iter().copied().eq(expected.iter().map(String::as_str)), "other files were touched");
        assert_eq!(after.len(), before.len() + 50);
        exporter.assert_state_is_sound();
    });
}

#[test]
fn of_a_tree_that_is_taken_over_only_what_is_wrong_is_replaced() {
    on_every_source(|table| {
        table.load_sample(60, 9, "1:0.6,10:0.4");
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        fs::remove_dir_all(exporter.output().join(".export_state")).unwrap();
        let tree = exporter.tree();
        let victims: Vec<&String> = tree.keys().step_by(15).collect();
        let file = |path: &str| exporter.output().join(path);
        let mut same_size = tree[victims[0]].clone();
        same_size[1] ^= 1;
        fs::write(file(victims[0]), same_size).unwrap();
        fs::write(file(victims[1]), "").unwrap();
        fs::remove_file(file(victims[2])).unwrap();
        let stray = file("1/CN/20200101+STRAY.json");
        fs::create_dir_all(stray.parent().unwrap()).unwrap();
        fs::write(&stray, "not ours").unwrap();
        let (inode, before) = (fs::metadata(&stray).unwrap().ino(), exporter.stamps());

        let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
        assert_eq!(numbers(&summary, ["written", "unchanged"]), [3, tree.len() as u64 - 3]);
        assert_eq!(fs::metadata(&stray).unwrap().ino(), inode, "what no invoice names is left alone");
        fs::remove_file(&stray).unwrap();
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let after = exporter.stamps();
        let touched: Vec<&String> = after.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
        assert_eq!(touched, victims[..3]);
        assert_eq!(exporter.ask("SELECT count(*) FROM file_log WHERE action = 'written'"), ["3"]);
    });
}

#[test]
fn an_adopted_file_is_ours_from_then_on() {
    on_every_source(|table| {
        table.insert(&Row::default());
        let exporter = Exporter::new(table);
        let old = exporter.output().join("1/CN/20251128+INV001.json");
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        fs::write(&old, Row::default().document).unwrap();
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.ask("SELECT action FROM file_log"), ["adopted"]);
        table.execute("UPDATE t_invoice SET fcountry = 'DE', fupdate_time = '2025-11-29 00:00:00'");
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        assert!(!old.exists());
    });
}
