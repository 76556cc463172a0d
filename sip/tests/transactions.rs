//! The transaction layer and the dialogs above it in virtual time, under whatever a network and a user may
//! do: one final response for a transaction, one end for a call, and nothing left in the end.

#[path = "transactions/network.rs"]
mod network;
#[path = "transactions/raw.rs"]
mod raw;
#[path = "transactions/watch.rs"]
mod watch;

use proptest::prelude::*;

proptest! {
    #[test]
    fn two_endpoints_agree_in_the_end_whatever_the_network_does(
        fates in network::fates(),
        steps in network::steps(),
        session in network::sessions(),
    ) {
        let mut world = network::World::new(fates, session);
        world.play(steps);
        world.wind_down();
    }

    #[test]
    fn no_order_of_requests_confuses_an_endpoint(steps in raw::steps(), focus in any::<bool>()) {
        let mut range = raw::Range::new(focus);
        range.play(steps);
        range.wind_down();
    }
}
