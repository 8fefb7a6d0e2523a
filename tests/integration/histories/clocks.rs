//! What a run must make of the clocks: where they do not prove which source times may be new, it compares all keys.

use super::steps::Pace;

const DAY: i64 = 86_400;

/// What a run finds, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clocks {
    pub(super) source: i64,
    /// The source's when the run is over. A server's goes on meanwhile.
    pub(super) until: i64,
    pub(super) own: i64,
    /// How much time has really passed. None where the state does not show what it should of that.
    pub(super) up: Option<i64>,
    /// How often the machine was restarted or exchanged.
    pub(super) machine: u32,
}

/// What the state may say of the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    clocks: Clocks,
    unproven: u32,
    /// When all keys were compared because something was in doubt, by the exporter's clock.
    compared: Option<i64>,
}

/// More than one where it is not known how far a run has come that did not end well.
pub(super) struct Records {
    pace: &'static Pace,
    records: Vec<Record>,
    /// Whether it may be that no run has recorded clocks yet: each died before it could, or there was none.
    may_be_empty: bool,
}

impl Records {
    pub(super) fn new(pace: &'static Pace) -> Self {
        Self { pace, records: Vec::new(), may_be_empty: true }
    }

    /// Whether a run with these clocks is certain to compare all keys.
    pub(super) fn met(&mut self, clocks: &Clocks, ended_well: bool) -> bool {
        let first = (false, Record { clocks: *clocks, unproven: 0, compared: None });
        let followed = self.records.iter().flat_map(|last| self.next(last, clocks));
        let met: Vec<(bool, Record)> = followed.chain(self.may_be_empty.then_some(first)).collect();
        let doubt = met.iter().all(|(doubt, _)| *doubt);
        if ended_well {
            self.records.clear();
            self.may_be_empty = false;
        }
        for record in met.into_iter().map(|(_, record)| record) {
            if !self.records.contains(&record) {
                self.records.push(record);
            }
        }
        doubt
    }

    fn next(&self, last: &Record, now: &Clocks) -> Vec<(bool, Record)> {
        let is_proven = last.clocks.machine == now.machine;
        let unproven = last.unproven + u32::from(!is_proven);
        let age = last.compared.map(|compared| now.own - compared);
        let is_due = age.is_none_or(|age| !(0..DAY).contains(&age));
        let clocks = *now;
        let doubted = (true, Record { clocks, unproven: 0, compared: Some(now.own) });
        let believed = (false, Record { clocks, unproven, compared: last.compared });
        if self.moved(&last.clocks, now) || unproven > 0 && is_due {
            vec![doubted]
        } else if now.up.is_none() {
            // What the state shows of the time that passed is anything.
            vec![doubted, believed]
        } else {
            vec![believed]
        }
    }

    /// Back, or by more than half the lag against another clock or against what has passed.
    fn moved(&self, last: &Clocks, now: &Clocks) -> bool {
        let shown = now.source - last.source;
        let against = |passed: i64| 2 * shown.abs_diff(passed) > self.pace.lag.unsigned_abs().max(1);
        let same = last.machine == now.machine;
        let passed = last.up.zip(now.up).filter(|_| same).map(|(then, now)| now - then);
        shown < 0 || against(now.own - last.own) || passed.is_some_and(against)
    }
}
