//! Calls between the foci of several servers: trunks, and callers who are passed on.

use cfw::dist_conf::message::UserStatus;

use super::cluster::{TOO_MUCH, room};
use super::*;
use crate::focus::liaison::{Order, Report, Verdict};

/// Lets time pass for both until something that begins so has come for the phone.
#[track_caller]
fn expect_of_two(a: &mut Server, b: &mut Server, phone: &Phone, start: &str) -> String {
    for _ in 0..200 {
        a.turn();
        b.turn();
        while let Some(message) = phone.hear() {
            if message.starts_with(start) {
                return message;
            }
        }
    }
    panic!("no {start}");
}

fn pass_for_two(a: &mut Server, b: &mut Server) {
    for _ in 0..20 {
        a.turn();
        b.turn();
    }
}

#[test]
fn two_foci_share_the_sound_of_a_conference() {
    let mut a = Server::in_cluster(12, "A", &[]);
    let mut b = Server::in_cluster(13, "B", &[]);
    let (phone_a, phone_b) = (Phone::new(&a), Phone::new(&b));
    phone_a.call(&mut a, "staff");
    let to = phone_b.call(&mut b, "staff");
    let (shard, _) = a.reports_user(UserStatus::Connected);
    b.reports_user(UserStatus::Connected);
    let open = Order::OpenTrunk {
        room: room("staff"),
        peer: "B".parse().unwrap(),
        target: format!("sip:staff@{}", b.address),
    };
    a.order(shard, open.clone());
    pass_for_two(&mut a, &mut b);
    a.reports_trunk(true);
    b.reports_trunk(true);
    // They are no participants.
    for server in [&mut a, &mut b] {
        assert_eq!(server.calls(), 2);
        let rooms = server.cores.iter().flat_map(|core| core.stage.rooms());
        assert_eq!(rooms.map(|room| room.len()).sum::<usize>(), 1);
    }
    a.order(shard, open.clone());
    pass_for_two(&mut a, &mut b);
    a.reports_trunk(true);
    let peer = "B".parse().unwrap();
    a.order(
        shard,
        Order::CloseTrunk {
            room: room("staff"),
            peer,
        },
    );
    pass_for_two(&mut a, &mut b);
    a.reports_trunk(false);
    b.reports_trunk(false);
    // One that is there ends with the room.
    a.order(shard, open);
    pass_for_two(&mut a, &mut b);
    b.reports_trunk(true);
    phone_b.request("BYE", "staff", Some(&to), "", "");
    pass_for_two(&mut a, &mut b);
    b.reports_trunk(false);
    a.report(|report| matches!(report, Report::Trunk { up: false, .. }).then_some(()));
    assert_eq!((a.calls(), b.calls()), (1, 0));
}

#[test]
fn the_name_of_a_server_is_looked_up() {
    let mut a = Server::in_cluster(19, "A", &[]);
    let mut b = Server::in_cluster(20, "B", &[]);
    let phone = Phone::new(&a);
    phone.call(&mut a, "staff");
    let (shard, _) = a.reports_user(UserStatus::Connected);
    let open = |host: &str| Order::OpenTrunk {
        room: room("staff"),
        peer: "B".parse().unwrap(),
        target: format!("sip:staff@{host}:{}", b.address.port()),
    };
    let (known, unknown) = (open("localhost"), open("no-such-host.invalid"));
    for (order, up) in [(unknown, false), (known, true)] {
        a.order(shard, order);
        let mut told = None;
        // The resolver has a thread of its own, and takes its time.
        for _ in 0..10_000 {
            pass_for_two(&mut a, &mut b);
            let is_told = |(_, report)| match report {
                Report::Trunk { up, .. } => Some(up),
                _ => None,
            };
            told = a.reports().into_iter().find_map(is_told);
            if told.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(told, Some(up));
    }
}

#[test]
fn trunks_are_for_servers_of_the_service_only() {
    let mut server = Server::in_cluster(14, "A", &["cluster.trusted=192.0.2.0/24"]);
    let stranger = Phone::new(&server);
    stranger.request_of("INVITE", "staff", ";crt-trunk=B", None, WITH_SDP, SDP);
    server.expect(&stranger, "SIP/2.0 403", SOON);
    assert_eq!(server.calls(), 0);
}

#[test]
fn callers_are_connected_to_another_server_where_they_follow_no_302() {
    let mut a = Server::in_cluster(15, "A", &[]);
    let mut b = Server::in_cluster(16, "B", &[]);
    a.load.update(TOO_MUCH, 0.0);
    let phone = Phone::new(&a);
    phone.request("INVITE", "staff", None, WITH_SDP, SDP);
    let (shard, call, _) = a.asked();
    let verdict = Verdict::Relay {
        target: format!("sip:staff@{}", b.address),
    };
    a.order(shard, Order::Placed { call, verdict });
    let answer = expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    assert!(answer.contains("m=audio"), "{answer}");
    let to = header(&answer, "To").to_owned();
    phone.request("ACK", "staff", Some(&to), "", "");
    pass_for_two(&mut a, &mut b);
    let (_, user) = b.reports_user(UserStatus::Connected);
    assert_eq!(user.entity, phone.uri());
    assert_eq!((a.calls(), b.calls()), (1, 1));
    assert_eq!(
        a.cores.iter().map(|core| core.stage.seats()).sum::<usize>(),
        0
    );

    // He puts the conference on hold, then asks for an offer and answers it in the ACK.
    let hold = SDP.to_owned() + "a=inactive\r\n";
    phone.request("INVITE", "staff", Some(&to), WITH_SDP, &hold);
    let answer = expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    assert!(answer.contains("a=inactive"), "{answer}");
    phone.request("ACK", "staff", Some(&to), "", "");
    pass_for_two(&mut a, &mut b);
    b.reports_user(UserStatus::OnHold);
    phone.request("INVITE", "staff", Some(&to), "", "");
    let answer = expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    assert!(answer.contains("a=sendrecv"), "{answer}");
    phone.request("ACK", "staff", Some(&to), WITH_SDP, SDP);
    pass_for_two(&mut a, &mut b);
    b.reports_user(UserStatus::Connected);

    // Keys that come by INFO.
    let lines = "Content-Type: application/dtmf-relay\r\n";
    for key in ['*', '6'] {
        phone.request(
            "INFO",
            "staff",
            Some(&to),
            lines,
            &format!("Signal={key}\r\n"),
        );
        expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    }
    pass_for_two(&mut a, &mut b);
    b.reports_user(UserStatus::MutedViaFocus);

    phone.request("BYE", "staff", Some(&to), "", "");
    expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    pass_for_two(&mut a, &mut b);
    assert_eq!((a.calls(), b.calls()), (0, 0));
}

#[test]
fn who_is_relayed_says_once_who_he_is() {
    let open_to_all = ["rooms.access=authenticated", "auth.trusted=127.0.0.0/8"];
    let mut a = Server::in_cluster(23, "A", &open_to_all);
    let mut b = Server::in_cluster(24, "B", &["rooms.access=authenticated"]);
    a.load.update(TOO_MUCH, 0.0);
    let phone = Phone::new(&a);
    phone.request("INVITE", "staff", None, WITH_SDP, SDP);
    let (shard, call, _) = a.asked();
    let verdict = Verdict::Relay {
        target: format!("sip:staff@{};crt-hop=1", b.address),
    };
    a.order(shard, Order::Placed { call, verdict });
    expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    let stranger = Phone::new(&b);
    stranger.request_of("INVITE", "staff", ";crt-hop=1", None, WITH_SDP, SDP);
    b.expect(&stranger, "SIP/2.0 401", SOON);
}

#[test]
fn what_the_other_server_refuses_is_refused() {
    let mut a = Server::in_cluster(17, "A", &[]);
    let mut b = Server::in_cluster(18, "B", &["rooms.auto_create=false"]);
    a.load.update(TOO_MUCH, 0.0);
    for (target, status) in [
        (format!("sip:staff@{}", b.address), "SIP/2.0 404"),
        ("tel:1234".to_owned(), "SIP/2.0 503"),
    ] {
        let phone = Phone::new(&a);
        phone.request("INVITE", "staff", None, WITH_SDP, SDP);
        let (shard, call, _) = a.asked();
        let verdict = Verdict::Relay { target };
        a.order(shard, Order::Placed { call, verdict });
        expect_of_two(&mut a, &mut b, &phone, status);
    }
    assert_eq!((a.calls(), b.calls()), (0, 0));
}
