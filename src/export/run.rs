//! One run, from its start to its summary.

use super::carry_out::{Destination, carry_out};
use super::course::Course;
use super::inquiry::{Inquiry, ask_server, refuse_other_source, refuse_unknown_tenants};
use super::order::{Mode, Order};
use super::plan::StatePolicy;
use super::session::{Session, Site};
use crate::event::Event;
use crate::run::{Kind, Summary};
use crate::state::State;
use crate::tree::{Tree, mark};

/// Carries out one run and says what came of it.
pub fn run(order: &Order, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let course = Course::begin();
    let tell = &mut course.counting(tell);
    tell(Event::Started { kind: order.kind, dry_run: order.mode == Mode::DryRun });
    let inquiry = Inquiry::open(&order.access, order.retry_for, tell)?;
    inquiry.source.notices().into_iter().for_each(|notice| tell(Event::Notice(notice)));
    match order.mode {
        Mode::DryRun => dry_run(order, inquiry, &course, tell),
        Mode::Export => export(order, inquiry, &course, tell),
    }
}

fn export(
    order: &Order,
    mut inquiry: Inquiry,
    course: &Course,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let mut session = Session::open(order, &mut inquiry, tell)?;
    if order.kind == Kind::Incremental {
        session.back_up(order, tell)?;
    }
    let (run, carried_out) = session.on_record(order, course, tell, |site, tell| {
        let Site { state, present, writing } = site;
        inquiry.source.label(writing.run.id);
        carry_out(order, present, inquiry, Destination::Export { state, writing }, tell)
    })?;
    let Session { state, present, .. } = &session;
    let summary = carried_out.summary(order, &present.settings, Some(run), state.open_rejects()?, course);
    let closed = session.close(order);
    tell(Event::Finished(Box::new(summary.clone())));
    closed.map(|()| summary)
}

/// A dry run: the same reading and checking, no lock, no file, no folder, no state.
fn dry_run(
    order: &Order,
    mut inquiry: Inquiry,
    course: &Course,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let tree = Tree::open_existing(&order.output)?;
    let state = if order.policy == StatePolicy::Fresh { None } else { State::open_read_only(&order.state)? };
    let last = state.as_ref().map(State::last_time).transpose()?;
    order.place().judge(last.as_ref(), mark::of_output(&order.output)?.as_ref())?;
    if let Some(last) = &last {
        refuse_other_source(&order.state, last, inquiry.source.as_ref())?;
    }
    let present = ask_server(order, &mut inquiry, tell)?;
    refuse_unknown_tenants(order, &present.listed, state.as_ref(), &mut inquiry, tell)?;
    let open_rejects = state.as_ref().map_or(Ok(0), State::open_rejects)?;
    let destination = Destination::DryRun { state: state.as_ref(), tree: tree.as_ref() };
    let carried_out = carry_out(order, &present, inquiry, destination, tell)?;
    let summary = carried_out.summary(order, &present.settings, None, open_rejects, course);
    tell(Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}
