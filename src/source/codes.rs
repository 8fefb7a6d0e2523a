//! What an error of a server means for us. One table says so for MySQL, MariaDB, and for ProxySQL and
//! other proxies, which answer in a server's place and with codes of their own. It names no driver.
//!
//! The numbers are those of `mysqld_error.h`, `mysys_err.h` (MySQL 9.7), `errmsg-utf8.txt` (MariaDB 10.11), `errmsg.h` (what a
//! client library says; proxies pass it on) and `proxysql_structs.h` (ProxySQL). A code that the table does
//! not name is [`Class::Refused`].

use std::ops::RangeInclusive;

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It says nothing about the statement or a row: another connection may do better in a while.
    Passing,
    /// The server takes no further connection, or none of this user; that passes too.
    Full,
    /// This setting of the server lets no statement take longer.
    Overtime(&'static str),
    /// The server has too little memory: for the moment, or for this statement or one of its rows.
    OutOfMemory,
    /// The user or the password is wrong.
    Login,
    /// The database is missing, or not this user's to use.
    Database,
    /// The account lacks a privilege.
    Denied,
    /// The table is missing.
    NoTable,
    /// The index is missing, hidden from the optimizer or corrupt.
    NoIndex,
    /// The server does not know the time zone.
    NoZone,
    /// The statement or one of its rows is to blame: asked again, it fails again.
    Refused,
}

impl Class {
    /// Whether the same question may be answered in a while, without anything being changed.
    pub fn passes(self) -> bool {
        matches!(self, Self::Passing | Self::Full | Self::OutOfMemory)
    }

    pub(super) fn of(code: u16) -> Self {
        TABLE.iter().find(|row| row.codes.contains(&code)).map_or(Self::Refused, |row| row.class)
    }
}

/// A decision about codes that are neighbours and mean the same to us.
#[derive(Debug)]
pub struct Decision {
    pub codes: RangeInclusive<u16>,
    pub class: Class,
    pub why: &'static str,
}

const fn one(code: u16, class: Class, why: &'static str) -> Decision {
    many(code, code, class, why)
}

const fn many(first: u16, last: u16, class: Class, why: &'static str) -> Decision {
    Decision { codes: first..=last, class, why }
}

/// The first row that names a code decides.
pub const TABLE: &[Decision] = &[
    // The server starts, stops, or is not fit to answer.
    one(1047, Class::Passing, "a Galera node is not in its cluster"),
    one(1053, Class::Passing, "the server is shutting down"),
    many(1077, 1080, Class::Passing, "the server is shutting down and closes connections"),
    one(3032, Class::Passing, "the server is in offline mode"),
    one(3168, Class::Passing, "MySQL: the server is not available"),
    // It is out of something that others may give back.
    one(1021, Class::Passing, "the server's disk is full; it waits for space"),
    one(5, Class::OutOfMemory, "the server is out of memory (an error of its library, which has numbers of its own)"),
    one(1037, Class::OutOfMemory, "the server is out of memory"),
    one(1041, Class::OutOfMemory, "the server is out of memory"),
    one(3015, Class::OutOfMemory, "a storage engine is out of memory"),
    many(4081, 4082, Class::OutOfMemory, "MySQL: connections take more memory than they may"),
    one(1135, Class::Passing, "the server has no thread for a connection"),
    one(1206, Class::Passing, "the table of locks is full"),
    one(1461, Class::Passing, "the server has as many prepared statements as it may have"),
    one(1637, Class::Passing, "too many transactions are open"),
    one(1878, Class::Passing, "the server cannot write a temporary file"),
    one(1, Class::Passing, "the server cannot create a file (an error of its library)"),
    one(3, Class::Passing, "the server cannot write a file, as on a full disk (an error of its library)"),
    one(20, Class::Passing, "the server's disk is full; it waits for space (an error of its library)"),
    one(1040, Class::Full, "the server has as many connections as it may have"),
    one(1203, Class::Full, "this user has as many connections as it may have"),
    one(1226, Class::Full, "this user has used up an allowance"),
    // The connection is gone or was not made.
    one(1042, Class::Passing, "the server does not get our host's name"),
    one(1043, Class::Passing, "the packets of the login did not arrive whole"),
    one(1152, Class::Passing, "the server gave the connection up"),
    many(1154, 1161, Class::Passing, "packets were lost between server and client"),
    one(1184, Class::Passing, "the server gave the new connection up"),
    one(1927, Class::Passing, "MariaDB: the connection was killed"),
    one(3169, Class::Passing, "MySQL: the session was killed"),
    one(4031, Class::Passing, "MySQL: the session was idle for too long"),
    // The statement waited in vain, lost against others, or was killed.
    one(1020, Class::Passing, "MariaDB: the row was changed since the snapshot was taken"),
    one(1205, Class::Passing, "a lock did not come in time"),
    one(1213, Class::Passing, "a deadlock was broken up"),
    one(1317, Class::Passing, "the statement was killed"),
    one(1412, Class::Passing, "the table was altered since the transaction began"),
    one(1689, Class::Passing, "another session wants the table for itself"),
    one(1429, Class::Passing, "a foreign server, of which this table is a view, cannot be reached"),
    one(1969, Class::Overtime("max_statement_time"), "MariaDB: the time limit of statements"),
    one(3024, Class::Overtime("max_execution_time"), "MySQL: the time limit of statements"),
    // A prepared statement is no longer what it was; a new connection prepares it again.
    one(1243, Class::Passing, "the server does not know the statement, which a proxy prepared elsewhere"),
    one(1615, Class::Passing, "the statement must be prepared again"),
    // What cannot be cured by asking again.
    one(1044, Class::Database, "this user may not use the database"),
    one(1049, Class::Database, "there is no such database"),
    one(1045, Class::Login, "the password is wrong, or there is no such user"),
    one(1698, Class::Login, "this user logs in in another way"),
    many(1142, 1143, Class::Denied, "a privilege on the table or on a column is missing"),
    one(1227, Class::Denied, "a privilege of the whole server is missing"),
    one(1146, Class::NoTable, "there is no such table"),
    one(1176, Class::NoIndex, "there is no such index, or the optimizer is to ignore it"),
    one(1712, Class::NoIndex, "the index is corrupt"),
    one(1298, Class::NoZone, "the server does not know the time zone"),
    one(1129, Class::Refused, "the server blocks our host until an administrator flushes its list"),
    one(1153, Class::Refused, "a row is larger than max_allowed_packet"),
    // What client libraries say, as a proxy does that lost its server.
    one(2020, Class::Refused, "a proxy took a row that is larger than its max_allowed_packet"),
    many(2002, 2006, Class::Passing, "a proxy does not reach its server"),
    one(2008, Class::OutOfMemory, "a proxy is out of memory"),
    many(2012, 2014, Class::Passing, "a proxy lost its server"),
    many(2026, 2027, Class::Passing, "a proxy did not understand its server"),
    one(2055, Class::Passing, "a proxy lost its server"),
    // ProxySQL's own: it has no server to ask, or keeps the connection away from one.
    one(9003, Class::Refused, "ProxySQL does not support the command"),
    many(9000, 9999, Class::Passing, "ProxySQL: no server of the group answers, is near enough or is let through"),
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
        assert_eq!(Class::of(1064), Class::Refused);
        assert_eq!([Class::of(9003), Class::of(9001)], [Class::Refused, Class::Passing]);
    }
}
