//! What must be true after a run, and at the end of a history.

use std::collections::BTreeMap;

use serde_json::Value;

use super::identity::{Identity, parts, year};
use super::world::World;
use crate::support::Exporter;
use crate::support::exporter::Tree;

impl World<'_> {
    /// `verify` names nothing that runs had to bring and brought.
    pub(super) fn assert_reports_what_is_awaited_only(&self, answer: &Value) {
        for finding in answer["findings"].as_array().expect("findings are a list") {
            let difference = finding["difference"].as_str().expect("a finding says what differs");
            if matches!(difference, "withdrawn" | "leftover") {
                continue;
            }
            let id = finding["id"].as_str().and_then(|id| id.parse().ok());
            assert!(id.is_some_and(|id| self.reference.is_awaited(id)), "verify finds what is right: {finding}");
        }
    }

    /// A file goes if it is the old one of an invoice that has another path now, or what a dead run wrote.
    pub(super) fn assert_removed_rightly(&self, before: &Before, identity: &Identity, may_be_in_doubt: bool) {
        let tree = self.exporter.tree();
        for (path, content) in before.tree.iter().filter(|(path, _)| !tree.contains_key(*path)) {
            let is_superseded = |id: i64| match self.reference.claim(id) {
                Some(now) => now != *path && parts(&now) == parts(path) && year(&now) == year(path),
                None => may_be_in_doubt,
            };
            let known = [identity, &self.reference.identity];
            let mut possible = known.iter().flat_map(|identity| identity.possible(path, content));
            let content = String::from_utf8_lossy(content);
            assert!(
                possible.any(is_superseded),
                "{path} was removed, with {content}, and nothing proves that it may go"
            );
        }
    }

    /// What stays is not proven to be of the same invoice.
    pub(super) fn assert_left_rightly(&self, before: &Before, recorded: &Recorded, identity: &Identity) {
        let tree = self.exporter.tree();
        let is_new = |leftover: &&[String; 3]| !before.recorded.leftovers.contains(leftover);
        for leftover in recorded.leftovers.iter().filter(is_new) {
            let [path, id, why] = leftover;
            let (Some(content), Ok(id)) = (tree.get(path), id.parse()) else {
                panic!("{path} is not there, and left over: {leftover:?}")
            };
            let Some(now) = self.reference.claim(id).filter(|_| !self.reference.is_awaited(id)) else { continue };
            let ((tenant, number), (tenant_before, number_before)) = (parts(&now), parts(path));
            let expected: &[&str] = if number != number_before {
                &["number"]
            } else if tenant != tenant_before {
                &["tenant"]
            } else if year(&now) != year(path) {
                &["number", "table"]
            } else {
                &["table"]
            };
            assert!(expected.contains(&why.as_str()), "{path} is left over for {why}, and {id} has {now}");
            let is_proven = expected == ["table"] && identity.is_certain(id, path, content);
            assert!(!is_proven, "{path} is left over, though it was read in the same table and {id} has {now} now");
        }
    }

    /// What must be true after every run that ended.
    pub(super) fn assert_right(&self, Recorded { rejects, .. }: &Recorded) {
        self.exporter.assert_state_is_sound();
        let tree = self.exporter.tree();
        let entries = self.exporter.ask("SELECT id, path FROM ledger");
        let is_rejected = |id: i64| rejects.contains(&id.to_string());
        let claims = self.reference.claims();
        for (path, claimants) in &claims {
            if claimants.iter().any(|id| self.reference.is_awaited(*id)) {
                continue;
            }
            let (Some(winner), found) = (claimants.last(), tree.get(path)) else { continue };
            let document = |id: &i64| self.reference.rows[id].document;
            let found = found.map(|content| String::from_utf8_lossy(content));
            assert_eq!(found.as_deref(), Some(document(winner)), "what lies at {path} of invoice {winner}");
            for id in claimants {
                // Who has the winner's very document and was read before it has its turn in the next run.
                if document(id) != document(winner) {
                    assert!(is_rejected(*id), "invoice {id} lost {path} to {winner} and is not rejected");
                } else if id == winner {
                    assert!(!is_rejected(*id), "invoice {id} has {path} and is rejected");
                }
                let entered = entries.contains(&format!("{id} {path}"));
                assert!(entered || is_rejected(*id), "invoice {id} is neither at {path} nor rejected");
            }
        }
        for id in self.reference.spoiled().filter(|id| !self.reference.is_awaited(*id)) {
            assert!(is_rejected(id), "invoice {id} cannot be exported, and that is not on record");
        }
        for (path, content) in &tree {
            assert!(
                self.reference.was_ever(path, content),
                "no invoice ever had at {path} what lies there: {}",
                String::from_utf8_lossy(content)
            );
        }
    }

    /// What is exported late can leave a file of the earlier invoice behind, so that comes first.
    pub(super) fn prune(&mut self) {
        let verify = ["verify", "--against-source", "--documents", "--hash"];
        let repaired = self.exporter.run(verify.iter().chain(&["--repair"]));
        assert!(matches!(repaired.status.code(), Some(0 | 6)), "{repaired}");
        self.exporter.run(verify.iter().chain(&["--prune", "--prune-leftovers", "--prune-up-to", "1000"])).expect(0);
        self.exporter.run(verify).expect(0);
    }

    /// The tree is the table: every path has the document of its winner, and else there is nothing but
    /// the last good files of those that cannot be exported now.
    pub(super) fn assert_exact(&self) {
        self.exporter.assert_state_is_sound();
        let claims = self.reference.claims();
        let mut tree = self.exporter.tree();
        for (path, claimants) in &claims {
            let winner = claimants.last().map(|id| &self.reference.rows[id]);
            let found = tree.remove(path).map(|content| String::from_utf8_lossy(&content).into_owned());
            assert_eq!(found.as_deref(), winner.map(|row| row.document), "what lies at {path} at the end");
        }
        let mut rejects = self.exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL");
        rejects.sort();
        assert_eq!(rejects, self.reference.rejects(), "who is rejected at the end");
        for (path, content) in tree {
            let is_last_good = |id: &String| {
                let past = id.parse().map(|id| self.reference.was_at(id, &path)).unwrap_or_default();
                past.iter().any(|document| document.as_bytes() == content)
            };
            assert!(rejects.iter().any(is_last_good), "nobody's file is left at {path}");
        }
    }
}

/// What there was before a run.
pub(super) struct Before {
    pub(super) tree: Tree,
    pub(super) stamps: BTreeMap<String, (u64, i128)>,
    pub(super) recorded: Recorded,
}

/// What the state says.
#[derive(Default)]
pub(super) struct Recorded {
    /// Path, id and reason.
    pub(super) leftovers: Vec<[String; 3]>,
    /// Those that are open.
    pub(super) rejects: Vec<String>,
    pub(super) doubts: usize,
    /// When the last run began, by the time since the start of the machine.
    pub(super) uptime: Option<String>,
}

impl Before {
    pub(super) fn look(exporter: &Exporter<'_>) -> Self {
        Self { tree: exporter.tree(), stamps: exporter.stamps(), recorded: Recorded::look(exporter) }
    }
}

impl Recorded {
    pub(super) fn look(exporter: &Exporter<'_>) -> Self {
        let mut recorded = Self::default();
        let rows = exporter.ask_rows(
            "SELECT 'leftover', path, id, why FROM leftover
             UNION ALL SELECT 'reject', id, NULL, NULL FROM reject WHERE closed_run IS NULL
             UNION ALL SELECT 'doubt', path, NULL, NULL FROM doubt_path
             UNION ALL SELECT 'uptime', CAST(uptime_ms AS TEXT), NULL, NULL FROM meta",
        );
        for row in rows {
            let cells: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            let [what, one, id, why] = <[String; 4]>::try_from(cells).expect("four columns are asked for");
            match &*what {
                "leftover" => recorded.leftovers.push([one, id, why]),
                "reject" => recorded.rejects.push(one),
                "doubt" => recorded.doubts += 1,
                _ => recorded.uptime = Some(one),
            }
        }
        recorded
    }
}
