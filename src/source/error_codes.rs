//! Owns the meaning of error codes: one table for MySQL, MariaDB, and for ProxySQL and other proxies, which answer in a
//! server's place and with codes of their own. It names no driver.
//!
//! The numbers are those of `mysqld_error.h`, `mysys_err.h` (MySQL 9.7), `errmsg-utf8.txt` (MariaDB 10.11), `errmsg.h` (what a
//! client library says; proxies pass it on) and `proxysql_structs.h` (ProxySQL). A code that the table does
//! not name is [`ErrorClass::Refused`].

use std::fmt;
use std::ops::RangeInclusive;

/// The reaction to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The error says nothing about the statement or a row. Another connection may succeed in a while.
    Passing,
    /// The server has no connection left, or none for this user. That passes too.
    Full,
    /// A setting of the server, by this name, ended the statement because it took too long.
    Overtime(&'static str),
    /// The server has too little memory, for the moment or for this statement or one of its rows.
    OutOfMemory,
    /// The user or the password is wrong.
    Login,
    /// The server takes no connection that is not encrypted.
    TlsRequired,
    /// The database does not exist, or this user may not use it.
    Database,
    /// The account lacks a privilege.
    Denied,
    /// The table is missing.
    NoTable,
    /// The index does not exist, is hidden from the optimizer, or is corrupt.
    NoIndex,
    /// The server does not know the time zone.
    NoZone,
    /// The statement or one of its rows is to blame. Another attempt fails again.
    Refused,
}

impl ErrorClass {
    /// Whether another attempt may succeed in a while, without any change.
    pub fn passes(self) -> bool {
        matches!(self, Self::Passing | Self::Full | Self::OutOfMemory)
    }

    /// The class of a code. A code that the table does not name is [`Self::Refused`].
    pub(super) fn of(code: u16) -> Self {
        TABLE.iter().find(|row| row.codes.contains(&code)).map_or(Self::Refused, |row| row.class)
    }
}

/// An error that a server, or a proxy in its place, answered with.
#[derive(Debug)]
pub(super) struct ServerError {
    pub code: u16,
    /// `ERROR 1146 (42S02): Table 'shop.t_invoice' doesn't exist`
    pub text: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ServerError {}

/// The code of the server's error in here. None where no server answered with an error.
pub(super) fn code(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<ServerError>().map(|error| error.code)
}

/// The meaning of the server's error in here. An error that is not a server's is [`ErrorClass::Refused`].
pub(super) fn class(error: &anyhow::Error) -> ErrorClass {
    code(error).map_or(ErrorClass::Refused, ErrorClass::of)
}

/// The class of neighbouring codes, and its reason.
#[derive(Debug)]
pub struct ErrorRule {
    pub codes: RangeInclusive<u16>,
    pub class: ErrorClass,
    pub why: &'static str,
}

/// The rule for one code.
const fn one(code: u16, class: ErrorClass, why: &'static str) -> ErrorRule {
    many(code, code, class, why)
}

/// The rule for the codes from `first` to `last`.
const fn many(first: u16, last: u16, class: ErrorClass, why: &'static str) -> ErrorRule {
    ErrorRule { codes: first..=last, class, why }
}

/// The first rule that names a code decides.
pub const TABLE: &[ErrorRule] = &[
    // The server starts, stops, or is not fit to answer.
    one(1047, ErrorClass::Passing, "a Galera node is not in its cluster"),
    one(1053, ErrorClass::Passing, "the server is shutting down"),
    many(1077, 1080, ErrorClass::Passing, "the server is shutting down and closes connections"),
    one(3032, ErrorClass::Passing, "the server is in offline mode"),
    one(3168, ErrorClass::Passing, "MySQL: the server is not available"),
    // The server is out of a resource that other sessions give back.
    one(1021, ErrorClass::Passing, "the server's disk is full; it waits for space"),
    one(
        5,
        ErrorClass::OutOfMemory,
        "the server is out of memory (an error of its library, which has numbers of its own)",
    ),
    one(1037, ErrorClass::OutOfMemory, "the server is out of memory"),
    one(1041, ErrorClass::OutOfMemory, "the server is out of memory"),
    one(3015, ErrorClass::OutOfMemory, "a storage engine is out of memory"),
    many(4081, 4082, ErrorClass::OutOfMemory, "MySQL: connections take more memory than they may"),
    one(1135, ErrorClass::Passing, "the server has no thread for a connection"),
    one(1206, ErrorClass::Passing, "the table of locks is full"),
    one(1461, ErrorClass::Passing, "the server has as many prepared statements as it may have"),
    one(1637, ErrorClass::Passing, "too many transactions are open"),
    one(1878, ErrorClass::Passing, "the server cannot write a temporary file"),
    one(1, ErrorClass::Passing, "the server cannot create a file (an error of its library)"),
    one(3, ErrorClass::Passing, "the server cannot write a file, as on a full disk (an error of its library)"),
    one(20, ErrorClass::Passing, "the server's disk is full; it waits for space (an error of its library)"),
    one(1040, ErrorClass::Full, "the server has as many connections as it may have"),
    one(1203, ErrorClass::Full, "this user has as many connections as it may have"),
    one(1226, ErrorClass::Full, "this user has used up an allowance"),
    // The connection is gone or was not made.
    one(1042, ErrorClass::Passing, "the server does not get our host's name"),
    one(1043, ErrorClass::Passing, "the packets of the login did not arrive whole"),
    one(1152, ErrorClass::Passing, "the server gave the connection up"),
    many(1154, 1161, ErrorClass::Passing, "packets were lost between server and client"),
    one(1184, ErrorClass::Passing, "the server gave the new connection up"),
    one(1927, ErrorClass::Passing, "MariaDB: the connection was killed"),
    one(3169, ErrorClass::Passing, "MySQL: the session was killed"),
    one(4031, ErrorClass::Passing, "MySQL: the session was idle for too long"),
    // The statement waited in vain, lost against others, or was killed.
    one(1020, ErrorClass::Passing, "MariaDB: the row was changed since the snapshot was taken"),
    one(1205, ErrorClass::Passing, "a lock did not come in time"),
    one(1213, ErrorClass::Passing, "a deadlock was broken up"),
    one(1317, ErrorClass::Passing, "the statement was killed"),
    one(1412, ErrorClass::Passing, "the table was altered since the transaction began"),
    one(1689, ErrorClass::Passing, "another session wants the table for itself"),
    one(1429, ErrorClass::Passing, "a foreign server, of which this table is a view, cannot be reached"),
    one(1969, ErrorClass::Overtime("max_statement_time"), "MariaDB: the time limit of statements"),
    one(3024, ErrorClass::Overtime("max_execution_time"), "MySQL: the time limit of statements"),
    // The prepared statement is invalid. A new connection prepares it again.
    one(1243, ErrorClass::Passing, "the server does not know the statement, which a proxy prepared elsewhere"),
    one(1615, ErrorClass::Passing, "the statement must be prepared again"),
    // Another attempt fails again.
    one(1044, ErrorClass::Database, "this user may not use the database"),
    one(1049, ErrorClass::Database, "there is no such database"),
    one(1045, ErrorClass::Login, "the password is wrong, or there is no such user"),
    one(1698, ErrorClass::Login, "this user logs in in another way"),
    one(3159, ErrorClass::TlsRequired, "the server takes no connection that is not encrypted"),
    many(1142, 1143, ErrorClass::Denied, "a privilege on the table or on a column is missing"),
    one(1227, ErrorClass::Denied, "a privilege of the whole server is missing"),
    one(1146, ErrorClass::NoTable, "there is no such table"),
    one(1176, ErrorClass::NoIndex, "there is no such index, or the optimizer is to ignore it"),
    one(1712, ErrorClass::NoIndex, "the index is corrupt"),
    one(1298, ErrorClass::NoZone, "the server does not know the time zone"),
    one(1129, ErrorClass::Refused, "the server blocks our host until an administrator flushes its list"),
    one(1153, ErrorClass::Refused, "a row is larger than max_allowed_packet"),
    // The codes of client libraries, which a proxy passes on when it lost its server.
    one(2020, ErrorClass::Refused, "a proxy took a row that is larger than its max_allowed_packet"),
    many(2002, 2006, ErrorClass::Passing, "a proxy does not reach its server"),
    one(2008, ErrorClass::OutOfMemory, "a proxy is out of memory"),
    many(2012, 2014, ErrorClass::Passing, "a proxy lost its server"),
    many(2026, 2027, ErrorClass::Passing, "a proxy did not understand its server"),
    one(2055, ErrorClass::Passing, "a proxy lost its server"),
    // ProxySQL's own codes.
    one(9003, ErrorClass::Refused, "ProxySQL does not support the command"),
    many(9000, 9999, ErrorClass::Passing, "ProxySQL: no server of the group answers, is near enough or is let through"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_of_the_table_is_hidden_by_one_before_it() {
        for (n, row) in TABLE.iter().enumerate() {
            let before = &TABLE[..n];
            let hidden = |code: &u16| before.iter().any(|earlier| earlier.codes.contains(code));
            assert!(!row.codes.clone().all(|code| hidden(&code)), "{row:?}");
            assert!(!row.codes.is_empty() && !row.why.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn an_error_that_nothing_was_decided_about_is_the_statements() {
        assert_eq!(ErrorClass::of(1064), ErrorClass::Refused);
        assert_eq!([ErrorClass::of(9003), ErrorClass::of(9001)], [ErrorClass::Refused, ErrorClass::Passing]);
    }
}
