//! Owns the packets of rows that go from the reader to the checking threads. Rows go in packets because each send wakes
//! a thread, and each look-up in the ledger takes locks of the state.

use std::mem;
use std::sync::Arc;

use anyhow::anyhow;
use crossbeam_channel::Sender;

use super::budget::{Budget, Permit};
use super::ticket::{Part, Ticket};
use crate::invoice::{Fetched, InvoiceId};
use crate::state::ledger::LedgerReader;

/// A packet goes when it holds so many rows or so many bytes of documents.
pub(super) const ROWS_A_PACKET: usize = 32;
const BYTES_A_PACKET: usize = 256 << 10;

/// One row on its way to be checked.
#[derive(Debug)]
pub(super) struct Job {
    pub fetched: Fetched,
    pub ticket: Ticket,
    pub permit: Permit,
}

pub(super) struct Outbox<'a> {
    sender: Sender<Vec<Job>>,
    budget: &'a Arc<Budget>,
    packet: Vec<Job>,
    bytes: usize,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(sender: Sender<Vec<Job>>, budget: &'a Arc<Budget>) -> Self {
        Self { sender, budget, packet: Vec::new(), bytes: 0 }
    }

    /// Adds a row to the open packet, and waits for room in the budget. Sends the packet when it is full.
    pub(super) fn put(&mut self, fetched: Fetched, ticket: Ticket, lookup: &LedgerReader) -> anyhow::Result<()> {
        let bytes = match &fetched {
            Fetched::Row(row) => row.document.len(),
            Fetched::Unreadable { .. } => 0,
        };
        let permit = match self.budget.try_take(bytes) {
            Some(permit) => permit,
            None => {
                // The budget may be used up by the open packet itself.
                self.flush(lookup)?;
                self.budget.take(bytes)
            }
        };
        self.packet.push(Job { fetched, ticket, permit });
        self.bytes += bytes;
        let fills_the_budget = bytes >= self.budget.limit;
        if fills_the_budget || self.packet.len() >= ROWS_A_PACKET || self.bytes >= BYTES_A_PACKET {
            self.flush(lookup)?;
        }
        if fills_the_budget {
            // Waits until it is checked: the next document may be as large, and is read before it asks for room.
            drop(self.budget.take(bytes));
        }
        Ok(())
    }

    /// Sends the open packet. The ledger is asked here for the entries of a full scan's rows, a packet at a time.
    pub(super) fn flush(&mut self, lookup: &LedgerReader) -> anyhow::Result<()> {
        if self.packet.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let mut packet = mem::take(&mut self.packet);
        let mut scanned: Vec<&mut Job> = packet.iter_mut().filter(|job| job.ticket.part == Part::Table).collect();
        let ids: Vec<&InvoiceId> = scanned.iter().map(|job| job.fetched.id()).collect();
        let known = lookup.entries(&ids)?;
        scanned.iter_mut().zip(known).for_each(|(job, known)| job.ticket.known = known);
        self.sender.send(packet).map_err(|_| anyhow!("the run has ended"))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::invoice::{Invoice, Row, Tenant};

    #[test]
    fn after_a_document_that_fills_the_budget_nothing_is_read_until_it_is_through() {
        let budget = Budget::new(10);
        let (sender, packets) = bounded(1);
        let (done, returned) = bounded(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let invoice = Invoice {
                    id: InvoiceId::from("1"),
                    tenant: Tenant::from("1"),
                    country: None,
                    date: "20251128".to_owned(),
                    number: "1".to_owned(),
                    time: None,
                };
                let fetched = Fetched::Row(Row { invoice, document: vec![b' '; 40] });
                let ticket = Ticket::new(Part::Table, None);
                Outbox::new(sender, &budget).put(fetched, ticket, &LedgerReader::nothing()).unwrap();
                done.send(()).unwrap();
            });
            let packet = packets.recv().unwrap();
            assert!(returned.recv_timeout(Duration::from_millis(100)).is_err());
            drop(packet);
            returned.recv().unwrap();
        });
    }
}
