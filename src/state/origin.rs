//! How an invoice got its file in a run, and so how the run counts it. What was there before the run decides: the run's
//! own files, which other invoices of it may share or take, say nothing of that.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

use crate::run::Counts;

/// The number stands in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The run wrote its file. No file was at the path before.
    New = 0,
    /// The run wrote its file. One with other content was there.
    Replaced = 1,
    /// The run wrote its file at another path than before, at which no file was.
    MovedToFree = 2,
    /// The run wrote its file at another path than before, at which a file was.
    MovedOver = 3,
    /// The file was right, and no invoice had it.
    TakenOver = 4,
    /// The file was right, and another invoice has it too.
    Shared = 5,
    /// The ledger had the invoice at this path with this document. Only what else is known of the row changed.
    Kept = 6,
}

impl Origin {
    const ALL: [Self; 7] =
        [Self::New, Self::Replaced, Self::MovedToFree, Self::MovedOver, Self::TakenOver, Self::Shared, Self::Kept];

    /// Of a file that the run writes. `has_moved`: the invoice had one at another path. `is_over`: there was a file at
    /// this path.
    pub fn written(has_moved: bool, is_over: bool) -> Self {
        match (has_moved, is_over) {
            (false, false) => Self::New,
            (false, true) => Self::Replaced,
            (true, false) => Self::MovedToFree,
            (true, true) => Self::MovedOver,
        }
    }

    pub fn is_written(self) -> bool {
        matches!(self, Self::New | Self::Replaced | Self::MovedToFree | Self::MovedOver)
    }

    /// Whether the invoice gets a file that was right before.
    pub fn is_adopted(self) -> bool {
        matches!(self, Self::TakenOver | Self::Shared)
    }

    /// Whether there was a file at the path before the run.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::New | Self::MovedToFree)
    }

    /// How a row that comes to this counts; `size` is that of its document in bytes.
    pub fn counts(self, size: u64) -> Counts {
        let one = Counts { seen: 1, ..Counts::default() };
        let (written, unchanged) = (Counts { written: 1, bytes: size, ..one }, Counts { unchanged: 1, ..one });
        match self {
            Self::New => Counts { new: 1, ..written },
            Self::Replaced => Counts { replaced: 1, ..written },
            Self::MovedToFree | Self::MovedOver => Counts { moved: 1, ..written },
            Self::TakenOver => Counts { taken_over: 1, ..unchanged },
            Self::Shared | Self::Kept => unchanged,
        }
    }
}

impl ToSql for Origin {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Origin {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        let found = Self::ALL.into_iter().find(|origin| *origin as i64 == number);
        found.ok_or(FromSqlError::OutOfRange(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_origin_counts_as_one_row_that_balances_and_is_read_back() {
        for origin in Origin::ALL {
            let counts = origin.counts(5);
            assert!(counts.balances() && counts.seen == 1, "{origin:?}");
            assert_eq!((counts.written, counts.bytes), if origin.is_written() { (1, 5) } else { (0, 0) });
            assert_eq!(Origin::column_result(ValueRef::Integer(origin as i64)).unwrap(), origin);
        }
        assert!(Origin::column_result(ValueRef::Integer(7)).is_err());
    }
}
