//! Where the calls that a conference makes go, and what comes of what they are answered with.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/meeting.rs"]
mod meeting;

use std::net::SocketAddr;
use std::time::Instant;

use agent::Agent;
use common::{PATIENCE, free_port};
use meeting::{Meeting, check, pick_up};

#[test]
fn who_cannot_be_had_is_told_with_his_status() {
    let mut meeting = Meeting::new(&[]);
    for status in [486, 480, 603] {
        let mut bob = meeting.agent("bob");
        meeting.refer(&bob.uri());
        bob.refuse(status, &[]);
        assert_eq!(meeting.progress(), [100, status]);
    }
    // A callee who answers without a codec of ours.
    let mut bob = meeting.agent("bob");
    meeting.refer(&bob.uri());
    let invite = bob.request("INVITE");
    let answer = bob.sdp("sendrecv").replace("RTP/AVP 0 101", "RTP/AVP 3");
    bob.reply(&invite, 200, &[], Some((agent::SDP, &answer)));
    bob.request("ACK");
    assert_eq!(meeting.progress(), [100, 488]);
    bob.accept("BYE");
    assert_eq!(meeting.participants().len(), 1);
    meeting.end();
}

#[test]
fn a_redirected_call_goes_on_to_where_it_is_sent() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    let mut desk = meeting.agent("desk");
    meeting.refer(&bob.uri());
    // The second of them is preferred.
    let contact = format!("Contact: <sip:x@127.0.0.1:1>;q=0.1, <{}>;q=0.9", desk.uri());
    bob.refuse(302, &[&contact]);
    let called = pick_up(&mut desk);
    assert_eq!(meeting.progress(), [100, 180, 200]);
    meeting.is_in(&desk);
    desk.hang_up(called);

    // In a circle it does not go for ever.
    meeting.refer(&bob.uri());
    let contact = format!("Contact: <{}>", bob.uri());
    let mut rounds = 0;
    let mut is_over = false;
    let start = Instant::now();
    while !is_over {
        assert!(rounds < 10, "round and round");
        assert!(start.elapsed() < PATIENCE, "after {rounds} rounds");
        if meeting.alice.has("NOTIFY") {
            is_over = meeting.told().1;
        }
        if bob.has("INVITE") {
            bob.refuse(302, &[&contact]);
            rounds += 1;
        }
    }
    assert!(rounds > 0);
    meeting.end();
}

#[test]
fn a_callee_who_challenges_gets_the_servers_password() {
    let mut meeting = Meeting::new(&["sip.outbound_user=plenum", "sip.outbound_password=secret"]);
    let mut trunk = meeting.agent("trunk");
    for (status, asks, answers) in [
        (401, "WWW-Authenticate", "Authorization"),
        (407, "Proxy-Authenticate", "Proxy-Authorization"),
    ] {
        meeting.refer(&trunk.uri());
        let challenge =
            format!("{asks}: Digest realm=\"t\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"");
        let invite = trunk.refuse(status, &[&challenge]);
        let second = trunk.request("INVITE");
        let answer = second.header(answers);
        assert!(answer.contains("username=\"plenum\""), "{answer}");
        assert!(second.header("CSeq") > invite.header("CSeq"));
        assert_eq!(second.header("Call-ID"), invite.header("Call-ID"));
        let called = trunk.pick_up(&second);
        assert_eq!(meeting.progress(), [100, 200]);
        trunk.hang_up(called);
    }
    // Asked again for the same: the password is wrong, and that is that.
    meeting.refer(&trunk.uri());
    for nonce in ["n2", "n3"] {
        let challenge =
            format!("WWW-Authenticate: Digest realm=\"t\", nonce=\"{nonce}\", qop=\"auth\"");
        trunk.refuse(401, &[&challenge]);
    }
    assert_eq!(meeting.progress(), [100, 401]);
    meeting.end();
}

#[test]
fn names_are_looked_up() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    let target = format!("sip:bob@localhost:{}", bob.address.port());
    meeting.refer(&target);
    let called = pick_up(&mut bob);
    assert_eq!(meeting.progress(), [100, 180, 200]);
    bob.hang_up(called);
    meeting.refer("sip:bob@nobody.invalid");
    assert_eq!(meeting.progress(), [100, 404]);
    // Such URIs no call can be made to.
    meeting.refer("tel:+49123");
    assert_eq!(meeting.progress(), [100, 416]);
    meeting.end();
}

#[test]
fn all_calls_take_the_outbound_proxy() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut meeting = Meeting::new(&[&format!("sip.outbound_proxy=udp:{address}")]);
    let mut proxy = Agent::bound(address, &meeting.server, "proxy");
    meeting.refer("sip:bob@example.invalid");
    let invite = proxy.request("INVITE");
    assert_eq!(invite.uri(), "sip:bob@example.invalid");
    let called = proxy.pick_up(&invite);
    assert_eq!(meeting.progress(), [100, 200]);
    proxy.hang_up(called);
    meeting.end();
}

#[test]
fn ringing_of_a_callee_that_wants_it_acknowledged() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    meeting.refer(&bob.uri());
    let invite = bob.request("INVITE");
    assert!(invite.header("Supported").contains("100rel"), "{invite:?}");
    for (status, rseq) in [(180, "RSeq: 41"), (183, "RSeq: 42")] {
        bob.reply(&invite, status, &["Require: 100rel", rseq], None);
        let prack = bob.accept("PRACK");
        let number = invite.header("CSeq").split(' ').next().unwrap();
        let rack = format!("{} {number} INVITE", rseq.trim_start_matches("RSeq: "));
        assert_eq!(prack.header("RAck"), rack);
    }
    let called = bob.pick_up(&invite);
    assert_eq!(meeting.progress(), [100, 180, 183, 200]);
    bob.hang_up(called);
    meeting.end();
}

#[test]
fn the_server_refreshes_the_sessions_of_its_own_calls() {
    let mut meeting = Meeting::new(&["sip.session_min_s=2"]);
    let mut bob = meeting.agent("bob");
    bob.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE";
    meeting.refer(&bob.uri());
    // Longer than it asked for, then as short as it may be.
    bob.refuse(422, &["Min-SE: 2000"]);
    let invite = bob.request("INVITE");
    assert!(invite.header("Session-Expires").starts_with("2000"));
    let timer = ["Session-Expires: 2;refresher=uac", "Require: timer"];
    let answer = bob.sdp("sendrecv");
    bob.reply(&invite, 200, &timer, Some((agent::SDP, &answer)));
    bob.request("ACK");
    let called = bob.called(&invite);
    for _ in 0..2 {
        let refresh = bob.request("UPDATE");
        bob.reply(&refresh, 200, &timer, None);
    }
    bob.hang_up(called);
    meeting.end();
}

#[test]
fn a_full_room_calls_nobody() {
    let mut meeting = Meeting::new(&["rooms.max_participants=2"]);
    let mut bob = meeting.agent("bob");
    let mut carol = meeting.agent("carol");
    meeting.refer(&bob.uri());
    let invite = bob.request("INVITE");
    // He has his place while he rings.
    let mut outside = carol.dialog(&meeting.room);
    check(&carol.invite(&mut outside, &[]), 486);
    assert_eq!(meeting.told(), (100, false));
    let line = format!("Refer-To: <{}>", carol.uri());
    check(&meeting.ask("REFER", &[&line]), 200);
    assert_eq!(meeting.progress(), [100, 486]);
    // And keeps it when he is sent on.
    let contact = format!("Contact: <{}>", carol.uri());
    bob.reply(&invite, 302, &[&contact], None);
    bob.request("ACK");
    let called = pick_up(&mut carol);
    assert_eq!(meeting.progress(), [180, 200]);
    carol.hang_up(called);
    meeting.end();
}
