//! What others ask of the focus: calls from outside, orders of the cluster; and what it asks of others:
//! names looked up, and what the cluster is to know.

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use super::Core;
use crate::focus::liaison::Order;
use crate::focus::{Dial, Lookup};
use crate::io::MediaIo;
use crate::meters::CoreMeters;
use crate::shard::mailbox::{DialOrder, Mail};

impl<I: MediaIo> Core<I> {
    /// Calls somebody into a room, where that is.
    pub(super) fn dial(&mut self, now: Instant, mut order: DialOrder, meters: &CoreMeters) {
        if !order.is_placed {
            let name = order.room.as_str();
            let shards = self.common.mailboxes.shards();
            let home = self.common.spread.shard(name.as_bytes(), shards);
            let to = if home == self.index {
                order.is_placed = true;
                self.owner_of(now, order.room.as_str())
            } else {
                home
            };
            if to != self.index {
                self.outbox.post(to, Mail::Dial(Box::new(order)));
                return;
            }
        }
        let DialOrder {
            room,
            target,
            reply,
            ..
        } = order;
        let dial = Dial::from_outside(room, target);
        let status = self.with_focus(now, meters, |focus, means| focus.dial(dial, means));
        // Who asked may have gone meanwhile.
        let _ = reply.send(status);
    }

    pub(super) fn obey(&mut self, now: Instant, orders: Vec<Order>, meters: &CoreMeters) {
        self.with_focus(now, meters, |focus, means| {
            for order in orders {
                focus.obey(order, means);
            }
        });
    }

    /// Tells the cluster what it has to know, at most once a turn.
    pub(super) fn report(&mut self) {
        let reports = self.focus.take_reports();
        if reports.is_empty() {
            return;
        }
        let from = self.index;
        self.outbox
            .post(self.common.mailboxes.hub(), Mail::Reports { from, reports });
    }

    /// Has the names looked up that calls of ours need, off the core: a resolver waits.
    pub(super) fn look_up(&mut self) {
        for lookup in self.focus.lookups() {
            let (mailboxes, own) = (self.common.mailboxes.clone(), self.index);
            let Lookup { ticket, host, port } = lookup;
            let work = move || {
                let found = (host.as_str(), port).to_socket_addrs();
                let addresses = found.map(Vec::from_iter).unwrap_or_default();
                let mut mail = Mail::Resolved { ticket, addresses };
                // A full inbox is one that is emptied within a turn.
                while let Err(back) = mailboxes.post(own, mail) {
                    mail = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let thread = std::thread::Builder::new().name("resolver".to_owned());
            if thread.spawn(work).is_err() {
                let addresses = Vec::new();
                self.outbox
                    .post(self.index, Mail::Resolved { ticket, addresses });
            }
        }
    }
}
