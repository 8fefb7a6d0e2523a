//! Where invoices come from: MySQL and MariaDB (`mysql.rs`) or an embedded SQLite file (`sqlite.rs`)
//! with the same table; `address.rs` reads where they are, `connect.rs` makes connections, `server_key.rs` checks a
//! server's public key, `session.rs` says what a session is set to, `sql.rs` has the statements that both share,
//! `document_limit.rs` keeps documents that are too long on the server, `catalogue.rs` reads what a server says about the table,
//! `charset.rs` what of its text UTF-8 can carry, `column_types.rs` whether its columns are still the same,
//! `table_identity.rs` whether it is the table of before, `error_codes.rs` what a server's errors mean. `open_work.rs`,
//! `process_list.rs` and `select_text.rs` find what may still commit rows there. `sample.rs` makes such a file for the demo.
//!
//! A source only reads. Statements are short pages; nothing is held open between them.

use std::fmt;
use std::time::Duration;

use anyhow::Error;

use crate::event::Notice;
use crate::invoice::{Fetched, InvoiceId, Key, SourceTime, Tenant};
use crate::run::RunId;
use crate::window::{Clock, OpenWork, Span};

mod address;
mod catalogue;
mod charset;
pub mod error_codes;
mod connect;
mod dialect;
mod document_limit;
mod engine;
mod mysql;
mod open;
mod open_work;
mod process_list;
mod select_text;
pub mod sample;
mod server_key;
mod session;
mod column_types;
mod sqlite;
mod rows;
mod table;
mod table_identity;

pub use self::open::open;
pub use self::table_identity::TableIdentity;

pub use address::{Address, ServerAddress, holds_password};

/// What a source calls itself, without secrets: `mysql://host:3306/database.t_invoice` or
/// `sqlite:/path/file.db.t_invoice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName(pub String);

/// The name of the table's columns and the status that makes a row an invoice.
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

/// What is needed to connect.
#[derive(Clone)]
pub struct Access {
    pub url: Address,
    pub password: Option<String>,
    pub names: TableNames,
    /// The zone in which a DATETIME column was written; None is the server's own.
    pub time_zone: Option<String>,
    pub tls: Tls,
    /// How long a server may say nothing.
    pub read_timeout: Duration,
    /// Bytes. Longer documents are not sent; their rows come as unreadable.
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
    /// How a connection is encrypted and the server checked, in MySQL's own words.
    pub enum TlsMode {
        Disabled = "DISABLED", "DISABLED";
        /// Encrypted if the server can, in the clear otherwise.
        Preferred = "PREFERRED", "PREFERRED";
        /// Encrypted, whichever server answers.
        Required = "REQUIRED", "REQUIRED";
        /// The certificate is trusted.
        VerifyCa = "VERIFY_CA", "VERIFY_CA";
        /// The certificate is trusted and names the host.
        VerifyIdentity = "VERIFY_IDENTITY", "VERIFY_IDENTITY";
    }
}

/// A tenant as the source lists it. Where the column's collation folds spellings, one stands for
/// several, and which one changes with updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTenant {
    pub spelling: Tenant,
    /// The greatest source time up to the boundary among the tenant's issued rows, also those without a
    /// document. A single row of the future says nothing about what still comes below it.
    pub newest: Option<SourceTime>,
    /// The greatest source time of all, where that lies above the boundary.
    pub ahead: Option<SourceTime>,
}

/// What one look at the index tells of the tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantList {
    pub tenants: Vec<ListedTenant>,
    /// The tenant of some issued rows is NULL. No tenant's keys bring these.
    pub has_tenantless: bool,
}

impl ListedTenant {
    /// A tenant that the source does not list under this spelling.
    pub(crate) fn unlisted(spelling: &Tenant) -> Self {
        Self { spelling: spelling.clone(), newest: None, ahead: None }
    }
}

/// What there is to see of a row, whether it is an invoice or not.
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

/// A server that copies another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Behind(Duration),
    Stopped,
}

/// How far a scan of keys has come. Keys come in the order (source time, id), NULL times first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCursor {
    Start,
    After(Key),
}

/// Why a read failed, as far as the caller has to tell.
#[derive(Debug)]
pub enum SourceError {
    /// The server refused this statement; the connection is good.
    Statement(Error),
    /// The server ended this statement before it was through, because it took too much time or memory. The
    /// connection was thrown away. The statement may do better when the server does less, or a smaller one instead of it.
    Overtime(Error),
    /// The connection is gone or did not come about, or said something after which only a new one may
    /// do better (a lock that did not come, a shutdown, a kill). It was thrown away; trying again makes
    /// another, which may well serve.
    Connection(Error),
    /// No connection that serves is to be had, and trying again would not change that: the password is
    /// wrong, the certificate is not trusted, another server answers.
    Final(Error),
    /// Whoever takes the rows wants no more of them.
    Consumer(Error),
}

impl SourceError {
    /// Says where a refused statement was.
    fn at(self, place: String) -> Self {
        match self {
            Self::Statement(error) => Self::Statement(error.context(place)),
            other => other,
        }
    }

    pub fn into_error(self) -> Error {
        let (Self::Statement(error)
        | Self::Overtime(error)
        | Self::Connection(error)
        | Self::Final(error)
        | Self::Consumer(error)) = self;
        error
    }

    fn error(&self) -> &Error {
        let (Self::Statement(error)
        | Self::Overtime(error)
        | Self::Connection(error)
        | Self::Final(error)
        | Self::Consumer(error)) = self;
        error
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error())
    }
}

/// The error of a fault, with its own chain.
impl From<SourceError> for Error {
    fn from(fault: SourceError) -> Self {
        fault.into_error()
    }
}

/// Takes rows one by one as they arrive. It may block: that is how memory stays bounded.
pub type Sink<'a> = dyn FnMut(Fetched) -> anyhow::Result<()> + 'a;

/// One connection to the table of invoices. An invoice is a row with the issued status whose
/// document, number and date are not NULL; every statement that reads documents says so in full.
pub trait Source: Send {
    fn name(&self) -> SourceName;

    /// From now on every statement carries a comment with the number of this run.
    fn label(&mut self, run: RunId);

    /// Who answers: changes when another server does.
    fn identity(&mut self) -> Result<String, SourceError>;

    /// Which table this is. None where the source does not show enough to tell it from another one of its name.
    fn table_identity(&mut self) -> Result<Option<TableIdentity>, SourceError>;

    /// What the operator should know about this source.
    fn notices(&self) -> Vec<Notice>;

    fn clock(&mut self) -> Result<Clock, SourceError>;

    /// The start of the oldest transaction or statement that may still commit rows. Running
    /// statements are looked at before open transactions, and both before any row.
    fn open_work(&mut self) -> Result<OpenWork, SourceError>;

    /// How far this server is behind the one that it copies, where it does and the account may know.
    fn replication(&mut self) -> Result<Option<Replication>, SourceError>;

    /// All tenants with issued rows, in one loose index scan; in two where source times lie above `upto`.
    fn tenants(&mut self, upto: &SourceTime) -> Result<TenantList, SourceError>;

    /// At most `limit` invoices with NULL for a tenant, the oldest first, from the same index.
    fn tenantless(&mut self, limit: usize) -> Result<Vec<InvoiceId>, SourceError>;

    /// Whether any row, issued or not, belongs to exactly this tenant.
    fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, SourceError>;

    /// About how many rows the table has; cheap.
    fn estimate(&mut self) -> Result<Option<u64>, SourceError>;

    /// At most `limit` keys of issued rows of the tenant and of every spelling that the collation
    /// calls equal, index-only, in the order (source time, id). A span without a lower bound
    /// includes keys without a source time, first.
    fn keys(&mut self, tenant: &Tenant, span: &Span, from: &KeyCursor, limit: usize) -> Result<Vec<Key>, SourceError>;

    /// The invoices among these ids, in primary-key order. Ids that are no invoice (any more) do not
    /// come; the answer is compared as bytes, so no other id comes either.
    fn documents(&mut self, ids: &[InvoiceId], sink: &mut Sink<'_>) -> Result<(), SourceError>;

    /// At most `limit` invoices after the given id in primary-key order. Returns how many came.
    fn page(&mut self, after: Option<&InvoiceId>, limit: usize, sink: &mut Sink<'_>) -> Result<usize, SourceError>;

    /// Rows with exactly this number, and rows with these ids, whatever their status. For one question of
    /// an operator: without an index on the number it reads the whole table.
    fn find(&mut self, number: &str, ids: &[InvoiceId]) -> Result<Vec<RowSummary>, SourceError>;

    /// At most `limit` ids of issued rows after the given one, without touching their documents: the
    /// way around a row that no page with it can be read.
    fn ids(&mut self, after: Option<&InvoiceId>, limit: usize) -> Result<Vec<InvoiceId>, SourceError>;
}
