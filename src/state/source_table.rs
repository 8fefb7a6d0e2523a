//! The tables of the source that runs have read, by number. A ledger row says in which of them it was read; a table
//! that is not provably the one of before gets a new number.

use rusqlite::{Connection, OptionalExtension, params};

use super::State;
use crate::run::RunId;
use crate::source::TableIdentity;

impl State {
    /// The number of a table that an earlier run has met, if it is provably the same one.
    pub fn source_table(&self, identity: Option<&TableIdentity>) -> anyhow::Result<Option<i64>> {
        identity.map_or(Ok(None), |identity| self.read(|conn| recognise(conn, identity)))
    }
}

/// Also one that other tables were met after, as when a server comes back that was away. Of several with the same
/// facts the last one counts: ids were given out again since the others.
fn recognise(conn: &Connection, identity: &TableIdentity) -> rusqlite::Result<Option<i64>> {
    let known = conn
        .prepare_cached("SELECT n, next_id FROM source_table WHERE identity = ?1 ORDER BY n DESC LIMIT 1")?
        .query_row([&identity.facts], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(known.and_then(|(n, next_id)| {
        let before = TableIdentity { facts: identity.facts.clone(), next_id };
        before.lasts(identity).then_some(n)
    }))
}

/// The number of a table, which gets one if it is not provably known.
pub(super) fn get_or_insert(conn: &Connection, run: RunId, identity: &TableIdentity) -> rusqlite::Result<i64> {
    if let Some(n) = recognise(conn, identity)? {
        conn.execute(
            "UPDATE source_table SET next_id = ?2 WHERE n = ?1 AND next_id IS NOT ?2",
            params![n, identity.next_id],
        )?;
        return Ok(n);
    }
    conn.query_row(
        "INSERT INTO source_table (first_run, identity, next_id) VALUES (?1, ?2, ?3) RETURNING n",
        params![run, identity.facts, identity.next_id],
        |row| row.get(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::schema::in_memory;

    #[test]
    fn a_table_keeps_its_number_until_ids_may_be_given_out_again() {
        let conn = in_memory();
        let met = |facts: &str, next_id| {
            get_or_insert(&conn, RunId(1), &TableIdentity { facts: facts.to_owned(), next_id }).unwrap()
        };
        assert_eq!(met("a", Some(4)), 1);
        assert_eq!(met("a", Some(9)), 1);
        assert_eq!(met("b", Some(1)), 2);
        assert_eq!(met("a", Some(9)), 1, "a server that comes back");
        assert_eq!(met("a", Some(8)), 3, "ids are given out again");
        assert_eq!(met("a", Some(9)), 3);
    }
}
