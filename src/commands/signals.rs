//! SIGINT, SIGTERM and SIGHUP ask a run to stop at its next checkpoint. A second one ends the process
//! at once, which is as safe as kill -9.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::lang::Explain;
use crate::run::Cancel;

/// What the shell adds to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;

/// Registers the signals that ask to stop.
///
/// # Errors
/// The operating system refuses a handler.
pub(super) fn watch() -> anyhow::Result<Cancel> {
    let (cancel, asked) = (Cancel::default(), Arc::new(AtomicBool::new(false)));
    for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)) {
        let register = || {
            // In this order: the first signal finds the flag unset.
            flag::register_conditional_shutdown(signal, BY_SIGNAL + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            flag::register_usize(signal, Arc::clone(&cancel.0), signal.unsigned_abs() as usize)
        };
        register().explain(|| text!("cannot watch for signals", "无法监听信号"))?;
    }
    Ok(cancel)
}

/// Lets a write beyond the size that files of this process may have (`ulimit -f`) fail with an error, which says why.
/// Without that, SIGXFSZ ends the process without a word. Programs that this one starts do not inherit it.
pub(super) fn survive_size_limit() {
    // Where the handler is refused, the signal ends the process as before.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// `nohup` ignores SIGHUP, a shell SIGINT for what it runs in the background; they mean it.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}
