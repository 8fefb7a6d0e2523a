//! `verify`: does the tree hold what was exported, and was everything exported?

use std::collections::HashSet;
use std::io::{self, IsTerminal};

use clap::ArgMatches;

use super::consent;
use crate::cli::{Common, Verify};
use crate::config;
use crate::export::verify::findings::{Difference, Finding, Findings};
use crate::export::verify::{self, Mended, Verified};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::table::{Cell, Details, Table};

/// Something differs, or still does after it was to be mended.
const FOUND: u8 = 6;

pub(super) fn run(common: &Common, args: &Verify, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let task = config::verification(common, args, matches, super::starter(), super::OWN_CLOCKS, super::signals::watch)?;
    let confirm = |files, invoices| confirm(reporter, files, invoices);
    let verified = verify::verify(&task, &confirm, &mut |event| reporter.event(&event))?;
    reporter.details(&details(&verified));
    let differs = verified.differs();
    match verified.refused {
        Some(refused) => Err(refused),
        None => Ok(if differs { FOUND } else { 0 }),
    }
}

fn confirm(reporter: &Reporter, files: u64, invoices: u64) -> anyhow::Result<()> {
    let what = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    let question = format!("remove {what} (the ledger has {invoices} invoices)?");
    if io::stdin().is_terminal() {
        return consent::ask(reporter, &question);
    }
    Err(Refusal::Usage(format!("{question} there is no terminal to ask at; confirm with --prune-up-to {files}").into())
        .into())
}

fn details(verified: &Verified) -> Details {
    let Verified { findings, mended, refused } = verified;
    let left = mended.as_ref().map(|mended| &mended.left);
    let number = |number: u64| Cell::Number(number.cast_signed());
    let result = match (findings.number(), left.map(Findings::number)) {
        (0, _) => "nothing differs".to_owned(),
        (found, None) => format!("{found} differ"),
        (found, Some(left)) => format!("{found} differed, {left} still do"),
    };
    let mut facts = vec![
        ("result", Cell::text(result)),
        ("files_looked_at", number(findings.files)),
        ("differences", number(findings.number())),
        ("pending", number(findings.pending)),
        ("known_rejects", number(findings.rejected)),
    ];
    if let Some(Mended { run, counts, left }) = mended {
        facts.extend([
            ("run", Cell::Number(run.0)),
            ("written", number(counts.written)),
            ("removed", number(counts.removed)),
            ("rejected", number(counts.rejected)),
            ("left", number(left.number())),
        ]);
    }
    if let Some(refused) = refused {
        facts.push(("refused", Cell::text(format!("{refused:#}"))));
    }
    Details { facts, tables: vec![("findings", listed(findings, left)), ("kinds", kinds(findings, left))] }
}

fn kinds(findings: &Findings, left: Option<&Findings>) -> Table {
    let found = Difference::ALL.into_iter().filter(|kind| findings.number_of(*kind) > 0);
    let row = |kind: Difference| {
        let left = left.map(|left| left.number_of(kind).cast_signed());
        vec![
            Cell::text(kind.as_str()),
            Cell::Number(findings.number_of(kind).cast_signed()),
            left.map_or(Cell::None, Cell::Number),
            Cell::text(kind.remedy()),
        ]
    };
    Table { columns: &["difference", "found", "left", "what_to_do"], rows: found.map(row).collect() }
}

fn listed(findings: &Findings, left: Option<&Findings>) -> Table {
    let still = left.map(|left| left.listed().into_iter().map(Finding::key).collect::<HashSet<_>>());
    let row = |finding: &Finding| {
        let Finding { difference, tenant, id, path, detail } = finding;
        let outcome = still.as_ref().map(|still| if still.contains(&finding.key()) { "left" } else { "mended" });
        vec![
            Cell::text(difference.as_str()),
            tenant.as_ref().map(ToString::to_string).into(),
            id.as_ref().map(ToString::to_string).into(),
            path.clone().into(),
            Cell::text(detail),
            outcome.into(),
        ]
    };
    let rows = findings.listed().into_iter().map(row).collect();
    Table { columns: &["difference", "tenant", "id", "path", "detail", "outcome"], rows }
}
