//! Owns the engine of MySQL and MariaDB: the session, and the questions about the server. Only this file and
//! `connect.rs`, which makes the connections, name the `mysql` crate.
//!
//! Each statement takes the connection out of its field. The connection returns there only if the statement succeeded or
//! the server refused it: after any other error the connection could answer with old rows. The password reaches the
//! server only. `Opts` prints the password, so no `Opts` is ever formatted.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::anyhow;
use mysql::consts::ColumnType;
use mysql::prelude::Queryable;
use mysql::{Column, Conn, Value};

use super::catalogue::{Catalogue, Inspected};
use super::column_types::{ColumnTypes, WireType, subject};
use super::connect::source_error;
use super::engine::{Bind, Engine, HandleRow, RawCell, lossy, text};
use super::error_codes::{self, ErrorClass, class};
use super::rows;
use super::session::{self, Flavour, Variable};
use super::table::{Database, InvoiceTable, Layout};
use super::table_identity::{TableIdentity, innodb_name};
use super::{Access, Replication, ServerAddress, SourceError, SourceName};
use crate::effort;
use crate::invoice::SourceTime;
use crate::lang::{Explain, Message, Text};
use crate::panics::{self, Panic};
use crate::refusal::{ConnectErrorKind, Refusal};
use crate::run::RunId;
use crate::window::{Clock, OpenWork};

/// The error of a server that is older than a variable, or was built without it.
const UNKNOWN_VARIABLE: u16 = 1193;

/// Connects to the server and reads the table's columns and indexes.
///
/// # Errors
/// [`SourceError::Statement`] says why the table cannot be exported.
pub(super) fn connect(address: &ServerAddress, access: &Access) -> Result<InvoiceTable<ServerConnection>, SourceError> {
    let mut database = ServerConnection::open(address, access)?;
    let place = database.place();
    let table = Catalogue::read(&mut database, &access.names)
        .and_then(|catalogue| catalogue.check(&access.names, access.max_document).map_err(SourceError::Statement))
        .map_err(|source_error| source_error.at(place))?;
    let Inspected { layout, notices, integer_id, zone, kinds } = table;
    kinds.iter().try_for_each(|(column, kind)| database.types.compare_with_catalogue(column, kind))?;
    database.integer_id = integer_id;
    database.zone = zone.or_else(|| access.time_zone.clone());
    database.apply_zone()?;
    Ok(InvoiceTable { layout, notices, database })
}

impl Flavour {
    /// The statement that shows which server answers.
    fn identity(self) -> &'static str {
        match self {
            Self::MySql => "SELECT @@GLOBAL.server_uuid",
            Self::MariaDb => "SELECT @@GLOBAL.server_id, @@GLOBAL.hostname, @@GLOBAL.port",
        }
    }

    /// Statements that show the state of replication. A server knows one of them at least.
    fn replication(self) -> &'static [&'static str] {
        match self {
            Self::MySql => &["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"],
            Self::MariaDb => &["SHOW ALL SLAVES STATUS"],
        }
    }

    /// The list of the server's counters, and the names of InnoDB's list of tables, of which one exists.
    fn catalogue(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::MySql => ("performance_schema.global_status", &["INNODB_TABLES", "INNODB_SYS_TABLES"]),
            Self::MariaDb => ("information_schema.GLOBAL_STATUS", &["INNODB_SYS_TABLES"]),
        }
    }
}

/// The server that answers.
struct Server {
    identity: String,
    flavour: Flavour,
}

/// A connection that is made again after it was lost.
pub(super) struct ServerConnection {
    access: Access,
    place: ServerAddress,
    server: Server,
    /// The session's time zone. None is the server's own.
    zone: Option<String>,
    integer_id: bool,
    types: ColumnTypes,
    comment: String,
    /// Queries for open transactions so far.
    queries: u64,
    conn: Option<Conn>,
}

impl ServerConnection {
    /// Makes the first connection. Later ones must reach the same server.
    fn open(place: &ServerAddress, access: &Access) -> Result<Self, SourceError> {
        let mut conn = connect_guarded(place, access)?;
        let server =
            catch_panics(|| begin_session(&mut conn)).map_err(|source_error| setup_error(source_error, place))?;
        Ok(Self {
            access: access.clone(),
            place: place.clone(),
            server,
            zone: None,
            integer_id: false,
            types: ColumnTypes::of(&access.names.table),
            comment: "/* invoice-export */".to_owned(),
            queries: 0,
            conn: Some(conn),
        })
    }

    /// The open connection, or a new one to the same server.
    fn take_connection(&mut self) -> Result<Conn, SourceError> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let mut conn = connect_guarded(&self.place, &self.access)?;
        let server =
            catch_panics(|| begin_session(&mut conn)).map_err(|source_error| setup_error(source_error, &self.place))?;
        if server.identity != self.server.identity {
            return Err(other_server(&self.server.identity, &server.identity));
        }
        catch_panics(|| set_zone(&mut conn, self.zone.as_deref()))
            .map_err(|source_error| connection_lost(source_error, &self.place))?;
        Ok(conn)
    }

    /// Sets the time zone in the open session.
    fn apply_zone(&mut self) -> Result<(), SourceError> {
        let mut conn = self.take_connection()?;
        catch_panics(|| set_zone(&mut conn, self.zone.as_deref()))
            .map_err(|source_error| connection_lost(source_error, &self.place))?;
        self.conn = Some(conn);
        Ok(())
    }

    /// The value of a `?` in the type of its column.
    fn value(&self, bind: &Bind) -> Value {
        let number = |text: &str| text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::UInt)).ok();
        match bind {
            Bind::Count(count) => Value::UInt(*count),
            Bind::Id(id) if self.integer_id => number(id).unwrap_or_else(|| id.into()),
            Bind::Text(text) | Bind::Id(text) => text.into(),
        }
    }

    /// Works with a connection. It stays open if the work succeeds or the server refuses the statement, and is closed
    /// after any other error.
    fn with_connection<R>(&mut self, ask: impl FnOnce(&mut Conn) -> Result<R, SourceError>) -> Result<R, SourceError> {
        let mut conn = self.take_connection()?;
        let outcome = catch_panics(|| ask(&mut conn));
        if matches!(outcome, Ok(_) | Err(SourceError::Statement(_))) {
            self.conn = Some(conn);
        }
        outcome.map_err(|source_error| connection_lost(source_error, &self.place))
    }

    /// Runs a statement that has no answer and cannot be prepared.
    pub(super) fn command(&mut self, sql: &str) -> Result<(), SourceError> {
        let sql = format!("{} {sql}", self.comment);
        self.with_connection(|conn| set(conn, &sql))
    }

    /// The columns of an answer with one row, to a statement that cannot be prepared.
    pub(super) fn unprepared_texts(&mut self, sql: &str) -> Result<Vec<String>, SourceError> {
        let sql = format!("{} {sql}", self.comment);
        let cells = self.with_connection(|conn| query_cells(conn, &sql))?;
        Ok(cells.into_iter().map(lossy).collect())
    }

    /// MySQL or MariaDB.
    pub(super) fn flavour(&self) -> Flavour {
        self.server.flavour
    }

    /// InnoDB's numbers of the tables and partitions that the pattern matches, from the first of these lists that the
    /// server lets the account read. Empty if it lets it read none.
    fn innodb_ids(&mut self, lists: &[&str], pattern: &str) -> Result<Vec<String>, SourceError> {
        for list in lists {
            let sql = format!(
                "SELECT CAST(TABLE_ID AS CHAR) FROM information_schema.{list} \
                 WHERE LOWER(NAME) LIKE ? ESCAPE '|' OR LOWER(NAME) LIKE ? ESCAPE '|' ORDER BY TABLE_ID"
            );
            match self.texts(&sql, &[Bind::Text(pattern.to_owned()), Bind::Text(format!("{pattern}#p#%"))]) {
                Err(SourceError::Statement(_)) => {}
                ids => return Ok(ids?.into_iter().flatten().flatten().collect()),
            }
        }
        Ok(Vec::new())
    }

    /// A number that no earlier query for open transactions had.
    pub(super) fn next_query_number(&mut self) -> u64 {
        self.queries += 1;
        self.queries
    }
}

impl Database for ServerConnection {
    fn place(&self) -> String {
        self.place.name()
    }

    fn label(&mut self, run: RunId) {
        self.comment = format!("/* invoice-export run {run} */");
    }

    fn identity(&mut self) -> Result<String, SourceError> {
        let sql = self.server.flavour.identity();
        let parts = self.texts(sql, &[])?.into_iter().flatten().map(Option::unwrap_or_default);
        Ok(parts.collect::<Vec<_>>().join(" "))
    }

    /// None if a fact is missing: the account lacks the PROCESS privilege, or the table is a view or not InnoDB's.
    fn table_identity(&mut self, layout: &Layout, source: &SourceName) -> Result<Option<TableIdentity>, SourceError> {
        let table = &layout.names.table;
        let (counters, lists) = self.server.flavour.catalogue();
        // Both terms take the clock of the statement, so that their difference never varies. MySQL keeps a counter for a
        // column that is AUTO_INCREMENT no more.
        let sql = format!(
            "SELECT DATABASE(), CAST(UNIX_TIMESTAMP(CREATE_TIME) AS CHAR), (SELECT CAST(AUTO_INCREMENT AS CHAR) \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ? \
             AND EXTRA LIKE '%auto_increment%'), \
             (SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS CHAR) FROM {counters} WHERE VARIABLE_NAME = 'Uptime') \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?"
        );
        let mut answer = match self.texts(&sql, &[table, &layout.id, table].map(|name| Bind::Text(name.clone()))) {
            Err(SourceError::Statement(_)) => return Ok(None),
            answer => answer?,
        };
        let answer = answer.pop().unwrap_or_default();
        let [Some(database), Some(created), next_id, Some(started)] = answer.as_slice() else { return Ok(None) };
        let ids = self.innodb_ids(lists, &innodb_name(database, table))?.join(" ");
        if ids.is_empty() {
            return Ok(None);
        }
        let (name, server) = (&source.0, &self.server.identity);
        let facts = format!("{name} on {server} started {started}, table {ids} created {created}");
        let next_id = match next_id {
            None if self.integer_id => layout.greatest_id(self)?,
            counter => counter.clone(),
        };
        let next_id = next_id.and_then(|next| next.parse::<u64>().ok());
        let next_id = next_id.map(|next| i64::try_from(next).unwrap_or(i64::MAX));
        Ok(Some(TableIdentity { facts, next_id }))
    }

    fn clock(&mut self) -> Result<Clock, SourceError> {
        // UNIX_TIMESTAMP(NOW(3)) would be an hour off in the hour that comes twice.
        let sql = "SELECT CAST(NOW() AS CHAR), \
                   CAST(UNIX_TIMESTAMP() * 1000 + MICROSECOND(NOW(3)) DIV 1000 AS CHAR)";
        let clock = self.rows(sql, &[], rows::clock)?.into_iter().next();
        clock
            .explain(|| text!("the server did not tell its time", "服务器没有给出时间"))
            .map_err(SourceError::Statement)
    }

    /// In the session's zone. NULL before 1970 and beyond what the server's clock can show.
    fn shown_at(&mut self, unix_seconds: i64) -> Result<Option<SourceTime>, SourceError> {
        let sql = format!("SELECT CAST(FROM_UNIXTIME({unix_seconds}) AS CHAR)");
        Ok(self.rows(&sql, &[], rows::time_alone)?.into_iter().next().flatten())
    }

    fn open_work(&mut self) -> Result<OpenWork, SourceError> {
        self.oldest_open_work()
    }

    fn replication(&mut self) -> Result<Option<Replication>, SourceError> {
        for sql in self.server.flavour.replication() {
            match self.with_connection(|conn| channels(conn, sql)) {
                // An older server does not know the words, or the account may not ask.
                Err(SourceError::Statement(_)) => {}
                result => return Ok(farthest_behind(result?)),
            }
        }
        Ok(None)
    }

    fn estimate(&mut self, layout: &Layout) -> Result<Option<u64>, SourceError> {
        let sql = "SELECT CAST(TABLE_ROWS AS CHAR) FROM information_schema.TABLES \
                   WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let rows = self.all(sql, &[Bind::Text(layout.names.table.clone())])?;
        Ok(rows.into_iter().flatten().next().and_then(|cell| lossy(cell).parse().ok()))
    }
}

impl Engine for ServerConnection {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut HandleRow<'_>) -> Result<(), SourceError> {
        let binds = binds.iter().map(|bind| self.value(bind)).collect();
        let sql = format!("{} {sql}", self.comment);
        let mut stopped = None;
        let mut types = std::mem::take(&mut self.types);
        let outcome = self.with_connection(|conn| {
            let mut admit = |columns: &[Column]| value_columns(columns, &mut types);
            stream(conn, &sql, binds, &mut admit, &mut |row| {
                // A panic of the consumer is no malformed answer.
                let done = panics::caught(|| each(row));
                done.unwrap_or_else(|panic| Err(SourceError::Consumer(Refusal::from(panic).into()))).map_err(
                    |source_error| {
                        stopped = Some(match source_error {
                            // The row may have been spoiled on its way. If it comes like this again, it is the server's.
                            SourceError::Statement(error) => SourceError::Exhausted(error),
                            other => other,
                        });
                        SourceError::Connection(anyhow!("the consumer stopped"))
                    },
                )
            })
        });
        self.types = types;
        stopped.map_or(outcome, Err)
    }
}

/// Turns a panic of the driver into a lost connection. The driver panics on some malformed answers.
fn catch_panics<R>(call: impl FnOnce() -> Result<R, SourceError>) -> Result<R, SourceError> {
    panics::caught(call).unwrap_or_else(|panic| Err(SourceError::Connection(malformed_answer(panic).into())))
}

/// Makes a connection. A panic of the driver counts as an error that may pass.
fn connect_guarded(place: &ServerAddress, access: &Access) -> Result<Conn, SourceError> {
    panics::caught(|| place.connect(access)).unwrap_or_else(|panic| {
        let (source, detail) = (place.name(), malformed_answer(panic));
        Err(SourceError::Connection(
            Refusal::CannotConnect { source, obstacle: ConnectErrorKind::Other, detail }.into(),
        ))
    })
}

/// The detail of an error for an answer on which the driver panicked.
fn malformed_answer(Panic { detail, .. }: Panic) -> Text {
    text!("the server's answer makes no sense ({detail})", "服务器的应答无法理解（{detail}）")
}

/// The error of an answer without columns to a question that has some. To take it for no rows would skip rows.
fn no_rows() -> SourceError {
    SourceError::Connection(text!("the server's answer has no columns", "服务器的应答中没有列").into())
}

/// How many columns of an answer hold values. Columns that show types follow them.
///
/// # Errors
/// A type differs from the one in the first answer.
fn value_columns(columns: &[Column], types: &mut ColumnTypes) -> Result<usize, SourceError> {
    let mut width = columns.len();
    for column in columns.iter().rev() {
        let name = column.name_str();
        let Some(subject) = subject(&name) else { break };
        types.record_or_compare(subject, wire_type(column))?;
        width -= 1;
    }
    Ok(width)
}

/// The type that an answer shows for a column.
fn wire_type(column: &Column) -> WireType {
    use ColumnType::*;
    match column.column_type() {
        MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG => {
            WireType::Integer
        }
        MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 => WireType::DateTime(column.decimals()),
        MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => WireType::Timestamp(column.decimals()),
        MYSQL_TYPE_JSON => WireType::Json,
        MYSQL_TYPE_STRING
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_VARCHAR
        | MYSQL_TYPE_ENUM
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB => WireType::Text(column.character_set()),
        _ => WireType::Other,
    }
}

/// Runs a prepared statement and hands over its rows as they arrive.
fn stream(
    conn: &mut Conn,
    sql: &str,
    binds: Vec<Value>,
    admit: &mut dyn FnMut(&[Column]) -> Result<usize, SourceError>,
    each: &mut HandleRow<'_>,
) -> Result<(), SourceError> {
    effort::asked_the_source();
    let mut answer = conn.exec_iter(sql, binds).map_err(source_error)?;
    if answer.columns().as_ref().is_empty() {
        return Err(no_rows());
    }
    let width = match admit(answer.columns().as_ref()) {
        Ok(width) => width,
        Err(source_error) => {
            std::mem::forget(answer);
            return Err(source_error);
        }
    };
    while let Some(row) = answer.next() {
        let cells = row.map_err(source_error)?.unwrap_raw().into_iter().take(width);
        let row = cells.map(|value| value.and_then(bytes)).collect();
        if let Err(source_error) = each(row) {
            // A dropped answer reads its remaining rows first. The caller closes the connection instead.
            std::mem::forget(answer);
            return Err(source_error);
        }
    }
    Ok(())
}

/// Sets the session variables that the statements rely on, and reads back those on which correctness depends.
fn begin_session(conn: &mut Conn) -> Result<Server, SourceError> {
    let flavour = match query_texts(conn, "SELECT VERSION(), @@version_comment")? {
        answer if answer.iter().any(|text| text.contains("MariaDB")) => Flavour::MariaDb,
        _ => Flavour::MySql,
    };
    set(conn, session::NAMES)?;
    set(conn, session::TRANSACTION)?;
    let mut variables = set_all(conn, flavour.variables())?;
    variables.extend(flavour.set_by_name());
    variables.retain(|variable| variable.shown.is_some());
    let answers = query_texts(conn, &session::question(&variables))?;
    let differs: Vec<String> = variables
        .iter()
        .zip(&answers)
        .filter(|(variable, answer)| variable.shown != Some(answer.as_str()))
        .map(|(variable, answer)| format!("{} = {answer}", variable.name))
        .collect();
    if !differs.is_empty() || answers.len() != variables.len() {
        let differs = differs.join(", ");
        let refused =
            text!("the server did not accept the session settings: {differs}", "服务器没有接受会话设置: {differs}");
        return Err(SourceError::Final(refused.into()));
    }
    Ok(Server { identity: query_texts(conn, flavour.identity())?.join(" "), flavour })
}

/// Sets the variables that the server knows, and returns these.
fn set_all(conn: &mut Conn, variables: Vec<&'static Variable>) -> Result<Vec<&'static Variable>, SourceError> {
    match set(conn, &session::assignment(&variables)) {
        Ok(()) => return Ok(variables),
        Err(SourceError::Statement(error)) if error_codes::code(&error) == Some(UNKNOWN_VARIABLE) => {}
        Err(source_error) => return Err(source_error),
    }
    let mut known = Vec::new();
    for variable in variables {
        match set(conn, &session::assignment(&[variable])) {
            Ok(()) => known.push(variable),
            Err(SourceError::Statement(error)) if error_codes::code(&error) == Some(UNKNOWN_VARIABLE) => {}
            Err(source_error) => return Err(source_error),
        }
    }
    Ok(known)
}

/// Runs a statement without an answer.
fn set(conn: &mut Conn, sql: &str) -> Result<(), SourceError> {
    effort::asked_the_source();
    conn.query_drop(sql).map_err(source_error)
}

/// Sets the session's time zone. None leaves the server's own.
fn set_zone(conn: &mut Conn, zone: Option<&str>) -> Result<(), SourceError> {
    let Some(zone) = zone else { return Ok(()) };
    effort::asked_the_source();
    conn.exec_drop("SET SESSION time_zone = ?", (zone,)).map_err(source_error).map_err(|refused| match refused {
        SourceError::Statement(error) => SourceError::Final(match class(&error) {
            ErrorClass::NoZone => Refusal::usage(message! {
                "the server does not know the time zone {zone}", "服务器不认识时区 {zone}";
                "load its zone tables, or give --time-zone an offset such as +08:00",
                "请加载时区表，或用 --time-zone 给出偏移量，例如 +08:00"
            }),
            _ => explained(error, text!("the time zone {zone} could not be set", "无法设置时区 {zone}")),
        }),
        other => other,
    })
}

/// The columns of an answer with one row, as texts. A text that is not UTF-8 is no answer of the server.
fn query_texts(conn: &mut Conn, sql: &str) -> Result<Vec<String>, SourceError> {
    let texts = query_cells(conn, sql)?.into_iter().map(|cell| text(cell).map(Option::unwrap_or_default));
    texts.collect::<anyhow::Result<_>>().map_err(SourceError::Connection)
}

/// The columns of an answer with one row, in the text protocol.
fn query_cells(conn: &mut Conn, sql: &str) -> Result<Vec<RawCell>, SourceError> {
    effort::asked_the_source();
    let mut answer = conn.query_iter(sql).map_err(source_error)?;
    if answer.columns().as_ref().is_empty() {
        return Err(no_rows());
    }
    let mut cells = Vec::new();
    for row in answer.by_ref() {
        cells.extend(row.map_err(source_error)?.unwrap_raw().into_iter().map(|value| value.and_then(bytes)));
    }
    Ok(cells)
}

/// For each replication channel its delay in seconds. None for a channel that is stopped.
fn channels(conn: &mut Conn, sql: &str) -> Result<Vec<Option<u64>>, SourceError> {
    effort::asked_the_source();
    let mut answer = conn.query_iter(sql).map_err(source_error)?;
    let is_lag = |name: &str| matches!(name, "Seconds_Behind_Master" | "Seconds_Behind_Source");
    let lag = answer.columns().as_ref().iter().position(|column| is_lag(&column.name_str()));
    let mut channels = Vec::new();
    for row in answer.by_ref() {
        let cell = row.map_err(source_error)?.unwrap_raw().into_iter().nth(lag.unwrap_or(usize::MAX)).flatten();
        channels.push(cell.and_then(bytes).and_then(|seconds| lossy(Some(seconds)).parse().ok()));
    }
    Ok(if lag.is_some() { channels } else { Vec::new() })
}

/// The greatest delay of the channels. One stopped channel outweighs all delays.
fn farthest_behind(channels: Vec<Option<u64>>) -> Option<Replication> {
    if channels.contains(&None) {
        return Some(Replication::Stopped);
    }
    channels.into_iter().flatten().max().map(|seconds| Replication::Behind(Duration::from_secs(seconds)))
}

/// Names the source in the error of a lost connection. An error that the server answered with stays as it is.
fn connection_lost(source_error: SourceError, place: &ServerAddress) -> SourceError {
    match source_error {
        SourceError::Connection(error) if error_codes::code(&error).is_none() => {
            let detail = silence(&error).unwrap_or_else(|| Message::from(&error).what);
            SourceError::Connection(Refusal::ConnectionLost { source: place.name(), detail }.into())
        }
        other => other,
    }
}

/// What happened if the server sent nothing for as long as we wait. The operating system says no more than that it has
/// nothing to read yet.
fn silence(error: &anyhow::Error) -> Option<Text> {
    let is_silence = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    error.chain().any(is_silence).then(|| {
        text!(
            "the server said nothing for as long as --read-timeout allows",
            "服务器在 --read-timeout 规定的时间内没有应答"
        )
    })
}

/// Puts a text in front of an error.
fn explained(error: anyhow::Error, why: Text) -> anyhow::Error {
    let Err(error) = Err::<Infallible, _>(error).explain(|| why);
    error
}

/// A statement that fails in the setup of a session fails in every later session too.
fn setup_error(source_error: SourceError, place: &ServerAddress) -> SourceError {
    match source_error {
        SourceError::Statement(error) => {
            SourceError::Final(explained(error, text!("the session could not be set up", "无法设置会话")))
        }
        other => connection_lost(other, place),
    }
}

/// The error of a connection that reached another server than the first one did.
fn other_server(before: &str, now: &str) -> SourceError {
    let other = text!(
        "another server answers than before: {now}, not {before}",
        "应答的已不是原来的服务器: {now}，而不是 {before}"
    );
    SourceError::Final(other.into())
}

/// The bytes of a value as the text protocol would send them. None is NULL.
fn bytes(value: Value) -> RawCell {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        Value::UInt(number) => Some(number.to_string().into_bytes()),
        other => Some(other.as_sql(true).trim_matches('\'').as_bytes().to_vec()),
    }
}
