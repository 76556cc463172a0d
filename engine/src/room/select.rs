//! Who enters the mix.
//!
//! Each part of a room chooses among its own members, so that no part waits for what another has to say:
//! of a conference on several servers or cores as many are heard as all of them have chosen. Whoever talks
//! alone is heard everywhere.

use super::Room;
use crate::codec::Codec;

/// A newcomer must be this much louder than a talker to take his place, so that two equally loud
/// members do not alternate within a word.
const INCUMBENT_DB: f32 = 3.0;

impl Room {
    /// Chooses who is mixed in this tick: those who talk, at most `limit` of them, the loudest.
    pub fn select(&mut self, limit: usize) {
        let Self {
            members,
            talkers,
            wanted,
            ..
        } = self;
        talkers.clear();
        let speaking = members.iter().filter(|(_, member)| member.speaks());
        talkers.extend(speaking.map(|(index, _)| index));
        if talkers.len() > limit {
            let rank = |index: &usize| {
                let member = &members[*index];
                member.activity.smoothed_dbov() + if member.in_mix { INCUMBENT_DB } else { 0.0 }
            };
            talkers.select_nth_unstable_by(limit, |a, b| rank(b).total_cmp(&rank(a)));
            talkers.truncate(limit);
        }
        members
            .iter_mut()
            .for_each(|(_, member)| member.in_mix = false);
        talkers
            .iter()
            .for_each(|&index| members[index].in_mix = true);
        *wanted = [false; Codec::COUNT];
        for (_, member) in members.iter() {
            if member.listens() && !member.in_mix {
                wanted[member.leg.codec.index()] = true;
            }
        }
    }
}
