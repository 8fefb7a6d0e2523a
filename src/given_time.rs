//! Times as an operator writes them: a day, a moment as a clock shows it, RFC 3339, or a time before now. Pure: the
//! clock that they go by comes in from outside.
//!
//! A day alone is the whole day: as a start its first moment, as an end its last one, so that `--since X --until X`
//! is one day.

use std::time::Duration;

use chrono::{
    DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone, Timelike, Utc,
};

use crate::invoice::SourceTime;
use crate::window::{Clock, moment, printed_day};

/// A time that an operator has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenTime {
    /// What the clock shows, in whole seconds or with decimals.
    Shown(SourceTime),
    Day(NaiveDate),
    /// `today` and `yesterday`: the day of the clock, so many days ago.
    DaysAgo(u64),
    /// RFC 3339. Each clock shows it in its own zone.
    Instant(DateTime<Utc>),
    /// So long before now.
    Ago(Duration),
}

/// Which end of a window a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    /// Windows of source times do not contain their start.
    Since,
    /// Windows contain their end.
    Until,
}

/// The precision of source times: a server keeps six decimals at the most.
const LAST_MOMENT: &str = "23:59:59.999999";

impl GivenTime {
    /// None where the text is no time.
    pub fn parse(text: &str) -> Option<Self> {
        let day = |text| moment(&SourceTime(format!("{text} 00:00:00"))).map(|midnight| midnight.date());
        match text {
            "now" => return Some(Self::Ago(Duration::ZERO)),
            "today" => return Some(Self::DaysAgo(0)),
            "yesterday" => return Some(Self::DaysAgo(1)),
            _ => {}
        }
        if let Some(day) = day(text) {
            return Some(Self::Day(day));
        }
        let spaced = text.replacen('T', " ", 1);
        for shown in [SourceTime(spaced.clone()), SourceTime(format!("{spaced}:00"))] {
            if moment(&shown).is_some() {
                return Some(Self::Shown(shown));
            }
        }
        // chrono takes a leap second, which no clock of ours shows.
        if let Ok(instant) = DateTime::parse_from_rfc3339(text)
            && instant.nanosecond() < 1_000_000_000
        {
            return Some(Self::Instant(instant.to_utc()));
        }
        humantime::parse_duration(text).ok().map(Self::Ago)
    }

    /// Whether only a clock tells which source time is meant.
    pub fn needs_clock(&self) -> bool {
        matches!(self, Self::DaysAgo(_) | Self::Instant(_) | Self::Ago(_))
    }

    /// The bound of a window of source times without a clock: None where one is needed, or where the calendar ends.
    pub fn plain_bound(&self, end: WindowEnd) -> Option<SourceTime> {
        match self {
            Self::Shown(time) => Some(time.clone()),
            Self::Day(day) => bound_of_day(*day, end),
            Self::DaysAgo(_) | Self::Instant(_) | Self::Ago(_) => None,
        }
    }

    /// The bound of a window of source times by the source's clock. `shown_at` says what that clock shows at a moment
    /// in seconds since 1970. None where the calendar ends.
    ///
    /// # Errors
    /// Those of `shown_at`.
    pub fn bound<E>(
        &self,
        end: WindowEnd,
        clock: &Clock,
        shown_at: impl FnOnce(i64) -> Result<Option<SourceTime>, E>,
    ) -> Result<Option<SourceTime>, E> {
        match self {
            Self::Shown(_) | Self::Day(_) => Ok(self.plain_bound(end)),
            Self::DaysAgo(days) => {
                let today = moment(&clock.now).map(|now| now.date());
                let day = today.and_then(|today| today.checked_sub_days(Days::new(*days)));
                Ok(day.and_then(|day| bound_of_day(day, end)))
            }
            Self::Instant(instant) => {
                let decimals = instant.format("%.f").to_string();
                let shown = shown_at(instant.timestamp())?;
                Ok(shown.map(|SourceTime(shown)| SourceTime(shown + &decimals)))
            }
            Self::Ago(ago) => match seconds_before(clock.unix_ms.div_euclid(1000), *ago) {
                Some(seconds) => shown_at(seconds),
                None => Ok(None),
            },
        }
    }

    /// The moment by a clock of our own: the first or the last second that is meant. None where the calendar ends.
    pub fn own_moment<Z: TimeZone>(&self, end: WindowEnd, now: DateTime<Utc>, zone: &Z) -> Option<DateTime<Utc>> {
        let of_day = |day: NaiveDate| match end {
            WindowEnd::Since => Some(day.and_time(chrono::NaiveTime::MIN)),
            WindowEnd::Until => day.and_hms_opt(23, 59, 59),
        };
        let shown = match self {
            Self::Instant(instant) => return Some(*instant),
            Self::Ago(ago) => return now.checked_sub_signed(TimeDelta::from_std(*ago).ok()?),
            Self::Shown(time) => moment(time)?,
            Self::Day(day) => of_day(*day)?,
            Self::DaysAgo(days) => of_day(now.with_timezone(zone).date_naive().checked_sub_days(Days::new(*days))?)?,
        };
        in_zone(shown, end, zone)
    }
}

/// A moment of ours as the state keeps it: RFC 3339, UTC, whole seconds.
pub fn recorded(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What a zone's clocks show twice is the earlier of both moments as a start and the later one as an end. What they
/// skip is the moment of the skip, at most an hour away.
fn in_zone<Z: TimeZone>(shown: NaiveDateTime, end: WindowEnd, zone: &Z) -> Option<DateTime<Utc>> {
    let of = |shown: NaiveDateTime| match (zone.from_local_datetime(&shown), end) {
        (LocalResult::Single(moment), _)
        | (LocalResult::Ambiguous(moment, _), WindowEnd::Since)
        | (LocalResult::Ambiguous(_, moment), WindowEnd::Until) => Some(moment.to_utc()),
        (LocalResult::None, _) => None,
    };
    let an_hour = TimeDelta::hours(1);
    of(shown).or_else(|| of(shown.checked_sub_signed(an_hour)?)?.checked_add_signed(an_hour))
}

fn bound_of_day(day: NaiveDate, end: WindowEnd) -> Option<SourceTime> {
    let day = match end {
        WindowEnd::Since => day.pred_opt()?,
        WindowEnd::Until => day,
    };
    printed_day(day).map(|day| SourceTime(format!("{day} {LAST_MOMENT}")))
}

fn seconds_before(now: i64, ago: Duration) -> Option<i64> {
    now.checked_sub(i64::try_from(ago.as_secs()).ok()?)
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    fn clock() -> Clock {
        // 2026-11-30 10:00:00 UTC in a zone eight hours ahead.
        Clock { now: SourceTime::from("2026-11-30 18:00:00"), unix_ms: 1_796_032_800_500 }
    }

    fn bound(text: &str, end: WindowEnd) -> String {
        let zone = FixedOffset::east_opt(8 * 3600).unwrap();
        let shown_at = |seconds| {
            let at = zone.timestamp_opt(seconds, 0).unwrap();
            Ok::<_, ()>(Some(SourceTime(at.format("%Y-%m-%d %H:%M:%S").to_string())))
        };
        GivenTime::parse(text).unwrap().bound(end, &clock(), shown_at).unwrap().unwrap().0
    }

    #[test]
    fn a_day_is_the_whole_day_at_both_ends_of_a_window() {
        assert_eq!(bound("2026-11-01", WindowEnd::Since), "2026-10-31 23:59:59.999999");
        assert_eq!(bound("2026-11-30", WindowEnd::Until), "2026-11-30 23:59:59.999999");
        assert_eq!(bound("yesterday", WindowEnd::Since), "2026-11-28 23:59:59.999999");
        assert_eq!(bound("today", WindowEnd::Until), "2026-11-30 23:59:59.999999");
    }

    #[test]
    fn moments_go_by_the_zone_of_the_sources_clock() {
        for (text, shown) in [
            ("2026-11-30 10:00:00.125", "2026-11-30 10:00:00.125"),
            ("2026-11-30T10:00", "2026-11-30 10:00:00"),
            ("2026-11-30T10:00:00Z", "2026-11-30 18:00:00"),
            ("2026-11-30T10:00:00.250+08:00", "2026-11-30 10:00:00.250"),
            ("2d", "2026-11-28 18:00:00"),
            ("now", "2026-11-30 18:00:00"),
        ] {
            assert_eq!(bound(text, WindowEnd::Since), shown, "{text}");
            assert_eq!(bound(text, WindowEnd::Until), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for wrong in [
            "",
            "Z",
            "tomorrow",
            "2025-13-01",
            "2025-11-28 10",
            "2025-11-28 25:00:00",
            "2025-1-2",
            // chrono takes all of these, and the state cannot compare them.
            "2025-1-2 10:00:00.5",
            "2025-11-28  10:00:00",
            "+2025-01-02 10:00:00",
            "0000-01-01 00:00:00",
            "2025-11-28 10:00:60",
            "2025-11-28T10:00:60Z",
        ] {
            assert_eq!(GivenTime::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn runs_go_by_our_own_clock_and_zone() {
        let zone = FixedOffset::east_opt(8 * 3600).unwrap();
        let now = DateTime::parse_from_rfc3339("2026-11-30T20:00:00Z").unwrap().to_utc();
        let of = |text, end| recorded(GivenTime::parse(text).unwrap().own_moment(end, now, &zone).unwrap());
        assert_eq!(of("2026-11-30", WindowEnd::Since), "2026-11-29T16:00:00Z");
        assert_eq!(of("2026-11-30", WindowEnd::Until), "2026-11-30T15:59:59Z");
        // It is December already in that zone.
        assert_eq!(of("today", WindowEnd::Since), "2026-11-30T16:00:00Z");
        assert_eq!(of("2026-11-30T10:00:00Z", WindowEnd::Until), "2026-11-30T10:00:00Z");
        assert_eq!(of("1h 30m", WindowEnd::Since), "2026-11-30T18:30:00Z");
    }
}
