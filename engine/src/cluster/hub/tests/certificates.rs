//! Channels with TLS: who shows another certificate than his description announces is nobody.

use super::*;

/// Two servers that describe their certificates, and what each shows.
fn net(shown: [Option<Fingerprint>; 2]) -> Net {
    let configs = [0, 1].map(|index| {
        let mut config = config(index, &[cfw_uri(1)], &["10.0.0.0/8"]);
        config.place.fingerprint = Some(cfw::sdp::Fingerprint {
            hash: "sha-256".to_owned(),
            bytes: vec![index as u8; 32],
        });
        config
    });
    Net {
        shown: shown.to_vec(),
        ..Net::new(configs.into())
    }
}

#[test]
fn who_shows_what_was_announced_gets_a_channel() {
    let mut net = net([Some([0; 32]), Some([1; 32])]);
    net.run(3.0);
    assert_eq!(net.up(), [1, 1]);
}

#[test]
fn another_certificate_or_none_is_refused_whoever_connects() {
    for shown in [
        // The first connects, the second listens.
        [Some([7; 32]), Some([1; 32])],
        [Some([0; 32]), Some([7; 32])],
        [None, Some([1; 32])],
        [Some([0; 32]), None],
    ] {
        let mut net = net(shown);
        net.run(3.0);
        let opened = net
            .hubs
            .iter()
            .map(|hub| hub.counters().opened)
            .sum::<u64>();
        assert_eq!((net.up(), opened), (vec![0, 0], 0), "{shown:?}");
    }
}
