//! `why`.

use clap::ArgMatches;

use crate::cli::{Common, Why};
use crate::report::Reporter;

pub(super) fn run(_common: &Common, _args: &Why, _matches: &ArgMatches, _reporter: &Reporter) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}
