//! The questions that a run asks before it reads rows. A server that is just being restarted, or takes
//! no further connection for a moment, costs a pause here as it does later.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};

use super::patience::Patience;
use super::{Order, second_source};
use crate::event::{Event, Notice};
use crate::invoice::SourceTime;
use crate::refusal::Refusal;
use crate::run::{Cancel, Kind, RunId};
use crate::source::{self, Fault, Listed, Replication, Source, TableIdentity};
use crate::state::State;
use crate::state::runs::LastTime;
use crate::window::{Clock, OpenWork, settled_below};

pub(super) struct Inquiry {
    pub source: Box<dyn Source>,
    patience: Patience,
}

impl Inquiry {
    pub(super) fn open(order: &Order, tell: &mut dyn FnMut(Event)) -> Result<Self, Fault> {
        let mut patience = Patience::new(order.retry_for, &Cancel::default());
        let source = patience.insist(tell, || source::open(&order.access))?;
        Ok(Self { source, patience })
    }

    /// One more connection to the server that answered at the start of the run.
    pub(super) fn again(order: &Order, server: &str, run: RunId, tell: &mut dyn FnMut(Event)) -> Result<Self, Fault> {
        let mut patience = Patience::new(order.retry_for, &Cancel::default());
        let source = patience.insist(tell, || second_source(&order.access, server, Some(run)))?;
        Ok(Self { source, patience })
    }

    pub(super) fn ask<R>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        mut question: impl FnMut(&mut dyn Source) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Self { source, patience } = self;
        patience.insist(tell, || question(source.as_mut()))
    }
}

/// What is fixed once a run has looked at the server.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub kind: Kind,
    pub boundary: SourceTime,
    pub since: Option<SourceTime>,
    pub work: OpenWork,
    pub overlap: Duration,
    pub settled_below: SourceTime,
    /// The source's table before any row was read; None: it cannot be told from others.
    pub table: Option<TableIdentity>,
}

impl Settings {
    pub(super) fn moves_watermarks(&self) -> bool {
        self.kind == Kind::Incremental
    }
}

/// What the server said before anything was read.
pub(super) struct Present {
    pub clock: Clock,
    /// What our own clock showed then.
    pub at: DateTime<Utc>,
    pub server: String,
    pub listed: Vec<Listed>,
    pub settings: Settings,
}

/// Who answers, what time it is there, what is still open: in this order and before any row is read.
/// What was committed before the look at open work is visible to later reads, what was not is open.
pub(super) fn ask_server(order: &Order, inquiry: &mut Inquiry, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Present> {
    let server = inquiry.ask(tell, |source| source.identity())?;
    let table = inquiry.ask(tell, |source| source.table_identity())?;
    let clock = inquiry.ask(tell, |source| source.clock())?;
    let at = (order.now)();
    let work = inquiry.ask(tell, |source| source.open_work())?;
    match &work {
        OpenWork::Unknown => tell(Event::Notice(Notice::OpenWorkUnknown)),
        OpenWork::Prepared => tell(Event::Notice(Notice::PreparedWork)),
        OpenWork::Since(since) if work.reaches_below(&clock.boundary(order.safety_lag)) => {
            tell(Event::Notice(Notice::OpenWork { since: since.clone() }));
        }
        OpenWork::Since(_) | OpenWork::None => {}
    }
    match inquiry.ask(tell, |source| source.replication())? {
        Some(Replication::Behind(behind)) if behind.is_zero() => {}
        Some(Replication::Behind(behind)) => tell(Event::Notice(Notice::Replica { behind: Some(behind) })),
        Some(Replication::Stopped) => tell(Event::Notice(Notice::Replica { behind: None })),
        None => {}
    }
    let boundary = clock.boundary(order.safety_lag);
    let boundary = order.until.clone().filter(|until| *until < boundary).unwrap_or(boundary);
    tell(Event::Boundary(boundary.clone()));
    let settings = Settings {
        kind: order.kind,
        since: order.since.clone(),
        overlap: order.overlap,
        settled_below: settled_below(&boundary, &work, order.overlap),
        boundary,
        work,
        table,
    };
    let listed = if order.kind == Kind::Full && order.tenants.is_empty() {
        Vec::new()
    } else {
        tell(Event::ListingTenants);
        inquiry.ask(tell, |source| source.tenants())?
    };
    for Listed { spelling, newest } in &listed {
        if let Some(newest) = newest.clone().filter(|newest| *newest > clock.now) {
            tell(Event::Notice(Notice::TimesAhead { tenant: spelling.clone(), newest }));
        }
    }
    Ok(Present { clock, at, server, listed, settings })
}

/// A state describes one source; another one's invoices must not be taken for its own.
pub fn refuse_other_source(state: &Path, last: &LastTime, source: &dyn Source) -> anyhow::Result<()> {
    let given = source.name().0;
    match &last.source {
        Some(recorded) if *recorded != given => {
            Err(Refusal::OtherSource { state: state.to_path_buf(), recorded: recorded.clone(), given }.into())
        }
        _ => Ok(()),
    }
}

pub(super) fn refuse_unknown_tenants(
    order: &Order,
    listed: &[Listed],
    state: Option<&State>,
    inquiry: &mut Inquiry,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if order.tenants.is_empty() {
        return Ok(());
    }
    let known = state.map_or(Ok(Vec::new()), State::tenants).context("cannot look for tenants")?;
    for tenant in &order.tenants {
        let is_known = known.iter().any(|known| known.tenant == *tenant)
            || listed.iter().any(|listed| listed.spelling == *tenant)
            || inquiry.ask(tell, |source| source.has_tenant(tenant))?;
        if !is_known {
            return Err(Refusal::UnknownTenant(tenant.to_string()).into());
        }
    }
    Ok(())
}
