//! The memory of the program: one SQLite file, by default `<output>/.export_state/state.db`.
//!
//! | the file | |
//! |---|---|
//! | `file`, `readers` | what SQLite keeps beside the state, and whether another user replaced any of it; who may read it all |
//! | `schema`, `connect`, `damage` | versions, connections, and which errors mean a damaged file |
//! | `open`, `store` | creating and opening; transactions, readers and the end of an open state |
//! | `backup`, `restore`, `integrity` | backups, their way back, and whether the state holds together |
//!
//! | the content | |
//! |---|---|
//! | `stored` | how the program's types are stored |
//! | `tenants`, `watermarks` | the tenants, and up to where each was exported; `watermarks` alone moves them |
//! | `ledger`, `visited`, `source_table` | which file belongs to which invoice, which ids a scan met, and in which table |
//! | `selection` | the tenants and the window that an operator has selected |
//! | `todo` | what is still to be done or was rejected |
//! | `record`, `origin` | a published batch, in one transaction after its files; how each invoice got its file |
//! | `supposition`, `dry_run_ledger` | the state as a run that begins would change it, and what a dry run decided |
//! | `conditions` | conditions of the source that runs have warned of |
//! | `runs`, `starts`, `verifications`, `proofs` | the history of runs, of starts that failed and of verifications, and what those prove |
//! | `changes` | the history of other changes; `history`, `pages`, `trace`, `file_past` and `overview` read all of it |
//! | `legacy`, `legacy_file` | the script's state file, and how it is put in place |
//!
//! Only the holder of the lock may open a state for writing: `State::open` takes the lock as proof.

#[macro_use]
pub mod stored;

pub mod backup;
pub mod changes;
pub mod conditions;
mod connect;
mod damage;
mod file;
pub mod file_past;
pub mod history;
pub mod integrity;
pub mod ledger;
pub mod legacy;
pub mod legacy_file;
pub mod numbers;
pub mod open;
pub mod origin;
pub mod overview;
pub mod pages;
pub mod proofs;
#[cfg(test)]
mod query_plan_tests;
pub mod record;
pub mod replaced;
mod readers;
pub mod dry_run_ledger;
pub mod restore;
pub mod selection;
pub mod visited;
pub mod watermarks;
pub mod runs;
mod schema;
mod source_table;
pub mod starts;
mod store;
pub mod supposition;
pub mod tenants;
pub mod todo;
pub mod trace;
pub mod verifications;

pub use self::store::State;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::path::Path;

    use super::*;
    use crate::fs::file::PrivateFile;
    use crate::given_time::OwnZone;
    use crate::invoice::{InvoiceId, SourceTime};
    use crate::lang::Lang;
    use crate::run::{Account, Kind, LastNumbers, RunId, Starter};
    use crate::state::conditions::ConditionChanges;
    use crate::state::runs::Start;

    fn starter() -> Starter {
        Starter {
            account: Account { name: "cron".to_owned(), uid: Some(1), sudo_user: None },
            host: "db1".to_owned(),
            pid: 1,
            command_line: "invoice-export run".to_owned(),
            at: chrono::DateTime::UNIX_EPOCH,
            zone: OwnZone::Utc,
        }
    }

    fn file(path: &Path) -> PrivateFile {
        PrivateFile::at(path).unwrap().unwrap()
    }

    fn begin_a_run(state: &mut State) -> RunId {
        let start = Start {
            kind: Kind::Full,
            starter: starter(),
            source: "sqlite:a".to_owned(),
            server: "a".to_owned(),
            clocks: runs::Clocks { server_ms: 0, shown_ms: 0, own_ms: 0, host: "db1".to_owned(), uptime: None },
            proof: runs::ClockContinuity::default(),
            boundary: SourceTime::from("2025-11-28 16:30:00"),
            window: crate::window::Span::default(),
            doubts: Vec::new(),
            times_again: None,
            last_number: 0,
            table: None,
            verification: None,
            conditions: ConditionChanges::default(),
        };
        state.begin(&start).unwrap().id
    }

    #[test]
    fn a_look_up_and_a_backup_of_an_idle_state_see_what_a_run_writes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let idle = State::open_read_only(&path).unwrap().unwrap();
        let lookup = idle.lookup().unwrap();
        assert!(lookup.is_empty().unwrap());
        let mut state = State::open_file(&file(&path), &starter(), LastNumbers::default()).unwrap().unwrap();
        let row = "DROP TRIGGER entry_comes_now; INSERT INTO entry VALUES (1, 1, NULL, 1, '20251128+A', zeroblob(32), 2, 1, 1, 0, 1, 0, NULL, NULL)";
        state.transaction(|tx| tx.execute_batch(row)).unwrap();
        assert!(!lookup.is_empty().unwrap(), "while the run is at work");
        state.close().unwrap();
        assert!(!lookup.is_empty().unwrap(), "after it");
        let backup = folder.path().join("backup.db");
        idle.back_up_to(&backup).unwrap();
        assert!(!State::open_read_only(&backup).unwrap().unwrap().lookup().unwrap().is_empty().unwrap());
    }

    #[test]
    fn of_more_rejects_than_a_run_reads_again_those_left_out_come_first_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::create_file(&file(&folder.path().join("state.db")), &starter()).unwrap();
        let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n <= ?1)
             INSERT INTO todo SELECT n, 'reject', NULL, 1 FROM n";
        state.transaction(|tx| tx.execute(many, [todo::RETRIED_AT_MOST])).unwrap();
        let ids =
            |state: &State| -> BTreeSet<InvoiceId> { state.todo().unwrap().into_iter().map(|todo| todo.id).collect() };
        let read = ids(&state);
        state
            .transaction(|tx| {
                read.iter().try_for_each(|id| todo::put(tx, RunId(2), id, todo::TodoReason::Reject, None))
            })
            .unwrap();
        assert_eq!(ids(&state).difference(&read).count(), 1);
    }

    #[test]
    fn an_unknown_word_on_the_to_do_list_is_damage_and_no_reject() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::create_file(&file(&folder.path().join("state.db")), &starter()).unwrap();
        let row = "PRAGMA ignore_check_constraints = ON; INSERT INTO todo VALUES ('1', 'later', NULL, 1)";
        state.transaction(|tx| tx.execute_batch(row)).unwrap();
        let error = state.todo().unwrap_err();
        let is_damage = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref(), Some(crate::refusal::Refusal::StateDamaged { .. }))
        };
        assert!(error.chain().any(is_damage), "{error:#}");
    }

    #[test]
    fn a_reader_sees_what_runs_wrote_since_the_state_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let idle = State::open_read_only(&path).unwrap().unwrap();
        assert_eq!(idle.newest_run().unwrap(), None);
        for _ in 0..3 {
            let mut state = State::open_file(&file(&path), &starter(), LastNumbers::default()).unwrap().unwrap();
            let run = begin_a_run(&mut state);
            assert_eq!(idle.newest_run().unwrap(), Some(run), "while the run is at work");
            state.close().unwrap();
            assert_eq!(idle.newest_run().unwrap(), Some(run), "after it");
        }
        drop(idle);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["state.db"]);
    }

    #[test]
    fn a_backup_and_a_check_hold_what_runs_wrote_since_the_state_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let idle = State::open_read_only(&path).unwrap().unwrap();
        assert_eq!(idle.newest_run().unwrap(), None);
        let mut state = State::open_file(&file(&path), &starter(), LastNumbers::default()).unwrap().unwrap();
        let run = begin_a_run(&mut state);
        state.transaction(|tx| tx.execute("UPDATE run SET seen = 1", [])).unwrap();
        state.close().unwrap();
        let target = folder.path().join("backup.db");
        idle.back_up_to(&target).unwrap();
        assert_eq!(State::open_read_only(&target).unwrap().unwrap().newest_run().unwrap(), Some(run));
        let findings = idle.check(integrity::Depth::Deep).unwrap();
        assert!(
            findings.iter().any(|finding| finding.what.in_lang(Lang::En).contains("do not balance: 1")),
            "{findings:?}"
        );
    }
}
