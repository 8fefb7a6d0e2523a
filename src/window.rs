//! Which source times a run reads: boundary, watermark, look-back.
//!
//! Pure. All times are the server's wall clock as text; the only arithmetic is "so many seconds
//! earlier", for bounds that may err on the early side.

use std::time::Duration;

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike};

use crate::invoice::SourceTime;

/// Shown where a tenant has no watermark yet, as the script did.
pub const BASELINE: &str = "1970-01-01 00:00:00";

/// The server's clock at the start of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Whole seconds, in the zone in which `fupdate_time` is read.
    pub now: SourceTime,
    /// The same moment in milliseconds since 1970.
    pub unix_ms: i64,
}

impl Clock {
    /// What it shows, in milliseconds, as if its zone were UTC. Source times are what it shows, so its zone
    /// counts: where that changes, they go back or ahead though time itself does not.
    pub fn shown_ms(&self) -> i64 {
        let whole = whole_seconds(&self.now).map(|now| now.and_utc().timestamp() * 1000);
        whole.map_or(self.unix_ms, |whole| whole + self.unix_ms.rem_euclid(1000))
    }
}

/// The least lag that a run keeps: a second that is not over may still get rows.
const LEAST_LAG: Duration = Duration::from_secs(1);

/// The lag that a run keeps though a shorter one was asked for.
pub fn clamp_lag(lag: Duration) -> Duration {
    lag.max(LEAST_LAG)
}

/// What is going on in the server that may still commit rows with source times of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenWork {
    None,
    /// The start of the oldest open transaction, or of the oldest statement that may write.
    Since(SourceTime),
    /// A transaction is prepared that no client holds any more. It may be older than the server's last
    /// start, with which the server dates it. So it lifts every lower bound until it ends.
    Prepared,
    /// The server refuses to show its work: this user has no PROCESS privilege. The overlap alone covers late commits
    /// then, because otherwise every run of such a user would read all keys.
    NotPermitted,
    /// This user may look, but the answer cannot be relied on: the list did not get fresh in time, a start is missing,
    /// or the query failed. There may be work of any age, so the next run reads all keys.
    Unreliable,
}

/// Source times to read: open at the left, closed at the right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// None reads everything, also rows without a usable source time.
    pub after: Option<SourceTime>,
    pub upto: Option<SourceTime>,
}

/// From where on runs have read a tenant without a gap, up to its watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    TheBeginning,
    After(SourceTime),
}

impl ReadFrom {
    /// Whether a source time up to the watermark has been read.
    pub fn reaches(&self, time: &SourceTime) -> bool {
        match self {
            Self::TheBeginning => true,
            Self::After(start) => time > start,
        }
    }
}

impl OpenWork {
    /// Whether something may still commit rows with source times up to the boundary. Work that began
    /// after it commits rows of later windows: a busy server always has some.
    pub fn reaches_below(&self, boundary: &SourceTime) -> bool {
        match self {
            Self::None => false,
            Self::Since(start) => start < boundary,
            Self::Prepared | Self::NotPermitted | Self::Unreliable => true,
        }
    }

    pub fn since(&self) -> Option<&SourceTime> {
        match self {
            Self::Since(start) => Some(start),
            Self::None | Self::Prepared | Self::NotPermitted | Self::Unreliable => None,
        }
    }
}

impl Clock {
    /// The end of what a run may read.
    pub fn boundary(&self, lag: Duration) -> SourceTime {
        // A lag that reaches back beyond the calendar leaves nothing to be read.
        earlier(&self.now, clamp_lag(lag)).unwrap_or_else(|| SourceTime::from("0001-01-01 00:00:00"))
    }
}

/// The time `by` before `time` in whole seconds, rounded down; None where `time` is no date (zero
/// dates) or the result would lie before the year 1.
pub fn earlier(time: &SourceTime, by: Duration) -> Option<SourceTime> {
    let parsed = whole_seconds(time)?;
    let by = TimeDelta::try_seconds(i64::try_from(by.as_secs()).ok()?)?;
    let at = parsed.checked_sub_signed(by).filter(|at| at.year() >= 1)?;
    Some(printed(at))
}

/// Whether this is a moment of the calendar, from the year 1 on, as far as its whole seconds go.
pub fn is_time(time: &SourceTime) -> bool {
    whole_seconds(time).is_some_and(|at| at.year() >= 1)
}

/// As a server prints whole seconds.
fn printed(at: NaiveDateTime) -> SourceTime {
    let year = at.year().unsigned_abs();
    let pairs = [year / 100, year % 100, at.month(), at.day(), at.hour(), at.minute(), at.second()];
    let mut text = String::with_capacity(19);
    for (pair, sign) in pairs.into_iter().zip(["", "", "-", "-", " ", ":", ":"]) {
        text.push_str(sign);
        text.extend([pair / 10, pair % 10].into_iter().filter_map(|digit| char::from_digit(digit, 10)));
    }
    SourceTime(text)
}

/// A day as a server prints it; None before the year 1.
pub fn printed_day(day: NaiveDate) -> Option<String> {
    let midnight = day.and_time(chrono::NaiveTime::MIN);
    (day.year() >= 1 && day.year() <= 9999).then(|| printed(midnight).0[..10].to_owned())
}

/// A real moment, written as a server prints it. chrono would take a leap second, single digits and a
/// year 0 as well.
pub fn moment(time: &SourceTime) -> Option<NaiveDateTime> {
    let text = time.as_str();
    let (whole, decimals) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let as_printed = whole.len() == 19
        && whole.bytes().zip(*b"0000-00-00 00:00:00").all(|(byte, model)| match model {
            b'0' => byte.is_ascii_digit(),
            sign => byte == sign,
        });
    let decimal = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !as_printed || !decimals.is_none_or(decimal) || whole.starts_with("0000") || whole.ends_with("60") {
        return None;
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()
}

/// How many seconds of the calendar `later` lies behind `earlier`, both rounded down; None where one of
/// them is no date.
pub fn seconds_between(earlier: &SourceTime, later: &SourceTime) -> Option<i64> {
    Some(whole_seconds(later)?.signed_duration_since(whole_seconds(earlier)?).num_seconds())
}

/// Reads the digits by itself: a run does so several times for each tenant, and chrono's formats take ten times
/// as long.
fn whole_seconds(time: &SourceTime) -> Option<NaiveDateTime> {
    let text = time.as_str().as_bytes().get(..19)?;
    let is_printed =
        [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')].iter().all(|(at, sign)| text[*at] == *sign);
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
    };
    let date = NaiveDate::from_ymd_opt(number(0, 4)?.cast_signed(), number(5, 7)?, number(8, 10)?)?;
    date.and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?).filter(|_| is_printed)
}

/// The least margin below the start of open work. The server shows the start as a whole second, and its first rows may
/// lie anywhere in that second, which a minute leaves room for.
const WORK_MARGIN: Duration = Duration::from_secs(60);

/// Where a tenant's next run starts reading keys again: the least of the boundary, the newest source time up to the
/// boundary that the tenant has shown, both minus the overlap, and the start of the oldest open work minus the greater
/// of the overlap and `WORK_MARGIN`. None means everything, which is also the answer when a time is no date, and for a
/// tenant that has shown none: there is no time to subtract the overlap from.
pub fn look_back(
    boundary: &SourceTime,
    newest: Option<&SourceTime>,
    work: &OpenWork,
    overlap: Duration,
) -> Option<SourceTime> {
    if matches!(work, OpenWork::Prepared | OpenWork::Unreliable) {
        return None;
    }
    let shown = earlier(boundary.min(newest?), overlap)?;
    match work.since() {
        Some(start) => Some(shown.min(earlier(start, overlap.max(WORK_MARGIN))?)),
        None => Some(shown),
    }
}

/// Rows with a source time below this count as settled once their document was read. Below the start of work that began
/// before the boundary a margin is kept, the greater of the overlap and `WORK_MARGIN`: a statement that waited for a
/// metadata lock has a source time before the start that the server shows, and a second version of the same second could
/// otherwise pass for the first one. Work that began after the boundary, of which a busy server always has some, leaves
/// rows settled: it costs another scan of its tenants' keys.
pub fn settled_below(boundary: &SourceTime, work: &OpenWork, overlap: Duration) -> SourceTime {
    match work {
        OpenWork::Since(start) if start < boundary => {
            earlier(start, overlap.max(WORK_MARGIN)).unwrap_or_else(|| SourceTime::from(""))
        }
        OpenWork::Prepared | OpenWork::Unreliable => SourceTime::from(""),
        OpenWork::Since(_) | OpenWork::None | OpenWork::NotPermitted => boundary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> SourceTime {
        SourceTime::from(text)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_boundary_is_the_servers_clock_minus_the_lag() {
        let clock = Clock { now: time("2025-11-28 16:35:00"), unix_ms: 999 };
        assert_eq!(clock.boundary(Duration::from_secs(300)), time("2025-11-28 16:30:00"));
        assert_eq!(clock.boundary(Duration::ZERO), time("2025-11-28 16:34:59"));
        assert_eq!(clock.boundary(Duration::from_secs(3_000 * 366 * 86_400)), time("0001-01-01 00:00:00"));
    }

    #[test]
    fn a_clock_shows_milliseconds_of_its_own_zone() {
        let clock = Clock { now: time("1970-01-01 08:00:01"), unix_ms: 1_250 };
        assert_eq!(clock.shown_ms(), 8 * 3_600_000 + 1_250);
    }

    #[test]
    fn a_lag_is_counted_by_the_calendar() {
        let between = |earlier, later| seconds_between(&time(earlier), &time(later));
        assert_eq!(between("2025-11-28 23:59:00.75", "2025-11-29 00:01:00"), Some(120));
        assert_eq!(between("2025-11-29 00:01:00", "2025-11-28 23:59:00"), Some(-120));
        assert_eq!(between("0000-00-00 00:00:00", "2025-11-28 23:59:00"), None);
    }

    #[test]
    fn only_what_a_server_prints_is_a_time() {
        for (text, is_time) in [
            ("2024-02-29 23:59:59", true),
            ("2024-02-29 23:59:59.123456", true),
            ("0001-01-01 00:00:00", true),
            ("2025-02-29 00:00:00", false),
            ("2025-00-10 00:00:00", false),
            ("2025-11-28 24:00:00", false),
            ("2025-11-28T16:30:00", false),
            ("2025-11-28 16:30", false),
            ("+025-11-28 16:30:00", false),
            ("2025-11-28 16:3x:00", false),
            ("发票", false),
        ] {
            let same = earlier(&time(text), Duration::ZERO);
            assert_eq!(same, is_time.then(|| time(&text[..19])), "{text}");
        }
    }

    #[test]
    fn the_look_back_follows_the_newest_time_that_the_tenant_has_shown() {
        let boundary = time("2025-11-28 16:30:00");
        let newest = time("2025-11-28 08:30:00.250000");
        assert_eq!(look_back(&boundary, Some(&newest), &OpenWork::None, HOUR), Some(time("2025-11-28 07:30:00")));
        let ahead = time("2025-11-29 00:30:00");
        assert_eq!(look_back(&boundary, Some(&ahead), &OpenWork::None, HOUR), Some(time("2025-11-28 15:30:00")));
    }

    #[test]
    fn nothing_is_below_the_look_back_of_a_tenant_that_has_shown_no_time() {
        assert_eq!(look_back(&time("2025-11-28 16:30:00"), None, &OpenWork::None, HOUR), None);
    }

    #[test]
    fn open_work_holds_the_look_back_and_what_counts_as_settled() {
        let boundary = time("2025-11-28 16:30:00");
        let work = OpenWork::Since(time("2025-11-28 12:00:00"));
        assert_eq!(look_back(&boundary, Some(&boundary), &work, HOUR), Some(time("2025-11-28 11:00:00")));
        assert_eq!(settled_below(&boundary, &work, HOUR), time("2025-11-28 11:00:00"));
        assert_eq!(settled_below(&boundary, &OpenWork::None, HOUR), boundary);
        let later = OpenWork::Since(time("2025-11-28 16:34:59"));
        assert_eq!(settled_below(&boundary, &later, HOUR), boundary);
    }

    #[test]
    fn work_without_a_known_start_leaves_no_lower_bound_and_settles_nothing() {
        let boundary = time("2025-11-28 16:30:00");
        for work in [OpenWork::Prepared, OpenWork::Unreliable] {
            assert_eq!(look_back(&boundary, Some(&boundary), &work, HOUR), None);
            assert!(settled_below(&boundary, &work, HOUR) < time("0000-00-00 00:00:00"));
            assert!(work.reaches_below(&boundary));
        }
    }

    #[test]
    fn a_time_that_is_no_date_reads_everything() {
        let zero = time("0000-00-00 00:00:00");
        assert_eq!(look_back(&time("2025-11-28 16:30:00"), Some(&zero), &OpenWork::None, HOUR), None);
        assert_eq!(earlier(&time("0001-01-01 00:00:00"), HOUR), None);
    }
}
