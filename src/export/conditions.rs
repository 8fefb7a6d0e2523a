//! Conditions of the source that hold from run to run, and whether one is news. A run warns of a condition when it
//! begins, changes or ends, and once a day while it holds; else the same words are no warning, so that cron does not
//! mail them every hour. What a run warns of is put on record with its beginning: a run that dies before says it again.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::{Condition, Event, Notice};
use crate::state::conditions::{ConditionChanges, KnownCondition};

/// A condition that goes on is warned of again after this time: a day, less what a daily job may start earlier than
/// the day before.
const AGAIN_AFTER: TimeDelta = TimeDelta::minutes(24 * 60 - 10);

/// What a run has asked the source about tenants. A condition ends only where it was looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TenantQuestions {
    #[default]
    None,
    Times,
    TimesAndTenantless,
}

/// The conditions that a run has found.
#[derive(Default)]
pub(super) struct FoundConditions {
    /// The notices of those that hold.
    pub holding: Vec<Notice>,
    pub asked: TenantQuestions,
}

/// What is said of conditions, and what of it goes on record.
pub(super) struct ConditionNews {
    pub events: Vec<Event>,
    pub changes: ConditionChanges,
}

impl FoundConditions {
    /// Notes the condition of a notice. Any other notice is printed at once.
    pub(super) fn sort(&mut self, notice: Notice, tell: &mut dyn FnMut(Event)) {
        match notice.condition() {
            Some(_) => self.holding.push(notice),
            None => tell(Event::Notice(notice)),
        }
    }

    /// Warns of every condition: it may be the cause of the error that ends the run before it is on record.
    pub(super) fn warn(self, tell: &mut dyn FnMut(Event)) {
        self.holding.into_iter().for_each(|notice| tell(Event::Notice(notice)));
    }

    /// Says what holds without a warning, where nothing goes on record: in dry runs and where the source is only read.
    pub(super) fn remind(self, tell: &mut dyn FnMut(Event)) {
        self.holding.into_iter().for_each(|notice| tell(Event::Reminder(notice)));
    }

    /// What is news of the conditions beside those on record.
    pub(super) fn news(self, known: &[KnownCondition], now: DateTime<Utc>) -> ConditionNews {
        let mut news = ConditionNews { events: Vec::new(), changes: ConditionChanges::default() };
        let mut left: HashMap<&Condition, &KnownCondition> =
            known.iter().map(|known| (&known.condition, known)).collect();
        for notice in self.holding {
            let Some((condition, detail)) = notice.condition() else { continue };
            let before = left.remove(&condition);
            if before.is_some_and(|before| before.detail == detail && is_recent(before, now)) {
                news.events.push(Event::Reminder(notice));
            } else {
                news.events.push(Event::Notice(notice));
                news.changes.holding.push((condition, detail));
            }
        }
        // In the order in which they are on record.
        let ended = known.iter().map(|known| &known.condition).filter(|condition| left.contains_key(condition));
        for condition in ended.filter(|condition| self.asked >= question(condition)) {
            news.events.push(Event::Notice(Notice::ConditionEnded(condition.clone())));
            news.changes.ended.push(condition.clone());
        }
        news
    }
}

/// The question that shows whether a condition holds.
fn question(condition: &Condition) -> TenantQuestions {
    match condition {
        Condition::OpenWorkUnseen | Condition::IndexMissing | Condition::ReplicationStopped => TenantQuestions::None,
        Condition::TimesAhead(_) => TenantQuestions::Times,
        Condition::WithoutTenant => TenantQuestions::TimesAndTenantless,
    }
}

/// Whether a warning is less than a day old. One from the future, written while the clock was wrong, is not.
fn is_recent(known: &KnownCondition, now: DateTime<Utc>) -> bool {
    let age = DateTime::parse_from_rfc3339(&known.warned).map(|warned| now.signed_duration_since(warned));
    age.is_ok_and(|age| TimeDelta::zero() <= age && age < AGAIN_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::Tenant;
    use crate::run::rfc3339;

    fn found(holding: &[Notice], asked: TenantQuestions) -> FoundConditions {
        FoundConditions { holding: holding.to_vec(), asked }
    }

    /// What a run says `hours` after 1970, and what is known after it.
    fn run(known: &mut Vec<KnownCondition>, hours: i64, found: FoundConditions) -> Vec<(Notice, bool)> {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let ConditionNews { events, changes } = found.news(known, now);
        known.retain(|known| !changes.ended.contains(&known.condition));
        for (condition, detail) in changes.holding {
            known.retain(|known| known.condition != condition);
            known.push(KnownCondition { condition, detail, warned: rfc3339(now) });
        }
        let said = events.into_iter().map(|event| match event {
            Event::Notice(notice) => (notice, true),
            Event::Reminder(notice) => (notice, false),
            other => panic!("{other:?}"),
        });
        said.collect()
    }

    #[test]
    fn a_condition_is_news_when_it_begins_changes_ends_and_once_a_day() {
        let (small, unreliable) = (Notice::OpenWorkNotPermitted, Notice::OpenWorkUnreliable);
        let mut known = Vec::new();
        let mut hour = |hours, holding: &[Notice]| run(&mut known, hours, found(holding, TenantQuestions::None));
        assert_eq!(hour(0, std::slice::from_ref(&small)), [(small.clone(), true)]);
        for n in 1..24 {
            assert_eq!(hour(n, std::slice::from_ref(&small)), [(small.clone(), false)], "hour {n}");
        }
        assert_eq!(hour(24, std::slice::from_ref(&small)), [(small.clone(), true)]);
        assert_eq!(hour(25, std::slice::from_ref(&small)), [(small, false)]);
        assert_eq!(hour(26, std::slice::from_ref(&unreliable)), [(unreliable.clone(), true)]);
        assert_eq!(hour(27, &[]), [(Notice::ConditionEnded(Condition::OpenWorkUnseen), true)]);
        assert_eq!(hour(28, &[]), []);
        assert_eq!(hour(29, std::slice::from_ref(&unreliable)), [(unreliable.clone(), true)]);
        // The clock was wrong in between.
        assert_eq!(hour(12, std::slice::from_ref(&unreliable)), [(unreliable, true)]);
    }

    #[test]
    fn a_condition_of_tenants_ends_only_where_it_was_looked_for() {
        let tenant = Tenant::from("1");
        let ahead = |newest: &str| Notice::TimesAhead { tenant: tenant.clone(), newest: newest.into() };
        let nameless = Notice::WithoutTenant { invoices: 3, more: false, some: Vec::new() };
        let mut known = Vec::new();
        let all = TenantQuestions::TimesAndTenantless;
        assert_eq!(run(&mut known, 0, found(&[ahead("2030"), nameless.clone()], all)).len(), 2);
        assert_eq!(run(&mut known, 1, found(&[], TenantQuestions::None)), [], "a full run");
        // Each row changes how far the times are ahead.
        let later = run(&mut known, 2, found(&[ahead("2031"), nameless], all));
        assert!(later.len() == 2 && later.iter().all(|(_, warned)| !warned), "{later:?}");
        let ended = [(Notice::ConditionEnded(Condition::TimesAhead(tenant)), true)];
        assert_eq!(run(&mut known, 3, found(&[], TenantQuestions::Times)), ended, "a run of some tenants");
        let ended = [(Notice::ConditionEnded(Condition::WithoutTenant), true)];
        assert_eq!(run(&mut known, 4, found(&[], all)), ended);
    }
}
