//! Owns the table of invoices in either engine: the statements for its rows, and the values that they take. `dialect.rs`
//! has the parts that differ by engine, and `rows.rs` reads the answers.

use std::collections::{HashMap, HashSet};

use super::charset::bytes_in_hex;
use super::dialect::SqlDialect;
use super::engine::{Bind, Engine, lossy, quoted};
use super::rows::{fetched, id_alone, key, listed, row_summary, time_alone};
use super::{
    KeyCursor, ListedTenant, Replication, RowSummary, Sink, Source, SourceError, SourceName, TableIdentity, TableNames,
    TenantList,
};
use crate::event::Notice;
use crate::invoice::{InvoiceId, Key, SourceTime, Tenant};
use crate::run::RunId;
use crate::window::{Clock, OpenWork, Span};

/// Rows of one number that [`Source::find`] shows. A table with more of them does not number its invoices.
const FOUND_AT_MOST: u64 = 1_000;

/// Tenants with source times above the boundary that take one statement each. For more tenants a second scan is
/// cheaper.
const ASKED_ONE_BY_ONE: usize = 20;

/// Names and expressions of the table, from which its statements are put together.
pub(super) struct Layout {
    pub names: TableNames,
    /// The id's column.
    pub id: String,
    /// Whether the source time may be NULL.
    pub timeless: bool,
    pub dialect: SqlDialect,
}

/// The questions to a database that do not concern rows of the table. Its methods answer those of [`Source`] with the
/// same names.
pub(super) trait Database: Engine + Send {
    /// `mysql://host:3306/database` or `sqlite:/path/file.db`
    fn place(&self) -> String;
    fn label(&mut self, run: RunId);
    fn identity(&mut self) -> Result<String, SourceError>;
    fn table_identity(&mut self, layout: &Layout, source: &SourceName) -> Result<Option<TableIdentity>, SourceError>;
    fn clock(&mut self) -> Result<Clock, SourceError>;
    fn shown_at(&mut self, unix_seconds: i64) -> Result<Option<SourceTime>, SourceError>;
    fn open_work(&mut self) -> Result<OpenWork, SourceError>;
    fn replication(&mut self) -> Result<Option<Replication>, SourceError>;
    fn estimate(&mut self, layout: &Layout) -> Result<Option<u64>, SourceError>;
}

/// The table of invoices in a database of either engine.
pub(super) struct InvoiceTable<D> {
    pub layout: Layout,
    pub notices: Vec<Notice>,
    pub database: D,
}

impl<D: Database> Source for InvoiceTable<D> {
    fn name(&self) -> SourceName {
        SourceName(format!("{}.{}", self.database.place(), self.layout.names.table))
    }

    fn label(&mut self, run: RunId) {
        self.database.label(run);
    }

    fn identity(&mut self) -> Result<String, SourceError> {
        self.database.identity()
    }

    fn table_identity(&mut self) -> Result<Option<TableIdentity>, SourceError> {
        let name = self.name();
        self.database.table_identity(&self.layout, &name)
    }

    fn notices(&self) -> Vec<Notice> {
        self.notices.clone()
    }

    fn clock(&mut self) -> Result<Clock, SourceError> {
        self.database.clock()
    }

    fn shown_at(&mut self, unix_seconds: i64) -> Result<Option<SourceTime>, SourceError> {
        self.database.shown_at(unix_seconds)
    }

    fn open_work(&mut self) -> Result<OpenWork, SourceError> {
        self.database.open_work()
    }

    fn replication(&mut self) -> Result<Option<Replication>, SourceError> {
        self.database.replication()
    }

    fn estimate(&mut self) -> Result<Option<u64>, SourceError> {
        self.database.estimate(&self.layout)
    }

    fn tenants(&mut self, upto: &SourceTime) -> Result<TenantList, SourceError> {
        let TenantList { mut tenants, has_tenantless } = self.newest_of_each(None)?;
        let is_ahead = |listed: &ListedTenant| listed.newest.as_ref().is_some_and(|newest| newest > upto);
        let ahead = tenants.iter().filter(|listed| is_ahead(listed)).count();
        if ahead == 0 {
            return Ok(TenantList { tenants, has_tenantless });
        }
        let below = if ahead > ASKED_ONE_BY_ONE { self.newest_of_each(Some(upto))?.tenants } else { Vec::new() };
        let below: HashMap<Tenant, Option<SourceTime>> =
            below.into_iter().map(|listed| (listed.spelling, listed.newest)).collect();
        let spellings: HashSet<&Tenant> = tenants.iter().map(|listed| &listed.spelling).collect();
        // Of spellings that the collation folds, the second scan may list another one than the first.
        let are_asked = ahead <= ASKED_ONE_BY_ONE || below.keys().any(|spelling| !spellings.contains(spelling));
        for listed in tenants.iter_mut().filter(|listed| is_ahead(listed)) {
            listed.ahead = listed.newest.take();
            listed.newest = match below.get(&listed.spelling) {
                Some(newest) => newest.clone(),
                None if are_asked => self.newest_upto(&listed.spelling, upto)?,
                None => None,
            };
        }
        Ok(TenantList { tenants, has_tenantless })
    }

    fn tenantless(&mut self, limit: usize) -> Result<Vec<InvoiceId>, SourceError> {
        match self.ids_without_tenant(self.layout.invoices(), limit) {
            // A document that takes too long to compute must not hold up the tenants. The index answers for issued rows.
            Err(SourceError::Statement(_) | SourceError::Exhausted(_)) => {
                self.ids_without_tenant(self.layout.issued(), limit)
            }
            found => found,
        }
    }

    fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, SourceError> {
        if !self.can_hold_tenant(tenant)? {
            return Ok(false);
        }
        let (mark, bind) = self.layout.tenant_mark(tenant);
        let SqlDialect { same_tenant, types_of_tenant, .. } = &self.layout.dialect;
        let sql = format!(
            "SELECT 1{types_of_tenant} FROM {} WHERE {} = {mark} AND {same_tenant} LIMIT 1",
            quoted(&self.layout.names.table),
            quoted(&self.layout.names.tenant)
        );
        let binds = [bind, Bind::Text(tenant.0.clone())];
        Ok(!self.database.all(&sql, &binds)?.is_empty())
    }

    fn keys(&mut self, tenant: &Tenant, span: &Span, from: &KeyCursor, limit: usize) -> Result<Vec<Key>, SourceError> {
        let (timed, untimed) = match from {
            KeyCursor::Start => (None, None),
            KeyCursor::After(Key { id, time: Some(time), .. }) => (Some((time, id)), None),
            KeyCursor::After(Key { id, time: None, .. }) => (None, Some(id)),
        };
        let mut keys = Vec::new();
        if self.layout.timeless && span.after.is_none() && timed.is_none() {
            keys = self.untimed_keys(tenant, untimed, limit)?;
        }
        if keys.len() < limit {
            keys.extend(self.timed_keys(tenant, span, timed, limit - keys.len())?);
        }
        Ok(keys)
    }

    fn documents(&mut self, ids: &[InvoiceId], sink: &mut Sink<'_>) -> Result<(), SourceError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut filter = self.layout.invoices();
        let (condition, binds) = self.layout.among(ids);
        filter.and(&condition, binds);
        let asked: HashSet<_> = ids.iter().map(InvoiceId::as_str).collect();
        self.database.query(&self.layout.in_id_order(&filter), &filter.binds, &mut |row| {
            let fetched = fetched(row, &self.layout.names).map_err(SourceError::Statement)?;
            // `IN ('abc')` also finds `ABC` where the collation folds them.
            if asked.contains(fetched.id().as_str()) { sink(fetched).map_err(SourceError::Consumer) } else { Ok(()) }
        })
    }

    fn page(&mut self, after: Option<&InvoiceId>, limit: usize, sink: &mut Sink<'_>) -> Result<usize, SourceError> {
        let mut filter = self.layout.invoices();
        if let Some(last) = after {
            self.layout.after(&mut filter, last);
        }
        let sql = format!("{} LIMIT ?", self.layout.in_id_order(&filter));
        filter.binds.push(Bind::Count(limit as u64));
        let mut rows = 0;
        self.database.query(&sql, &filter.binds, &mut |row| {
            rows += 1;
            sink(fetched(row, &self.layout.names).map_err(SourceError::Statement)?).map_err(SourceError::Consumer)
        })?;
        Ok(rows)
    }

    fn find(&mut self, number: &str, ids: &[InvoiceId]) -> Result<Vec<RowSummary>, SourceError> {
        let is_possible = self.can_hold(|dialect| &dialect.holds_number, number)?;
        let mut possible = Vec::new();
        for id in ids {
            if self.can_hold_id(id)? {
                possible.push(id.clone());
            }
        }
        let SqlDialect { id, tenant, number: printed, time, status: shown, types_of_row, .. } = &self.layout.dialect;
        let TableNames { status, document, date, .. } = &self.layout.names;
        let [status, document, date] = [status, document, date].map(|name| quoted(name));
        let select = format!(
            "SELECT {id}, {tenant}, {printed}, {time}, {shown}, {status} = ?, {document} IS NOT NULL, \
             {date} IS NOT NULL{types_of_row} FROM {} WHERE",
            quoted(&self.layout.names.table)
        );
        let issued = || Bind::Text(self.layout.names.issued.clone());
        let mut rows = Vec::new();
        if is_possible {
            let sql = format!("{select} {} = ? LIMIT ?", quoted(&self.layout.names.number));
            let binds = [issued(), Bind::Text(number.to_owned()), Bind::Count(FOUND_AT_MOST)];
            rows = self.database.rows(&sql, &binds, row_summary)?;
        }
        if !possible.is_empty() {
            let (condition, binds) = self.layout.among(&possible);
            let sql = format!("{select} {condition}");
            let binds: Vec<Bind> = std::iter::once(issued()).chain(binds).collect();
            rows.extend(self.database.rows(&sql, &binds, row_summary)?);
        }
        let mut found: Vec<RowSummary> = Vec::new();
        for row in rows {
            let asked = row.number.as_deref() == Some(number) || ids.contains(&row.id);
            if asked && found.iter().all(|known| known.id != row.id) {
                found.push(row);
            }
        }
        Ok(found)
    }

    fn ids(&mut self, after: Option<&InvoiceId>, limit: usize) -> Result<Vec<InvoiceId>, SourceError> {
        let id = quoted(&self.layout.id);
        let mut filter = self.layout.issued();
        if let Some(last) = after {
            self.layout.after(&mut filter, last);
        }
        let SqlDialect { id: printed, by_id, types_of_id, .. } = &self.layout.dialect;
        let sql = format!(
            "SELECT {printed}{types_of_id} FROM {} {by_id} WHERE {} ORDER BY {id} LIMIT ?",
            quoted(&self.layout.names.table),
            filter.text
        );
        filter.binds.push(Bind::Count(limit as u64));
        self.database.rows(&sql, &filter.binds, id_alone)
    }
}

impl<D: Database> InvoiceTable<D> {
    /// Whether a column can hold a text. What it cannot hold is in none of its rows.
    fn can_hold(&mut self, holds: fn(&SqlDialect) -> &Option<String>, text: &str) -> Result<bool, SourceError> {
        let Some(holds) = holds(&self.layout.dialect).as_ref().filter(|_| !text.is_ascii()) else { return Ok(true) };
        let sql = format!("SELECT {holds}");
        let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        let binds = [Bind::Text(hex.clone()), Bind::Text(hex)];
        let answer = self.database.all(&sql, &binds)?.into_iter().flatten().next();
        Ok(answer.map(lossy).as_deref() == Some("1"))
    }

    /// The same of a tenant's spelling, which may be its bytes in hex.
    fn can_hold_tenant(&mut self, tenant: &Tenant) -> Result<bool, SourceError> {
        let is_by_bytes = self.layout.tenant_mark(tenant).0 != "?";
        Ok(is_by_bytes || self.can_hold(|dialect| &dialect.holds_tenant, tenant.as_str())?)
    }

    /// The same of an id.
    fn can_hold_id(&mut self, id: &InvoiceId) -> Result<bool, SourceError> {
        let is_by_bytes = self.layout.id_mark(id).0 != "?";
        Ok(is_by_bytes || self.can_hold(|dialect| &dialect.holds_id, id.as_str())?)
    }

    /// The greatest source time of every tenant, up to `upto` if that is given, in one loose index scan.
    fn newest_of_each(&mut self, upto: Option<&SourceTime>) -> Result<TenantList, SourceError> {
        let SqlDialect { tenant, newest, by_time, types_of_newest, .. } = &self.layout.dialect;
        let mut filter = self.layout.issued();
        if let Some(upto) = upto {
            filter.and(&format!("{} <= ?", quoted(&self.layout.names.time)), [Bind::Text(upto.0.clone())]);
        }
        let sql = format!(
            "SELECT {tenant}, {newest}{types_of_newest} FROM {} {by_time} WHERE {} GROUP BY {}",
            quoted(&self.layout.names.table),
            filter.text,
            quoted(&self.layout.names.tenant)
        );
        let mut listing = TenantList::default();
        self.database.query(&sql, &filter.binds, &mut |row| {
            match row.first() {
                Some(Some(_)) => listing.tenants.push(listed(row)?),
                _ => listing.has_tenantless = true,
            }
            Ok(())
        })?;
        Ok(listing)
    }

    /// The first `limit` ids, the oldest first, of the rows without a tenant that pass the filter.
    fn ids_without_tenant(&mut self, mut filter: Filter, limit: usize) -> Result<Vec<InvoiceId>, SourceError> {
        let SqlDialect { id, by_time, types_of_key, .. } = &self.layout.dialect;
        filter.and(&format!("{} IS NULL", quoted(&self.layout.names.tenant)), []);
        let sql = format!(
            "SELECT {id}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {}, {} LIMIT ?",
            quoted(&self.layout.names.table),
            filter.text,
            quoted(&self.layout.names.time),
            quoted(&self.layout.id)
        );
        filter.binds.push(Bind::Count(limit as u64));
        self.database.rows(&sql, &filter.binds, id_alone)
    }

    /// The greatest source time up to `upto` among the rows of one tenant: the last entry of a range of the index.
    fn newest_upto(&mut self, tenant: &Tenant, upto: &SourceTime) -> Result<Option<SourceTime>, SourceError> {
        let SqlDialect { time, by_time, types_of_key, .. } = &self.layout.dialect;
        let column = quoted(&self.layout.names.time);
        let mut filter = self.layout.of_tenant(tenant);
        filter.and(&format!("{column} <= ?"), [Bind::Text(upto.0.clone())]);
        let sql = format!(
            "SELECT {time}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {column} DESC LIMIT 1",
            quoted(&self.layout.names.table),
            filter.text
        );
        let newest = self.database.rows(&sql, &filter.binds, time_alone)?;
        Ok(newest.into_iter().next().flatten())
    }

    /// Keys with a source time, after the position `from`.
    fn timed_keys(
        &mut self,
        tenant: &Tenant,
        span: &Span,
        from: Option<(&SourceTime, &InvoiceId)>,
        limit: usize,
    ) -> Result<Vec<Key>, SourceError> {
        let (time, id) = (quoted(&self.layout.names.time), quoted(&self.layout.id));
        let mut filter = self.layout.of_tenant(tenant);
        if self.layout.timeless {
            filter.and(&format!("{time} IS NOT NULL"), []);
        }
        if let Some(after) = &span.after {
            filter.and(&format!("{time} > ?"), [Bind::Text(after.0.clone())]);
        }
        if let Some(upto) = &span.upto {
            filter.and(&format!("{time} <= ?"), [Bind::Text(upto.0.clone())]);
        }
        if let Some((at, last)) = from {
            // A comparison of pairs would be shorter, but no server uses an index for it.
            let at = || Bind::Text(at.0.clone());
            let (mark, last) = self.layout.id_mark(last);
            filter.and(&format!("{time} >= ? AND ({time} > ? OR {id} > {mark})"), [at(), at(), last]);
        }
        self.ordered_keys(filter, &format!("{time}, {id}"), limit)
    }

    /// Keys with NULL for a source time, after the id `from`.
    fn untimed_keys(
        &mut self,
        tenant: &Tenant,
        from: Option<&InvoiceId>,
        limit: usize,
    ) -> Result<Vec<Key>, SourceError> {
        let id = quoted(&self.layout.id);
        let mut filter = self.layout.of_tenant(tenant);
        filter.and(&format!("{} IS NULL", quoted(&self.layout.names.time)), []);
        if let Some(last) = from {
            self.layout.after(&mut filter, last);
        }
        self.ordered_keys(filter, &id, limit)
    }

    /// The first `limit` keys that pass the filter.
    fn ordered_keys(&mut self, mut filter: Filter, order: &str, limit: usize) -> Result<Vec<Key>, SourceError> {
        let SqlDialect { id, tenant, time, by_time, types_of_key, .. } = &self.layout.dialect;
        let sql = format!(
            "SELECT {id}, {tenant}, {time}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {order} LIMIT ?",
            quoted(&self.layout.names.table),
            filter.text
        );
        filter.binds.push(Bind::Count(limit as u64));
        self.database.rows(&sql, &filter.binds, key)
    }
}

impl Layout {
    /// Whether a statement reads this column. Names are compared as SQLite does.
    pub(super) fn reads(&self, column: &str) -> bool {
        let TableNames { tenant, country, date, number, status, document, time, .. } = &self.names;
        let read = [tenant, country, date, number, status, document, time, &self.id];
        read.into_iter().any(|name| name.eq_ignore_ascii_case(column))
    }

    /// Issued rows.
    fn issued(&self) -> Filter {
        let text = format!("{} = ?", quoted(&self.names.status));
        Filter { text, binds: vec![Bind::Text(self.names.issued.clone())] }
    }

    /// Issued rows of a tenant and of every spelling that the collation calls equal.
    fn of_tenant(&self, tenant: &Tenant) -> Filter {
        let (mark, bind) = self.tenant_mark(tenant);
        Filter {
            text: format!("{} = {mark} AND {} = ?", quoted(&self.names.tenant), quoted(&self.names.status)),
            binds: vec![bind, Bind::Text(self.names.issued.clone())],
        }
    }

    /// Restricts a filter to ids after this one.
    fn after(&self, filter: &mut Filter, last: &InvoiceId) {
        let (mark, last) = self.id_mark(last);
        filter.and(&format!("{} > {mark}", quoted(&self.id)), [last]);
    }

    /// The `?` for an id, or the expression that takes its bytes in hex.
    fn id_mark(&self, id: &InvoiceId) -> (&str, Bind) {
        let by_bytes = self.dialect.id_by_bytes.as_deref().zip(bytes_in_hex(id.as_str()));
        by_bytes.map_or_else(|| ("?", Bind::Id(id.0.clone())), |(mark, hex)| (mark, Bind::Text(hex.to_owned())))
    }

    /// The `?` for a tenant, or the expression that takes its bytes in hex.
    fn tenant_mark(&self, tenant: &Tenant) -> (&str, Bind) {
        let by_bytes = self.dialect.tenant_by_bytes.as_deref().zip(bytes_in_hex(tenant.as_str()));
        by_bytes.map_or_else(|| ("?", Bind::Text(tenant.0.clone())), |(mark, hex)| (mark, Bind::Text(hex.to_owned())))
    }

    /// The condition that the id is one of these, and its values.
    fn among(&self, ids: &[InvoiceId]) -> (String, Vec<Bind>) {
        let (marks, binds): (Vec<&str>, Vec<Bind>) = ids.iter().map(|id| self.id_mark(id)).unzip();
        (format!("{} IN ({})", quoted(&self.id), marks.join(", ")), binds)
    }

    /// The greatest committed id. NULL for an empty table.
    pub(super) fn greatest_id(&self, engine: &mut impl Engine) -> Result<Option<String>, SourceError> {
        let sql = format!("SELECT CAST(MAX({}) AS CHAR) FROM {}", quoted(&self.id), quoted(&self.names.table));
        Ok(engine.texts(&sql, &[])?.into_iter().flatten().next().flatten())
    }

    /// The rows that are invoices: issued, with a document, a number and a date.
    fn invoices(&self) -> Filter {
        let mut filter = self.issued();
        for column in [&self.names.document, &self.names.number, &self.names.date] {
            filter.and(&format!("{} IS NOT NULL", quoted(column)), []);
        }
        filter
    }

    /// The statement that selects whole invoices in the order of their ids.
    fn in_id_order(&self, filter: &Filter) -> String {
        let SqlDialect { id, tenant, country, date, number, time, document, lost, by_id, types_of_row, .. } =
            &self.dialect;
        let [marks, characters] =
            self.dialect.document_measure.as_ref().map_or(["NULL", "NULL"], |[one, two]| [one.as_str(), two.as_str()]);
        format!(
            "SELECT {id}, {tenant}, {country}, {date}, {number}, {time}, {document}, {lost}, {marks}, {characters}{types_of_row} \
             FROM {} {by_id} WHERE {} ORDER BY {}",
            quoted(&self.names.table),
            filter.text,
            quoted(&self.id)
        )
    }
}

/// Conditions, and the values for their question marks in the same order.
struct Filter {
    text: String,
    binds: Vec<Bind>,
}

impl Filter {
    fn and(&mut self, condition: &str, binds: impl IntoIterator<Item = Bind>) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
        self.binds.extend(binds);
    }
}
