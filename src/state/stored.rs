//! How the program's types are stored in SQLite. A value that a type does not have is an error on reading, and counts
//! as damage.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use crate::invoice::{Digest, InvoiceId, ReasonCode, SourceTime, Tenant};
use crate::lang::Text;
use crate::run::{Account, Counts, KeptReason, Kind, PastCounts, RunId};
use crate::tree::name::TreePath;
use crate::window::ReadFrom;

/// The row of a tenant: of one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantNo(pub i64);

/// The row of a folder `tenant/country` of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FolderNo(pub i64);

macro_rules! stored {
    ($read:ty: $($name:ident)+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$read>::column_result(value).map(Self)
            }
        }
    )+};
}

stored!(i64: RunId TenantNo FolderNo);
stored!(String: SourceTime Tenant);
stored!([u8; 32]: Digest);

/// Lets enums of words be stored as their words.
macro_rules! stored_words {
    ($($name:ident)+) => {$(
        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                let text = value.as_str()?;
                let unknown = || format!("{text:?} is none of the words that can stand here");
                <Self as $crate::lang::Word>::parse(text)
                    .ok_or_else(|| rusqlite::types::FromSqlError::Other(unknown().into()))
            }
        }
    )+};
}

stored_words!(Kind KeptReason ReasonCode);

/// The beginning is stored as an empty time.
impl ToSql for ReadFrom {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::TheBeginning => Ok("".into()),
            Self::After(time) => time.to_sql(),
        }
    }
}

impl FromSql for ReadFrom {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let time = SourceTime::column_result(value)?;
        Ok(if time.as_str().is_empty() { Self::TheBeginning } else { Self::After(time) })
    }
}

impl ToSql for InvoiceId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for InvoiceId {
    /// The ledger keeps whole numbers as such (see `LedgerKey`).
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Integer(number) => Ok(Self(number.to_string())),
            _ => String::column_result(value).map(Self),
        }
    }
}

/// An id as the ledger keeps it. Whole numbers are kept as such: they take less room, and rows that come in
/// the order of the source's key lie one behind the other.
pub(super) struct LedgerKey<'a>(pub &'a InvoiceId);

impl ToSql for LedgerKey<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = self.0.as_str();
        // What would be printed otherwise than it came stays text.
        let number = text.parse::<i64>().ok().filter(|_| self.0.is_whole_number());
        Ok(number.map_or(text.into(), ToSqlOutput::from))
    }
}

impl FromSql for TreePath {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::parse(text).ok_or_else(|| FromSqlError::Other(format!("impossible path {text:?}").into()))
    }
}

/// The number of a row that `key` names, which is inserted if it is missing.
pub(super) fn get_or_insert<T: FromSql>(
    conn: &Connection,
    key: &str,
    [select, insert]: [&str; 2],
) -> rusqlite::Result<T> {
    let known = conn.prepare_cached(select)?.query_row([key], |row| row.get(0)).optional()?;
    known.map_or_else(|| conn.prepare_cached(insert)?.query_row([key], |row| row.get(0)), Ok)
}

/// A text with its Chinese wording in a column beside it. Where that column is NULL, both languages get the English one.
pub(super) fn text(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Text>> {
    let (en, zh): (Option<String>, Option<String>) = (row.get(column)?, row.get(format!("{column}_zh").as_str())?);
    Ok(en.map(|en| zh.map_or_else(|| Text::same(&en), |zh| Text::new(&en, zh))))
}

/// The account behind a run or a change.
pub(super) fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account { name: row.get("user")?, uid: row.get("uid")?, sudo_user: row.get("sudo_user")? })
}

/// The counts of a run, or of a tenant in it.
pub(super) fn counts(row: &Row<'_>) -> rusqlite::Result<PastCounts> {
    let (mut counts, mut has_recent) = (Counts::default(), true);
    for (name, value) in Counts::NAMES.iter().zip(counts.values_mut()) {
        match row.get(name.column)? {
            Some(number) => *value = number,
            None => has_recent = false,
        }
    }
    Ok(PastCounts { counts, has_recent })
}
