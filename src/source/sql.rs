//! The statements that both engines share: their text, what is bound to them, and how their rows
//! become keys and invoices. It knows no engine and opens nothing.

use std::collections::HashSet;

use anyhow::{Context, anyhow, bail};

use super::{Fault, KeyCursor, Listed, Sighting, Sink, TableNames};
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
    pub time: String,
    pub newest: String,
    /// Two columns: the document or NULL, the length of one that is too long or NULL.
    pub document: String,
    /// True where the tenant has the very bytes of the bound value.
    pub same_tenant: String,
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
    pub(super) fn tenants(&self, engine: &mut impl Engine) -> Result<Vec<Listed>, Fault> {
        let Wording { tenant, newest, by_time, .. } = &self.wording;
        let sql = format!(
            "SELECT {tenant}, {newest} FROM {} {by_time} WHERE {} = ? GROUP BY {}",
            quoted(&self.names.table),
            quoted(&self.names.status),
            quoted(&self.names.tenant)
        );
        let rows = engine.all(&sql, &[Bind::Text(self.names.issued.clone())])?;
        rows.into_iter().filter(|row| row.first().is_some_and(Option::is_some)).map(listed).collect()
    }

    pub(super) fn has_tenant(&self, engine: &mut impl Engine, tenant: &Tenant) -> Result<bool, Fault> {
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} = ? AND {} LIMIT 1",
            quoted(&self.names.table),
            quoted(&self.names.tenant),
            self.wording.same_tenant
        );
        let binds = [Bind::Text(tenant.0.clone()), Bind::Text(tenant.0.clone())];
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
            filter.and(&format!("{time} >= ? AND ({time} > ? OR {id} > ?)"), [at(), at(), Bind::Id(last.0.clone())]);
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
            filter.and(&format!("{id} > ?"), [Bind::Id(last.0.clone())]);
        }
        self.ordered_keys(engine, filter, &id, limit)
    }

    fn of_tenant(&self, tenant: &Tenant) -> Filter {
        Filter {
            text: format!("{} = ? AND {} = ?", quoted(&self.names.tenant), quoted(&self.names.status)),
            binds: vec![Bind::Text(tenant.0.clone()), Bind::Text(self.names.issued.clone())],
        }
    }

    fn ordered_keys(
        &self,
        engine: &mut impl Engine,
        mut filter: Filter,
        order: &str,
        limit: usize,
    ) -> Result<Vec<Key>, Fault> {
        let Wording { id, tenant, time, by_time, .. } = &self.wording;
        let sql = format!(
            "SELECT {id}, {tenant}, {time} FROM {} {by_time} WHERE {} ORDER BY {order} LIMIT ?",
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
        let marks = vec!["?"; ids.len()].join(", ");
        let mut filter = self.invoices();
        filter.and(&format!("{} IN ({marks})", quoted(&self.id)), ids.iter().map(|id| Bind::Id(id.0.clone())));
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
            filter.and(&format!("{} > ?", quoted(&self.id)), [Bind::Id(last.0.clone())]);
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
            filter.and(&format!("{id} > ?"), [Bind::Id(last.0.clone())]);
        }
        let Wording { id: printed, by_id, .. } = &self.wording;
        let sql = format!(
            "SELECT {printed} FROM {} {by_id} WHERE {} ORDER BY {id} LIMIT ?",
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
        let Wording { id, tenant, number: printed, time, .. } = &self.wording;
        let TableNames { status, document, date, .. } = &self.names;
        let [status, document, date] = [status, document, date].map(|name| quoted(name));
        let select = format!(
            "SELECT {id}, {tenant}, {printed}, {time}, {status}, {status} = ?, {document} IS NOT NULL, {date} IS NOT NULL \
             FROM {} WHERE",
            quoted(&self.names.table)
        );
        let issued = || Bind::Text(self.names.issued.clone());
        let sql = format!("{select} {} = ? LIMIT ?", quoted(&self.names.number));
        let mut rows = engine.all(&sql, &[issued(), Bind::Text(number.to_owned()), Bind::Count(FOUND_AT_MOST)])?;
        if !ids.is_empty() {
            let marks = vec!["?"; ids.len()].join(", ");
            let binds = ids.iter().map(|id| Bind::Id(id.0.clone()));
            let sql = format!("{select} {} IN ({marks})", quoted(&self.id));
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
        let Wording { id, tenant, country, date, number, time, document, by_id, .. } = &self.wording;
        format!(
            "SELECT {id}, {tenant}, {country}, {date}, {number}, {time}, {document} FROM {} {by_id} WHERE {} ORDER BY {}",
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
    Ok(Listed { spelling: Tenant(spelling), newest: newest.map(SourceTime) })
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
    let [id, tenant, country, date, number, time, document, too_long] = cells(row)?;
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
