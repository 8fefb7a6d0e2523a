//! `history`.

use crate::cli::{Common, History};
use crate::report::Reporter;

pub(super) fn run(_common: &Common, _args: &History, _reporter: &Reporter) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}
