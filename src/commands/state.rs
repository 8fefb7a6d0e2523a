//! `state`: correct, back up, restore and check what the runs remember.

use std::path::Path;

use anyhow::ensure;
use clap::ArgMatches;

use super::{consent, past};
use crate::cli::{AdoptSource, Backup, Changing, Check, Common, Reset, Restore, Set, StateCommand};
use crate::event::{Event, Life};
use crate::export::Inquiry;
use crate::invoice::{SourceTime, Tenant};
use crate::lock::{self, Held};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::table::{Cell, Details, Table};
use crate::run::Starter;
use crate::state::State;
use crate::state::backup::{self, Occasion};
use crate::state::changes::{Change, ChangeKind, Moved};
use crate::state::integrity::{Depth, Finding, RUN_AGAIN};
use crate::state::restore::Replaced;
use crate::tree::{Tree, mark};
use crate::window::{BASELINE, earlier};
use crate::{config, export};

/// `state check` found something.
const FOUND: u8 = 6;

pub(super) fn run(
    common: &Common,
    command: &StateCommand,
    matches: &ArgMatches,
    reporter: &Reporter,
) -> anyhow::Result<u8> {
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    match command {
        StateCommand::Set(args) => set(common, args, matches, reporter),
        StateCommand::Reset(args) => reset(common, args, reporter),
        StateCommand::Backup(args) => back_up(common, args, reporter),
        StateCommand::Backups => backups(common, reporter),
        StateCommand::Restore(args) => restore(common, args, reporter),
        StateCommand::Check(args) => check(common, args, reporter),
        StateCommand::AdoptSource(args) => adopt_source(common, args, matches, reporter),
    }
}

fn set(common: &Common, args: &Set, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let tenant = Tenant(args.tenant.clone());
    let to = config::required_time(&args.time)?;
    let state = super::look(common)?;
    let tell = &mut |event| reporter.event(&event);
    let access = config::access(common, &args.names, matches)?;
    let mut inquiry = Inquiry::open(&access, args.retries.retry_for, tell)?;
    export::refuse_other_source(state.path(), &state.last_time()?, inquiry.source.as_ref())?;
    let old = known_watermark(&state, &tenant, &mut inquiry, tell)?;
    let now = inquiry.ask(tell, |source| source.clock())?.now;
    if to > now {
        return Err(Refusal::Usage(format!("{to} lies ahead of the server's clock ({now})")).into());
    }
    let from = old.as_ref().map_or(BASELINE, SourceTime::as_str);
    let meaning = if old.as_ref() < Some(&to) {
        "what lies in between counts as exported, but for what must still be read again"
    } else {
        "what lies above will be fetched and compared again"
    };
    let question = format!("move the watermark of tenant {tenant} from {from} to {to} ({meaning})?");
    consent::agreed(reporter, &args.changing, &question)?;
    let (held, mut state, starter) = locked(common, "state set", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::Set), starter.at)?;
    let below = earlier(&to, args.margins.overlap);
    let change = Change::new(ChangeKind::Set, &starter, args.changing.reason.as_deref());
    let moved = state.set_watermark(&tenant, &to, below, &change)?;
    state.close()?;
    drop(held);
    reporter.details(&moved_details(&moved, &backup));
    Ok(0)
}

/// The tenant's watermark; a tenant that neither the state nor the source knows is a mistype.
fn known_watermark(
    state: &State,
    tenant: &Tenant,
    inquiry: &mut Inquiry,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Option<SourceTime>> {
    let known = state.tenants()?.into_iter().find(|known| known.tenant == *tenant);
    match known {
        Some(known) => Ok(known.watermark),
        None if inquiry.ask(tell, |source| source.has_tenant(tenant))? => Ok(None),
        None => Err(Refusal::UnknownTenant(tenant.to_string()).into()),
    }
}

fn reset(common: &Common, args: &Reset, reporter: &Reporter) -> anyhow::Result<u8> {
    let known: Vec<Tenant> = super::look(common)?.tenants()?.into_iter().map(|known| known.tenant).collect();
    let chosen = match &args.tenant {
        None => known,
        Some(name) if known.iter().any(|tenant| tenant.as_str() == name) => vec![Tenant(name.clone())],
        Some(name) => return Err(Refusal::TenantNotInState(name.clone()).into()),
    };
    let whose = args.tenant.as_ref().map_or_else(
        || format!("the watermarks of all {} tenants", chosen.len()),
        |tenant| format!("the watermark of tenant {tenant}"),
    );
    let question = format!("take away {whose} (the next incremental run fetches and compares every invoice)?");
    consent::agreed(reporter, &args.changing, &question)?;
    let (held, mut state, starter) = locked(common, "state reset", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::Reset), starter.at)?;
    let change = Change::new(ChangeKind::Reset, &starter, args.changing.reason.as_deref());
    let moved = state.reset_watermarks(&chosen, &change)?;
    state.close()?;
    drop(held);
    reporter.details(&moved_details(&moved, &backup));
    Ok(0)
}

fn moved_details(moved: &Moved, backup: &Path) -> Details {
    Details {
        facts: vec![
            ("compared_again_by_the_next_incremental_run", Cell::Number(moved.unsettled.cast_signed())),
            ("state_before", Cell::text(backup.display().to_string())),
        ],
        tables: vec![("watermarks", past::moves(&moved.watermarks))],
    }
}

fn back_up(common: &Common, args: &Backup, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    let path = match &args.file {
        Some(file) => state.back_up_to(file).map(|()| file.clone()),
        None => state.back_up(Occasion::Manual, super::now()),
    }?;
    reporter.details(&Details { facts: vec![("backup", Cell::text(path.display().to_string()))], tables: Vec::new() });
    Ok(0)
}

fn backups(common: &Common, reporter: &Reporter) -> anyhow::Result<u8> {
    let rows = backup::list(&config::state_path(common))?.into_iter().map(|backup| {
        vec![
            Cell::text(backup.made.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
            Cell::text(backup.occasion),
            Cell::Bytes(backup.size),
            Cell::text(backup.path.display().to_string()),
        ]
    });
    reporter.table(&Table { columns: &["made", "occasion", "bytes", "file"], rows: rows.collect() });
    Ok(0)
}

fn restore(common: &Common, args: &Restore, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = config::state_path(common);
    let latest = args.file.as_os_str() == "latest";
    let from = if latest { backup::latest(&state)? } else { Some(args.file.clone()) };
    let Some(from) = from else {
        return Err(Refusal::Usage(format!("there is no backup beside {}", state.display())).into());
    };
    // Looking for the lock would make folders in a mistyped output.
    if args.adopt_tree {
        if !common.output.is_dir() {
            return Err(
                Refusal::Usage(format!("there is no folder {}; check --output", common.output.display())).into()
            );
        }
    } else if mark::look(&common.output)?.is_none() {
        return Err(Refusal::MarkMissing { output: common.output.clone(), state: from }.into());
    }
    let adopting = if args.adopt_tree {
        format!(" and make {} its tree, whatever mark that has", common.output.display())
    } else {
        String::new()
    };
    let question = format!(
        "put {} in the place of {}{adopting} (what happened since is read again)?",
        from.display(),
        state.display()
    );
    consent::agreed(reporter, &args.changing, &question)?;
    let starter = super::starter();
    let (tree, held) = lock(common, "state restore", &args.changing, &starter, reporter)?;
    let reason = args.changing.reason.as_deref();
    let (replaced, next) = if args.adopt_tree {
        let next = "run --mode full: it puts back what the tree lacks, and compares every file";
        (held.restore_state_and_adopt_tree(&tree, &from, reason)?, next)
    } else {
        let next = "the next incremental run reads what happened since; if the tree is newer than the backup, it compares every invoice with its file";
        (held.restore_state(&tree, &from, reason)?, next)
    };
    let replaced = match replaced {
        Replaced::Nothing => Cell::None,
        Replaced::BackedUp(path) | Replaced::SetAside(path) => Cell::text(path.display().to_string()),
    };
    let facts = vec![
        ("restored", Cell::text(from.display().to_string())),
        ("state_before", replaced),
        ("next", Cell::text(next)),
    ];
    reporter.details(&Details { facts, tables: Vec::new() });
    Ok(0)
}

fn check(common: &Common, args: &Check, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    let mut findings = state.check(if args.deep { Depth::Deep } else { Depth::Quick })?;
    findings.extend(tree_findings(common, &state)?);
    let rows: Vec<Vec<Cell>> =
        findings.iter().map(|finding| vec![Cell::text(&finding.what), Cell::text(finding.remedy.as_ref())]).collect();
    let found = !rows.is_empty();
    let facts = vec![
        ("state", Cell::text(state.path().display().to_string())),
        ("result", Cell::text(if found { "something was found" } else { "whole, and it holds together" })),
    ];
    let findings = Table { columns: &["finding", "what_to_do"], rows };
    reporter.details(&Details { facts, tables: vec![("findings", findings)] });
    Ok(if found { FOUND } else { 0 })
}

/// Whether state and tree belong together, and what a dead run left between them.
fn tree_findings(common: &Common, state: &State) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (last, mark) = (state.last_time()?, mark::look(&common.output)?);
    if last.published_run > 0 || mark.is_some() {
        let refused = last.refuse_other_tree(mark.as_ref(), &common.output, state.path()).err();
        findings.extend(refused.as_ref().map(Finding::from));
    }
    if let Some(run) = state.unfinished_run()?.filter(|run| past::life(run) == Some(Life::Dead)) {
        findings.push(Finding::new(format!("run {} ({}) died", run.id, run.kind), RUN_AGAIN));
    }
    Ok(findings)
}

fn adopt_source(common: &Common, args: &AdoptSource, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    let access = config::access(common, &args.names, matches)?;
    let inquiry = Inquiry::open(&access, args.retries.retry_for, &mut |event| reporter.event(&event))?;
    let given = inquiry.source.name().0;
    let recorded = state.last_time()?.source;
    ensure!(recorded.as_ref() != Some(&given), "the state belongs to {given} already; nothing was changed");
    let from = recorded.as_deref().unwrap_or("no source");
    let question = format!(
        "let the state belong to {given} instead of {from} (it must be the same table; the next incremental run compares all keys)?"
    );
    consent::agreed(reporter, &args.changing, &question)?;
    let (held, mut state, starter) = locked(common, "state adopt-source", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::AdoptSource), starter.at)?;
    let change = Change::new(ChangeKind::AdoptSource, &starter, args.changing.reason.as_deref());
    state.adopt_source(&given, &change)?;
    state.close()?;
    drop(held);
    let facts = vec![
        ("source_before", Cell::from(recorded)),
        ("source", Cell::text(given)),
        ("state_before", Cell::text(backup.display().to_string())),
    ];
    reporter.details(&Details { facts, tables: Vec::new() });
    Ok(0)
}

/// The lock, and the state to be changed.
fn locked(
    common: &Common,
    purpose: &str,
    changing: &Changing,
    reporter: &Reporter,
) -> anyhow::Result<(Held, State, Starter)> {
    let starter = super::starter();
    let (_, held) = lock(common, purpose, changing, &starter, reporter)?;
    let state = held.open_state()?;
    let state = state.ok_or_else(|| Refusal::NoState { state: config::state_path(common) })?;
    Ok((held, state, starter))
}

fn lock(
    common: &Common,
    purpose: &str,
    changing: &Changing,
    starter: &Starter,
    reporter: &Reporter,
) -> anyhow::Result<(Tree, Held)> {
    let state = config::state_path(common);
    let mut tell = |event| reporter.event(&event);
    lock::acquire(&common.output, &state, purpose, starter, changing.lock_wait, &mut tell)
}
