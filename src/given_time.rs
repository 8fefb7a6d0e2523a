//! Times as an operator writes them: a day, a moment as a clock shows it, RFC 3339, or a time before now. Pure: the
//! clock that they go by comes in from outside.
//!
//! A day alone is the whole day: as a start its first moment, as an end its last one, so that `--since X --until X`
//! is one day.

use std::time::Duration;

use chrono::{DateTime, Days, Local, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};

use crate::invoice::SourceTime;
use crate::refusal::Refusal;
use crate::window::{Clock, Span, moment, printed_day};

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

/// The zone in which times of our own clock are read and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnZone {
    /// Of this machine: `TZ`, or /etc/localtime.
    Local,
    Utc,
}

impl OwnZone {
    /// A recorded moment as people read it; what is no RFC 3339 is left as it is.
    pub fn shown_text(self, recorded: &str) -> String {
        DateTime::parse_from_rfc3339(recorded)
            .map_or_else(|_| recorded.to_owned(), |moment| self.shown(moment.to_utc()))
    }

    /// A moment as people read it, in whole seconds with its offset.
    pub fn shown(self, moment: DateTime<Utc>) -> String {
        match self {
            Self::Local => moment.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string(),
            Self::Utc => moment.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        }
    }
}

/// Which end of a window a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    /// Windows of source times do not contain their start.
    Since,
    /// Windows contain their end.
    Until,
}

/// A window as `--since` and `--until` give it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenWindow {
    since: Option<GivenTime>,
    until: Option<GivenTime>,
    /// As they were written.
    texts: [Option<String>; 2],
}

impl GivenWindow {
    /// # Errors
    /// A text that is no time is refused.
    pub fn parse(since: Option<&str>, until: Option<&str>) -> anyhow::Result<Self> {
        let time = |text: Option<&str>, flag| text.map(|text| GivenTime::required(text, flag)).transpose();
        let texts = [since, until].map(|text| text.map(str::to_owned));
        Ok(Self { since: time(since, "--since")?, until: time(until, "--until")?, texts })
    }

    /// A window of source times.
    ///
    /// # Errors
    /// Those of `parse`. A window that ends before it begins is refused, as far as that is known without a clock.
    pub fn of_source_times(since: Option<&str>, until: Option<&str>) -> anyhow::Result<Self> {
        let window = Self::parse(since, until)?;
        if !window.needs_clock() {
            window.span()?;
        }
        Ok(window)
    }

    /// Whether neither end is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether only the source's clock tells which source times are meant.
    pub fn needs_clock(&self) -> bool {
        [&self.since, &self.until].into_iter().flatten().any(GivenTime::needs_clock)
    }

    /// The window of source times where no clock is to be had.
    ///
    /// # Errors
    /// A time that only the source's clock can tell is refused.
    pub fn span(&self) -> anyhow::Result<Span> {
        self.bounds(|time, end| if time.needs_clock() { Err(needs_source()) } else { Ok(time.plain_bound(end)) })
    }

    /// The window of source times by the source's clock; see `GivenTime::bound`.
    ///
    /// # Errors
    /// Those of `shown_at`, and of a time that the source's clock cannot show.
    pub fn span_by(
        &self,
        clock: &Clock,
        mut shown_at: impl FnMut(i64) -> anyhow::Result<Option<SourceTime>>,
    ) -> anyhow::Result<Span> {
        self.bounds(|time, end| time.bound(end, clock, &mut shown_at))
    }

    /// The refusal of a window that ends before it begins.
    fn reversed(&self) -> anyhow::Error {
        let [since, until] = self.texts.each_ref().map(Option::as_deref).map(Option::unwrap_or_default);
        Refusal::usage(text!("--since {since} is not before --until {until}", "--since {since} 不早于 --until {until}"))
    }

    fn bounds(
        &self,
        mut bound: impl FnMut(&GivenTime, WindowEnd) -> anyhow::Result<Option<SourceTime>>,
    ) -> anyhow::Result<Span> {
        let mut of = |time: &Option<GivenTime>, end| match time {
            Some(time) => bound(time, end)?.map(Some).ok_or_else(beyond_calendar),
            None => Ok(None),
        };
        let span = Span { after: of(&self.since, WindowEnd::Since)?, upto: of(&self.until, WindowEnd::Until)? };
        match (&span.after, &span.upto) {
            (Some(since), Some(until)) if since >= until => Err(self.reversed()),
            _ => Ok(span),
        }
    }

    /// The first and the last moment by our own clock, which shows `now`.
    ///
    /// # Errors
    /// A window that ends before it begins is refused.
    pub fn own_moments(&self, now: DateTime<Utc>, zone: OwnZone) -> anyhow::Result<[Option<DateTime<Utc>>; 2]> {
        let own_moment = |time: &GivenTime, end| match zone {
            OwnZone::Local => time.own_moment(end, now, &Local),
            OwnZone::Utc => time.own_moment(end, now, &Utc),
        };
        let of = |time: &Option<GivenTime>, end| match time {
            Some(time) => own_moment(time, end).map(Some).ok_or_else(beyond_calendar),
            None => Ok(None),
        };
        match [of(&self.since, WindowEnd::Since)?, of(&self.until, WindowEnd::Until)?] {
            [Some(since), Some(until)] if since > until => Err(self.reversed()),
            moments => Ok(moments),
        }
    }
}

/// The precision of source times: a server keeps six decimals at the most.
const LAST_MOMENT: &str = "23:59:59.999999";

impl GivenTime {
    /// A time that stands for the argument `given_as`.
    ///
    /// # Errors
    /// A text that is no time is refused.
    pub fn required(text: &str, given_as: &'static str) -> anyhow::Result<Self> {
        Self::parse(text).ok_or_else(|| {
            Refusal::usage(message! {
                "{given_as} {text:?} is no time", "{given_as} {text:?} 不是时间";
                "write \"2025-11-28 10:00:00\", \"2025-11-28\", \"2025-11-28T10:00:00+08:00\", \"yesterday\", or \"2d\" for two days ago",
                "请写成 \"2025-11-28 10:00:00\"、\"2025-11-28\"、\"2025-11-28T10:00:00+08:00\"、\"yesterday\"，或用 \"2d\" 表示两天前"
            })
        })
    }

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

    /// A point of source times by the source's clock: a day is its midnight. None where the calendar ends.
    ///
    /// # Errors
    /// Those of `shown_at`.
    pub fn point<E>(
        &self,
        clock: &Clock,
        shown_at: impl FnOnce(i64) -> Result<Option<SourceTime>, E>,
    ) -> Result<Option<SourceTime>, E> {
        let Some(end) = self.bound(WindowEnd::Until, clock, shown_at)? else { return Ok(None) };
        Ok(match self {
            Self::Day(_) | Self::DaysAgo(_) => {
                end.0.strip_suffix(LAST_MOMENT).map(|day| SourceTime(format!("{day}00:00:00")))
            }
            Self::Shown(_) | Self::Instant(_) | Self::Ago(_) => Some(end),
        })
    }

    /// The moment by a clock of our own: the first or the last second that is meant. None where the calendar ends.
    fn own_moment<Z: TimeZone>(&self, end: WindowEnd, now: DateTime<Utc>, zone: &Z) -> Option<DateTime<Utc>> {
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

/// The refusal of a time that the source's clock never shows.
pub fn beyond_calendar_of(given_as: &str) -> anyhow::Error {
    Refusal::usage(text!("{given_as} is a time that the clock cannot show", "{given_as} 超出了时钟能表示的范围"))
}

fn beyond_calendar() -> anyhow::Error {
    Refusal::usage(text!(
        "--since or --until names a time that the clock cannot show",
        "--since 或 --until 超出了时钟能表示的范围"
    ))
}

/// The refusal of a time that goes by the source's clock where no source is asked.
fn needs_source() -> anyhow::Error {
    Refusal::usage(message! {
        "a time with an offset, or one that counts from now, goes by the source's clock, and no source is asked here",
        "带时区偏移或相对于当前的时间以数据源的时钟为准，而此处不访问数据源";
        "write the time as the source shows it, for example \"2025-11-28 10:00:00\" or \"2025-11-28\"",
        "请按数据源显示的形式书写，例如 \"2025-11-28 10:00:00\" 或 \"2025-11-28\""
    })
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
    fn a_day_is_its_midnight_where_a_watermark_is_set() {
        let point = |text: &str| GivenTime::parse(text).unwrap().point(&clock(), |_| Ok::<_, ()>(None)).unwrap();
        for (text, midnight) in [("2026-11-28", "2026-11-28"), ("today", "2026-11-30"), ("yesterday", "2026-11-29")] {
            assert_eq!(point(text).unwrap().0, format!("{midnight} 00:00:00"), "{text}");
        }
        assert_eq!(point("2025-11-28T10:00:00.125").unwrap().0, "2025-11-28 10:00:00.125");
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
        let rfc3339 = |moment: DateTime<Utc>| moment.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let of = |text, end| rfc3339(GivenTime::parse(text).unwrap().own_moment(end, now, &zone).unwrap());
        assert_eq!(of("2026-11-30", WindowEnd::Since), "2026-11-29T16:00:00Z");
        assert_eq!(of("2026-11-30", WindowEnd::Until), "2026-11-30T15:59:59Z");
        // It is December already in that zone.
        assert_eq!(of("today", WindowEnd::Since), "2026-11-30T16:00:00Z");
        assert_eq!(of("2026-11-30T10:00:00Z", WindowEnd::Until), "2026-11-30T10:00:00Z");
        assert_eq!(of("1h 30m", WindowEnd::Since), "2026-11-30T18:30:00Z");
    }
}
