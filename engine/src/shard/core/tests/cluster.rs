//! What the focus and the cluster tell each other; the cluster is the test.

use cfw::dist_conf::message::{ConfUser, Reach, UserStatus};

use super::*;
use crate::focus::liaison::{Closed, Order, Report, Verdict, Wish};

/// More than any server of these tests may have.
pub(super) const TOO_MUCH: u32 = 105_000;

impl Server {
    /// One of several, named so.
    pub(super) fn in_cluster(place: u16, name: &str, sets: &[&str]) -> Self {
        let id = format!("server.id={name}");
        let server = Self::new(place, &[&[id.as_str()], sets].concat());
        server.state.set_in_cluster(true);
        server
    }

    pub(super) fn reports(&self) -> Vec<(ShardIndex, Report)> {
        let mut all = Vec::new();
        while let Some(mail) = self.mailboxes.read(self.mailboxes.hub()) {
            let Mail::Reports { from, reports } = mail else {
                panic!("{mail:?}");
            };
            all.extend(reports.into_iter().map(|report| (from, report)));
        }
        all
    }

    /// The next report that is meant; others are passed over.
    #[track_caller]
    pub(super) fn report<T>(
        &mut self,
        mut what: impl FnMut(&Report) -> Option<T>,
    ) -> (ShardIndex, T) {
        let end = self.now + SOON;
        let mut others = Vec::new();
        while self.now < end {
            let mut found = None;
            for (from, report) in self.reports() {
                match what(&report).filter(|_| found.is_none()) {
                    Some(meant) => found = Some((from, meant)),
                    None => others.push(report),
                }
            }
            if let Some(found) = found {
                return found;
            }
            self.turn();
        }
        panic!("not reported, but {others:?}");
    }

    #[track_caller]
    pub(super) fn reports_done(&mut self, expected: u16) {
        let (_, status) = self.report(|report| match report {
            Report::Done { status, .. } => Some(*status),
            _ => None,
        });
        assert_eq!(status, expected);
    }

    #[track_caller]
    pub(super) fn reports_trunk(&mut self, expected: bool) {
        let (_, up) = self.report(|report| match report {
            Report::Trunk { up, .. } => Some(*up),
            _ => None,
        });
        assert_eq!(up, expected);
    }

    /// A user of a room as he is reported once he stands so.
    #[track_caller]
    pub(super) fn reports_user(&mut self, status: UserStatus) -> (ShardIndex, ConfUser) {
        self.report(|report| match report {
            Report::User { user, .. } if user.status == status => Some((**user).clone()),
            _ => None,
        })
    }

    pub(super) fn order(&self, to: ShardIndex, order: Order) {
        self.mailboxes.post(to, Mail::Orders(vec![order])).unwrap();
    }

    pub(super) fn order_all(&self, order: &Order) {
        for shard in 0..SHARDS {
            self.order(ShardIndex(shard as u16), order.clone());
        }
    }

    /// A caller asks, and is where?
    #[track_caller]
    pub(super) fn asked(&mut self) -> (ShardIndex, sip::CallKey, crate::focus::liaison::Arrival) {
        let (from, (call, asked)) = self.report(|report| match report {
            Report::Asked { call, asked } => Some((*call, asked.clone())),
            _ => None,
        });
        (from, call, asked)
    }
}

pub(super) fn room(name: &str) -> RoomName {
    RoomName::from_user(name).unwrap()
}

/// Who is in a conference at another server, and muted.
pub(super) fn somebody(server: &str, endpoint: &str, entity: &str) -> ConfUser {
    ConfUser {
        entity: entity.to_owned(),
        svr_id: Some(server.parse().unwrap()),
        endpoint: endpoint.to_owned(),
        display_name: Some("Bob".to_owned()),
        status: UserStatus::Connected,
        ssrc: Some(7),
        codec: None,
        role: None,
        muted: true,
        joined: None,
        reach: None,
    }
}

/// This user, who is in conference staff elsewhere, is to be called at his phone.
pub(super) fn take_over(user: ConfUser, phone: &Phone, replaces: bool) -> Order {
    let reach = Reach {
        contact: phone.uri(),
        call_id: "there".to_owned(),
        local_tag: "server".to_owned(),
        remote_tag: "phone".to_owned(),
        refer: false,
        replaces,
    };
    Order::TakeOver {
        room: room("staff"),
        user: Box::new(user),
        reach,
    }
}

#[test]
fn the_cluster_hears_who_is_here_and_may_mute_and_end_him() {
    let mut server = Server::in_cluster(4, "A", &[]);
    let phone = Phone::new(&server);
    phone.call(&mut server, "staff");
    let (shard, user) = server.reports_user(UserStatus::Connected);
    assert_eq!((user.entity.as_str(), user.muted), (&*phone.uri(), false));
    assert_eq!(user.codec.as_deref(), Some("pcmu"));
    let reach = user.reach.unwrap();
    assert_eq!(
        (reach.contact, reach.remote_tag),
        (phone.uri(), "p".to_owned())
    );
    assert!(!reach.refer && !reach.replaces && !reach.local_tag.is_empty());
    // What has not changed is not said again.
    for _ in 0..200 {
        server.turn();
    }
    assert_eq!(server.reports(), []);
    let wish = |what| Order::Wish {
        room: room("staff"),
        endpoint: user.endpoint.clone(),
        what,
    };
    server.order(shard, wish(Wish::Mute(true)));
    assert!(server.reports_user(UserStatus::MutedViaFocus).1.muted);
    server.order(shard, wish(Wish::End("enough".to_owned())));
    let bye = server.expect(&phone, "BYE", SOON);
    assert!(header(&bye, "Reason").contains("enough"), "{bye}");
    let (_, endpoint) = server.report(|report| match report {
        Report::UserGone { endpoint, .. } => Some(endpoint.clone()),
        _ => None,
    });
    assert_eq!(endpoint, user.endpoint);
}

#[test]
fn callers_of_a_full_server_go_where_the_cluster_says() {
    let mut server = Server::in_cluster(5, "A", &[]);
    server.load.update(TOO_MUCH, 0.0);
    let invite = |server: &mut Server, parameters: &str| {
        let phone = Phone::new(server);
        phone.request_of("INVITE", "staff", parameters, None, WITH_SDP, SDP);
        let (shard, call, asked) = server.asked();
        assert_eq!((asked.room, asked.participants), (room("staff"), 0));
        assert_eq!(asked.from, phone.uri());
        assert_eq!(asked.hopped, !parameters.is_empty());
        (phone, shard, call)
    };
    let placed = |call, verdict| Order::Placed { call, verdict };

    let (phone, shard, call) = invite(&mut server, "");
    server.expect(&phone, "SIP/2.0 100", SOON);
    let contacts = [
        "sip:staff@192.0.2.2;crt-hop=1",
        "sip:staff@192.0.2.3;crt-hop=1",
    ];
    let contacts = contacts.map(str::to_owned).into();
    server.order(shard, placed(call, Verdict::Redirect { contacts }));
    let answer = server.expect(&phone, "SIP/2.0 302", SOON);
    let contacts: Vec<&str> = answer
        .lines()
        .filter(|l| l.starts_with("Contact"))
        .collect();
    assert_eq!(
        contacts,
        [
            "Contact: <sip:staff@192.0.2.2;crt-hop=1>;q=1.000",
            "Contact: <sip:staff@192.0.2.3;crt-hop=1>;q=0.900"
        ]
    );
    assert!(!answer.contains("Expires"), "{answer}");

    let (phone, shard, call) = invite(&mut server, ";crt-hop=1");
    let refuse = Verdict::Refuse {
        status: 503,
        retry_after_s: 5,
    };
    server.order(shard, placed(call, refuse));
    let answer = server.expect(&phone, "SIP/2.0 503", SOON);
    assert_eq!(header(&answer, "Retry-After"), "5");

    let (phone, shard, call) = invite(&mut server, ";crt-hop=1");
    server.order(shard, placed(call, Verdict::Accept));
    let answer = server.expect(&phone, "SIP/2.0 200", SOON);
    assert!(!header(&answer, "Contact").contains("crt-hop"), "{answer}");
    let (_, user) = server.reports_user(UserStatus::DialingIn);
    assert_eq!(user.entity, phone.uri());
    assert_eq!(server.calls(), 1);
}

#[test]
fn who_waits_for_the_cluster_may_hang_up_and_does_not_wait_for_ever() {
    let mut server = Server::in_cluster(6, "A", &[]);
    server.state.set(State::Draining);
    let withdrawn = |server: &mut Server| {
        server.report(|report| match report {
            Report::Withdrawn { call } => Some(*call),
            _ => None,
        })
    };
    let hasty = Phone::new(&server);
    hasty.request("INVITE", "staff", None, WITH_SDP, SDP);
    let (shard, call, _) = server.asked();
    hasty.cancel("staff", None);
    server.expect(&hasty, "SIP/2.0 487", SOON);
    assert_eq!(withdrawn(&mut server), (shard, call));
    // What comes too late is nobody's.
    let verdict = Verdict::Accept;
    server.order(shard, Order::Placed { call, verdict });

    let patient = Phone::new(&server);
    patient.request("INVITE", "staff", None, WITH_SDP, SDP);
    let (shard, call, _) = server.asked();
    let answer = server.expect(&patient, "SIP/2.0 503", Duration::from_secs(7));
    assert!(!header(&answer, "Retry-After").is_empty());
    assert_eq!(withdrawn(&mut server), (shard, call));
    assert_eq!(server.calls(), 0);
}

#[test]
fn strangers_make_nobody_wait() {
    let mut server = Server::in_cluster(21, "A", &["rooms.access=authenticated"]);
    server.load.update(TOO_MUCH, 0.0);
    let phone = Phone::new(&server);
    phone.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&phone, "SIP/2.0 401", SOON);
    assert_eq!(server.reports(), []);
}

#[test]
fn callers_who_wait_are_not_too_many() {
    let mut server = Server::in_cluster(22, "A", &[]);
    server.load.update(TOO_MUCH, 0.0);
    let phone = Phone::new(&server);
    let mut asked = 0;
    let mut refused = std::collections::HashSet::new();
    // A shard whose turns are so long apart handles a few messages in each; all are through before the
    // first has waited for too long.
    for turn in 0..100 {
        for caller in 0..if turn < 20 { 40 } else { 0 } {
            let room = format!("room{turn}.{caller}");
            phone.request("INVITE", &room, None, WITH_SDP, SDP);
        }
        server.turn();
        let reports = server.reports().into_iter();
        let is_asked = |(_, report): &(ShardIndex, Report)| matches!(report, Report::Asked { .. });
        asked += reports.filter(is_asked).count();
        while let Some(message) = phone.hear() {
            if message.starts_with("SIP/2.0 503") {
                refused.insert(header(&message, "CSeq").to_owned());
            }
        }
    }
    // As many on each shard, however the rooms are spread.
    assert!((256..=512).contains(&asked), "{asked}");
    assert_eq!(server.calls(), asked);
    assert!(refused.len() > 200, "{}", refused.len());
}

#[test]
fn users_are_sent_elsewhere_by_refer() {
    let mut server = Server::in_cluster(7, "A", &[]);
    let phone = Phone::new(&server);
    let to = phone.call(&mut server, "staff");
    let (shard, user) = server.reports_user(UserStatus::Connected);
    let target = "sip:staff@192.0.2.2:5060;crt-hop=1";
    let order = Order::Move {
        room: room("staff"),
        endpoint: user.endpoint,
        target: target.to_owned(),
    };
    server.order(shard, order.clone());
    let refer = server.expect(&phone, "REFER", SOON);
    phone.answer(&refer, 603);
    server.reports_done(603);
    assert_eq!(server.calls(), 1, "he stays");

    for (status, calls) in [(486, 1), (200, 0)] {
        server.order(shard, order.clone());
        let refer = server.expect(&phone, "REFER", SOON);
        assert_eq!(header(&refer, "Refer-To"), format!("<{target}>"));
        phone.answer(&refer, 202);
        let lines = "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\n\
                     Content-Type: message/sipfrag\r\n";
        let fragment = format!("SIP/2.0 {status} X\r\n");
        phone.request("NOTIFY", "staff", Some(&to), lines, &fragment);
        server.expect(&phone, "SIP/2.0 200", SOON);
        server.reports_done(status);
        server.turn();
        assert_eq!(server.calls(), calls);
    }
    let bye = server.expect(&phone, "BYE", SOON);
    assert!(header(&bye, "Reason").contains("moved"), "{bye}");
}

/// A REFER makes a stranger of him, who finds the room locked, or has to key in its number again.
#[test]
fn who_would_be_turned_away_elsewhere_or_heard_again_is_not_sent_there() {
    let mut server = Server::in_cluster(25, "A", &["rooms.policies=sales=pin:4711"]);
    let order = |shard, user: &ConfUser, name: &str| {
        let order = Order::Move {
            room: room(name),
            endpoint: user.endpoint.clone(),
            target: format!("sip:{name}@192.0.2.2;crt-hop=1"),
        };
        (shard, order)
    };
    let check = |server: &mut Server, phone: &Phone, (shard, order): (_, Order), expected| {
        server.order(shard, order);
        server.reports_done(expected);
        while let Some(message) = phone.hear() {
            assert!(!message.starts_with("REFER"), "{message}");
        }
    };
    let key_in = |server: &mut Server, phone: &Phone, to: &str, name, keys: &str| {
        let lines = "Content-Type: application/dtmf-relay\r\n";
        for key in keys.chars() {
            phone.request("INFO", name, Some(to), lines, &format!("Signal={key}\r\n"));
            server.expect(phone, "SIP/2.0 200", SOON);
        }
    };

    let phone = Phone::new(&server);
    let to = phone.call(&mut server, "sales");
    let (shard, user) = server.reports_user(UserStatus::Pending);
    check(&mut server, &phone, order(shard, &user, "sales"), 491);
    key_in(&mut server, &phone, &to, "sales", "4711#");
    server.reports_user(UserStatus::Connected);
    check(&mut server, &phone, order(shard, &user, "sales"), 403);

    let phone = Phone::new(&server);
    let to = phone.call(&mut server, "staff");
    let (shard, user) = server.reports_user(UserStatus::Connected);
    let closed = |why| Order::Closed {
        room: room("staff"),
        why,
    };
    server.order_all(&closed(Some(Closed::Locked)));
    check(&mut server, &phone, order(shard, &user, "staff"), 403);
    server.order_all(&closed(None));
    key_in(&mut server, &phone, &to, "staff", "*6");
    server.reports_user(UserStatus::MutedViaFocus);
    check(&mut server, &phone, order(shard, &user, "staff"), 403);
    key_in(&mut server, &phone, &to, "staff", "*6");
    server.reports_user(UserStatus::Connected);
    server.order(shard, order(shard, &user, "staff").1);
    server.expect(&phone, "REFER", SOON);
}

#[test]
fn a_phone_that_says_nothing_of_its_refer_stays() {
    let mut server = Server::in_cluster(8, "A", &[]);
    let phone = Phone::new(&server);
    let to = phone.call(&mut server, "staff");
    let (shard, user) = server.reports_user(UserStatus::Connected);
    let order = Order::Move {
        room: room("staff"),
        endpoint: user.endpoint,
        target: "sip:staff@192.0.2.2".to_owned(),
    };
    server.order(shard, order.clone());
    let refer = server.expect(&phone, "REFER", SOON);
    phone.answer(&refer, 202);
    assert_eq!(server.until(&phone, Duration::from_secs(29)), None);
    server.reports_done(408);
    assert_eq!(server.calls(), 1);
    let nobody = Order::Move {
        room: room("staff"),
        endpoint: "nobody".to_owned(),
        target: "sip:staff@192.0.2.2".to_owned(),
    };
    server.order(shard, nobody);
    server.reports_done(481);
    // At last he is there, and must not be in the room twice.
    let lines = "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\n\
                 Content-Type: message/sipfrag\r\n";
    phone.request("NOTIFY", "staff", Some(&to), lines, "SIP/2.0 200 X\r\n");
    let bye = server.expect(&phone, "BYE", SOON);
    assert!(header(&bye, "Reason").contains("moved"), "{bye}");
    phone.answer(&bye, 200);
    server.turn();
    assert_eq!(server.calls(), 0);
}

#[test]
fn a_user_of_another_server_is_taken_over_as_whom_he_was() {
    let mut server = Server::in_cluster(9, "A", &[]);
    let phone = Phone::new(&server);
    let bob = || somebody("B", "0.1.2", "sip:bob@example.test");
    server.order(ShardIndex(0), take_over(bob(), &phone, true));
    let invite = server.expect(&phone, "INVITE", SOON);
    assert_eq!(
        header(&invite, "Replaces"),
        "there;to-tag=phone;from-tag=server"
    );
    assert_eq!(header(&invite, "Require"), "replaces");
    phone.answer_with(&invite, 200, WITH_SDP, SDP);
    server.expect(&phone, "ACK", SOON);
    server.reports_done(200);
    assert_eq!(server.calls(), 1);

    server.order(ShardIndex(0), take_over(bob(), &phone, true));
    let invite = server.expect(&phone, "INVITE", SOON);
    phone.answer(&invite, 481);
    server.expect(&phone, "ACK", SOON);
    server.reports_done(481);
    assert_eq!(server.calls(), 1);

    // Who has not keyed in the number of the room there would be let in without it here.
    let mut pending = bob();
    pending.status = UserStatus::Pending;
    server.order(ShardIndex(0), take_over(pending, &phone, true));
    server.reports_done(403);
    assert_eq!(server.calls(), 1);
}

#[test]
fn who_is_taken_over_keeps_his_name_and_stays_muted() {
    let mut server = Server::in_cluster(10, "A", &[]);
    let phone = Phone::new(&server);
    let bob = somebody("B", "0.1.2", "sip:bob@example.test");
    server.order(ShardIndex(1), take_over(bob, &phone, false));
    let invite = server.expect(&phone, "INVITE", SOON);
    assert!(!invite.contains("\r\nRequire:"), "{invite}");
    phone.answer_with(&invite, 200, WITH_SDP, SDP);
    let (shard, user) = server.reports_user(UserStatus::MutedViaFocus);
    assert_eq!(shard, ShardIndex(1));
    assert_eq!(user.entity, "sip:bob@example.test");
    assert_eq!(user.display_name.as_deref(), Some("Bob"));
    assert!(user.muted && user.endpoint.starts_with("1."));
}

#[test]
fn a_room_has_one_roster_and_one_limit_on_all_servers() {
    let sets = ["rooms.notify_ms=0", "rooms.max_participants=2"];
    let mut server = Server::in_cluster(11, "A", &sets);
    let watcher = Phone::new(&server);
    let subscribe = || watcher.request("SUBSCRIBE", "staff", None, "Event: conference\r\n", "");
    subscribe();
    server.expect(&watcher, "SIP/2.0 404", SOON);
    let bob = |endpoint: &str| Order::Remote {
        room: room("staff"),
        user: Box::new(somebody("B", endpoint, "sip:bob@example.test")),
    };
    server.order_all(&bob("0.1.1"));
    server.turn();
    subscribe();
    let notify = server.expect(&watcher, "NOTIFY", SOON);
    watcher.answer(&notify, 200);
    assert!(
        notify.contains("<user entity=\"sip:bob@example.test\""),
        "{notify}"
    );
    assert!(
        notify.contains("sip:bob@example.test;endpoint=B.0.1.1"),
        "{notify}"
    );
    let (_, watched) = server.report(|report| match report {
        Report::Watched { watched, .. } => Some(*watched),
        _ => None,
    });
    assert!(watched);

    let phone = Phone::new(&server);
    let to = phone.call(&mut server, "staff");
    let (shard, user) = server.reports_user(UserStatus::Connected);
    let endpoint = format!("{};endpoint=A.{}", phone.uri(), user.endpoint);
    loop {
        let notify = server.expect(&watcher, "NOTIFY", SOON);
        watcher.answer(&notify, 200);
        if notify.contains(&endpoint) && notify.contains("<user-count>2</user-count>") {
            break;
        }
    }
    let third = Phone::new(&server);
    third.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&third, "SIP/2.0 486", SOON);

    // Whoever is elsewhere is thrown out there.
    let lines = "Refer-To: <sip:bob@example.test;method=BYE>\r\nRefer-Sub: false\r\n";
    phone.request("REFER", "staff", Some(&to), lines, "");
    server.expect(&phone, "SIP/2.0 200", SOON);
    let (_, (endpoint, what)) = server.report(|report| match report {
        Report::Wanted { endpoint, what, .. } => Some((endpoint.clone(), what.clone())),
        _ => None,
    });
    assert_eq!(endpoint.as_deref(), Some("0.1.1"));
    assert_eq!(what, Wish::End("ejected".to_owned()));
    server.order_all(&Order::RemoteGone {
        room: room("staff"),
        svr_id: "B".parse().unwrap(),
        endpoint: "0.1.1".to_owned(),
    });
    let notify = server.expect(&watcher, "NOTIFY", SOON);
    watcher.answer(&notify, 200);
    assert!(notify.contains("state=\"deleted\""), "{notify}");

    let closed = |why| Order::Closed {
        room: room("staff"),
        why: Some(why),
    };
    server.order(shard, closed(Closed::Locked));
    let notify = server.expect(&watcher, "NOTIFY", SOON);
    watcher.answer(&notify, 200);
    assert!(notify.contains("<locked>true</locked>"), "{notify}");
    let late = Phone::new(&server);
    late.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&late, "SIP/2.0 403", SOON);
    server.order_all(&closed(Closed::Full));
    let later = Phone::new(&server);
    later.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&later, "SIP/2.0 486", SOON);

    // Who was sent here may be in it: the cluster knows.
    let moved = Phone::new(&server);
    let hop = ";crt-hop=1";
    moved.request_of("INVITE", "staff", hop, None, WITH_SDP, SDP);
    let (shard, call, _) = server.asked();
    let verdict = Verdict::Accept;
    server.order(shard, Order::Placed { call, verdict });
    server.expect(&moved, "SIP/2.0 200", SOON);
}

#[test]
fn who_is_moved_into_a_room_is_not_counted_twice() {
    let sets = ["rooms.max_participants=1"];
    let mut server = Server::in_cluster(12, "A", &sets);
    let phone = Phone::new(&server);
    server.order_all(&Order::Remote {
        room: room("staff"),
        user: Box::new(somebody("B", "0.1.1", &phone.uri())),
    });
    server.turn();
    phone.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&phone, "SIP/2.0 486", SOON);
    phone.request_of("INVITE", "staff", ";crt-hop=1", None, WITH_SDP, SDP);
    server.expect(&phone, "SIP/2.0 200", SOON);
    let (_, user) = server.reports_user(UserStatus::DialingIn);
    // Shard, slot, generation, and what tells it from calls of earlier processes.
    assert_eq!(user.endpoint.split('.').count(), 4);
}
