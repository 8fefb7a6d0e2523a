//! System calls that fail: a broken disk, a full one, a used-up quota, a signal in between. A run says
//! so and exits with an error, or was not harmed; the next one makes everything good.

use crate::support::Exporter;
use crate::support::exporter::{count_calls, run_with};
use crate::support::invariants::Witness;
use crate::support::rounds::{Dice, assert_all_hold, is_campaign, tell};
use crate::support::scene::{CALLS, FULL, INCREMENTAL, Kept, changed, filled};

/// Without the campaign so many faults of each kind are tried, out of all.
const PLAIN: usize = 8;

/// Each call of a run fails with this error, each in a run of its own: only that one, or it and later
/// ones.
fn fails_everywhere(error: &str, args: &[&str], later: &str) {
    let table = filled();
    let exporter = changed(&table);
    let kept = Kept::of(&exporter);
    let counts = count_calls(&exporter, &CALLS, args);
    let mut faults: Vec<String> = counts
        .into_iter()
        .flat_map(|(call, count)| (1..=count).map(move |nth| format!("{call}:error={error}:when={nth}")))
        .flat_map(|once| [format!("{once}{later}"), once])
        .collect();
    tell(&format!("{}, {error}: {} faults", args.join(" "), faults.len()));
    if !is_campaign() {
        let mut dice = Dice::new(7);
        while faults.len() > PLAIN {
            faults.swap_remove(usize::try_from(dice.below(faults.len() as u64)).unwrap());
        }
    }
    assert_all_hold(faults.into_iter().map(|inject| (inject.clone(), inject)), |inject| {
        kept.restore();
        fails_and_recovers(&exporter, args, &inject);
    });
}

fn fails_and_recovers(exporter: &Exporter<'_>, args: &[&str], inject: &str) {
    let witness = Witness::new(exporter);
    let faulty = run_with(exporter, inject, args);
    // 127: the loader did not find its libraries.
    let code = faulty.status.code();
    assert!(matches!(code, Some(0 | 1 | 3 | 5 | 127)) && !faulty.stderr.contains("panicked"), "{faulty}");
    let could_tell = !inject.starts_with("write:") && code != Some(127);
    let told = faulty.stderr.lines().any(|line| line.starts_with("[ERROR]"));
    assert!(told || code == Some(0) || !could_tell, "nothing is said about it: {faulty}");
    witness.assert_bearable(&faulty);
    let unfinished = exporter.unfinished_runs();
    exporter.run_plainly(args);
    witness.assert_made_good();
    witness.assert_recovered(unfinished);
}

#[test]
fn a_disk_that_fails_at_any_call_ends_the_run_and_the_next_one_makes_it_good() {
    fails_everywhere("EIO", &INCREMENTAL, "+");
}

#[test]
fn a_disk_that_is_full_at_any_call_ends_the_run_and_the_next_one_makes_it_good() {
    fails_everywhere("ENOSPC", &INCREMENTAL, "+");
}

#[test]
fn a_quota_that_is_used_up_at_any_call_ends_the_run_and_the_next_one_makes_it_good() {
    fails_everywhere("EDQUOT", &FULL, "+");
}

/// For ever would be no fault but a kernel that never lets a call through: this is every other one.
#[test]
fn a_call_that_is_interrupted_does_no_harm_or_ends_the_run() {
    fails_everywhere("EINTR", &INCREMENTAL, "+2");
}

#[test]
fn a_run_that_cannot_make_or_remove_its_staging_is_on_record_as_failed() {
    let table = filled();
    let exporter = changed(&table);
    let kept = Kept::of(&exporter);
    let counts = count_calls(&exporter, &["mkdirat", "unlinkat"], &INCREMENTAL);
    for (call, nth) in counts.into_iter().flat_map(|(call, count)| (1..=count).map(move |nth| (call, nth))) {
        kept.restore();
        let faulty = run_with(&exporter, &format!("{call}:error=EIO:when={nth}"), &INCREMENTAL);
        assert_eq!(exporter.unfinished_runs(), 0, "{call} {nth}: {faulty}");
    }
}
