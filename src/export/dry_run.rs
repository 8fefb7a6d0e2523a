//! A dry run: the same reading, checking and deciding as a run, without its lock, and without a change of any file,
//! folder or state. It begins as a run would, so that it finds in doubt what that would.

use super::carry_out::{Destination, carry_out};
use super::doubts::{self, Doubts};
use super::metrics::RunMetrics;
use super::options::{CommonOptions, ExportOptions};
use super::plan;
use super::server::{ServerSession, ServerSnapshot, take_snapshot};
use crate::event::{Event, Notice};
use crate::run::Summary;
use crate::state::State;
use crate::state::runs::LastKnownState;
use crate::state::supposition::Supposition;
use crate::tree::Tree;
use crate::tree::stage::{self, Unrecorded, Writer};

/// Says what the run would do.
pub(super) fn dry_run(
    options: &ExportOptions,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let ExportOptions { common, source, .. } = options;
    let tree = Tree::open_existing(&common.paths.output)?;
    let mut read = common.location().open_read_only()?;
    let known = read.as_ref().map(|(state, last, _)| (state, last));
    let mut snapshot = take_snapshot(common, &mut server_session, known, tell)?;
    snapshot.remind(tell);
    if let Some((state, last, begun)) = &mut read {
        let supposition = suppose(common, state, last, *begun, &snapshot, tell)?;
        state.suppose(supposition)?;
    }
    let state = read.as_ref().map(|(state, ..)| state);
    let destination = Destination::DryRun { state, tree: tree.as_ref() };
    let result = carry_out(common, source, &snapshot, server_session, destination, tell)?;
    let open_rejects = state.map_or(Ok(0), State::open_rejects)? + result.new_rejects - result.closed_rejects;
    let summary = result.summary(common, &snapshot.parameters, None, open_rejects, metrics);
    tell(Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}

/// What the run would change before it reads anything.
fn suppose(
    options: &CommonOptions,
    state: &State,
    last: &LastKnownState,
    begun: plan::StartMode,
    snapshot: &ServerSnapshot,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Supposition> {
    let ServerSnapshot { clock, clocks, server, parameters, .. } = snapshot;
    let unrecorded = match stage::unrecorded_without_lock(&options.paths.output)? {
        (unrecorded, Writer::Died) => unrecorded,
        // The lists of a run at work say nothing of a dead one.
        (_, Writer::AtWork) => Unrecorded::default(),
    };
    let files = unrecorded.targets.len() + unrecorded.movers.len();
    if files > 0 {
        tell(Event::Notice(Notice::Recovering { files: files as u64 }));
    }
    let found = doubts::StartFacts { start: begun, server, clocks, at: options.surroundings.starter.at };
    let Doubts { doubts, .. } = doubts::doubts(last, &found, options.margins.safety_lag);
    doubts.iter().for_each(|doubt| tell(Event::Notice(Notice::Doubt(*doubt))));
    let boundary = parameters.boundary.clone();
    let pull_backs = if parameters.moves_watermarks() {
        plan::pull_backs(&state.tenants_ahead_of(Some(&boundary))?, &boundary)
    } else {
        Vec::new()
    };
    let times_again = doubts::times_again(last, clock, clocks, options.margins.safety_lag);
    Ok(Supposition { unrecorded, doubts, times_again, pull_backs, boundary })
}
