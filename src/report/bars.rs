//! The bar on a terminal: with total, rate and time left where the number of invoices is known, a
//! spinner with count and rate elsewhere.

use std::thread::Builder;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::line::escaped;
use crate::event::Event;
use crate::lang::{Lang, Text};

/// Slow enough to cost nothing, fast enough to look alive.
const REDRAWS_PER_SECOND: u8 = 8;
const TICK: Duration = Duration::from_millis(250);

/// The one bar of a run, and where it is drawn.
pub(super) struct Bars {
    bar: ProgressBar,
    target: fn() -> ProgressDrawTarget,
    lang: Lang,
}

impl Bars {
    /// A bar that appears on stderr once a run has started.
    pub(super) fn on_stderr(lang: Lang) -> Self {
        Self::on(|| ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND), lang)
    }

    /// Commands that are no run print lines too, but have no progress to show.
    fn on(target: fn() -> ProgressDrawTarget, lang: Lang) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style(templates()[0].in_lang(lang)));
        Self { bar, target, lang }
    }

    /// Moves the bar.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Started { .. } => {
                self.bar.set_draw_target((self.target)());
                // It takes a thread, and panics where none is to be had. Without one the bar moves with the work.
                if Builder::new().spawn(|| ()).is_ok_and(|thread| thread.join().is_ok()) {
                    self.bar.enable_steady_tick(TICK);
                }
            }
            Event::Expected(invoices) => {
                self.bar.set_length(*invoices);
                self.bar.set_style(style(templates()[1].in_lang(self.lang)));
            }
            // A full run has no window, and no single tenant at work.
            Event::TenantStarted { tenant, upto: Some(_), .. } => {
                self.bar.set_message(escaped(text!("tenant {tenant}", "租户 {tenant}").in_lang(self.lang)));
            }
            Event::Progress { invoices } => {
                // The total was an estimate.
                if self.bar.length().is_some_and(|length| length < *invoices) {
                    self.bar.set_length(*invoices);
                }
                self.bar.set_position(*invoices);
            }
            Event::Finished(_) => self.clear(),
            Event::Waiting { .. }
            | Event::Notice(_)
            | Event::Reminder(_)
            | Event::Boundary(_)
            | Event::ListingTenants
            | Event::TenantStarted { .. }
            | Event::Rejected { .. }
            | Event::Prospect { .. }
            | Event::TenantDone { .. }
            | Event::TenantFailed { .. } => {}
        }
    }

    /// Takes the bar away while something is printed.
    pub(super) fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the bar away for good.
    pub(super) fn clear(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }
}

/// Without a known total, and with one. The braces are those of `indicatif`.
fn templates() -> [Text; 2] {
    [
        Text::new(
            "{spinner} {pos} invoices, {rate}, {elapsed} {wide_msg}",
            "{spinner} {pos} 条记录，{rate}，{elapsed} {wide_msg}",
        ),
        Text::new(
            "{bar:30} {pos}/{len} invoices, {rate}, {eta} left {wide_msg}",
            "{bar:30} {pos}/{len} 条记录，{rate}，剩余 {eta} {wide_msg}",
        ),
    ]
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test parses each.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn has nowhere to say so.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TenantPast;
    use crate::invoice::{SourceTime, Tenant};

    #[test]
    fn every_template_can_be_parsed() {
        for template in templates() {
            for lang in [Lang::En, Lang::Zh] {
                assert!(ProgressStyle::with_template(template.in_lang(lang)).is_ok(), "{template:?}");
            }
        }
    }

    #[test]
    fn a_bar_has_the_expected_total_and_outgrows_it_when_there_is_more() {
        let bars = Bars::on(ProgressDrawTarget::hidden, Lang::En);
        assert_eq!(bars.bar.length(), None);
        bars.event(&Event::Expected(100));
        bars.event(&Event::Progress { invoices: 40 });
        assert_eq!((bars.bar.position(), bars.bar.length()), (40, Some(100)));
        bars.event(&Event::Progress { invoices: 140 });
        assert_eq!((bars.bar.position(), bars.bar.length()), (140, Some(140)));
    }

    #[test]
    fn the_tenant_at_work_is_shown_without_its_control_characters() {
        let bars = Bars::on(ProgressDrawTarget::hidden, Lang::En);
        let upto = Some(SourceTime::from("2025-11-28 16:30:00"));
        bars.event(&Event::TenantStarted {
            tenant: Tenant::from("a\u{1b}c"),
            past: TenantPast::None,
            after: None,
            upto,
        });
        assert_eq!(bars.bar.message(), "tenant a\\u001bc");
    }
}
