//! Counts of who is where.

use cfw::dist_conf::message::UserStatus;
use proptest::prelude::*;

use super::super::members::Members;
use super::super::roster::User;
use super::super::*;
use super::net::{Phone, id, user};

proptest! {
    /// What is counted is what one finds by looking at everybody.
    #[test]
    fn counts_are_those_of_the_users(
        steps in proptest::collection::vec((0..3_u8, 0..3_usize, 0..6_u8, 0..4_u8), 0..100)
    ) {
        let mut members = Members::default();
        for (server, shard, endpoint, what) in steps {
            let svr_id = id(["A", "B", "C"][usize::from(server)]);
            let key = (svr_id, endpoint.to_string());
            let mut user = User {
                user: user("sip:a@phone", &key.1, Phone::default()),
                shard: (server == 0).then_some(shard),
                generation: 0,
                orphaned: None,
            };
            match what {
                0 => drop(members.remove(&key)),
                1 => user.user.status = UserStatus::Pending,
                2 => user.orphaned = Some(Instant::now()),
                _ => {}
            }
            if what > 0 {
                members.put(key, user);
            }
            let present = members.iter().filter(|(_, user)| user.is_present());
            let present: Vec<SvrId> = present.map(|((svr_id, _), _)| *svr_id).collect();
            prop_assert_eq!(members.count_present(), present.len());
            prop_assert_eq!(members.holders(), present.into_iter().collect());
            let orphans = members.values().filter(|user| user.orphaned.is_some());
        prop_assert_eq!(members.orphans().count(), orphans.count());
        let shards: Vec<usize> = members.values().filter_map(|user| user.shard).collect();
            let found: BTreeSet<usize> = members.shards().collect();
            prop_assert_eq!(found, shards.iter().copied().collect());
            let count = |shard| shards.iter().filter(|it| **it == shard).count();
            let home = (0..3).rev().max_by_key(|&shard| count(shard));
            prop_assert_eq!(members.home(), home.filter(|&shard| count(shard) > 0));
        }
    }
}
