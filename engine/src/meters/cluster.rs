//! What the cluster's thread counts: only that thread writes it, anyone reads it.

use super::{Counter, Gauge};
use crate::cluster::What;
use crate::cluster::hub::Counters;

/// Decisions by what was decided, and what control channels carry.
#[derive(Debug, Default)]
pub struct ClusterMeters {
    decisions: [Counter; WHATS.len()],
    pub messages_in: Gauge,
    pub messages_out: Gauge,
    pub bytes_in: Gauge,
    pub bytes_out: Gauge,
    pub channels_opened: Gauge,
    pub channels: Gauge,
    pub refused: Gauge,
    /// Calls between this server's conferences and those of others.
    pub trunks: Gauge,
    /// Reserved servers that nobody has claimed.
    pub reserved_free: Gauge,
}

/// With their names as labels.
const WHATS: [(What, &str); 13] = [
    (What::Accept, "accept"),
    (What::Redirect, "redirect"),
    (What::Relay, "relay"),
    (What::Refuse, "refuse"),
    (What::Hold, "hold"),
    (What::Claim, "claim"),
    (What::Drain, "drain"),
    (What::Undrain, "undrain"),
    (What::Move, "move"),
    (What::Recall, "recall"),
    (What::Server, "server"),
    (What::Adopt, "adopt"),
    (What::Deny, "deny"),
];

impl ClusterMeters {
    pub fn decided(&self, what: What) {
        if let Some(place) = WHATS.iter().position(|(known, _)| *known == what) {
            self.decisions[place].add(1);
        }
    }

    /// By label.
    pub fn decisions(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let labels = WHATS.iter().map(|(_, label)| *label);
        labels.zip(self.decisions.iter().map(Counter::get))
    }

    /// Takes over what the hub has counted.
    pub fn show(&self, counters: &Counters) {
        self.messages_in.set(counters.messages_in);
        self.messages_out.set(counters.messages_out);
        self.bytes_in.set(counters.bytes_in);
        self.bytes_out.set(counters.bytes_out);
        self.channels_opened.set(counters.opened);
        self.channels.set(counters.up);
        self.refused.set(counters.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_by_what_they_are() {
        let meters = ClusterMeters::default();
        meters.decided(What::Redirect);
        meters.decided(What::Redirect);
        meters.decided(What::Deny);
        let counted: Vec<_> = meters.decisions().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("redirect", 2), ("deny", 1)]);
    }
}
