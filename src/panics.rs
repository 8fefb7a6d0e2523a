//! Panics as errors. A panic is a bug, here or in a package; it ends the command in one line like any other
//! error, whatever thread it befalls, and what is on record stays so.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use crate::refusal::Refusal;

/// The variable that asks the standard library for a backtrace.
const BACKTRACE: &str = "RUST_BACKTRACE";

thread_local! {
    /// The place of the last panic of this thread, which only the hook knows.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From here on a panic prints nothing by itself, unless the operator asked for a backtrace.
pub fn hush(variable: impl Fn(&str) -> Option<String>) {
    let wanted = variable(BACKTRACE).is_some_and(|value| value != "0");
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string);
        // A thread that is ending has no such variable any more.
        let _ = PLACE.try_with(|last| last.replace(place));
        if wanted {
            standard(info);
        }
    }));
}

/// The place and the message of a panic.
#[derive(Debug)]
pub struct Panic {
    /// `src/file.rs:1:2`, or empty.
    pub place: String,
    pub detail: String,
}

impl From<Panic> for Refusal {
    fn from(Panic { place, detail }: Panic) -> Self {
        Self::Panicked { place, detail }
    }
}

/// Does the work. The outer result is an error if the work panics; its own errors stay in the inner one.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    // Data that the work has borrowed is used after a panic only to put the panic on record.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let place = PLACE.try_with(RefCell::take).ok().flatten();
        Panic { place: place.unwrap_or_default(), detail: words(payload.as_ref()) }
    })
}

/// Does the work. A panic becomes an error beside those that the work returns.
pub fn as_error<R>(work: impl FnOnce() -> anyhow::Result<R>) -> anyhow::Result<R> {
    caught(work).unwrap_or_else(|panic| Err(Refusal::from(panic).into()))
}

/// The message of a panic, in one line.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    // An assertion says what it compared on lines of their own.
    text.unwrap_or("no message").lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_of_one_line() {
        let error = as_error(|| -> anyhow::Result<()> { panic!("one\n  two") }).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Refusal::Panicked { detail, .. }) if detail == "one; two"));
        assert_eq!(as_error(|| Ok(7)).unwrap(), 7);
    }
}
