//! Reasons to read keys without a lower bound. Without I/O.
//!
//! Source times are what the server's clock shows, so a clock that was set can bring rows below what has
//! been read. Three clocks tell: the server's, our own, and the time since our machine was started, which
//! no setting changes. Server and exporter may be set together (one machine, one time server); only the
//! last one shows that. After a restart, or on another machine, it shows nothing, and all keys are compared,
//! once a day at the most: in containers each run may be on another machine. No document is read again then. So a row
//! that changed once more, and got the very second of its old version because the clock was put back over a restart, is
//! found by `verify --against-source --documents` alone.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::plan::StartMode;
use crate::event::Doubt;
use crate::invoice::SourceTime;
use crate::state::runs::{ClockContinuity, Clocks, LastKnownState};
use crate::window::{Clock, clamp_lag, earlier};

/// How long a comparison of all keys answers for runs with clocks that prove nothing.
const COMPARED_ANEW_AFTER: TimeDelta = TimeDelta::days(1);

/// What a run finds when it begins.
pub(super) struct StartFacts<'a> {
    pub start: StartMode,
    pub server: &'a str,
    pub clocks: &'a Clocks,
    /// When the run began by our clock.
    pub at: DateTime<Utc>,
}

/// What is in doubt, and what is to be remembered of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubts {
    pub doubts: Vec<Doubt>,
    pub proof: ClockContinuity,
}

/// Compares what is found with the last run.
pub(super) fn doubts(last: &LastKnownState, found: &StartFacts<'_>, lag: Duration) -> Doubts {
    let StartFacts { start, server, clocks, at } = found;
    let other = last.server.as_deref().is_some_and(|before| before != *server);
    let moved = last.clocks.as_ref().is_some_and(|before| has_moved(before, clocks, lag));
    let is_proven = last.clocks.as_ref().is_none_or(|before| passed_ms(before, clocks).is_some());
    let unproven = last.proof.unproven + u64::from(!is_proven);
    let is_due = !was_compared_lately(last.proof.compared.as_deref(), *at);
    let doubts: Vec<Doubt> = [
        (other, Doubt::OtherServer),
        (moved, Doubt::ClockMoved),
        (*start == StartMode::Restored, Doubt::StateRestored),
        (unproven > 0 && is_due, Doubt::TimeUnproven),
    ]
    .into_iter()
    .filter_map(|(holds, doubt)| holds.then_some(doubt))
    .collect();
    let proof = if doubts.is_empty() {
        ClockContinuity { unproven, compared: last.proof.compared.clone() }
    } else {
        ClockContinuity { unproven: 0, compared: Some(at.to_rfc3339_opts(SecondsFormat::Secs, true)) }
    };
    Doubts { doubts, proof }
}

/// The source times above which rows may have been written since the last run. What has passed since then is the most
/// that one of the clocks says. None where none of them says that time has passed.
pub(super) fn times_again(last: &LastKnownState, clock: &Clock, clocks: &Clocks, lag: Duration) -> Option<SourceTime> {
    let before = last.clocks.as_ref()?;
    let by_ours = clocks.own_ms - before.own_ms;
    let by_the_servers = clocks.server_ms - before.server_ms;
    let passed = by_ours.max(by_the_servers).max(passed_ms(before, clocks).unwrap_or(i64::MIN));
    let passed = u64::try_from(passed).ok()?;
    earlier(&clock.now, Duration::from_secs(passed.div_ceil(1000)) + clamp_lag(lag))
}

/// By how much clocks may differ from what they were: less than the lag, so that no row can get a source time
/// that has been read.
fn tolerance_ms(lag: Duration) -> u64 {
    u64::try_from(clamp_lag(lag).as_millis() / 2).unwrap_or(u64::MAX)
}

/// Whether the server's clock went back, or moved against ours or against the time that passed.
fn has_moved(before: &Clocks, now: &Clocks, lag: Duration) -> bool {
    let shown = now.shown_ms - before.shown_ms;
    let against = |passed: i64| shown.abs_diff(passed) > tolerance_ms(lag);
    now.server_ms < before.server_ms
        || against(now.own_ms - before.own_ms)
        || passed_ms(before, now).is_some_and(against)
}

/// What has passed by the time since the machine was started; None after a restart, or on another machine.
fn passed_ms(before: &Clocks, now: &Clocks) -> Option<i64> {
    let (then, now_up) = before.uptime.as_ref().zip(now.uptime.as_ref())?;
    let is_same = before.host == now.host && then.boot == now_up.boot;
    is_same.then_some(now_up.ms - then.ms)
}

/// A comparison that lies ahead of our clock was dated by a clock that was wrong, and answers for nothing.
fn was_compared_lately(compared: Option<&str>, at: DateTime<Utc>) -> bool {
    let compared = compared.and_then(|compared| DateTime::parse_from_rfc3339(compared).ok());
    let age = compared.map(|compared| at.signed_duration_since(compared));
    age.is_some_and(|age| age >= TimeDelta::zero() && age < COMPARED_ANEW_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Uptime;

    const LAG: Duration = Duration::from_secs(300);
    const HOUR: i64 = 3_600_000;

    fn clocks(server_ms: i64, own_ms: i64, uptime_ms: i64) -> Clocks {
        let uptime = Some(Uptime { boot: "one".into(), ms: uptime_ms });
        Clocks { server_ms, shown_ms: server_ms, own_ms, host: "a".into(), uptime }
    }

    fn last(clocks: Clocks) -> LastKnownState {
        LastKnownState { server: Some("one".into()), clocks: Some(clocks), ..LastKnownState::default() }
    }

    fn doubted(last: &LastKnownState, clocks: &Clocks, lag: Duration) -> Vec<Doubt> {
        begin(last, clocks, DateTime::UNIX_EPOCH, lag).doubts
    }

    fn begin(last: &LastKnownState, clocks: &Clocks, at: DateTime<Utc>, lag: Duration) -> Doubts {
        doubts(last, &StartFacts { start: StartMode::Continue, server: "one", clocks, at }, lag)
    }

    #[test]
    fn another_server_or_a_restored_state_is_in_doubt() {
        let (before, now) = (last(clocks(0, 0, 0)), clocks(HOUR, HOUR, HOUR));
        let found = |start, server| StartFacts { start, server, clocks: &now, at: DateTime::UNIX_EPOCH };
        let reasons = |found: StartFacts<'_>| doubts(&before, &found, LAG).doubts;
        assert_eq!(reasons(found(StartMode::Continue, "one")), []);
        assert_eq!(reasons(found(StartMode::Continue, "two")), [Doubt::OtherServer]);
        assert_eq!(reasons(found(StartMode::Restored, "one")), [Doubt::StateRestored]);
        assert_eq!(doubted(&LastKnownState::default(), &now, LAG), []);
    }

    #[test]
    fn a_clock_that_moved_by_half_the_lag_or_went_back_is_in_doubt() {
        let before = last(clocks(HOUR, HOUR, HOUR));
        assert_eq!(doubted(&before, &clocks(2 * HOUR + 150_000, 2 * HOUR, 2 * HOUR), LAG), []);
        assert_eq!(doubted(&before, &clocks(2 * HOUR + 150_001, 2 * HOUR, 2 * HOUR), LAG), [Doubt::ClockMoved]);
        assert_eq!(doubted(&before, &clocks(HOUR - 1, HOUR, HOUR), LAG), [Doubt::ClockMoved]);
        let zone = Clocks { shown_ms: 3 * HOUR, ..clocks(2 * HOUR, 2 * HOUR, 2 * HOUR) };
        assert_eq!(doubted(&before, &zone, LAG), [Doubt::ClockMoved]);
    }

    #[test]
    fn the_tolerance_lies_below_the_lag_that_a_run_keeps() {
        let before = last(clocks(HOUR, HOUR, HOUR));
        for (lag, moved, expected) in
            [(0, 400, false), (0, 600, true), (1, 600, true), (4, 1_900, false), (4, 2_100, true)]
        {
            let now = clocks(2 * HOUR - moved, 2 * HOUR, 2 * HOUR);
            let in_doubt = !doubted(&before, &now, Duration::from_secs(lag)).is_empty();
            assert_eq!(in_doubt, expected, "a lag of {lag} s, {moved} ms");
        }
    }

    #[test]
    fn clocks_that_were_set_together_are_in_doubt_and_what_passed_is_known() {
        let before = last(clocks(4 * HOUR, 4 * HOUR, HOUR));
        let now = clocks(5 * HOUR, 5 * HOUR, 5 * HOUR);
        assert_eq!(doubted(&before, &now, LAG), [Doubt::ClockMoved]);
        let clock = Clock { now: SourceTime::from("2025-11-28 05:00:00"), unix_ms: 0 };
        assert_eq!(times_again(&before, &clock, &now, LAG), Some(SourceTime::from("2025-11-28 00:55:00")));
        let back = clocks(3 * HOUR, 3 * HOUR, HOUR);
        assert_eq!(times_again(&last(clocks(4 * HOUR, 4 * HOUR, 2 * HOUR)), &clock, &back, LAG), None);
    }

    #[test]
    fn where_host_or_boot_change_with_every_run_all_keys_are_compared_once_a_day() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let on = |host: &str, boot: &str, hours: i64| {
            let uptime = Some(Uptime { boot: boot.into(), ms: 0 });
            Clocks { host: host.into(), uptime, ..clocks(hours * HOUR, hours * HOUR, 0) }
        };
        let mut state = last(on("a", "one", 0));
        let unknown = Clocks { uptime: None, ..on("c", "-", 30) };
        for (hours, clocks, expected, unproven) in [
            (1, on("b", "one", 1), true, 0),
            (2, on("b", "two", 2), false, 1),
            (3, on("c", "two", 3), false, 2),
            (24, on("d", "two", 24), false, 3),
            (25, on("e", "two", 25), true, 0),
            (30, unknown.clone(), false, 1),
            (31, Clocks { uptime: None, ..on("c", "-", 31) }, false, 2),
            (49, Clocks { uptime: None, ..on("c", "-", 49) }, true, 0),
        ] {
            let begun = begin(&state, &clocks, at(hours), LAG);
            assert_eq!(begun.doubts == [Doubt::TimeUnproven], expected, "after {hours} hours");
            assert_eq!(begun.proof.unproven, unproven, "after {hours} hours");
            state = LastKnownState { proof: begun.proof, ..last(clocks) };
        }
    }

    #[test]
    fn what_was_not_proven_is_compared_though_the_host_stays_the_same() {
        let proof = ClockContinuity { unproven: 1, compared: Some("1970-01-01T00:00:00Z".into()) };
        let state = LastKnownState { proof, ..last(clocks(0, 0, 0)) };
        let after = |hours: i64| {
            let at = DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
            begin(&state, &clocks(hours * HOUR, hours * HOUR, hours * HOUR), at, LAG)
        };
        assert_eq!(after(1).doubts, []);
        assert_eq!(after(24).doubts, [Doubt::TimeUnproven]);
        assert_eq!(after(-1).proof.unproven, 0, "the comparison was dated by a wrong clock");
    }
}
