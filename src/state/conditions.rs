//! The conditions of the source that runs have warned of: each with the detail that was said last, and when. A run puts
//! them on record when it begins.

use rusqlite::{Connection, params};

use super::State;
use crate::event::Condition;
use crate::invoice::Tenant;

/// A condition of which a run has warned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCondition {
    pub condition: Condition,
    pub detail: String,
    /// When a run last warned of it, RFC 3339.
    pub warned: String,
}

/// What a run says of conditions as a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionChanges {
    /// Conditions with their details.
    pub holding: Vec<(Condition, String)>,
    pub ended: Vec<Condition>,
}

impl State {
    /// The conditions that held when runs last looked for them.
    pub fn known_conditions(&self) -> anyhow::Result<Vec<KnownCondition>> {
        self.read(|conn| {
            let mut query = conn.prepare("SELECT name, detail, warned FROM standing_condition ORDER BY name")?;
            let rows = query.query_map([], |row| {
                let condition = parsed(row.get_ref(0)?.as_str()?);
                let (detail, warned) = (row.get(1)?, row.get(2)?);
                Ok(condition.map(|condition| KnownCondition { condition, detail, warned }))
            })?;
            // A condition that only a later version of the program knows is left to that version.
            rows.filter_map(Result::transpose).collect()
        })
    }
}

/// Puts on record which conditions a run warns of at this moment (RFC 3339).
pub(super) fn record(tx: &Connection, changes: &ConditionChanges, at: &str) -> rusqlite::Result<()> {
    let ConditionChanges { holding, ended } = changes;
    for (condition, detail) in holding {
        tx.prepare_cached(
            "INSERT INTO standing_condition (name, detail, warned) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET detail = ?2, warned = ?3",
        )?
        .execute(params![name(condition), detail, at])?;
    }
    for condition in ended {
        tx.prepare_cached("DELETE FROM standing_condition WHERE name = ?1")?.execute([name(condition)])?;
    }
    Ok(())
}

/// Forgets every condition, because the next run may find another source.
pub(super) fn forget(tx: &Connection) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM standing_condition", []).map(drop)
}

/// Before the name of a tenant.
const TIMES_AHEAD: &str = "times-ahead ";

fn name(condition: &Condition) -> String {
    match condition {
        Condition::OpenWorkUnseen => "open-work".to_owned(),
        Condition::IndexMissing => "index".to_owned(),
        Condition::ReplicationStopped => "replication".to_owned(),
        Condition::TimesAhead(tenant) => format!("{TIMES_AHEAD}{tenant}"),
        Condition::WithoutTenant => "without-tenant".to_owned(),
    }
}

fn parsed(name: &str) -> Option<Condition> {
    match name {
        "open-work" => Some(Condition::OpenWorkUnseen),
        "index" => Some(Condition::IndexMissing),
        "replication" => Some(Condition::ReplicationStopped),
        "without-tenant" => Some(Condition::WithoutTenant),
        _ => name.strip_prefix(TIMES_AHEAD).map(|tenant| Condition::TimesAhead(Tenant::from(tenant))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_is_read_as_it_was_stored() {
        use Condition::*;
        for condition in
            [OpenWorkUnseen, IndexMissing, ReplicationStopped, TimesAhead(Tenant::from("a b")), WithoutTenant]
        {
            assert_eq!(parsed(&name(&condition)), Some(condition));
        }
        assert_eq!(parsed("weather"), None);
    }
}
