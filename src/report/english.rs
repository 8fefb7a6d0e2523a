//! The English of runs. Refusals and reasons word themselves, because errors and the state quote
//! them in English too.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::words::{Mode, Tally, Words, ids};
use crate::effort::Effort;
use crate::event::{Doubt, Life, Notice};
use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::refusal::{Holder, Refusal, Trouble, holder_text};
use crate::run::{Counts, Kind, Outcome, Summary, WhyKept};
use crate::window::BASELINE;

pub(super) struct English;

fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// What was done, and in a dry run what would be.
fn done(mode: Mode, participle: &str) -> String {
    if mode.dry_run { format!("would be {participle}") } else { participle.to_owned() }
}

fn span(duration: Duration) -> String {
    match duration {
        short if short < Duration::from_secs(1) => format!("{} ms", short.as_millis().max(1)),
        middling if middling < Duration::from_secs(60) => format!("{:.1} s", middling.as_secs_f64()),
        long => humantime::format_duration(Duration::from_secs(long.as_secs())).to_string(),
    }
}

fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::OtherServer => "another server answers than last time",
        Doubt::ClockMoved => {
            "the server's clock or its time zone moved against ours or the time that passed, or went back"
        }
        Doubt::TimeUnproven => {
            "this machine was restarted since all keys were last compared, or it is another one, so that the clocks may have been set unnoticed"
        }
        Doubt::StateRestored => "the tree is newer than the state, which was restored from a backup",
    }
}

impl Words for English {
    fn dry_run(&self) -> String {
        "dry run: everything is read and checked, nothing is written".to_owned()
    }

    fn mode(&self, kind: Kind) -> String {
        format!("mode: {}", kind.as_str())
    }

    fn title(&self, kind: Kind) -> String {
        match kind {
            Kind::Verify => "verification".to_owned(),
            Kind::Full | Kind::Incremental | Kind::Backfill => format!("{} export", kind.as_str()),
        }
    }

    fn waiting(&self, holder: Option<&Holder>, at_most: Duration) -> String {
        format!("waiting for another run to end, at most {}: {}", span(at_most), holder_text(holder))
    }

    fn boundary(&self, boundary: &SourceTime) -> String {
        format!("boundary: {boundary}")
    }

    fn listing_tenants(&self) -> String {
        "listing tenants...".to_owned()
    }

    fn progress(&self, mode: Mode, invoices: u64) -> String {
        let verb = if mode.dry_run { "checked" } else { "exported" };
        format!("{} {verb} so far...", count(invoices, "invoice"))
    }

    #[expect(clippy::too_many_lines, reason = "a list of sentences")]
    fn notice(&self, notice: &Notice) -> String {
        match notice {
            Notice::MissingIndex { statement } => {
                format!("the index for incremental runs is missing, so they are slow; create it with: {statement}")
            }
            Notice::OpenWorkUnknown => {
                "the account lacks the PROCESS privilege and cannot see open transactions: only --overlap covers late commits"
                    .to_owned()
            }
            Notice::OpenWorkUnclear => {
                "the server does not say reliably which transactions are open, so the next run compares all keys; if this goes on, look for a monitor that reads information_schema.INNODB_TRX many times a second, or query it and information_schema.PROCESSLIST to see what fails"
                    .to_owned()
            }
            Notice::PreparedWork => {
                "a transaction is prepared in the server and no client holds it: until it ends (XA RECOVER lists it; XA COMMIT or XA ROLLBACK), every run compares all keys"
                    .to_owned()
            }
            Notice::OpenWork { since } => {
                format!("work has been open in the server since {since}; the next run reads again from before it")
            }
            Notice::Replica { behind: Some(behind) } => {
                format!("the server is a replica, {} behind its primary; later runs export what it has not yet", span(*behind))
            }
            Notice::Replica { behind: None } => {
                "the server is a replica whose replication is stopped: nothing newer is exported until it goes on".to_owned()
            }
            Notice::TakingOver { output } => {
                format!("there is no state, but {} holds exported files: this run takes them over", output.display())
            }
            Notice::SetAside { to } => format!("the old state was set aside to {}, not deleted", to.display()),
            Notice::NoBackup { error } => format!("the run goes on, but the state could not be backed up: {error}"),
            Notice::Recovering { files } => {
                format!("an earlier run died; {} it left in doubt are read again", count(*files, "file"))
            }
            Notice::Doubt(Doubt::StateRestored) => {
                format!("{}: every invoice is compared with its file", doubt(Doubt::StateRestored))
            }
            Notice::Doubt(reason) => format!("{}: all keys are compared, without a lower bound", doubt(*reason)),
            Notice::PulledBack { tenant, from, to } => {
                format!("tenant {tenant}: its watermark {from} lay ahead of the boundary and is pulled back to {to}")
            }
            Notice::NotRemoved { path, detail } => format!("cannot remove {path}: {detail}"),
            Notice::LeftInPlace { path } => {
                format!("the file {path} stays though no invoice names it, because its content is not what was exported")
            }
            Notice::StaysInPlace { why, files, example } => {
                let because = match why {
                    Some(WhyKept::Number) => "their ids carry other numbers now, as when ids are used again",
                    Some(WhyKept::Tenant) => "their ids belong to other tenants now",
                    Some(WhyKept::Table) => {
                        "it is not proven that the table is the one they came from (it, or the server, may have been restored, emptied, altered or restarted); a full run reads every row anew, and later moves are believed again"
                    }
                    None => "a run of an earlier version died before it had recorded what it wrote there",
                    Some(WhyKept::NotRemoved) => "they could not be removed",
                };
                format!(
                    "{} kept that no invoice names any more ({example}): {because}; `verify` lists them, --prune-leftovers removes them",
                    count(*files, "file")
                )
            }
            Notice::TableUnknown => {
                "the source does not show whether its table is the one of before (on a server that takes the PROCESS privilege, and InnoDB), so files of moved invoices are always kept".to_owned()
            }
            Notice::TimesAhead { tenant, newest } => format!(
                "tenant {tenant} has source times ahead of the server's clock (up to {newest}); they are exported when their time has come, or by a full run; if the application writes in another time zone than the server's, name it with --time-zone, for example +08:00"
            ),
            Notice::Late { by, overlap } => format!(
                "invoices arrived up to {} below the watermark, and --overlap is {}: make it at least twice as long as that, or find what commits so late (transactions that stay open, a clock that is behind, an application in another time zone: --time-zone)",
                span(*by),
                span(*overlap)
            ),
            Notice::Retrying { trouble, pause } => {
                format!("{}; trying again in {:.1} s", self.trouble(trouble), pause.as_secs_f64())
            }
            Notice::Unread { invoices, trouble } => format!(
                "{} without a known tenant could not be read: {}; the next run reads them again",
                count(*invoices, "invoice"),
                self.trouble(trouble)
            ),
            Notice::WithoutTime { invoices } => format!(
                "{} no usable source time; changes to such rows are seen by full runs only",
                if *invoices == 1 { "1 invoice has".to_owned() } else { format!("{invoices} invoices have") }
            ),
            Notice::WithoutTenant { invoices, more, some } => format!(
                "{}{} no tenant (ids {}) and so no folder to go to: set the tenant{}",
                if *more { "more than " } else { "" },
                if *invoices == 1 { "1 invoice has".to_owned() } else { format!("{invoices} invoices have") },
                ids(*invoices, some),
                if *more { "; a full run names all of them" } else { "" }
            ),
            Notice::TimeUnproven { runs, compared } => format!(
                "{} since {} began on another host or after a restart than the run before; the clocks may have been set unnoticed, so all keys are compared once a day",
                count(*runs, "run"),
                compared.as_deref().unwrap_or("the state was made")
            ),
            Notice::NoSource => {
                "no lag is shown, because no source is given; name it with --source or INVOICE_EXPORT_SOURCE".to_owned()
            }
            Notice::SourceSilent => "no lag is shown, because the source does not answer".to_owned(),
            Notice::JudgedByOwnClock => {
                "--stale-after goes by this machine's clock: stale is whose last incremental run failed or is older".to_owned()
            }
            Notice::RunUnfinished { run, kind, host, started, invoices, life } => {
                let who = format!("run {run} ({kind}), started {started}");
                let come = count(*invoices, "invoice");
                match life {
                    Life::Alive => format!("{who}, is at work: {come} so far"),
                    Life::Unknown => format!("{who} on {host}, has not ended: {come} so far"),
                    Life::Dead => format!("{who}, died after {come}; the next run makes it good"),
                }
            }
            Notice::Stale { tenants, of, after } => {
                let after = humantime::format_duration(*after);
                format!("stale: {tenants} of {} (--stale-after {after})", count(*of, "tenant"))
            }
        }
    }

    fn tenant_started(
        &self,
        kind: Kind,
        tenant: &Tenant,
        after: Option<&SourceTime>,
        upto: Option<&SourceTime>,
    ) -> String {
        let upto = upto.map_or("...", SourceTime::as_str);
        match (kind, after) {
            (Kind::Full, _) => format!("tenant {tenant}: started"),
            (Kind::Incremental, None) => format!("tenant {tenant}: first export, from the baseline {BASELINE}"),
            (Kind::Backfill | Kind::Verify, None) => format!("tenant {tenant}: {BASELINE} -> {upto}"),
            (Kind::Incremental | Kind::Backfill | Kind::Verify, Some(after)) => {
                format!("tenant {tenant}: {after} -> {upto}")
            }
        }
    }

    fn tenant_done(&self, mode: Mode, tenant: &Tenant, counts: &Counts) -> String {
        let exported = mode.exported(counts);
        let what = match mode.kind {
            Kind::Full if mode.dry_run => "checked".to_owned(),
            Kind::Full => "done".to_owned(),
            Kind::Incremental if exported == 0 => "nothing new".to_owned(),
            Kind::Incremental => format!("{} {}", count(exported, "new invoice"), done(mode, "exported")),
            Kind::Backfill | Kind::Verify if exported == 0 => "nothing in this window".to_owned(),
            Kind::Backfill | Kind::Verify => format!("{} {}", count(exported, "invoice"), done(mode, "exported")),
        };
        match counts.rejected {
            0 => format!("tenant {tenant}: {what}"),
            rejected => format!("tenant {tenant}: {what}, {rejected} cannot be exported"),
        }
    }

    fn tenant_counts(&self, tenant: &Tenant, counts: &Counts) -> String {
        let Counts { seen, written, unchanged, rejected, gone, late, late_by: _, removed, bytes } = counts;
        format!(
            "tenant {tenant}: seen {seen}, written {written}, unchanged {unchanged}, rejected {rejected}, gone {gone}, late {late}, removed {removed}, {}",
            ByteSize::b(*bytes)
        )
    }

    fn tenant_failed(&self, tenant: &Tenant, error: &str) -> String {
        format!("tenant {tenant}: failed: {error}")
    }

    fn rejected(&self, tenant: Option<&Tenant>, id: &InvoiceId, number: Option<&str>, reason: &Reason) -> String {
        let tenant = tenant.map_or("unknown tenant".to_owned(), |tenant| format!("tenant {tenant}"));
        let invoice = number.map_or(format!("invoice id {id}"), |number| format!("invoice {number} (id {id})"));
        format!("{tenant}: {invoice} cannot be exported: {reason}")
    }

    fn more_rejected(&self, more: u64) -> String {
        format!("... and {more} more that cannot be exported")
    }

    fn finished(&self, mode: Mode, summary: &Summary) -> String {
        let what = match mode.dry_run {
            true => format!("{} dry run", mode.kind.as_str()),
            false => format!("{} export", mode.kind.as_str()),
        };
        let failed = summary.failed_tenants.len() as u64;
        let troubles = [
            (failed, format!("{} failed", count(failed, "tenant"))),
            (summary.new_rejects, format!("{} cannot be exported", count(summary.new_rejects, "more invoice"))),
            (summary.unread, format!("{} could not be read", count(summary.unread, "invoice"))),
        ];
        let troubles: Vec<_> = troubles.into_iter().filter(|(number, _)| 0 < *number).map(|(_, text)| text).collect();
        match summary.outcome {
            Outcome::Success if mode.dry_run => format!("{what} complete, nothing was written!"),
            Outcome::Success => format!("{what} complete!"),
            Outcome::Partial => format!("{what} done, but {}", troubles.join(" and ")),
        }
    }

    fn tenants(&self, _kind: Kind, tenants: u64) -> String {
        format!("tenants: {tenants}")
    }

    fn exported(&self, mode: Mode, invoices: u64) -> String {
        let noun = if mode.kind == Kind::Incremental { "new invoice" } else { "invoice" };
        format!("{}: {}", done(mode, "exported"), count(invoices, noun))
    }

    fn state(&self, mode: Mode, state: &Path) -> String {
        let untouched = if mode.dry_run { " (untouched)" } else { "" };
        format!("state: {}{untouched}", state.display())
    }

    fn window(&self, since: Option<&SourceTime>, boundary: &SourceTime) -> String {
        format!("window: {} -> {boundary}", since.map_or(BASELINE, SourceTime::as_str))
    }

    fn tally(&self, mode: Mode, tally: Tally, number: u64) -> String {
        match tally {
            Tally::Unchanged => format!("unchanged: {} whose file was right already", count(number, "invoice")),
            Tally::Gone => format!("gone: {} that ceased to be an invoice before it was read", count(number, "row")),
            Tally::Late { by } => {
                format!("late: {}, up to {} below the watermark, unseen until now", count(number, "invoice"), span(by))
            }
            Tally::Removed => format!("{}: {}", done(mode, "removed"), count(number, "superseded file")),
        }
    }

    fn rejects(&self, summary: &Summary) -> String {
        format!(
            "cannot be exported: {} ({} newly), {} open",
            count(summary.counts.rejected, "invoice"),
            summary.new_rejects,
            summary.open_rejects
        )
    }

    fn failed_tenant(&self, tenant: &Tenant, error: &str) -> String {
        format!("failed tenant {tenant}: {error}")
    }

    fn volume(&self, mode: Mode, bytes: u64) -> String {
        format!("{}: {}", done(mode, "written"), ByteSize::b(bytes))
    }

    fn effort(&self, Effort { source, state }: Effort) -> String {
        format!("statements: {source} to the source, {state} to the state")
    }

    fn elapsed(&self, elapsed: Duration) -> String {
        format!("took: {}", span(elapsed))
    }

    fn refusal(&self, refusal: &Refusal) -> String {
        refusal.to_string()
    }

    fn trouble(&self, trouble: &Trouble) -> String {
        trouble.to_string()
    }

    fn remedy(&self, kind: ErrorKind) -> Option<&'static str> {
        match kind {
            ErrorKind::PermissionDenied => Some("make it writable for the user who runs this, or name another folder"),
            ErrorKind::ReadOnlyFilesystem => Some("mount it writable, or name another folder"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Some("free some space; the next run goes on from here")
            }
            _ => None,
        }
    }

    fn at_work(&self, tenant: &Tenant) -> String {
        format!("tenant {tenant}")
    }

    fn bar(&self) -> &'static str {
        "{bar:30} {pos}/{len} invoices, {rate}, {eta} left {wide_msg}"
    }

    fn spinner(&self) -> &'static str {
        "{spinner} {pos} invoices, {rate}, {elapsed} {wide_msg}"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_plural() {
        assert_eq!(count(1, "invoice"), "1 invoice");
        assert_eq!(count(0, "invoice"), "0 invoices");
    }

    #[test]
    fn durations_are_as_precise_as_they_are_short() {
        assert_eq!(span(Duration::from_micros(20)), "1 ms");
        assert_eq!(span(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!(span(Duration::from_millis(3_725_900)), "1h 2m 5s");
    }
}
