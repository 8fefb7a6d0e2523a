//! `status`.

use clap::ArgMatches;

use crate::cli::{Common, Status};
use crate::report::Reporter;

pub(super) fn run(_common: &Common, _args: &Status, _matches: &ArgMatches, _reporter: &Reporter) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}
