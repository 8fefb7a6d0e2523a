//! The questions that a run asks before it reads rows. A server that is just being restarted, or takes
//! no further connection for a moment, costs a pause here as it does later.

use super::Order;
use super::patience::Patience;
use crate::event::Event;
use crate::run::Cancel;
use crate::source::{self, Fault, Source};

pub(super) struct Inquiry {
    pub source: Box<dyn Source>,
    patience: Patience,
}

impl Inquiry {
    pub(super) fn open(order: &Order, tell: &mut dyn FnMut(Event)) -> Result<Self, Fault> {
        let mut patience = Patience::new(order.retry_for, &Cancel::default());
        let source = patience.insist(tell, || source::open(&order.access))?;
        Ok(Self { source, patience })
    }

    pub(super) fn ask<R>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        mut question: impl FnMut(&mut dyn Source) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Self { source, patience } = self;
        patience.insist(tell, || question(source.as_mut()))
    }
}
