//! The source: the table of invoices, in MySQL, MariaDB or an SQLite file. This module owns the trait [`Source`] and the
//! types that runs see.
//!
//! | module | owns |
//! |---|---|
//! | `address.rs` | the URL of a source |
//! | `open.rs` | the choice of the engine |
//! | `table.rs`, `dialect.rs`, `rows.rs` | the statements for both engines, their parts that differ, and reading their answers |
//! | `engine.rs` | the trait that runs one statement |
//! | `mysql.rs`, `connect.rs`, `session.rs` | the engine of the two servers, its connections, their session variables |
//! | `server_key.rs` | the check of a server's public RSA key |
//! | `error_codes.rs` | what each error code of a server means |
//! | `catalogue.rs`, `charset.rs`, `document_limit.rs` | the table's columns and indexes, their character sets, the limit of `--max-document` |
//! | `id_column.rs` | the column by which rows are read again, and the words for tables that have none |
//! | `column_types.rs`, `table_identity.rs` | the proof that the columns, and the table, are those of before |
//! | `open_work.rs`, `process_list.rs`, `select_text.rs` | transactions and statements that may still commit rows |
//! | `sqlite.rs`, `sample.rs` | the engine of an SQLite file, and the demo's file |
//!
//! A source only reads. Each statement reads a short page, and no transaction stays open between two statements.

use std::time::Duration;

use anyhow::Error;

use crate::event::Notice;
use crate::invoice::{Fetched, InvoiceId, Key, SourceTime, Tenant};
use crate::run::RunId;
use crate::window::{Clock, OpenWork, Span};

mod address;
mod catalogue;
mod charset;
mod column_types;
mod connect;
mod dialect;
mod document_limit;
mod engine;
pub mod error_codes;
mod id_column;
mod mysql;
mod open;
mod open_work;
mod process_list;
mod rows;
pub mod sample;
mod select_text;
mod server_key;
mod session;
mod sqlite;
mod table;
mod table_identity;

pub use self::address::{Address, ServerAddress, holds_password};
pub use self::open::open;
pub use self::table_identity::TableIdentity;

/// The name of a source, without secrets: `mysql://host:3306/database.t_invoice` or
/// `sqlite:/path/file.db.t_invoice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName(pub String);

impl SourceName {
    /// The name of a table at an address, whether or not it answers.
    pub fn new(address: &Address, table: &str) -> Self {
        Self(format!("{}.{table}", address.name()))
    }
}

/// The names of the table and its columns, and the status that makes a row an invoice.
#[derive(Clone, Debug)]
pub struct TableNames {
    pub table: String,
    pub tenant: String,
    pub country: String,
    pub date: String,
    pub number: String,
    pub status: String,
    pub document: String,
    pub time: String,
    /// None takes the single-column primary key from the catalogue.
    pub id: Option<String>,
    pub issued: String,
}

impl Default for TableNames {
    fn default() -> Self {
        Self {
            table: "t_invoice".into(),
            tenant: "ftenant_id".into(),
            country: "fcountry".into(),
            date: "fissue_date".into(),
            number: "finvoice_no".into(),
            status: "fissue_status".into(),
            document: "fext_field".into(),
            time: "fupdate_time".into(),
            id: None,
            issued: "3".into(),
        }
    }
}

/// Everything that a connection needs.
#[derive(Clone)]
pub struct Access {
    pub url: Address,
    pub password: Option<String>,
    pub names: TableNames,
    /// The time zone in which a DATETIME column was written. None is the server's own zone.
    pub time_zone: Option<String>,
    pub tls: Tls,
    /// After this long without a byte from the server the connection counts as lost.
    pub read_timeout: Duration,
    /// Bytes. The server does not send a longer document; its row arrives as unreadable.
    pub max_document: u64,
}

/// How a connection by TCP is encrypted and whether the server is checked.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// None: in the clear to this machine, `VerifyIdentity` to any other.
    pub mode: Option<TlsMode>,
    /// A file of trusted certificates; None is the system's bundle.
    pub ca: Option<std::path::PathBuf>,
    /// The RSA key (PEM) for which a password may be encrypted on an unencrypted connection; None lets no
    /// password onto one.
    pub server_key: Option<std::path::PathBuf>,
}

words! {
    /// The modes of MySQL's `--ssl-mode`.
    pub enum TlsMode {
        Disabled = "DISABLED", "DISABLED";
        /// Encrypted if the server supports TLS, in the clear otherwise.
        Preferred = "PREFERRED", "PREFERRED";
        /// Encrypted. The certificate is not checked.
        Required = "REQUIRED", "REQUIRED";
        /// The certificate is trusted.
        VerifyCa = "VERIFY_CA", "VERIFY_CA";
        /// The certificate is trusted and names the host.
        VerifyIdentity = "VERIFY_IDENTITY", "VERIFY_IDENTITY";
    }
}

/// A tenant in the list of a source. Where the column's collation folds spellings, one spelling stands for several, and
/// an update may change which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTenant {
    pub spelling: Tenant,
    /// The greatest source time up to the boundary among the tenant's issued rows, also those without a
    /// document. A single row of the future says nothing about rows that still come below it.
    pub newest: Option<SourceTime>,
    /// The greatest source time of all, if it lies above the boundary.
    pub ahead: Option<SourceTime>,
}

/// The tenants of a table, from one scan of its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantList {
    pub tenants: Vec<ListedTenant>,
    /// Some issued rows have NULL for a tenant. No tenant's keys contain these rows.
    pub has_tenantless: bool,
}

impl ListedTenant {
    /// A tenant that the source does not list under this spelling.
    pub(crate) fn unlisted(spelling: &Tenant) -> Self {
        Self { spelling: spelling.clone(), newest: None, ahead: None }
    }
}

/// The columns of a row that a person asks about, whether the row is an invoice or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSummary {
    pub id: InvoiceId,
    pub tenant: Option<Tenant>,
    pub number: Option<String>,
    pub time: Option<SourceTime>,
    pub status: Option<String>,
    /// The status is the one that makes a row an invoice.
    pub issued: bool,
    pub has_document: bool,
    pub has_date: bool,
}

/// The replication of a server that copies another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Behind(Duration),
    Stopped,
}

/// The position of a scan of keys. Keys come in the order (source time, id), NULL times first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCursor {
    Start,
    After(Key),
}

/// Why a read failed. Each variant asks the caller for another reaction.
#[derive(Debug)]
pub enum SourceError {
    /// The server refused this statement; the connection is good.
    Statement(Error),
    /// The server ended this statement before it was through, because it took too much time or memory, or a row of its
    /// answer makes no sense. The connection was thrown away. The statement may do better the next time, or a smaller one
    /// instead of it.
    Exhausted(Error),
    /// The connection was lost or not made, or the server answered with an error that passes (a lock timeout, a
    /// shutdown, a kill). The connection was thrown away. Another attempt makes a new one and may succeed.
    Connection(Error),
    /// Another attempt would fail in the same way: the password is wrong, the certificate is not trusted, another
    /// server answers.
    Final(Error),
    /// The consumer of the rows failed or stopped.
    Consumer(Error),
}

impl SourceError {
    /// Puts the source's name in front of a refused statement.
    fn at(self, place: String) -> Self {
        match self {
            Self::Statement(error) => Self::Statement(error.context(place)),
            other => other,
        }
    }

    /// The error that the server, the driver or the consumer gave.
    pub fn into_error(self) -> Error {
        let (Self::Statement(error)
        | Self::Exhausted(error)
        | Self::Connection(error)
        | Self::Final(error)
        | Self::Consumer(error)) = self;
        error
    }
}

/// The error itself, with its own chain.
impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        error.into_error()
    }
}

/// Takes rows one by one as they arrive. It may block, which keeps memory bounded.
pub type Sink<'a> = dyn FnMut(Fetched) -> anyhow::Result<()> + 'a;

/// One connection to the table of invoices. An invoice is an issued row with
/// a document, a number and a date. Every statement that reads documents contains this definition.
pub trait Source: Send {
    fn name(&self) -> SourceName;

    /// Puts a comment with the number of this run into every later statement.
    fn label(&mut self, run: RunId);

    /// The identity of the server that answers. Another server has another identity.
    fn identity(&mut self) -> Result<String, SourceError>;

    /// The identity of the table. None if the source does not show enough to tell the table from another one of its name.
    fn table_identity(&mut self) -> Result<Option<TableIdentity>, SourceError>;

    /// Notices about this source for the operator, such as a missing index.
    fn notices(&self) -> Vec<Notice>;

    /// The time that the source's clock shows, in the zone of its source times.
    fn clock(&mut self) -> Result<Clock, SourceError>;

    /// The time that the source's clock shows at a moment in seconds since 1970. None where the source cannot tell.
    fn shown_at(&mut self, unix_seconds: i64) -> Result<Option<SourceTime>, SourceError>;

    /// The start of the oldest transaction or statement that may still commit rows. A source reads its running
    /// statements before its open transactions; a caller reads both before any row.
    fn open_work(&mut self) -> Result<OpenWork, SourceError>;

    /// The delay of a replica behind its primary. None if the server is no replica, or if the account may not ask.
    fn replication(&mut self) -> Result<Option<Replication>, SourceError>;

    /// All tenants with issued rows, in one loose index scan. Source times above `upto` take a second scan.
    fn tenants(&mut self, upto: &SourceTime) -> Result<TenantList, SourceError>;

    /// At most `limit` invoices with NULL for a tenant, the oldest first, from the same index. If the source cannot tell
    /// which rows have a document, all issued rows without a tenant.
    fn tenantless(&mut self, limit: usize) -> Result<Vec<InvoiceId>, SourceError>;

    /// Whether any row, issued or not, belongs to exactly this tenant.
    fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, SourceError>;

    /// The approximate number of rows in the table, from the server's statistics.
    fn estimate(&mut self) -> Result<Option<u64>, SourceError>;

    /// At most `limit` keys of issued rows of the tenant and of every spelling that the collation
    /// calls equal, index-only, in the order (source time, id). A span without a lower bound
    /// includes keys without a source time, first.
    fn keys(&mut self, tenant: &Tenant, span: &Span, from: &KeyCursor, limit: usize) -> Result<Vec<Key>, SourceError>;

    /// The invoices among these ids, in primary-key order. Ids that are no invoice (any more) do not
    /// come; the answer is compared as bytes, so no other id comes either.
    fn documents(&mut self, ids: &[InvoiceId], sink: &mut Sink<'_>) -> Result<(), SourceError>;

    /// At most `limit` invoices after the given id in primary-key order. Returns their number.
    fn page(&mut self, after: Option<&InvoiceId>, limit: usize, sink: &mut Sink<'_>) -> Result<usize, SourceError>;

    /// Rows with exactly this number, and rows with these ids, whatever their status. For one question of
    /// an operator: without an index on the number it reads the whole table.
    fn find(&mut self, number: &str, ids: &[InvoiceId]) -> Result<Vec<RowSummary>, SourceError>;

    /// At most `limit` ids of issued rows after the given one. It reads no documents, so it leads past a row that
    /// fails every page that contains it.
    fn ids(&mut self, after: Option<&InvoiceId>, limit: usize) -> Result<Vec<InvoiceId>, SourceError>;
}
