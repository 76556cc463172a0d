//! What the cluster orders.

use super::liaison::{Order, Wish};
use super::{Focus, Means};
use crate::io::MediaIo;

impl Focus {
    /// Does what the cluster says. What concerns nobody here any more is passed over: orders and those they
    /// are about cross.
    pub fn obey<I: MediaIo>(&mut self, order: Order, means: &mut Means<'_, I>) {
        match order {
            Order::Placed { call, verdict } => self.on_placed(call, verdict, means),
            Order::Remote { room, user } => self.on_remote(&room, *user, means),
            Order::RemoteGone {
                room,
                svr_id,
                endpoint,
            } => self.on_remote_gone(&room, svr_id, endpoint, means),
            Order::ServerLost(server) => self.end_relays_to(server, means),
            Order::Closed { room, why } => self.close(means.now, &room, why),
            Order::Wish { endpoint, what, .. } => self.grant(&endpoint, &what, means),
            Order::Move {
                room,
                endpoint,
                target,
            } => self.send_elsewhere(room, endpoint, &target, means),
            Order::TakeOver { room, user, reach } => self.take_over(room, user, &reach, means),
            Order::OpenTrunk { room, peer, target } => {
                self.open_trunk(room, peer, target, means);
            }
            Order::CloseTrunk { room, peer } => self.close_trunk(&room, peer, means),
        }
    }

    fn grant<I: MediaIo>(&mut self, endpoint: &str, what: &Wish, means: &mut Means<'_, I>) {
        let Some(call) = self.reports.call_of(endpoint) else {
            return;
        };
        match what {
            Wish::Mute(muted) => self.mute(call, *muted, means),
            Wish::End(reason) => means.sip.bye(means.now, call, Some(reason)),
        }
    }
}
