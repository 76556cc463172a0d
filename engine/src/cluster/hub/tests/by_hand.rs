//! One hub and a peer that the test plays byte by byte.

use super::*;
use crate::cluster::Wanted;
use crate::focus::liaison::Wish;

/// A peer whose channel is up.
struct Hand {
    net: Net,
    /// Of the hub's end of the dialog.
    tag: String,
    cseq: u32,
    /// The hub's name for the channel.
    cfw_id: String,
    conn: ConnId,
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{text}"));
    rest.split(['\r', ';']).next().unwrap()
}

fn in_dialog(method: &str, cseq: u32, tag: &str, body: &str) -> String {
    invite(&cfw_uri(0), body)
        .replacen("INVITE", method, 1)
        .replace("branch=z9hG4bKx", &format!("branch=z9hG4bK{method}{cseq}"))
        .replace(
            "To: <sip:cfw@10.0.0.1:5060>",
            &format!("To: <sip:cfw@10.0.0.1:5060>;tag={tag}"),
        )
        .replace("CSeq: 1 INVITE", &format!("CSeq: {cseq} {method}"))
}

fn sync() -> String {
    SYNC.replace("ID\r", "strangers-own-id\r")
}

impl Hand {
    fn new() -> Self {
        let mut net = Net::of(&[&[]]);
        let said = net.ask(address(2), &invite(&cfw_uri(0), OFFER));
        let answer = said.last().unwrap();
        let to = answer.split_once("\r\nTo: ").unwrap().1;
        let mut hand = Self {
            tag: value(to, ";tag=").to_owned(),
            cseq: 1,
            cfw_id: value(answer, "a=cfw-id:").to_owned(),
            net,
            conn: ConnId(0),
        };
        hand.ack();
        hand.connect();
        hand
    }

    fn ack(&mut self) {
        let ack = in_dialog("ACK", self.cseq, &self.tag, "");
        self.net.ask(address(2), &ack);
    }

    fn connect(&mut self) {
        let (hub, now) = (&mut self.net.hubs[0], self.net.now);
        self.conn = hub.accepted(now, (address(2), 40_000).into()).unwrap();
        hub.ready(now, self.conn, None);
        let said = self.say(&sync());
        assert!(said.starts_with("CFW a81f03c9 200\r\n"), "{said}");
        assert_eq!(self.net.up(), [1]);
    }

    fn say(&mut self, text: &str) -> String {
        let hub = &mut self.net.hubs[0];
        hub.received(self.net.now, self.conn, text.as_bytes());
        drain(hub).0
    }

    fn control(&mut self, number: u32, body: &str) -> String {
        let body = format!(
            "<msc-dist-conf xmlns=\"urn:x-msc-dist-conf:1.0\" version=\"1.0\">\
             <request svr-id=\"Z\" epoch=\"1\" seq=\"{number}\">{body}</request></msc-dist-conf>"
        );
        self.say(&format!(
            "CFW z{number:07} CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\
             Content-Type: application/msc-dist-conf+xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// What a re-INVITE with this offer gets; the ACK follows.
    fn reinvite(&mut self, offer: &str) -> String {
        self.cseq += 1;
        let invite = in_dialog("INVITE", self.cseq, &self.tag, offer);
        let answer = self.net.ask(address(2), &invite).pop().unwrap();
        self.ack();
        answer
    }
}

#[test]
fn a_refresh_leaves_the_connection_as_it_is() {
    let mut hand = Hand::new();
    let answer = hand.reinvite(&OFFER.replace("connection:new", "connection:existing"));
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    assert!(answer.contains("a=connection:existing\r\n"), "{answer}");
    assert_eq!(value(&answer, "a=cfw-id:"), hand.cfw_id);
    assert_eq!((hand.net.up(), hand.net.hubs[0].conns.len()), (vec![1], 1));
    // The name stays for as long as the dialog lives.
    let answer = hand.reinvite(&OFFER.replace("strangers-own-id", "strangers-other-id"));
    assert!(answer.starts_with("SIP/2.0 488 "), "{answer}");
    assert_eq!(hand.net.up(), [1]);
    let said = hand.control(1, "");
    assert!(said.contains("CFW z0000001 200\r\n"), "{said}");
}

#[test]
fn who_wants_another_connection_while_there_is_one_gets_it() {
    let mut hand = Hand::new();
    hand.control(1, "");
    assert_eq!(hand.net.seen_by(0), [see("Z", 0)]);
    let answer = hand.reinvite(OFFER);
    assert!(answer.contains("a=connection:new\r\n"), "{answer}");
    assert_eq!(value(&answer, "a=cfw-id:"), hand.cfw_id);
    // The old one is closed, and the rules know it.
    assert_eq!((hand.net.up(), hand.net.hubs[0].conns.len()), (vec![0], 0));
    assert_eq!(hand.net.seen_by(0), []);
    hand.connect();
    hand.control(1, "<crt-conf-info full=\"true\"/>");
    assert_eq!(hand.net.seen_by(0), [see("Z", 0)]);
    let hub = &hand.net.hubs[0];
    assert_eq!((hub.counters().opened, hub.links()), (2, 1));
}

#[test]
fn who_has_lost_the_connection_may_come_back_for_a_while() {
    for connection in ["new", "existing"] {
        let mut hand = Hand::new();
        hand.net.hubs[0].closed(hand.net.now, hand.conn);
        assert_eq!((hand.net.up(), hand.net.hubs[0].links()), (vec![0], 1));
        hand.net.run(1.0);
        let answer = hand.reinvite(&OFFER.replace("new", connection));
        // There is none that could stay (RFC 4145 §5).
        assert!(answer.contains("a=connection:new\r\n"), "{answer}");
        hand.connect();
        assert_eq!(hand.net.hubs[0].links(), 1);
    }
    let mut hand = Hand::new();
    hand.net.hubs[0].closed(hand.net.now, hand.conn);
    hand.net.strays.clear();
    hand.net.run(3.0);
    assert_eq!(hand.net.hubs[0].links(), 0);
    let is_bye = |(_, message): &(SocketAddr, Bytes)| message.starts_with(b"BYE ");
    assert!(hand.net.strays.iter().any(is_bye));
}

#[test]
fn who_listens_himself_is_connected_to_once_he_has_acknowledged() {
    let mut net = Net::of(&[&[]]);
    let offer = OFFER.replace("application 9", "application 7563");
    let offer = offer.replace("setup:active", "setup:passive");
    let said = net.ask(address(2), &invite(&cfw_uri(0), &offer));
    let answer = said.last().unwrap();
    assert!(answer.contains("a=setup:active\r\n"), "{answer}");
    let tag = value(answer.split_once("\r\nTo: ").unwrap().1, ";tag=");
    let (hub, now) = (&mut net.hubs[0], net.now);
    hub.handle_sip(
        now,
        udp_from(address(2)),
        in_dialog("ACK", 1, tag, "").as_bytes(),
    );
    let connect = std::iter::from_fn(|| hub.poll_output()).find_map(|output| match output {
        Output::Connect { conn, host, port } => Some((conn, host, port)),
        _ => None,
    });
    let (conn, host, port) = connect.unwrap();
    assert_eq!((host.as_str(), port), ("192.0.2.9", CFW_PORT));
    hub.ready(now, conn, None);
    let (said, _) = drain(hub);
    let id = said
        .strip_prefix("CFW ")
        .unwrap()
        .strip_suffix("\r\n\r\n")
        .unwrap();
    let id = id.split_once(" SYNC\r\n").unwrap().0;
    assert_eq!(value(&said, "Dialog-ID: "), value(answer, "a=cfw-id:"));
    let synced = format!("CFW {id} 200\r\nKeep-Alive: 100\r\nPackages: msc-dist-conf/1.0\r\n\r\n");
    hub.received(now, conn, synced.as_bytes());
    assert_eq!(hub.counters().up, 1);
}

#[test]
fn a_peer_that_answers_nothing_loses_its_channel_before_anything_is_lost() {
    let mut hand = Hand::new();
    let user = "<crt-users conf-obj-id=\"lobby\" owner=\"Z\" ver=\"1\" epoch=\"1\">\
                <conf-user entity=\"sip:u@example.org\" endpoint=\"1\"/></crt-users>";
    let user = format!("<crt-conf-info full=\"true\">{user}</crt-conf-info>");
    hand.control(1, &user);
    let hub = &mut hand.net.hubs[0];
    assert_eq!(hub.cluster().conference("lobby").unwrap().users.len(), 1);
    for id in 0..1_001 {
        assert_eq!(hub.links(), 1, "{id}");
        let wanted = Wanted::User {
            room: RoomName::from_user("lobby").unwrap(),
            entity: "sip:u@example.org".to_owned(),
            endpoint: None,
            what: Wish::Mute(true),
        };
        hub.handle(hand.net.now, Input::Operator { id, wanted });
        let failed = std::iter::from_fn(|| hub.poll_output())
            .any(|output| matches!(output, Output::Act(Act::Answered { .. })));
        if failed {
            break;
        }
    }
    assert_eq!(hub.links(), 0);
}

#[test]
fn an_answer_that_is_too_long_says_so_in_the_packages_words() {
    let mut hand = Hand::new();
    let operation = format!("<conf_sys_mod conf-obj-id=\"{:a<64}\"/>", "");
    let operations = operation.repeat(10_500);
    let said = hand.control(1, &format!("<conf_op_sys>{operations}</conf_op_sys>"));
    let (_, answer) = said.split_once("CFW z0000001 200\r\n").unwrap();
    assert!(answer.contains("seq=\"1\" status=\"500\""), "{answer}");
}
