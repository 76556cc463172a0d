//! Who enters the mix.

use slab::Slab;

use super::Member;

/// A newcomer must be this much louder than a talker to take his place, so that two equally loud
/// members do not alternate within a word.
const INCUMBENT_DB: f32 = 3.0;

/// Fills `talkers` with the members who talk now: at most `limit`, the loudest ones.
pub(super) fn talkers(members: &mut Slab<Member>, limit: usize, talkers: &mut Vec<usize>) {
    talkers.clear();
    talkers.extend(
        members
            .iter()
            .filter(|(_, member)| member.speaks())
            .map(|(index, _)| index),
    );
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
}
