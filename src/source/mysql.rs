//! MySQL and MariaDB: the session, what is asked in it, and who may still commit. Only this file and
//! `dial.rs`, which makes the connections, name the `mysql` crate.
//!
//! A connection is taken out of its place for every statement and put back only if the statement
//! ended well or the server refused it: after anything else it could answer with old rows. A
//! password leaves these two only towards the server; `Opts` prints it, so it is never formatted.

use std::time::Duration;

use anyhow::{Context, anyhow};
use mysql::prelude::Queryable;
use mysql::{Conn, MySqlError, Value};

use super::catalogue::Catalogue;
use super::processes::running_since;
use super::sql::{Bind, Cell, Each, Engine, Statements, lossy};
use super::{Access, Fault, KeyCursor, Listed, Place, Replication, Sighting, Sink, Source, SourceName};
use crate::effort;
use crate::event::Notice;
use crate::invoice::{InvoiceId, Key, SourceTime, Tenant};
use crate::refusal::Refusal;
use crate::run::RunId;
use crate::window::{Clock, OpenWork, Span};

/// Server errors after which another connection may do better: the server is going away, this
/// connection is being closed or too old, or the statement waited in vain or was killed. None of
/// them says anything about a row.
pub(super) const TRY_AGAIN: [u16; 14] =
    [1047, 1053, 1077, 1078, 1079, 1152, 1184, 1205, 1213, 1317, 1927, 3032, 3169, 4031];
/// The server lets no statement take longer than a setting says.
const TIME_LIMITS: [(u16, &str); 2] = [(1969, "max_statement_time"), (3024, "max_execution_time")];
/// The account lacks a privilege.
const ACCESS_DENIED: [u16; 2] = [1142, 1227];

/// One connection to the table, and what was learnt about it.
pub struct MySql {
    statements: Statements,
    notices: Vec<Notice>,
    link: Link,
}

impl MySql {
    pub fn connect(place: &Place, access: &Access) -> Result<Self, Fault> {
        let mut link = Link::open(place, access)?;
        let table = Catalogue::read(&mut link, &access.names)
            .and_then(|catalogue| catalogue.check(&access.names, access.max_document).map_err(Fault::Statement))
            .map_err(|fault| fault.at(link.place.name()))?;
        link.integer_id = table.integer_id;
        link.zone = table.zone.or_else(|| access.time_zone.clone());
        link.keep_zone()?;
        Ok(Self { statements: table.statements, notices: table.notices, link })
    }
}

impl Source for MySql {
    fn name(&self) -> SourceName {
        SourceName(format!("{}.{}", self.link.place.name(), self.statements.names.table))
    }

    fn label(&mut self, run: RunId) {
        self.link.comment = format!("/* invoice-export run {run} */");
    }

    fn identity(&mut self) -> Result<String, Fault> {
        let sql = self.link.server.flavour.identity();
        self.link.texts(sql).map(|parts| parts.join(" "))
    }

    fn notices(&self) -> Vec<Notice> {
        self.notices.clone()
    }

    fn clock(&mut self) -> Result<Clock, Fault> {
        let parts = self.link.texts("SELECT CAST(NOW() AS CHAR), CAST(UNIX_TIMESTAMP() AS CHAR)")?;
        let [now, unix] = parts.as_slice() else {
            return Err(Fault::Statement(anyhow!("the server did not tell its time")));
        };
        let unix = unix.parse().context("the server's time is no number").map_err(Fault::Statement)?;
        Ok(Clock { now: SourceTime(now.clone()), unix })
    }

    fn open_work(&mut self) -> Result<OpenWork, Fault> {
        // Statements first: one that ends in between is then still seen as a transaction.
        let found = self.link.oldest_statement().and_then(|statement| Ok((statement, self.link.transactions()?)));
        match found {
            Ok((_, Transactions { prepared: true, .. })) => Ok(OpenWork::Prepared),
            Ok((statement, Transactions { oldest: transaction, .. })) => {
                let oldest = [statement, transaction].into_iter().flatten().min();
                Ok(oldest.map_or(OpenWork::None, |start| OpenWork::Since(SourceTime(start))))
            }
            Err(Fault::Statement(error)) if is_denied(&error) => Ok(OpenWork::Unknown),
            Err(fault) => Err(fault),
        }
    }

    fn replication(&mut self) -> Result<Option<Replication>, Fault> {
        for sql in self.link.server.flavour.replication() {
            match self.link.on_conn(|conn| channels(conn, sql)) {
                // An older server does not know the words, or the account may not ask.
                Err(Fault::Statement(_)) => {}
                result => return Ok(farthest_behind(result?)),
            }
        }
        Ok(None)
    }

    fn tenants(&mut self) -> Result<Vec<Listed>, Fault> {
        self.statements.tenants(&mut self.link)
    }

    fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, Fault> {
        self.statements.has_tenant(&mut self.link, tenant)
    }

    fn estimate(&mut self) -> Result<Option<u64>, Fault> {
        let sql = "SELECT CAST(TABLE_ROWS AS CHAR) FROM information_schema.TABLES \
                   WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let rows = self.link.all(sql, &[Bind::Text(self.statements.names.table.clone())])?;
        Ok(rows.into_iter().flatten().next().and_then(|cell| lossy(cell).parse().ok()))
    }

    fn keys(&mut self, tenant: &Tenant, span: &Span, from: &KeyCursor, limit: usize) -> Result<Vec<Key>, Fault> {
        self.statements.keys(&mut self.link, tenant, span, from, limit)
    }

    fn documents(&mut self, ids: &[InvoiceId], sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.statements.documents(&mut self.link, ids, sink)
    }

    fn page(&mut self, after: Option<&InvoiceId>, limit: usize, sink: &mut Sink<'_>) -> Result<usize, Fault> {
        self.statements.page(&mut self.link, after, limit, sink)
    }

    fn find(&mut self, number: &str, ids: &[InvoiceId]) -> Result<Vec<Sighting>, Fault> {
        self.statements.find(&mut self.link, number, ids)
    }

    fn ids(&mut self, after: Option<&InvoiceId>, limit: usize) -> Result<Vec<InvoiceId>, Fault> {
        self.statements.ids(&mut self.link, after, limit)
    }
}

/// Which of the two servers, where they differ.
#[derive(Clone, Copy)]
enum Flavour {
    MySql,
    MariaDb,
}

impl Flavour {
    fn identity(self) -> &'static str {
        match self {
            Self::MySql => "SELECT @@GLOBAL.server_uuid",
            Self::MariaDb => "SELECT @@GLOBAL.server_id, @@GLOBAL.hostname, @@GLOBAL.port",
        }
    }

    fn replication(self) -> &'static [&'static str] {
        match self {
            Self::MySql => &["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"],
            Self::MariaDb => &["SHOW ALL SLAVES STATUS"],
        }
    }

    fn isolation(self) -> &'static str {
        match self {
            Self::MySql => "@@SESSION.transaction_isolation",
            Self::MariaDb => "@@SESSION.tx_isolation",
        }
    }

    /// Sets what only one of them has. A page takes as long as whoever takes its rows.
    fn session(self) -> &'static str {
        match self {
            // Without the second, the number of rows is that of up to a day ago.
            Self::MySql => "SET SESSION max_execution_time = 0 /*!80000 , information_schema_stats_expiry = 0 */",
            // Without the second, a long `IN (…)` would become a join with a temporary table, which is
            // read in another order.
            Self::MariaDb => "SET SESSION max_statement_time = 0, in_predicate_conversion_threshold = 0",
        }
    }
}

/// Who answers.
struct Server {
    identity: String,
    flavour: Flavour,
    processes: &'static str,
}

/// The transactions that are open.
struct Transactions {
    /// The start of the oldest.
    oldest: Option<String>,
    /// One of them is no client's any more.
    prepared: bool,
}

/// A connection that can be lost and made again.
struct Link {
    access: Access,
    place: Place,
    server: Server,
    /// The session's time zone; None is the server's own.
    zone: Option<String>,
    integer_id: bool,
    comment: String,
    conn: Option<Conn>,
}

impl Link {
    fn open(place: &Place, access: &Access) -> Result<Self, Fault> {
        let mut conn = place.dial(access)?;
        let server = begin_session(&mut conn).map_err(|fault| at_connecting(fault, place))?;
        Ok(Self {
            access: access.clone(),
            place: place.clone(),
            server,
            zone: None,
            integer_id: false,
            comment: "/* invoice-export */".to_owned(),
            conn: Some(conn),
        })
    }

    fn take(&mut self) -> Result<Conn, Fault> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let mut conn = self.place.dial(&self.access)?;
        let server = begin_session(&mut conn).map_err(|fault| at_connecting(fault, &self.place))?;
        if server.identity != self.server.identity {
            return Err(other_server(&self.server.identity, &server.identity));
        }
        set_zone(&mut conn, self.zone.as_deref()).map_err(|fault| lost(fault, &self.place))?;
        Ok(conn)
    }

    fn keep_zone(&mut self) -> Result<(), Fault> {
        let mut conn = self.take()?;
        set_zone(&mut conn, self.zone.as_deref()).map_err(|fault| lost(fault, &self.place))?;
        self.conn = Some(conn);
        Ok(())
    }

    fn value(&self, bind: &Bind) -> Value {
        let number = |text: &str| text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::UInt)).ok();
        match bind {
            Bind::Count(count) => Value::UInt(*count),
            Bind::Id(id) if self.integer_id => number(id).unwrap_or_else(|| id.into()),
            Bind::Text(text) | Bind::Id(text) => text.into(),
        }
    }

    /// Keeps the connection if what is done with it ends well, or if the server refuses it.
    fn on_conn<R>(&mut self, ask: impl FnOnce(&mut Conn) -> Result<R, Fault>) -> Result<R, Fault> {
        let mut conn = self.take()?;
        let outcome = ask(&mut conn);
        if matches!(outcome, Ok(_) | Err(Fault::Statement(_) | Fault::Overtime(_))) {
            self.conn = Some(conn);
        }
        outcome.map_err(|fault| lost(fault, &self.place))
    }

    /// The columns of a one-row answer.
    fn texts(&mut self, sql: &str) -> Result<Vec<String>, Fault> {
        Ok(self.all(sql, &[])?.into_iter().flatten().map(lossy).collect())
    }

    /// The start of the oldest running statement that can write, a second early because ages are
    /// whole seconds.
    fn oldest_statement(&mut self) -> Result<Option<String>, Fault> {
        let sql = format!(
            "SELECT COMMAND, USER, LEFT(INFO, 1000), CAST(FROM_UNIXTIME(UNIX_TIMESTAMP() - `TIME` - 1) AS CHAR) \
             FROM {} WHERE ID <> CONNECTION_ID()",
            self.server.processes
        );
        let rows = self.all(&sql, &[])?;
        Ok(rows.into_iter().filter_map(running_since).min())
    }

    /// The transactions that can write. The server prints their start in the zone of its operating
    /// system, whatever the session's is.
    fn transactions(&mut self) -> Result<Transactions, Fault> {
        let sql = "SELECT CAST(CONVERT_TZ(MIN(trx_started), 'SYSTEM', @@SESSION.time_zone) AS CHAR), \
                   CAST(MIN(trx_mysql_thread_id) AS CHAR) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id <> CONNECTION_ID() \
                   AND trx_is_read_only = 0 AND trx_autocommit_non_locking = 0";
        let mut cells = self.all(sql, &[])?.into_iter().flatten();
        let (oldest, client) = (cells.next().flatten(), cells.next().flatten());
        Ok(Transactions { oldest: oldest.map(|start| lossy(Some(start))), prepared: client.as_deref() == Some(b"0") })
    }
}

impl Engine for Link {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut Each<'_>) -> Result<(), Fault> {
        let binds = binds.iter().map(|bind| self.value(bind)).collect();
        let sql = format!("{} {sql}", self.comment);
        let mut stopped = None;
        let outcome = self.on_conn(|conn| {
            stream(conn, &sql, binds, &mut |row| {
                each(row).map_err(|fault| {
                    stopped = Some(fault);
                    Fault::Connection(anyhow!("nobody wants more rows"))
                })
            })
        });
        stopped.map_or(outcome, Err)
    }
}

fn stream(conn: &mut Conn, sql: &str, binds: Vec<Value>, each: &mut Each<'_>) -> Result<(), Fault> {
    effort::asked_the_source();
    let mut answer = conn.exec_iter(sql, binds).map_err(fault)?;
    while let Some(row) = answer.next() {
        let row = row.map_err(fault)?.unwrap_raw().into_iter().map(|value| value.and_then(bytes)).collect();
        if let Err(fault) = each(row) {
            // Dropping the answer would read the rest of it first. The caller drops the connection
            // instead, with which the rest goes.
            std::mem::forget(answer);
            return Err(fault);
        }
    }
    Ok(())
}

/// Makes the session what the statements rely on, whatever the server's defaults are, and reads back
/// what would cost data.
fn begin_session(conn: &mut Conn) -> Result<Server, Fault> {
    let flavour = match plain(conn, "SELECT VERSION(), @@version_comment")? {
        answer if answer.iter().any(|text| text.contains("MariaDB")) => Flavour::MariaDb,
        _ => Flavour::MySql,
    };
    set(conn, "SET NAMES utf8mb4")?;
    set(conn, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")?;
    set(
        conn,
        "SET SESSION autocommit = 1, sql_select_limit = 18446744073709551615, sql_mode = '', \
         lock_wait_timeout = 10, net_write_timeout = CAST(GREATEST(@@SESSION.net_write_timeout, 600) AS UNSIGNED)",
    )?;
    set(conn, flavour.session())?;
    let session = format!("SELECT @@SESSION.character_set_results, @@SESSION.autocommit, {}", flavour.isolation());
    let session = plain(conn, &session)?;
    if session != ["utf8mb4", "1", "READ-COMMITTED"] {
        return Err(Fault::Final(anyhow!("the server did not accept the session settings: {}", session.join(", "))));
    }
    // On MariaDB it does not exist, and on MySQL it is empty where the performance schema is off.
    let shown = plain(conn, "SELECT COUNT(*) FROM performance_schema.processlist WHERE ID = CONNECTION_ID()");
    let processes = match shown {
        Ok(count) if count == ["1"] => "performance_schema.processlist",
        Ok(_) | Err(Fault::Statement(_)) => "information_schema.PROCESSLIST",
        Err(fault) => return Err(fault),
    };
    Ok(Server { identity: plain(conn, flavour.identity())?.join(" "), flavour, processes })
}

fn set(conn: &mut Conn, sql: &str) -> Result<(), Fault> {
    effort::asked_the_source();
    conn.query_drop(sql).map_err(fault)
}

fn set_zone(conn: &mut Conn, zone: Option<&str>) -> Result<(), Fault> {
    let Some(zone) = zone else { return Ok(()) };
    effort::asked_the_source();
    conn.exec_drop("SET SESSION time_zone = ?", (zone,)).map_err(fault).map_err(|refused| match refused {
        Fault::Statement(error) => Fault::Final(error.context(format!(
            "the server does not know the time zone {zone}; load its zone tables, or give an offset such as +08:00"
        ))),
        other => other,
    })
}

/// A one-row answer in the text protocol, before the session is set up.
fn plain(conn: &mut Conn, sql: &str) -> Result<Vec<String>, Fault> {
    effort::asked_the_source();
    let mut answer = conn.query_iter(sql).map_err(fault)?;
    let mut texts = Vec::new();
    for row in answer.by_ref() {
        texts.extend(row.map_err(fault)?.unwrap_raw().into_iter().map(|value| lossy(value.and_then(bytes))));
    }
    Ok(texts)
}

/// How many seconds each channel is behind, in what a server says of its replication; None for one that
/// is stopped.
fn channels(conn: &mut Conn, sql: &str) -> Result<Vec<Option<u64>>, Fault> {
    effort::asked_the_source();
    let mut answer = conn.query_iter(sql).map_err(fault)?;
    let is_lag = |name: &str| matches!(name, "Seconds_Behind_Master" | "Seconds_Behind_Source");
    let lag = answer.columns().as_ref().iter().position(|column| is_lag(&column.name_str()));
    let mut channels = Vec::new();
    for row in answer.by_ref() {
        let cell = row.map_err(fault)?.unwrap_raw().into_iter().nth(lag.unwrap_or(usize::MAX)).flatten();
        channels.push(cell.and_then(bytes).and_then(|seconds| lossy(Some(seconds)).parse().ok()));
    }
    Ok(if lag.is_some() { channels } else { Vec::new() })
}

fn farthest_behind(channels: Vec<Option<u64>>) -> Option<Replication> {
    if channels.contains(&None) {
        return Some(Replication::Stopped);
    }
    channels.into_iter().flatten().max().map(|seconds| Replication::Behind(Duration::from_secs(seconds)))
}

pub(super) fn fault(error: mysql::Error) -> Fault {
    match error {
        mysql::Error::MySqlError(error) if TRY_AGAIN.contains(&error.code) => Fault::Connection(error.into()),
        mysql::Error::MySqlError(error) => match TIME_LIMITS.iter().find(|(code, _)| *code == error.code) {
            Some((_, setting)) => Fault::Overtime(Refusal::Overtime { setting, detail: error.to_string() }.into()),
            None => Fault::Statement(error.into()),
        },
        mysql::Error::IoError(error) => Fault::Connection(anyhow!("{error}")),
        mysql::Error::CodecError(error) => Fault::Connection(anyhow!("{error}")),
        mysql::Error::DriverError(error) => Fault::Connection(anyhow!("{error}")),
        mysql::Error::TlsError(error) => Fault::Connection(anyhow!("{error}")),
        mysql::Error::UrlError(_) | mysql::Error::FromValueError(_) | mysql::Error::FromRowError(_) => {
            Fault::Connection(anyhow!("the server's answer cannot be read"))
        }
    }
}

/// A server that could still say why has not gone away.
fn lost(fault: Fault, place: &Place) -> Fault {
    match fault {
        Fault::Connection(error) if !error.is::<MySqlError>() => {
            Fault::Connection(Refusal::ConnectionLost { source: place.name(), detail: format!("{error:#}") }.into())
        }
        other => other,
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<MySqlError>().is_some_and(|error| ACCESS_DENIED.contains(&error.code))
}

fn at_connecting(fault: Fault, place: &Place) -> Fault {
    match fault {
        Fault::Statement(error) => Fault::Final(error.context("the session could not be set up")),
        other => lost(other, place),
    }
}

fn other_server(before: &str, now: &str) -> Fault {
    Fault::Final(anyhow!("another server answers than before: {now}, not {before}"))
}

fn bytes(value: Value) -> Cell {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        Value::UInt(number) => Some(number.to_string().into_bytes()),
        other => Some(other.as_sql(true).trim_matches('\'').as_bytes().to_vec()),
    }
}
