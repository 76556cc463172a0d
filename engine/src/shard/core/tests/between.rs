//! Calls between the foci of several servers: trunks, and callers who are passed on.

use std::fmt::Display;

use cfw::dist_conf::message::UserStatus;

use super::cluster::{TOO_MUCH, room};
use super::*;
use crate::focus::liaison::{Order, Report, Verdict, Wish};

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

/// A server is to join its part of conference staff with the part of another, which is there.
fn open_trunk(peer: &str, address: impl Display) -> Order {
    Order::OpenTrunk {
        room: room("staff"),
        peer: peer.parse().unwrap(),
        target: format!("sip:staff@{address}"),
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
    let open = open_trunk("B", b.address);
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
    let open = |host: &str| open_trunk("B", format_args!("{host}:{}", b.address.port()));
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
fn a_trunk_stays_while_others_are_in_the_room_on_another_core() {
    let mut a = Server::in_cluster(35, "A", &["rooms.span_at=1"]);
    let mut b = Server::in_cluster(36, "B", &[]);
    let phones = [Phone::new(&a), Phone::new(&a)];
    let first = phones[0].call(&mut a, "staff");
    let (shard, _) = a.reports_user(UserStatus::Connected);
    let second = phones[1].call(&mut a, "staff");
    a.order(shard, open_trunk("B", b.address));
    pass_for_two(&mut a, &mut b);
    a.reports_trunk(true);
    assert_eq!((a.calls(), b.calls()), (3, 1));
    phones[0].request("BYE", "staff", Some(&first), "", "");
    pass_for_two(&mut a, &mut b);
    assert_eq!((a.calls(), b.calls()), (2, 1));
    // Its part of the room is still joined to the other.
    let parts = |core: &Core<BatchIo>| core.stage.parts("staff").count();
    assert!(a.cores.iter().all(|core| parts(core) == 1));
    phones[1].request("BYE", "staff", Some(&second), "", "");
    pass_for_two(&mut a, &mut b);
    assert!(a.cores.iter().all(|core| parts(core) == 0));
}

#[test]
fn one_trunk_is_enough_though_both_sides_call() {
    let mut a = Server::in_cluster(37, "A", &[]);
    let mut b = Server::in_cluster(38, "B", &[]);
    let phone = Phone::new(&a);
    phone.call(&mut a, "staff");
    let (shard, _) = a.reports_user(UserStatus::Connected);
    // While the name is looked up here, the other one calls.
    let (now, meters) = (a.now, Meters::new(&[0]));
    let to_b = open_trunk("B", format_args!("b.example:{}", b.address.port()));
    let core = &mut a.cores[usize::from(shard.0)];
    let wanted = core.with_focus(now, &meters.cores[0], |focus, means| {
        focus.obey(to_b, means);
        focus.lookups()
    });
    assert_eq!(wanted.len(), 1);
    b.order(ShardIndex(0), open_trunk("A", a.address));
    pass_for_two(&mut a, &mut b);
    a.reports_trunk(true);
    assert_eq!((a.calls(), b.calls()), (2, 1));
    let (now, address) = (a.now, b.address);
    let core = &mut a.cores[usize::from(shard.0)];
    core.with_focus(now, &meters.cores[0], |focus, means| {
        focus.resolved(wanted[0].ticket, &[address], means);
    });
    assert_eq!(a.calls(), 2);
}

#[test]
fn trunks_are_for_servers_of_the_service_only() {
    let mut server = Server::in_cluster(14, "A", &["cluster.trusted=192.0.2.0/24"]);
    let stranger = Phone::new(&server);
    stranger.request_of("INVITE", "staff", ";crt-trunk=B", None, WITH_SDP, SDP);
    server.expect(&stranger, "SIP/2.0 403", SOON);
    assert_eq!(server.calls(), 0);
}

/// A proxy on a host of the service passes on what strangers write into a Request-URI.
#[test]
fn who_comes_through_a_proxy_is_no_server() {
    let mut server = Server::in_cluster(26, "A", &["rooms.access=authenticated"]);
    for (mark, status) in [(";crt-trunk=B", 403), (";crt-relay=B", 401)] {
        let lines = format!("Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKs\r\n{WITH_SDP}");
        let stranger = Phone::new(&server);
        stranger.request_of("INVITE", "staff", mark, None, &lines, SDP);
        server.expect(&stranger, &format!("SIP/2.0 {status}"), SOON);
        assert_eq!(server.calls(), 0);
    }
}

/// Has the server connect a caller to an address.
#[track_caller]
fn relay(a: &mut Server, phone: &Phone, to: SocketAddr) -> ShardIndex {
    relay_with(a, phone, to, WITH_SDP)
}

#[track_caller]
fn relay_with(a: &mut Server, phone: &Phone, to: SocketAddr, lines: &str) -> ShardIndex {
    a.load.update(TOO_MUCH, 0.0);
    phone.request("INVITE", "staff", None, lines, SDP);
    let (shard, call, _) = a.asked();
    let verdict = Verdict::Relay {
        target: format!("sip:staff@{to};crt-hop=1"),
        server: "B".parse().unwrap(),
    };
    a.order(shard, Order::Placed { call, verdict });
    shard
}

/// A request of the far end, in the dialog that this INVITE has begun.
fn from_far(far: &Phone, invite: &str, method: &str, number: u32, lines: &str, body: &str) {
    let here = far.socket.local_addr().unwrap();
    far.say(&format!(
        "{method} sip:staff@{} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKf{method}{number}\r\n\
         Max-Forwards: 70\r\nFrom: {};tag=p\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {number} {method}\r\n\
         Contact: <{}>\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        far.to,
        header(invite, "To"),
        header(invite, "From"),
        header(invite, "Call-ID"),
        far.uri(),
        body.len()
    ));
}

#[test]
fn a_relayed_call_ends_on_both_legs() {
    let mut a = Server::in_cluster(27, "A", &[]);
    let mut b = Server::in_cluster(28, "B", &["rooms.answer_after_ms=3000"]);
    let up = |a: &mut Server, b: &mut Server| {
        let phone = Phone::new(a);
        let shard = relay(a, &phone, b.address);
        let answer = expect_of_two(a, b, &phone, "SIP/2.0 200");
        let to = header(&answer, "To").to_owned();
        phone.request("ACK", "staff", Some(&to), "", "");
        let (there, user) = b.reports_user(UserStatus::Connected);
        (phone, shard, there, user)
    };
    let gone = |a: &mut Server, b: &mut Server| {
        pass_for_two(a, b);
        assert_eq!((a.calls(), b.calls()), (0, 0));
    };

    // He hangs up before there is an answer.
    let phone = Phone::new(&a);
    relay(&mut a, &phone, b.address);
    expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 180");
    phone.cancel("staff", None);
    expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 487");
    gone(&mut a, &mut b);

    // The other server throws him out. It knows that a REFER or Replaces would not come to his phone.
    let (phone, _, there, user) = up(&mut a, &mut b);
    let reach = user.reach.clone().unwrap();
    assert!(!reach.refer && !reach.replaces);
    let wish = Order::Wish {
        room: room("staff"),
        endpoint: user.endpoint,
        what: Wish::End("enough".to_owned()),
    };
    b.order(there, wish);
    let bye = expect_of_two(&mut a, &mut b, &phone, "BYE");
    phone.answer(&bye, 200);
    gone(&mut a, &mut b);

    // The other server dies.
    let (phone, shard, ..) = up(&mut a, &mut b);
    a.order(shard, Order::ServerLost("C".parse().unwrap()));
    pass_for_two(&mut a, &mut b);
    assert_eq!(a.calls(), 1, "that is another one");
    a.order(shard, Order::ServerLost("B".parse().unwrap()));
    let bye = a.expect(&phone, "BYE", SOON);
    assert!(header(&bye, "Reason").contains("server lost"), "{bye}");
    phone.answer(&bye, 200);
    assert_eq!(a.calls(), 0);
}

#[test]
fn an_answer_without_terms_ends_a_relayed_call() {
    let mut a = Server::in_cluster(29, "A", &[]);
    let (phone, far) = (Phone::new(&a), Phone::new(&a));
    relay(&mut a, &phone, far.socket.local_addr().unwrap());
    let invite = a.expect(&far, "INVITE", SOON);
    far.answer(&invite, 200);
    a.expect(&phone, "SIP/2.0 500", SOON);
    let bye = a.expect(&far, "BYE", SOON);
    far.answer(&bye, 200);
    assert_eq!(a.calls(), 0);

    // Also one to a change.
    let (phone, far) = (Phone::new(&a), Phone::new(&a));
    relay(&mut a, &phone, far.socket.local_addr().unwrap());
    let invite = a.expect(&far, "INVITE", SOON);
    far.answer_with(&invite, 200, WITH_SDP, SDP);
    let answer = a.expect(&phone, "SIP/2.0 200", SOON);
    let to = header(&answer, "To").to_owned();
    phone.request("ACK", "staff", Some(&to), "", "");
    phone.request("INVITE", "staff", Some(&to), WITH_SDP, SDP);
    let invite = a.expect(&far, "INVITE", SOON);
    far.answer(&invite, 200);
    a.expect(&phone, "SIP/2.0 500", SOON);
    for phone in [&phone, &far] {
        let bye = a.expect(phone, "BYE", SOON);
        phone.answer(&bye, 200);
    }
    assert_eq!(a.calls(), 0);
}

#[test]
fn the_other_server_changes_a_relayed_call_and_does_not_move_it() {
    let sets = ["auth.trusted=127.0.0.0/8", "rooms.control=authenticated"];
    let mut a = Server::in_cluster(32, "A", &sets);
    let (phone, far) = (Phone::new(&a), Phone::new(&a));
    relay(&mut a, &phone, far.socket.local_addr().unwrap());
    let invite = a.expect(&far, "INVITE", SOON);
    far.answer_with(&invite, 200, WITH_SDP, SDP);
    let answer = a.expect(&phone, "SIP/2.0 200", SOON);
    let to = header(&answer, "To").to_owned();
    phone.request("ACK", "staff", Some(&to), "", "");
    a.expect(&far, "ACK", SOON);

    from_far(&far, &invite, "INVITE", 1, WITH_SDP, SDP);
    let change = a.expect(&phone, "INVITE", SOON);
    assert!(change.ends_with(SDP), "{change}");
    phone.answer_with(&change, 200, WITH_SDP, SDP);
    let answer = a.expect(&far, "SIP/2.0 200", SOON);
    assert!(answer.ends_with(SDP), "{answer}");
    from_far(&far, &invite, "ACK", 1, "", "");
    a.expect(&phone, "ACK", SOON);

    // A room that calls the other server's would hear itself.
    let lines = "Refer-To: <sip:staff@192.0.2.2;crt-hop=1>\r\n";
    from_far(&far, &invite, "REFER", 2, lines, "");
    a.expect(&far, "SIP/2.0 603", SOON);
    assert_eq!(a.calls(), 1);
}

#[test]
fn texts_go_through_a_relayed_call() {
    let mut a = Server::in_cluster(39, "A", &[]);
    let mut b = Server::in_cluster(40, "B", &[]);
    let lines = format!("Allow: INVITE, ACK, BYE, MESSAGE\r\n{WITH_SDP}");
    let (phone, there, here) = (Phone::new(&a), Phone::new(&b), Phone::new(&a));
    let mut up = |a: &mut Server, phone: &Phone| {
        let answer = expect_of_two(a, &mut b, phone, "SIP/2.0 200");
        let to = header(&answer, "To").to_owned();
        phone.request("ACK", "staff", Some(&to), "", "");
        to
    };
    here.request("INVITE", "staff", None, &lines, SDP);
    up(&mut a, &here);
    there.request("INVITE", "staff", None, &lines, SDP);
    let to_b = up(&mut a, &there);
    relay_with(&mut a, &phone, there.to, &lines);
    let to_a = up(&mut a, &phone);
    pass_for_two(&mut a, &mut b);

    let text = "Content-Type: text/plain\r\n";
    for (from, dialog, reader) in [(&phone, &to_a, &there), (&there, &to_b, &phone)] {
        from.request("MESSAGE", "staff", Some(dialog), text, "hello");
        let message = expect_of_two(&mut a, &mut b, reader, "MESSAGE");
        assert!(message.ends_with("hello"), "{message}");
        let author = format!("<{}>", from.uri());
        assert_eq!(header(&message, "Reply-To"), author);
        reader.answer(&message, 200);
        pass_for_two(&mut a, &mut b);
    }
    // What is said to the room there is not said to the one here.
    while let Some(message) = here.hear() {
        assert!(!message.starts_with("MESSAGE"), "{message}");
    }
}

#[test]
fn a_change_of_a_relayed_call_may_be_taken_back() {
    let mut a = Server::in_cluster(33, "A", &[]);
    let mut b = Server::in_cluster(34, "B", &[]);
    let phone = Phone::new(&a);
    relay(&mut a, &phone, b.address);
    let answer = expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
    let to = header(&answer, "To").to_owned();
    phone.request("ACK", "staff", Some(&to), "", "");
    pass_for_two(&mut a, &mut b);
    phone.request("INVITE", "staff", Some(&to), "", "");
    // The other server makes its offer while he takes back that he wants one.
    a.turn();
    phone.cancel("staff", Some(&to));
    a.turn();
    let refused = expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 487");
    phone.request("ACK", "staff", Some(header(&refused, "To")), "", "");
    for _ in 0..(40_000 / STEP.as_millis()) {
        a.turn();
        b.turn();
    }
    assert_eq!((a.calls(), b.calls()), (1, 1));
    phone.request("INVITE", "staff", Some(&to), WITH_SDP, SDP);
    expect_of_two(&mut a, &mut b, &phone, "SIP/2.0 200");
}

#[test]
fn callers_are_connected_to_another_server_where_they_follow_no_302() {
    let mut a = Server::in_cluster(15, "A", &[]);
    let mut b = Server::in_cluster(16, "B", &[]);
    let phone = Phone::new(&a);
    relay(&mut a, &phone, b.address);
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
    let phone = Phone::new(&a);
    relay(&mut a, &phone, b.address);
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
        let server = "B".parse().unwrap();
        let verdict = Verdict::Relay { target, server };
        a.order(shard, Order::Placed { call, verdict });
        expect_of_two(&mut a, &mut b, &phone, status);
    }
    assert_eq!((a.calls(), b.calls()), (0, 0));
}
