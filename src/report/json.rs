//! The JSON that a run leaves on stdout: one object, in English whatever the language.
//!
//! The field names are an interface that others build upon. Add to them, never rename.

use serde::{Serialize, Serializer};

use super::line::escaped;
use crate::lang::{Lang, Message};
use crate::run::{Counts, Summary};

/// What came of a run.
#[derive(Serialize)]
struct SummaryObject<'a> {
    /// The number of the run in the history; null for a dry run, which is not recorded.
    run: Option<i64>,
    dry_run: bool,
    /// `full`, `incremental` or `backfill`.
    kind: &'static str,
    /// `success` or `partial`.
    outcome: &'static str,
    /// Source times stay as the server prints them: their zone is the server's.
    boundary: &'a str,
    since: Option<&'a str>,
    tenants: u64,
    failed_tenants: Vec<FailedTenant<'a>>,
    #[serde(flatten)]
    counts: CountFields,
    new_rejects: u64,
    open_rejects: u64,
    unread: u64,
    leftovers: u64,
    retries: u64,
    source_statements: u64,
    state_statements: u64,
    seconds: f64,
    output: String,
    state: String,
}

/// Each count in a field of its own.
struct CountFields(Counts);

impl Serialize for CountFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Counts::NAMES.iter().map(|name| name.field).zip(self.0.values()))
    }
}

#[derive(Serialize)]
struct FailedTenant<'a> {
    tenant: &'a str,
    error: String,
}

/// The error that ended a command, or kept it from starting.
#[derive(Serialize)]
struct ErrorObject {
    /// In one line, with the hint.
    error: String,
    exit_code: u8,
    /// What can be done about it, where something can.
    hint: Option<String>,
}

/// The object of a run that was carried out.
pub(super) fn finished(summary: &Summary) -> String {
    let failed = summary.failed_tenants.iter();
    line(&SummaryObject {
        run: summary.run.map(|run| run.0),
        dry_run: summary.run.is_none(),
        kind: summary.kind.as_str(),
        outcome: summary.outcome.as_str(),
        boundary: summary.boundary.as_str(),
        since: summary.since.as_ref().map(|since| since.as_str()),
        tenants: summary.tenants,
        failed_tenants: failed
            .map(|(tenant, trouble)| FailedTenant { tenant: tenant.as_str(), error: trouble.to_string() })
            .collect(),
        counts: CountFields(summary.counts),
        new_rejects: summary.new_rejects,
        open_rejects: summary.open_rejects,
        unread: summary.unread,
        leftovers: summary.leftovers,
        retries: summary.retries,
        source_statements: summary.effort.source,
        state_statements: summary.effort.state,
        seconds: summary.elapsed.as_secs_f64(),
        output: summary.output.display().to_string(),
        state: summary.state.display().to_string(),
    })
}

/// The object of a command that ended with an error.
pub(super) fn failed(message: &Message, exit_code: u8) -> String {
    let hint = message.hint.as_ref().map(|hint| hint.in_lang(Lang::En).to_owned());
    line(&ErrorObject { error: message.to_string(), exit_code, hint })
}

/// Any other result.
pub(super) fn value(value: &serde_json::Value) -> String {
    line(value)
}

/// What JSON leaves unescaped can still steer a terminal (U+009B and the like).
fn line(object: &impl Serialize) -> String {
    // Only maps with keys that are no strings and failing `Serialize` impls are errors here, and
    // the objects above have neither.
    escaped(&serde_json::to_string(object).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::invoice::Tenant;
    use crate::refusal::Trouble;
    use crate::report::tests::summary;
    use crate::run::{Kind, Outcome, RunId};

    #[test]
    fn the_summary_has_the_documented_fields_with_numbers_as_numbers() {
        let summary = Summary {
            run: Some(RunId(12)),
            outcome: Outcome::Partial,
            failed_tenants: vec![(Tenant::from("7\u{9b}"), Trouble::from(&anyhow::anyhow!("lost \"it\"\n")))],
            counts: Counts {
                seen: 36,
                written: 1,
                new: 0,
                replaced: 1,
                moved: 0,
                unchanged: 2,
                taken_over: 1,
                rejected: 3,
                gone: 30,
                late: 4,
                late_by: 90,
                removed: 5,
                bytes: 6,
            },
            new_rejects: 2,
            open_rejects: 9,
            unread: 8,
            leftovers: 7,
            retries: 4,
            elapsed: Duration::from_millis(1500),
            ..summary(Kind::Incremental)
        };
        let text = finished(&summary);
        assert!(!text.contains(char::is_control), "{text}");
        let expected = json!({
            "run": 12, "dry_run": false, "kind": "incremental", "outcome": "partial",
            "boundary": "2025-11-28 16:30:00", "since": null, "tenants": 3,
            "failed_tenants": [{"tenant": "7\u{9b}", "error": "lost \"it\"\n"}],
            "seen": 36, "written": 1, "new": 0, "replaced": 1, "moved": 0, "unchanged": 2, "taken_over": 1, "rejected": 3, "gone": 30,
            "late": 4, "late_by_seconds": 90, "removed": 5, "bytes": 6,
            "new_rejects": 2, "open_rejects": 9, "unread": 8, "leftovers": 7, "retries": 4, "source_statements": 12, "state_statements": 345,
            "seconds": 1.5,
            "output": "../context", "state": "../context/.export_state/.last_export_time",
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }

    #[test]
    fn a_dry_run_has_no_number() {
        let dry: Value = serde_json::from_str(&finished(&Summary { run: None, ..summary(Kind::Full) })).unwrap();
        assert_eq!((&dry["run"], &dry["dry_run"]), (&Value::Null, &json!(true)));
    }
}
