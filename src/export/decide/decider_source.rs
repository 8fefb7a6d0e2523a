//! A connection of the deciding thread's own, since the reader's is busy. It is made when the first question is asked.

use crate::event::Event;
use crate::export::one_by_one::RetryingSource;
use crate::export::retry::RetryPolicy;
use crate::source::{Source, SourceError};

pub(in crate::export) struct DeciderSource<'a> {
    retry: RetryPolicy,
    open: &'a dyn Fn() -> Result<Box<dyn Source>, SourceError>,
    source: Option<Box<dyn Source>>,
}

impl<'a> DeciderSource<'a> {
    pub(in crate::export) fn new(
        retry: RetryPolicy,
        open: &'a dyn Fn() -> Result<Box<dyn Source>, SourceError>,
    ) -> Self {
        Self { retry, open, source: None }
    }

    /// Lends the connection. `tell` gets an event for each retry.
    pub(super) fn telling<'s>(&'s mut self, tell: &'s mut dyn FnMut(Event)) -> impl RetryingSource + use<'s, 'a> {
        SourceWithEvents { source: self, tell }
    }
}

struct SourceWithEvents<'s, 'a> {
    source: &'s mut DeciderSource<'a>,
    tell: &'s mut dyn FnMut(Event),
}

impl RetryingSource for SourceWithEvents<'_, '_> {
    fn ask<R>(
        &mut self,
        mut question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>,
    ) -> Result<R, SourceError> {
        let DeciderSource { retry, open, source } = &mut *self.source;
        retry.run(self.tell, || {
            let open = match source.take() {
                Some(source) => source,
                None => open()?,
            };
            question(source.insert(open).as_mut())
        })
    }
}
