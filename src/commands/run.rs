//! `run`: export invoices.

use clap::ArgMatches;

use super::{signals, surroundings};
use crate::cli::{Common, Run};
use crate::report::Reporter;
use crate::run::Outcome;
use crate::{config, export};

/// Something failed or was newly rejected, though the run is done.
const PARTIAL: u8 = 3;

/// Carries out one run.
pub(super) fn run(common: &Common, args: &Run, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let mut options =
        config::export_options(common, args, matches, surroundings::current(surroundings::own_zone(common)))?;
    options.common.surroundings.cancel = signals::watch()?;
    let summary = export::run(options, &mut |event| reporter.event(&event))?;
    Ok(match summary.outcome {
        Outcome::Success => 0,
        Outcome::Partial => PARTIAL,
    })
}
