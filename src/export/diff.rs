//! The thread that reads: the to-do list by primary key, then either the key diff (keys from the index, minus those
//! that the ledger holds settled, then the documents of the rest) or the whole table in primary-key order. It changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use anyhow::Error;

use super::one_by_one::{self, RetryingSource};
use super::outbox::Outbox;
use super::plan::{Group, KeysToRead, OtherSpellings};
use super::retry::RetryPolicy;
use super::ticket::{Part, Rewrite, Ticket};
use crate::invoice::{InvoiceId, Key, SourceTime, Tenant};
use crate::refusal::Trouble;
use crate::source::{KeyCursor, Source, SourceError};
use crate::state::ledger::{Entry, LedgerMatch, LedgerReader};
use crate::state::todo::{Todo, TodoReason};
use crate::state::visited::VisitedIds;
use crate::window::Span;

/// Keys asked for at a time: index entries of some 60 bytes.
pub(super) const KEYS_A_PAGE: usize = 10_000;
/// Documents asked for in one statement.
const DOCUMENTS_A_PAGE: usize = 500;
/// Rows of one statement of a full scan.
const ROWS_A_PAGE: usize = 1_000;
/// Groups without keys to read that one event covers: there may be a hundred thousand.
const QUIET_AT_ONCE: usize = 1_000;

/// What the thread that reads says to the one that decides.
#[derive(Debug)]
pub(super) enum ReaderEvent {
    Begun(usize),
    /// Nothing is read for these groups.
    Quiet(Range<usize>),
    /// This id was asked for by primary key, and the source has no invoice with it any more.
    Gone {
        part: Part,
        id: InvoiceId,
        tenant: Option<Tenant>,
    },
    /// The reader has handed over all rows of this part, `rows` in number. `spellings` are those of its tenant, each
    /// with the newest source time of its keys.
    Read {
        part: Part,
        rows: u64,
        spellings: BTreeMap<Tenant, Option<SourceTime>>,
    },
    /// Some rows of these tenants could not be read, nor could `tenantless` rows of which no tenant is known.
    Failed {
        tenants: Vec<Tenant>,
        tenantless: u64,
        trouble: Trouble,
    },
    /// The connection was lost; another attempt follows after the pause.
    Retrying {
        trouble: Trouble,
        pause: Duration,
    },
}

/// What is read after the to-do list.
pub(super) enum Scope {
    Table,
    Groups { groups: Vec<Group>, compare: Compare },
}

impl Scope {
    pub(super) fn groups(&self) -> &[Group] {
        match self {
            Self::Table => &[],
            Self::Groups { groups, .. } => groups,
        }
    }
}

/// Whether keys that the ledger holds settled are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Keys,
    Documents,
}

/// The request for the document of an invoice.
struct FetchRequest {
    id: InvoiceId,
    tenant: Option<Tenant>,
    ticket: Ticket,
}

impl FetchRequest {
    /// A row of a full scan. The outbox asks the ledger for its entry later.
    fn scanned(id: InvoiceId) -> Self {
        Self { id, tenant: None, ticket: Ticket::new(Part::Table, None) }
    }
}

/// A row of the to-do list that is asked for, and the tenant that it belongs to as far as that is known.
struct TodoOwner {
    id: InvoiceId,
    why: TodoReason,
    tenant: Option<Tenant>,
}

/// The ids that the reader has met so far.
pub(super) struct MetIds {
    /// Those that no later part hands over: the to-do list has brought them, or they are known to be gone or unread.
    handled: HashSet<InvoiceId>,
    /// Those that the source has shown, for a run that afterwards reads the rest of the ledger; None in other runs.
    in_source: Option<VisitedIds>,
}

impl MetIds {
    pub(super) fn new(in_source: Option<VisitedIds>) -> Self {
        Self { handled: HashSet::new(), in_source }
    }

    /// The source has shown a row, with its document or in the index.
    fn note_in_source(&mut self, part: Part, id: &InvoiceId) -> anyhow::Result<()> {
        self.note_handled(part, id);
        self.in_source.as_mut().map_or(Ok(()), |in_source| in_source.insert(id))
    }

    /// A scan does not hand over again what the to-do list has brought.
    fn note_handled(&mut self, part: Part, id: &InvoiceId) {
        if part == Part::Todo {
            self.handled.insert(id.clone());
        }
    }
}

pub(super) struct Reader<'a, T: FnMut(ReaderEvent) -> anyhow::Result<()>> {
    pub source: Box<dyn Source>,
    pub lookup: LedgerReader,
    pub outbox: Outbox<'a>,
    pub tell: T,
    pub ids: MetIds,
    pub retry: RetryPolicy,
    /// How many rows the source has handed over.
    pub handed_over: u64,
}

impl<T: FnMut(ReaderEvent) -> anyhow::Result<()>> Reader<'_, T> {
    /// Reads the to-do list and the scope.
    ///
    /// # Errors
    /// What ends the run. A failure that concerns one tenant is sent as an event.
    pub(super) fn read(&mut self, todo: Vec<Todo>, scope: &Scope) -> Result<(), SourceError> {
        self.read_todo(todo)?;
        match scope {
            Scope::Table => self.read_table(),
            Scope::Groups { groups, compare } => {
                self.read_groups(groups, *compare)?;
                self.read_ledger_rest()
            }
        }
    }

    fn read_groups(&mut self, groups: &[Group], compare: Compare) -> Result<(), SourceError> {
        let mut n = 0;
        while let Some(group) = groups.get(n) {
            let is_quiet = |group: &&Group| group.keys == KeysToRead::None;
            let quiet = groups[n..].iter().take(QUIET_AT_ONCE).take_while(is_quiet).count();
            if quiet > 0 {
                self.say(ReaderEvent::Quiet(n..n + quiet))?;
                n += quiet;
                continue;
            }
            self.say(ReaderEvent::Begun(n))?;
            match self.read_group(Part::Group(n), group, compare) {
                Err(SourceError::Statement(error)) => {
                    let tenants = group.members.iter().map(|member| member.tenant.clone()).collect();
                    self.say(ReaderEvent::Failed { tenants, tenantless: 0, trouble: Trouble::from(&error) })?;
                }
                result => result?,
            }
            n += 1;
        }
        Ok(())
    }

    /// Looks up by primary key the invoices of the ledger that the scan has not visited: a row that was updated
    /// while it was scanned can have left both pages.
    fn read_ledger_rest(&mut self) -> Result<(), SourceError> {
        let Some(ids_in_source) = self.ids.in_source.take() else { return Ok(()) };
        let (mut after, mut rows) = (None, 0);
        // A table that is to blame is not asked again; the tenants of the rest fail.
        let mut refused: Option<Trouble> = None;
        loop {
            let page = self.lookup.page(after.as_ref(), DOCUMENTS_A_PAGE).map_err(SourceError::Consumer)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.id.clone());
            let mut wanted = Vec::new();
            for (entry, _) in page {
                if ids_in_source.is_missing(&entry).map_err(SourceError::Consumer)? {
                    let (id, tenant) = (entry.id.clone(), Some(entry.tenant.clone()));
                    wanted.push(FetchRequest { id, tenant, ticket: Ticket::new(Part::LedgerRest, Some(entry)) });
                }
            }
            let concerned: Vec<(InvoiceId, Tenant)> =
                wanted.iter().filter_map(|wanted| Some((wanted.id.clone(), wanted.tenant.clone()?))).collect();
            if refused.is_none() {
                match self.fetch_all(wanted, &mut rows) {
                    Err(SourceError::Statement(error)) => refused = Some(Trouble::from(&error)),
                    result => result?,
                }
            }
            let unread = concerned.into_iter().filter(|(id, _)| !self.ids.handled.contains(id));
            let tenants: BTreeSet<Tenant> = unread.map(|(_, tenant)| tenant).collect();
            if let Some(trouble) = refused.clone().filter(|_| !tenants.is_empty()) {
                self.say(ReaderEvent::Failed { tenants: tenants.into_iter().collect(), tenantless: 0, trouble })?;
            }
        }
        self.say(ReaderEvent::Read { part: Part::LedgerRest, rows, spellings: BTreeMap::new() })
    }

    /// Reads the to-do list before the scope, so that a scan skips its rows. If the server refuses it, the tenants of
    /// the rows that were not read fail.
    fn read_todo(&mut self, mut todo: Vec<Todo>) -> Result<(), SourceError> {
        todo.sort_by(|a, b| a.id.cmp(&b.id));
        let mut rows = 0;
        while !todo.is_empty() {
            let rest = todo.split_off(todo.len().min(DOCUMENTS_A_PAGE));
            let (wanted, mut unread) = self.wanted_again(std::mem::replace(&mut todo, rest))?;
            if let Err(fault) = self.fetch_all(wanted, &mut rows) {
                unread.extend(self.wanted_again(std::mem::take(&mut todo))?.1);
                self.give_up(fault, unread)?;
            }
        }
        self.say(ReaderEvent::Read { part: Part::Todo, rows, spellings: BTreeMap::new() })
    }

    /// What is asked for of a page of the to-do list, and the tenants that it concerns.
    fn wanted_again(&mut self, todo: Vec<Todo>) -> Result<(Vec<FetchRequest>, Vec<TodoOwner>), SourceError> {
        let ids: Vec<&InvoiceId> = todo.iter().map(|todo| &todo.id).collect();
        let known = self.lookup.entries(&ids).map_err(SourceError::Consumer)?;
        let (mut wanted, mut concerned) = (Vec::new(), Vec::new());
        for (Todo { id, why, tenant }, known) in todo.into_iter().zip(known) {
            let rewrite = if why == TodoReason::Doubt { Rewrite::Always } else { Rewrite::IfWrong };
            let of = tenant.clone().or(known.as_ref().map(|known| known.tenant.clone()));
            concerned.push(TodoOwner { id: id.clone(), why, tenant: of });
            wanted.push(FetchRequest { id, tenant, ticket: Ticket { rewrite, ..Ticket::new(Part::Todo, known) } });
        }
        Ok((wanted, concerned))
    }

    /// Rows that the server refused stay on the to-do list, and their tenants fail. A reject without a tenant stays a
    /// reject, and a scan that meets it reads it after all. Any other row without a tenant ends the run: a dead run may
    /// have written its file.
    fn give_up(&mut self, fault: SourceError, mut unread: Vec<TodoOwner>) -> Result<(), SourceError> {
        unread.retain(|concern| !self.ids.handled.contains(&concern.id));
        let is_covered = unread.iter().all(|concern| concern.tenant.is_some() || concern.why == TodoReason::Reject);
        match fault {
            SourceError::Statement(error) if is_covered => {
                let mut tenants = BTreeSet::new();
                let mut tenantless = 0;
                for TodoOwner { id, tenant, .. } in unread {
                    let Some(tenant) = tenant else {
                        tenantless += 1;
                        continue;
                    };
                    tenants.insert(tenant);
                    self.ids.handled.insert(id);
                }
                let tenants = tenants.into_iter().collect();
                self.say(ReaderEvent::Failed { tenants, tenantless, trouble: Trouble::from(&error) })
            }
            other => Err(other),
        }
    }

    /// Reads one group of tenants. A spelling that turns up has its keys below the window read too, and at once: its
    /// watermark moves with this run.
    fn read_group(&mut self, part: Part, group: &Group, compare: Compare) -> Result<(), SourceError> {
        let mut spellings: BTreeMap<Tenant, Option<SourceTime>> = BTreeMap::new();
        let mut rows = 0;
        if let KeysToRead::In(span) = &group.keys {
            rows += self.read_span(part, group, span, compare, &mut spellings)?;
            let is_member = |tenant: &Tenant| group.members.iter().any(|member| member.tenant == *tenant);
            if let Some(after) = &span.after
                && compare == Compare::Keys
                && !spellings.keys().all(is_member)
            {
                // A spelling never seen before may have older rows, which its first window includes.
                let below = Span { after: None, upto: Some(after.clone()) };
                rows += self.read_span(part, group, &below, compare, &mut spellings)?;
            }
        }
        self.say(ReaderEvent::Read { part, rows, spellings })
    }

    fn read_span(
        &mut self,
        part: Part,
        group: &Group,
        span: &Span,
        compare: Compare,
        spellings: &mut BTreeMap<Tenant, Option<SourceTime>>,
    ) -> Result<u64, SourceError> {
        let mut cursor = KeyCursor::Start;
        let mut rows = 0;
        loop {
            let keys = self.patiently(|reader| reader.source.keys(&group.asked, span, &cursor, KEYS_A_PAGE))?;
            let Some(last) = keys.last().cloned() else { return Ok(rows) };
            let full_page = keys.len() >= KEYS_A_PAGE;
            let mut ours = Vec::with_capacity(keys.len());
            for key in keys {
                let is_member = group.members.iter().any(|member| member.tenant == key.tenant);
                if group.others == OtherSpellings::LeftOut && !is_member {
                    continue;
                }
                match spellings.get_mut(&key.tenant) {
                    Some(newest) => *newest = newest.take().max(key.time.clone()),
                    None => drop(spellings.insert(key.tenant.clone(), key.time.clone())),
                }
                ours.push(key);
            }
            let mut wanted = self.unsettled(part, group, ours, compare)?;
            // The server finds neighbours in the primary key on one page of its disk.
            wanted.sort_by(|a, b| a.id.cmp(&b.id));
            self.fetch_all(wanted, &mut rows)?;
            if !full_page {
                return Ok(rows);
            }
            cursor = KeyCursor::After(last);
        }
    }

    /// Drops the keys that need no document: the ledger holds them settled with this source time and tenant.
    fn unsettled(
        &mut self,
        part: Part,
        group: &Group,
        mut keys: Vec<Key>,
        compare: Compare,
    ) -> Result<Vec<FetchRequest>, SourceError> {
        keys.retain(|key| !self.ids.handled.contains(&key.id));
        if compare == Compare::Documents {
            let ids: Vec<&InvoiceId> = keys.iter().map(|key| &key.id).collect();
            let known = self.lookup.entries(&ids).map_err(SourceError::Consumer)?;
            let wanted = |(key, known)| Self::wanted(part, group, key, known, compare);
            return Ok(keys.into_iter().zip(known).map(wanted).collect());
        }
        let mut wanted = Vec::new();
        keys.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let matches = self.lookup.match_keys(&keys).map_err(SourceError::Consumer)?;
        for (key, found) in keys.into_iter().zip(matches) {
            match found {
                LedgerMatch::Settled => self.ids.note_in_source(part, &key.id).map_err(SourceError::Consumer)?,
                LedgerMatch::Unsettled(known) => wanted.push(Self::wanted(part, group, key, known, compare)),
            }
        }
        Ok(wanted)
    }

    /// The request for one key. Its row may be late if runs have read its time and the ledger does not have its id.
    fn wanted(part: Part, group: &Group, key: Key, known: Option<Entry>, compare: Compare) -> FetchRequest {
        let may_be_late = compare == Compare::Keys && known.is_none();
        let member = group.members.iter().find(|member| may_be_late && member.tenant == key.tenant);
        let late_by = member.zip(key.time.as_ref()).and_then(|(member, time)| member.late_by(time));
        let ticket = Ticket { late_by, ..Ticket::new(part, known) };
        FetchRequest { id: key.id, tenant: Some(key.tenant), ticket }
    }

    /// Hands over the documents of these ids and says which are gone. Counts the rows handed over, also if it fails.
    fn fetch_all(&mut self, wanted: Vec<FetchRequest>, rows: &mut u64) -> Result<(), SourceError> {
        let mut rest = wanted.into_iter().peekable();
        while rest.peek().is_some() {
            let ids: Vec<InvoiceId>;
            let mut page: HashMap<InvoiceId, FetchRequest>;
            {
                let chunk: Vec<FetchRequest> = rest.by_ref().take(DOCUMENTS_A_PAGE).collect();
                ids = chunk.iter().map(|wanted| wanted.id.clone()).collect();
                page = chunk.into_iter().map(|wanted| (wanted.id.clone(), wanted)).collect();
            }
            let asked = page.len();
            let fetched = self.fetch_page(&ids, &mut page);
            *rows += (asked - page.len()) as u64;
            fetched?;
            for (id, FetchRequest { tenant, ticket: Ticket { part, .. }, .. }) in page {
                self.ids.note_handled(part, &id);
                self.say(ReaderEvent::Gone { part, id, tenant })?;
            }
        }
        Ok(())
    }

    /// Hands over the rows of a page, and removes from `page` each that came. A row that the server refuses alone is a
    /// reject.
    fn fetch_page(
        &mut self,
        ids: &[InvoiceId],
        page: &mut HashMap<InvoiceId, FetchRequest>,
    ) -> Result<(), SourceError> {
        let refused = one_by_one::read(ids, |ids| self.patiently(|reader| reader.fetch(ids, page)))?;
        if refused.is_empty() {
            return Ok(());
        }
        let readable: Vec<InvoiceId> = ids.iter().filter(|id| !page.contains_key(*id)).cloned().collect();
        let unread: Vec<InvoiceId> = refused.iter().map(|(id, _)| id.clone()).collect();
        match one_by_one::blame(self, refused, &readable) {
            Err(SourceError::Statement(error)) => {
                self.say_withdrawn(&unread, page)?;
                Err(SourceError::Statement(error))
            }
            blamed => blamed?.into_iter().try_for_each(|(id, error)| match page.remove(&id) {
                Some(wanted) => self.reject(wanted, &error),
                None => Ok(()),
            }),
        }
    }

    /// An invoice of the ledger that was asked for alone and did not come is gone, also where the rows beside it cannot
    /// be read.
    fn say_withdrawn(
        &mut self,
        unread: &[InvoiceId],
        page: &HashMap<InvoiceId, FetchRequest>,
    ) -> Result<(), SourceError> {
        for FetchRequest { id, tenant, ticket: Ticket { part, .. } } in page.values() {
            if *part == Part::LedgerRest && !unread.contains(id) {
                self.ids.handled.insert(id.clone());
                self.say(ReaderEvent::Gone { part: *part, id: id.clone(), tenant: tenant.clone() })?;
            }
        }
        Ok(())
    }

    /// Hands over a row that the server does not return, as a reject.
    fn reject(&mut self, wanted: FetchRequest, error: &Error) -> Result<(), SourceError> {
        self.ids.note_in_source(wanted.ticket.part, &wanted.id).map_err(SourceError::Consumer)?;
        let fetched = one_by_one::unreadable(wanted.id, wanted.tenant, error);
        self.outbox.put(fetched, wanted.ticket, &self.lookup).map_err(SourceError::Consumer)
    }

    /// Asks for the rows of a page that have not come yet.
    fn fetch(&mut self, ids: &[InvoiceId], page: &mut HashMap<InvoiceId, FetchRequest>) -> Result<(), SourceError> {
        let (outbox, lookup, handed_over) = (&mut self.outbox, &self.lookup, &mut self.handed_over);
        let met = &mut self.ids;
        let rest: Vec<InvoiceId> = ids.iter().filter(|id| page.contains_key(*id)).cloned().collect();
        self.source.documents(&rest, &mut |fetched| match page.remove(fetched.id()) {
            Some(wanted) => {
                *handed_over += 1;
                met.note_in_source(wanted.ticket.part, &wanted.id)?;
                outbox.put(fetched, wanted.ticket, lookup)
            }
            None => Ok(()),
        })
    }

    /// The whole table in primary-key order, page by page.
    fn read_table(&mut self) -> Result<(), SourceError> {
        let mut after: Option<InvoiceId> = None;
        let mut rows = 0;
        loop {
            let read = match self.patiently(|reader| reader.read_rows(&mut after, &mut rows)) {
                Err(SourceError::Statement(_)) => self.read_around(&mut after, &mut rows)?,
                result => result?,
            };
            if read < ROWS_A_PAGE {
                break;
            }
        }
        self.say(ReaderEvent::Read { part: Part::Table, rows, spellings: BTreeMap::new() })
    }

    /// One page of the table. Moves `after` on with each row, also in a page that breaks off later, so
    /// that the next attempt goes on from there. Returns how many rows came.
    fn read_rows(&mut self, after: &mut Option<InvoiceId>, rows: &mut u64) -> Result<usize, SourceError> {
        let (outbox, lookup, handled_ids) = (&mut self.outbox, &self.lookup, &self.ids.handled);
        let handed_over = &mut self.handed_over;
        let from = after.clone();
        self.source.page(from.as_ref(), ROWS_A_PAGE, &mut |fetched| {
            let id = fetched.id().clone();
            *after = Some(id.clone());
            *handed_over += 1;
            if handled_ids.contains(&id) {
                return Ok(());
            }
            *rows += 1;
            outbox.put(fetched, Ticket::new(Part::Table, None), lookup)
        })
    }

    /// The next rows one by one, since a page with one of them cannot be read.
    fn read_around(&mut self, after: &mut Option<InvoiceId>, rows: &mut u64) -> Result<usize, SourceError> {
        let ids = self.patiently(|reader| reader.source.ids(after.as_ref(), ROWS_A_PAGE))?;
        let unvisited = ids.iter().filter(|id| !self.ids.handled.contains(*id));
        let mut page: HashMap<_, _> = unvisited.map(|id| (id.clone(), FetchRequest::scanned(id.clone()))).collect();
        // What does not come was no invoice to begin with.
        let asked = page.len();
        self.fetch_page(&ids, &mut page)?;
        *rows += (asked - page.len()) as u64;
        *after = ids.last().cloned().or(after.take());
        Ok(ids.len())
    }

    /// Tries again, from where it stopped, what failed because the connection was lost or because it took
    /// too long. Rows that came in between are progress.
    fn patiently<R>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<R, SourceError>) -> Result<R, SourceError> {
        loop {
            let before = self.handed_over;
            let mut result = attempt(self);
            // Rows that came are handed over before the reader waits for the server.
            if let Err(error) = self.outbox.flush(&self.lookup) {
                result = Err(SourceError::Consumer(error));
            }
            if self.handed_over > before {
                self.retry.progress();
            }
            let tell = &mut self.tell;
            let say = |trouble, pause| tell(ReaderEvent::Retrying { trouble, pause });
            if let Some(done) = self.retry.judge(result, say)? {
                return Ok(done);
            }
        }
    }

    /// Sends an event, after the rows of the open packet. It may still arrive before them, since they are checked on
    /// their way.
    fn say(&mut self, event: ReaderEvent) -> Result<(), SourceError> {
        self.outbox.flush(&self.lookup).and_then(|()| (self.tell)(event)).map_err(SourceError::Consumer)
    }
}

impl<T: FnMut(ReaderEvent) -> anyhow::Result<()>> RetryingSource for Reader<'_, T> {
    fn ask<R>(
        &mut self,
        mut question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>,
    ) -> Result<R, SourceError> {
        self.patiently(|reader| question(reader.source.as_mut()))
    }
}
