//! `state`.

use clap::ArgMatches;

use crate::cli::{Common, StateCommand};
use crate::report::Reporter;

pub(super) fn run(
    _common: &Common,
    _command: &StateCommand,
    _matches: &ArgMatches,
    _reporter: &Reporter,
) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}
