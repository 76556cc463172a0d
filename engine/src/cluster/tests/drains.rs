//! Servers that give their users away.

use super::super::*;
use super::net::*;
use super::service::check_agreement;

#[test]
fn the_operator_drains_and_takes_back() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 30);
    net.fill("B", "r", 10);
    net.run(1_000);
    let drain = Input::Operator {
        id: 7,
        wanted: Wanted::Drain { deadline: None },
    };
    net.input(id("A"), drain);
    assert_eq!(net.at("A").answers, [(7, 200)]);
    net.run(5_000);
    assert_eq!(net.count("A"), 0);
    assert_eq!(net.at("A").cluster.state(), SvrState::Standby);
    // The loads of the two end up as near as they can.
    assert_eq!((net.count("B"), net.count("C")), (20, 20));
    check_agreement(net, "r");
    assert_ne!(net.at("A").cluster.conference("r").unwrap().owner, id("A"));
    let free = net.at("B").cluster.reserved();
    assert_eq!(
        free.iter().map(|it| it.svr_id).collect::<Vec<_>>(),
        [id("A")]
    );
    net.call("A", "r", "sip:late@phone");
    net.run(100);
    assert_ne!(net.ends["sip:late@phone"], Ok(id("A")));
    let wanted = Wanted::Undrain;
    net.input(id("A"), Input::Operator { id: 8, wanted });
    net.call("A", "r", "sip:later@phone");
    net.run(100);
    assert_eq!(net.ends["sip:later@phone"], Ok(id("A")));
}

#[test]
fn phones_without_refer_are_called_by_the_other_server() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.phone = Phone {
        refer: false,
        replaces: true,
    };
    net.fill("A", "r", 10);
    net.fill("B", "r", 1);
    net.run(1_000);
    let wanted = Wanted::Drain { deadline: None };
    net.input(id("A"), Input::Operator { id: 1, wanted });
    net.run(4_000);
    assert_eq!((net.count("A"), net.count("B")), (0, 11));
    assert_eq!(net.at("A").cluster.state(), SvrState::Standby);
    check_agreement(net, "r");
}

#[test]
fn phones_that_can_do_nothing_stay_until_the_deadline() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.phone = Phone::default();
    net.fill("A", "r", 2);
    net.run(1_000);
    let deadline = Some(Duration::from_secs(10));
    let wanted = Wanted::Drain { deadline };
    net.input(id("A"), Input::Operator { id: 1, wanted });
    net.run(9_000);
    assert_eq!(net.at("A").cluster.state(), SvrState::Draining);
    net.run(3_000);
    assert_eq!(net.at("A").cluster.state(), SvrState::Active);
    assert_eq!(net.count("A"), 2);
}

#[test]
fn an_idle_server_is_drained_alone_and_comes_back_when_it_is_needed() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    for name in ["A", "B", "C"] {
        net.servers.get_mut(&id(name)).unwrap().min = 100;
        net.fill(name, "r", 8);
    }
    net.run(130_000);
    let state = |net: &Net, name| net.at(name).cluster.state();
    let all = |net: &Net| ["A", "B", "C"].map(|name| state(net, name));
    assert_eq!(
        all(net),
        [SvrState::Standby, SvrState::Active, SvrState::Active]
    );
    assert_eq!((net.count("B"), net.count("C")), (12, 12));
    check_agreement(net, "r");
    for number in 0..120 {
        net.call("B", "r", &format!("sip:new-{number}@phone"));
        net.run(20);
    }
    net.run(3_000);
    assert_eq!(state(net, "A"), SvrState::Active);
    assert!(net.count("A") > 0);
    check_agreement(net, "r");
}
