//! The statements that both engines share: their text, what is bound to them, and how their rows
//! become keys and invoices. It knows no engine and opens nothing.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, anyhow, bail};

use super::charset::{bytes_in_hex, is_whole};
use super::{Fault, KeyCursor, Listed, Listing, Sighting, Sink, TableNames};
use crate::invoice::{Fetched, Invoice, InvoiceId, Key, Reason, Row, SourceTime, Tenant};
use crate::refusal::Refusal;
use crate::window::Span;

/// One column of one row: None is NULL.
pub(super) type Cell = Option<Vec<u8>>;

/// What stands for a `?`.
pub(super) enum Bind {
    Text(String),
    /// An invoice id; the engine gives it the type of its column, without which an index is of no use.
    Id(String),
    Count(u64),
}

/// Rows of one number that are looked at; more are a table that numbers nothing.
const FOUND_AT_MOST: u64 = 1_000;

/// So many tenants with source times ahead are asked for one by one. For more, another scan is cheaper.
const ASKED_ONE_BY_ONE: usize = 20;

/// Takes the rows of an answer as they arrive; the first fault ends the answer.
pub(super) type Each<'a> = dyn FnMut(Vec<Cell>) -> Result<(), Fault> + 'a;

/// Whoever can run one statement.
pub(super) trait Engine {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut Each<'_>) -> Result<(), Fault>;

    fn all(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<Vec<Cell>>, Fault> {
        let mut rows = Vec::new();
        self.query(sql, binds, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }
}

/// Expressions whose wording depends on the engine and on the column types it found.
pub(super) struct Wording {
    pub id: String,
    pub tenant: String,
    pub country: String,
    pub date: String,
    pub number: String,
    pub status: String,
    /// Two columns: the document or NULL, the length of one that is too long or NULL.
    pub document: String,
    pub time: String,
    pub newest: String,
    /// The names of the columns of which the text lost something on the way; empty or NULL for a whole row.
    pub lost: String,
    /// The question marks and the characters of the document, where it may lose something too.
    pub document_measure: Option<[String; 2]>,
    /// True where the tenant has the very bytes of the bound value.
    pub same_tenant: String,
    /// What stands for a `?` where an id or a tenant came as its bytes in hex.
    pub id_by_bytes: Option<String>,
    pub tenant_by_bytes: Option<String>,
    /// Follow what is selected, and tell the types of the columns that the statement relies on.
    pub types_of_tenant: String,
    /// Of the tenant and of the greatest time: the column itself would keep a server from skipping through the index.
    pub types_of_newest: String,
    pub types_of_id: String,
    pub types_of_key: String,
    pub types_of_row: String,
    /// Follow the table's name where keys or tenants are read, and where documents are.
    pub by_time: String,
    pub by_id: String,
}

/// The statements for one table.
pub(super) struct Statements {
    pub names: TableNames,
    /// The id's column.
    pub id: String,
    /// Whether the source time may be NULL.
    pub timeless: bool,
    pub wording: Wording,
}

/// Both engines accept backticks.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The name of every column that is needed but not there; `has` compares as the engine does.
pub(super) fn missing(names: &TableNames, has: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let needed =
        [&names.tenant, &names.country, &names.date, &names.number, &names.status, &names.document, &names.time];
    let missing: Vec<_> = needed.into_iter().chain(&names.id).filter(|name| !has(name)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::ColumnsMissing { table: names.table.clone(), columns: missing.join(", ") }.into())
}

/// The id's column: the one that was named, or the primary key if it is a single column.
pub(super) fn id_column(names: &TableNames, primary: &[String]) -> anyhow::Result<String> {
    match (&names.id, primary) {
        (Some(named), _) => Ok(named.clone()),
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            bail!(
                "the table {} has no primary key; name a unique column that is NOT NULL with --id-column",
                names.table
            )
        }
        (None, several) => bail!(
            "the primary key of the table {} has {} columns ({}); name a single unique column that is NOT NULL with --id-column",
            names.table,
            several.len(),
            several.join(", ")
        ),
    }
}

impl Statements {
    /// Whether any of them reads this column, compared as SQLite does.
    pub(super) fn reads(&self, column: &str) -> bool {
        let TableNames { tenant, country, date, number, status, document, time, .. } = &self.names;
        let read = [tenant, country, date, number, status, document, time, &self.id];
        read.into_iter().any(|name| name.eq_ignore_ascii_case(column))
    }

    pub(super) fn tenants(&self, engine: &mut impl Engine, upto: &SourceTime) -> Result<Listing, Fault> {
        let Listing { mut tenants, has_tenantless } = self.newest_of_each(engine, None)?;
        let is_ahead = |listed: &Listed| listed.newest.as_ref().is_some_and(|newest| newest > upto);
        let ahead = tenants.iter().filter(|listed| is_ahead(listed)).count();
        if ahead == 0 {
            return Ok(Listing { tenants, has_tenantless });
        }
        let below =
            if ahead > ASKED_ONE_BY_ONE { self.newest_of_each(engine, Some(upto))?.tenants } else { Vec::new() };
        let below: HashMap<Tenant, Option<SourceTime>> =
            below.into_iter().map(|listed| (listed.spelling, listed.newest)).collect();
        let spellings: HashSet<&Tenant> = tenants.iter().map(|listed| &listed.spelling).collect();
        // Of spellings that the collation folds, the second scan may list another one than the first.
        let are_asked = ahead <= ASKED_ONE_BY_ONE || below.keys().any(|spelling| !spellings.contains(spelling));
        for listed in tenants.iter_mut().filter(|listed| is_ahead(listed)) {
            listed.ahead = listed.newest.take();
            listed.newest = match below.get(&listed.spelling) {
                Some(newest) => newest.clone(),
                None if are_asked => self.newest_upto(engine, &listed.spelling, upto)?,
                None => None,
            };
        }
        Ok(Listing { tenants, has_tenantless })
    }

    /// The greatest source time of every tenant in a loose index scan.
    fn newest_of_each(&self, engine: &mut impl Engine, upto: Option<&SourceTime>) -> Result<Listing, Fault> {
        let Wording { tenant, newest, by_time, types_of_newest, .. } = &self.wording;
        let mut filter = Filter {
            text: format!("{} = ?", quoted(&self.names.status)),
            binds: vec![Bind::Text(self.names.issued.clone())],
        };
        if let Some(upto) = upto {
            filter.and(&format!("{} <= ?", quoted(&self.names.time)), [Bind::Text(upto.0.clone())]);
        }
        let sql = format!(
            "SELECT {tenant}, {newest}{types_of_newest} FROM {} {by_time} WHERE {} GROUP BY {}",
            quoted(&self.names.table),
            filter.text,
            quoted(&self.names.tenant)
        );
        let mut listing = Listing::default();
        engine.query(&sql, &filter.binds, &mut |row| {
            match row.first() {
                Some(Some(_)) => listing.tenants.push(listed(row)?),
                _ => listing.has_tenantless = true,
            }
            Ok(())
        })?;
        Ok(listing)
    }

    /// The greatest source time up to this one among the rows of a tenant: the last entry of a range of the index.
    fn newest_upto(
        &self,
        engine: &mut impl Engine,
        tenant: &Tenant,
        upto: &SourceTime,
    ) -> Result<Option<SourceTime>, Fault> {
        let Wording { time, by_time, types_of_key, .. } = &self.wording;
        let column = quoted(&self.names.time);
        let mut filter = self.of_tenant(tenant);
        filter.and(&format!("{column} <= ?"), [Bind::Text(upto.0.clone())]);
        let sql = format!(
            "SELECT {time}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {column} DESC LIMIT 1",
            quoted(&self.names.table),
            filter.text
        );
        let newest = engine.all(&sql, &filter.binds)?.into_iter().flatten().next().flatten();
        Ok(text(newest).map_err(Fault::Statement)?.map(SourceTime))
    }

    pub(super) fn tenantless(&self, engine: &mut impl Engine, limit: usize) -> Result<Vec<InvoiceId>, Fault> {
        let Wording { id, by_time, types_of_key, .. } = &self.wording;
        let mut filter = self.invoices();
        filter.and(&format!("{} IS NULL", quoted(&self.names.tenant)), []);
        let sql = format!(
            "SELECT {id}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {}, {} LIMIT ?",
            quoted(&self.names.table),
            filter.text,
            quoted(&self.names.time),
            quoted(&self.id)
        );
        filter.binds.push(Bind::Count(limit as u64));
        let rows = engine.all(&sql, &filter.binds)?;
        Ok(rows.into_iter().flatten().map(|cell| InvoiceId(lossy(cell))).collect())
    }

    pub(super) fn has_tenant(&self, engine: &mut impl Engine, tenant: &Tenant) -> Result<bool, Fault> {
        let (mark, bind) = self.tenant_mark(tenant);
        let Wording { same_tenant, types_of_tenant, .. } = &self.wording;
        let sql = format!(
            "SELECT 1{types_of_tenant} FROM {} WHERE {} = {mark} AND {same_tenant} LIMIT 1",
            quoted(&self.names.table),
            quoted(&self.names.tenant)
        );
        let binds = [bind, Bind::Text(tenant.0.clone())];
        Ok(!engine.all(&sql, &binds)?.is_empty())
    }

    pub(super) fn keys(
        &self,
        engine: &mut impl Engine,
        tenant: &Tenant,
        span: &Span,
        from: &KeyCursor,
        limit: usize,
    ) -> Result<Vec<Key>, Fault> {
        let (timed, untimed) = match from {
            KeyCursor::Start => (None, None),
            KeyCursor::After(Key { id, time: Some(time), .. }) => (Some((time, id)), None),
            KeyCursor::After(Key { id, time: None, .. }) => (None, Some(id)),
        };
        let mut keys = Vec::new();
        if self.timeless && span.after.is_none() && timed.is_none() {
            keys = self.untimed_keys(engine, tenant, untimed, limit)?;
        }
        if keys.len() < limit {
            keys.extend(self.timed_keys(engine, tenant, span, timed, limit - keys.len())?);
        }
        Ok(keys)
    }

    fn timed_keys(
        &self,
        engine: &mut impl Engine,
        tenant: &Tenant,
        span: &Span,
        from: Option<(&SourceTime, &InvoiceId)>,
        limit: usize,
    ) -> Result<Vec<Key>, Fault> {
        let (time, id) = (quoted(&self.names.time), quoted(&self.id));
        let mut filter = self.of_tenant(tenant);
        if self.timeless {
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
            let (mark, last) = self.id_mark(last);
            filter.and(&format!("{time} >= ? AND ({time} > ? OR {id} > {mark})"), [at(), at(), last]);
        }
        self.ordered_keys(engine, filter, &format!("{time}, {id}"), limit)
    }

    fn untimed_keys(
        &self,
        engine: &mut impl Engine,
        tenant: &Tenant,
        from: Option<&InvoiceId>,
        limit: usize,
    ) -> Result<Vec<Key>, Fault> {
        let id = quoted(&self.id);
        let mut filter = self.of_tenant(tenant);
        filter.and(&format!("{} IS NULL", quoted(&self.names.time)), []);
        if let Some(last) = from {
            self.after(&mut filter, last);
        }
        self.ordered_keys(engine, filter, &id, limit)
    }

    fn of_tenant(&self, tenant: &Tenant) -> Filter {
        let (mark, bind) = self.tenant_mark(tenant);
        Filter {
            text: format!("{} = {mark} AND {} = ?", quoted(&self.names.tenant), quoted(&self.names.status)),
            binds: vec![bind, Bind::Text(self.names.issued.clone())],
        }
    }

    fn after(&self, filter: &mut Filter, last: &InvoiceId) {
        let (mark, last) = self.id_mark(last);
        filter.and(&format!("{} > {mark}", quoted(&self.id)), [last]);
    }

    fn id_mark(&self, id: &InvoiceId) -> (&str, Bind) {
        let by_bytes = self.wording.id_by_bytes.as_deref().zip(bytes_in_hex(id.as_str()));
        by_bytes.map_or_else(|| ("?", Bind::Id(id.0.clone())), |(mark, hex)| (mark, Bind::Text(hex.to_owned())))
    }

    fn tenant_mark(&self, tenant: &Tenant) -> (&str, Bind) {
        let by_bytes = self.wording.tenant_by_bytes.as_deref().zip(bytes_in_hex(tenant.as_str()));
        by_bytes.map_or_else(|| ("?", Bind::Text(tenant.0.clone())), |(mark, hex)| (mark, Bind::Text(hex.to_owned())))
    }

    /// A condition on the id, and what is bound to it.
    fn among(&self, ids: &[InvoiceId]) -> (String, Vec<Bind>) {
        let (marks, binds): (Vec<&str>, Vec<Bind>) = ids.iter().map(|id| self.id_mark(id)).unzip();
        (format!("{} IN ({})", quoted(&self.id), marks.join(", ")), binds)
    }

    fn ordered_keys(
        &self,
        engine: &mut impl Engine,
        mut filter: Filter,
        order: &str,
        limit: usize,
    ) -> Result<Vec<Key>, Fault> {
        let Wording { id, tenant, time, by_time, types_of_key, .. } = &self.wording;
        let sql = format!(
            "SELECT {id}, {tenant}, {time}{types_of_key} FROM {} {by_time} WHERE {} ORDER BY {order} LIMIT ?",
            quoted(&self.names.table),
            filter.text
        );
        filter.binds.push(Bind::Count(limit as u64));
        engine.all(&sql, &filter.binds)?.into_iter().map(|row| key(row).map_err(Fault::Statement)).collect()
    }

    pub(super) fn documents(
        &self,
        engine: &mut impl Engine,
        ids: &[InvoiceId],
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut filter = self.invoices();
        let (condition, binds) = self.among(ids);
        filter.and(&condition, binds);
        let asked: HashSet<_> = ids.iter().map(InvoiceId::as_str).collect();
        engine.query(&self.in_id_order(&filter), &filter.binds, &mut |row| {
            let fetched = fetched(row, &self.names).map_err(Fault::Statement)?;
            // `IN ('abc')` also finds `ABC` where the collation folds them.
            if asked.contains(fetched.id().as_str()) { sink(fetched).map_err(Fault::Consumer) } else { Ok(()) }
        })
    }

    pub(super) fn page(
        &self,
        engine: &mut impl Engine,
        after: Option<&InvoiceId>,
        limit: usize,
        sink: &mut Sink<'_>,
    ) -> Result<usize, Fault> {
        let mut filter = self.invoices();
        if let Some(last) = after {
            self.after(&mut filter, last);
        }
        let sql = format!("{} LIMIT ?", self.in_id_order(&filter));
        filter.binds.push(Bind::Count(limit as u64));
        let mut came = 0;
        engine.query(&sql, &filter.binds, &mut |row| {
            came += 1;
            sink(fetched(row, &self.names).map_err(Fault::Statement)?).map_err(Fault::Consumer)
        })?;
        Ok(came)
    }

    pub(super) fn ids(
        &self,
        engine: &mut impl Engine,
        after: Option<&InvoiceId>,
        limit: usize,
    ) -> Result<Vec<InvoiceId>, Fault> {
        let (id, status) = (quoted(&self.id), quoted(&self.names.status));
        let mut filter = Filter { text: format!("{status} = ?"), binds: vec![Bind::Text(self.names.issued.clone())] };
        if let Some(last) = after {
            self.after(&mut filter, last);
        }
        let Wording { id: printed, by_id, types_of_id, .. } = &self.wording;
        let sql = format!(
            "SELECT {printed}{types_of_id} FROM {} {by_id} WHERE {} ORDER BY {id} LIMIT ?",
            quoted(&self.names.table),
            filter.text
        );
        filter.binds.push(Bind::Count(limit as u64));
        let rows = engine.all(&sql, &filter.binds)?;
        Ok(rows.into_iter().flatten().map(|cell| InvoiceId(lossy(cell))).collect())
    }

    pub(super) fn find(
        &self,
        engine: &mut impl Engine,
        number: &str,
        ids: &[InvoiceId],
    ) -> Result<Vec<Sighting>, Fault> {
        let Wording { id, tenant, number: printed, time, status: shown, types_of_row, .. } = &self.wording;
        let TableNames { status, document, date, .. } = &self.names;
        let [status, document, date] = [status, document, date].map(|name| quoted(name));
        let select = format!(
            "SELECT {id}, {tenant}, {printed}, {time}, {shown}, {status} = ?, {document} IS NOT NULL, \
             {date} IS NOT NULL{types_of_row} FROM {} WHERE",
            quoted(&self.names.table)
        );
        let issued = || Bind::Text(self.names.issued.clone());
        let sql = format!("{select} {} = ? LIMIT ?", quoted(&self.names.number));
        let mut rows = engine.all(&sql, &[issued(), Bind::Text(number.to_owned()), Bind::Count(FOUND_AT_MOST)])?;
        if !ids.is_empty() {
            let (condition, binds) = self.among(ids);
            let sql = format!("{select} {condition}");
            rows.extend(engine.all(&sql, &std::iter::once(issued()).chain(binds).collect::<Vec<_>>())?);
        }
        let mut found: Vec<Sighting> = Vec::new();
        for row in rows {
            let row = sighting(row).map_err(Fault::Statement)?;
            let asked = row.number.as_deref() == Some(number) || ids.contains(&row.id);
            if asked && found.iter().all(|known| known.id != row.id) {
                found.push(row);
            }
        }
        Ok(found)
    }

    /// The whole definition of an invoice.
    fn invoices(&self) -> Filter {
        let [status, document, number, date] =
            [&self.names.status, &self.names.document, &self.names.number, &self.names.date].map(|name| quoted(name));
        Filter {
            text: format!("{status} = ? AND {document} IS NOT NULL AND {number} IS NOT NULL AND {date} IS NOT NULL"),
            binds: vec![Bind::Text(self.names.issued.clone())],
        }
    }

    fn in_id_order(&self, filter: &Filter) -> String {
        let Wording { id, tenant, country, date, number, time, document, lost, by_id, types_of_row, .. } =
            &self.wording;
        let [marks, characters] =
            self.wording.document_measure.as_ref().map_or(["NULL", "NULL"], |[one, two]| [one.as_str(), two.as_str()]);
        format!(
            "SELECT {id}, {tenant}, {country}, {date}, {number}, {time}, {document}, {lost}, {marks}, {characters}{types_of_row} \
             FROM {} {by_id} WHERE {} ORDER BY {}",
            quoted(&self.names.table),
            filter.text,
            quoted(&self.id)
        )
    }
}

/// Conditions and what is bound to them, in step.
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

fn listed(row: Vec<Cell>) -> Result<Listed, Fault> {
    let [spelling, newest] = cells(row).map_err(Fault::Statement)?;
    let spelling = needed(spelling, "tenant").map_err(Fault::Statement)?;
    let newest = text(newest).map_err(Fault::Statement)?;
    Ok(Listed { spelling: Tenant(spelling), newest: newest.map(SourceTime), ahead: None })
}

fn key(row: Vec<Cell>) -> anyhow::Result<Key> {
    let [id, tenant, time] = cells(row)?;
    Ok(Key {
        id: InvoiceId(needed(id, "id")?),
        tenant: Tenant(needed(tenant, "tenant")?),
        time: text(time)?.map(SourceTime),
    })
}

fn sighting(row: Vec<Cell>) -> anyhow::Result<Sighting> {
    let [id, tenant, number, time, status, issued, has_document, has_date] = cells(row)?;
    let readable = |cell: Cell| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_true = |cell: Cell| lossy(cell) == "1";
    Ok(Sighting {
        id: InvoiceId(needed(id, "id")?),
        tenant: readable(tenant).map(Tenant),
        number: readable(number),
        time: readable(time).map(SourceTime),
        status: readable(status),
        issued: is_true(issued),
        has_document: is_true(has_document),
        has_date: is_true(has_date),
    })
}

fn fetched(row: Vec<Cell>, names: &TableNames) -> anyhow::Result<Fetched> {
    let [id, tenant, country, date, number, time, document, too_long, lost, marks, characters] = cells(row)?;
    let id = InvoiceId(needed(id, "id")?);
    let too_long = too_long.map(|bytes| lossy(Some(bytes)).parse()).transpose().context("a length is no number")?;
    let mut trouble = None;
    let mut readable = |cell: Cell, name: &str| {
        text(cell).unwrap_or_else(|_| {
            trouble.get_or_insert_with(|| format!("the column {name} is not UTF-8"));
            None
        })
    };
    let tenant = readable(tenant, &names.tenant).map(Tenant);
    let country = readable(country, &names.country);
    let date = readable(date, &names.date);
    let number = readable(number, &names.number);
    let time = readable(time, &names.time).map(SourceTime);
    let document_lost = document.as_deref().is_some_and(|document| has_lost(document, marks, characters));
    let columns = [lossy(lost), if document_lost { names.document.clone() } else { String::new() }];
    let columns = columns.iter().map(String::as_str).filter(|names| !names.is_empty()).collect::<Vec<_>>().join(", ");
    if !columns.is_empty() {
        return Ok(Fetched::Unreadable { id, tenant, number, time, reason: Reason::Unmappable { columns } });
    }
    Ok(match (trouble, tenant, date, number, document) {
        (None, Some(tenant), Some(date), Some(number), Some(document)) => {
            Fetched::Row(Row { invoice: Invoice { id, tenant, country, date, number, time }, document })
        }
        (trouble, tenant, _, number, _) => {
            let reason = match (trouble, &tenant, too_long) {
                (Some(detail), ..) => Reason::Unreadable { detail },
                (None, Some(_), Some(bytes)) => Reason::TooLarge { bytes },
                _ => Reason::Unreadable { detail: format!("the column {} is NULL", names.tenant) },
            };
            Fetched::Unreadable { id, tenant, number, time, reason }
        }
    })
}

/// Whether a document that the server has measured is another one than there.
fn has_lost(document: &[u8], marks: Cell, characters: Cell) -> bool {
    let number = |cell: Cell| lossy(cell).parse().ok();
    number(marks).zip(number(characters)).is_some_and(|(marks, characters)| !is_whole(document, marks, characters))
}

fn cells<const N: usize>(row: Vec<Cell>) -> anyhow::Result<[Cell; N]> {
    let came = row.len();
    row.try_into().map_err(|_| anyhow!("a row came with {came} columns, not {N}"))
}

/// For what a server says about itself.
pub(super) fn lossy(cell: Cell) -> String {
    cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn text(cell: Cell) -> anyhow::Result<Option<String>> {
    cell.map(|bytes| String::from_utf8(bytes).context("a text is not UTF-8")).transpose()
}

fn needed(cell: Cell, what: &str) -> anyhow::Result<String> {
    text(cell)?.with_context(|| format!("a row came without its {what}"))
}
