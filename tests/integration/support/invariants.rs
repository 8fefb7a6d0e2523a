//! The seven invariants: what must be true after any fault and one plain run. `tests/FAULTS.md` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use super::database::Cells;
use super::exporter::{Exporter, Finished, numbers, table_tree};
use super::listing::{Traces, everything_in};

/// What was there before the fault, to be compared with afterwards.
pub(crate) struct Witness<'a> {
    exporter: &'a Exporter<'a>,
    outside: BTreeMap<String, String>,
    /// Every document that lay in the tree before the fault, or that the source has held since.
    documents: BTreeSet<Vec<u8>>,
    rows: Vec<Cells>,
}

impl<'a> Witness<'a> {
    pub(crate) fn new(exporter: &'a Exporter<'a>) -> Self {
        let bystander = exporter.home().join("1/CN");
        fs::create_dir_all(&bystander).expect("make a folder beside the output");
        let file = File::create(bystander.join("20251128+INV1.json"));
        // FUSE would not hear of what settles the rest.
        let written = file.and_then(|mut file| file.write_all(b"a bystander").and_then(|()| file.sync_all()));
        written.expect("write a file beside the output");
        exporter.settle();
        let mut witness = Self { exporter, outside: BTreeMap::new(), documents: BTreeSet::new(), rows: Vec::new() };
        witness.outside = witness.outside();
        witness.documents.extend(exporter.tree().into_values());
        witness.source_changed();
        witness
    }

    /// To be called after each change of the source: what it holds may lie in the tree from now on.
    pub(crate) fn source_changed(&mut self) {
        self.documents.extend(table_tree(self.exporter.table()).into_values());
        self.rows = self.rows();
    }

    /// Right after the fault: whoever reads the tree sees no half file, and a run that says that all is
    /// well is right.
    #[track_caller]
    pub(crate) fn assert_bearable(&self, faulty: &Finished) {
        self.assert_nothing_is_half();
        if faulty.status.success() {
            self.assert_complete();
        }
    }

    /// After the plain run.
    #[track_caller]
    pub(crate) fn assert_made_good(&self) {
        self.assert_complete();
        self.assert_no_litter();
        let before = self.exporter.stamps();
        let summary = self.exporter.run(["run", "--format", "json"]).expect(0).json();
        assert_eq!(numbers(&summary, ["written", "removed"]), [0, 0], "a further run: {summary}");
        assert_eq!(self.exporter.stamps(), before, "files that a further run touched");
        self.assert_nothing_else_changed();
    }

    /// Of so many runs it is on record that they died, and nothing is in doubt any more.
    #[track_caller]
    pub(crate) fn assert_recovered(&self, died: usize) {
        let interrupted = self.exporter.ask("SELECT id FROM run WHERE status = 'interrupted' AND finished IS NOT NULL");
        assert_eq!(interrupted.len(), died, "interrupted runs: {interrupted:?}");
        for doubt in ["id FROM todo WHERE why <> 'reject'", "path FROM doubt_path", "path FROM leftover"] {
            assert_eq!(self.exporter.ask(&format!("SELECT {doubt}")), [""; 0], "{doubt}");
        }
    }

    #[track_caller]
    pub(crate) fn assert_nothing_is_half(&self) {
        for (path, content) in self.exporter.tree() {
            let bytes = content.len();
            let text = String::from_utf8_lossy(&content);
            assert!(
                self.documents.contains(&content),
                "{path} holds what no invoice ever was, {bytes} bytes: {text:.80}"
            );
        }
    }

    /// Ledger, tree and source agree.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        self.exporter.assert_state_is_sound();
        self.exporter.assert_tree_is_the_tables();
        self.assert_accounted_for();
        self.exporter.run(["state", "check", "--deep"]).expect(0);
    }

    #[track_caller]
    fn assert_accounted_for(&self) {
        let known = "SELECT id FROM ledger UNION SELECT id FROM reject WHERE closed_run IS NULL";
        let known: BTreeSet<String> = self.exporter.ask(known).into_iter().collect();
        let watermarks = self.exporter.ask_rows("SELECT name, watermark FROM tenant WHERE watermark IS NOT NULL");
        let watermarks: BTreeMap<_, _> = watermarks.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        let rows = self.exporter.table().query(
            "SELECT fid, ftenant_id, fupdate_time FROM t_invoice WHERE fissue_status = 3
             AND fext_field IS NOT NULL AND finvoice_no IS NOT NULL AND fissue_date IS NOT NULL",
        );
        for row in rows {
            let [Some(id), tenant, time] = &row[..] else { panic!("a row: {row:?}") };
            let passed = watermarks.get(tenant).is_some_and(|watermark| time <= watermark);
            assert!(!passed || known.contains(id), "invoice {id} of {time:?} was passed over: {watermarks:?}");
        }
    }

    /// Of a run that has ended only the mark, the state and its backups stay. What an unfinished backup
    /// left goes with the next one.
    #[track_caller]
    fn assert_no_litter(&self) {
        if self.litter().iter().any(|path| path.to_string_lossy().contains("-regular.db.new")) {
            self.exporter.run(["run", "--mode", "incremental", "--backup-every", "1ms"]).expect(0);
        }
        assert_eq!(self.litter(), [""; 0].map(PathBuf::from), "left behind");
    }

    fn litter(&self) -> Vec<PathBuf> {
        let private = self.exporter.output().join(".export_state");
        let state_folder = self.exporter.state().parent().expect("a state lies in a folder").to_path_buf();
        let backups = state_folder.join("backups");
        let entries =
            [private, state_folder, backups].into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        let mut found: Vec<PathBuf> =
            entries.map(|entry| entry.expect("list the folders of the state").path()).collect();
        found.retain(|path| {
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            let stays = ["lock", "state.db", "backups"].contains(&&*name);
            !(stays || name.contains("-regular") && name.ends_with(".db"))
        });
        found
    }

    #[track_caller]
    fn assert_nothing_else_changed(&self) {
        assert_eq!(self.outside(), self.outside, "what lies beside the output");
        assert_eq!(self.rows(), self.rows, "the source");
    }

    fn outside(&self) -> BTreeMap<String, String> {
        everything_in(&[&self.exporter.home().join("1")], Traces::None)
    }

    fn rows(&self) -> Vec<Cells> {
        self.exporter.table().query_bytes("SELECT * FROM t_invoice ORDER BY fid")
    }
}
