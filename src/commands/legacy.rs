//! `import-legacy-state` and `export-legacy-state`.

use crate::cli::{Common, ExportLegacyState, ImportLegacyState};
use crate::report::Reporter;

pub(super) fn import(_common: &Common, _args: &ImportLegacyState, _reporter: &Reporter) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}

pub(super) fn export(_common: &Common, _args: &ExportLegacyState, _reporter: &Reporter) -> anyhow::Result<u8> {
    anyhow::bail!("not there yet")
}
