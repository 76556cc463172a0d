//! Who subscribes to a room is told who is in it (RFC 4575), put together as phones do.

#[path = "common/agent.rs"]
mod agent;
mod common;

use std::time::Instant;

use agent::{Agent, Dialog, Message, SDP, check_nothing_left, serve};
use common::Server;
use simd_json::prelude::*;
use sip::conference_info::{
    Applied, Conference, JoiningMethod, MediaStatus, Replica, State, Status, User, read,
};

const EVENT: &str = "Event: conference";

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

/// A subscriber and what he knows.
struct Watcher {
    agent: Agent,
    dialog: Dialog,
    replica: Replica,
}

impl Watcher {
    /// Subscribes, up to the first NOTIFY.
    #[track_caller]
    fn new(mut agent: Agent, room: &str) -> Self {
        let mut dialog = agent.dialog(room);
        let lines = [EVENT, "Expires: 600"];
        let answer = agent.ask(&mut dialog, "SUBSCRIBE", &lines, None);
        check(&answer, 200);
        assert_eq!(answer.header("Expires"), "600");
        assert!(answer.header("Contact").contains("isfocus"), "{answer:?}");
        let mut watcher = Self {
            agent,
            dialog,
            replica: Replica::default(),
        };
        let (notify, state) = watcher.hear();
        assert_eq!(state, State::Full);
        let left = notify.header("Subscription-State");
        assert!(left.starts_with("active;expires="), "{left}");
        watcher
    }

    /// Takes in the next NOTIFY.
    #[track_caller]
    fn hear(&mut self) -> (Message, State) {
        let notify = self.agent.accept("NOTIFY");
        assert_eq!(notify.header("Event"), "conference");
        assert_eq!(
            notify.header("Content-Type"),
            "application/conference-info+xml"
        );
        let document = read(notify.body.as_bytes()).expect("a document");
        let (state, version) = (document.state, document.version);
        let next = self.replica.version().map_or(1, |version| version + 1);
        assert_eq!(version, Some(next), "{}", notify.body);
        let applied = self.replica.apply(document).expect("no gap");
        assert_ne!(applied, Applied::Stale);
        (notify, state)
    }

    fn conference(&self) -> &Conference {
        self.replica.conference().expect("it is not over")
    }

    fn user(&self, agent: &Agent) -> Option<&User> {
        let mut users = self.conference().users.iter();
        users.find(|user| user.entity == agent.uri())
    }

    /// The status of the one call that somebody has there.
    fn status(&self, agent: &Agent) -> Option<Status> {
        match self.user(agent)?.endpoints.as_slice() {
            [one] => one.status,
            many => panic!("{many:?}"),
        }
    }

    /// Takes in NOTIFYs, each a partial one, until it is as told.
    #[track_caller]
    fn hear_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let (_, state) = self.hear();
            assert_eq!(state, State::Partial);
        }
    }

    /// Asks once more, with 0 for the last time; the whole roster has to come.
    #[track_caller]
    fn again(&mut self, expires: u32) -> Message {
        let lines = [EVENT, &format!("Expires: {expires}")];
        let answer = self.agent.ask(&mut self.dialog, "SUBSCRIBE", &lines, None);
        check(&answer, 200);
        // A change may have been on its way.
        loop {
            let (notify, state) = self.hear();
            if state == State::Full {
                return notify;
            }
        }
    }

    #[track_caller]
    fn unsubscribe(mut self) -> Agent {
        let notify = self.again(0);
        let state = notify.header("Subscription-State");
        assert_eq!(state, "terminated;reason=timeout");
        self.agent
    }
}

#[test]
fn a_subscriber_is_told_all_at_once_and_then_what_changes() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    server.wait_until("alice is in", |server| server.participants() == 1);
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let conference = watcher.conference();
    assert_eq!(conference.entity, room);
    assert_eq!(conference.users.len(), 1);
    assert_eq!(conference.state.user_count, Some(1));
    assert_eq!(conference.state.active, Some(true));
    let user = watcher.user(&alice).expect("alice");
    assert_eq!(user.display_text.as_deref(), Some("alice"));
    let endpoint = &user.endpoints[0];
    assert_eq!(endpoint.status, Some(Status::Connected));
    assert_eq!(endpoint.joining_method, Some(JoiningMethod::DialedIn));
    assert!(endpoint.joining.when.is_some());
    assert_eq!(endpoint.media[0].status, Some(MediaStatus::SendRecv));

    let mut bob = Agent::new(&server, "bob");
    let mut other = bob.call(&room);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::Connected));
    assert_eq!(watcher.conference().state.user_count, Some(2));

    let hold = bob.sdp("inactive");
    check(&bob.ask(&mut other, "INVITE", &[], Some((SDP, &hold))), 200);
    bob.ack(&mut other, None);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::OnHold));
    let resume = bob.sdp("sendrecv");
    check(
        &bob.ask(&mut other, "INVITE", &[], Some((SDP, &resume))),
        200,
    );
    bob.ack(&mut other, None);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::Connected));

    for muted in [Status::MutedViaFocus, Status::Connected] {
        for key in ["*", "6"] {
            let body = Some(("application/dtmf", key));
            check(&bob.ask(&mut other, "INFO", &[], body), 200);
        }
        watcher.hear_until(|known| known.status(&bob) == Some(muted));
    }

    bob.hang_up(other);
    watcher.hear_until(|known| known.user(&bob).is_none());
    assert_eq!(watcher.conference().state.user_count, Some(1));
    watcher.unsubscribe();
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn the_end_of_a_conference_ends_the_subscriptions() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    let mut watchers = ["one", "two"].map(|name| Watcher::new(Agent::new(&server, name), &room));
    alice.hang_up(call);
    for watcher in &mut watchers {
        // At once, whatever rooms.notify_ms says.
        loop {
            let (notify, state) = watcher.hear();
            if state == State::Deleted {
                let why = notify.header("Subscription-State");
                assert_eq!(why, "terminated;reason=noresource");
                break;
            }
        }
        assert!(watcher.replica.conference().is_none());
        let lines = [EVENT, "Expires: 600"];
        let late = watcher
            .agent
            .ask(&mut watcher.dialog, "SUBSCRIBE", &lines, None);
        check(&late, 481);
    }
    check_nothing_left(&server);
}

#[test]
fn a_conference_that_somebody_is_about_to_join_is_not_over() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let mut bob = Agent::new(&server, "bob");
    let mut other = bob.dialog(&room);
    check(&bob.invite(&mut other, &[]), 200);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::DialingIn));
    alice.hang_up(call);
    watcher.hear_until(|known| known.user(&alice).is_none());
    bob.ack(&mut other, None);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::Connected));
    watcher.unsubscribe();
    bob.hang_up(other);
    check_nothing_left(&server);
}

#[test]
fn a_look_a_refresh_and_an_end() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    server.wait_until("alice is in", |server| server.participants() == 1);

    let mut looker = Agent::new(&server, "looker");
    let mut dialog = looker.dialog(&room);
    let answer = looker.ask(&mut dialog, "SUBSCRIBE", &[EVENT, "Expires: 0"], None);
    check(&answer, 200);
    assert_eq!(answer.header("Expires"), "0");
    let notify = looker.accept("NOTIFY");
    assert!(
        notify
            .header("Subscription-State")
            .starts_with("terminated")
    );
    let document = read(notify.body.as_bytes()).unwrap();
    assert_eq!(document.state, State::Full);
    assert!(notify.body.contains(&alice.uri()), "{}", notify.body);
    server.wait_until("nothing is kept of a look", |server| {
        server.metric("plenum_sip_subscriptions") == 0.0
    });

    let mut watcher = Watcher::new(looker, &room);
    let notify = watcher.again(1_200);
    let left = notify.header("Subscription-State");
    let left: u32 = left
        .strip_prefix("active;expires=")
        .unwrap()
        .parse()
        .unwrap();
    assert!((601..=1_200).contains(&left), "{left}");
    watcher.unsubscribe();
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_is_in_a_call_subscribes_within_it() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let lines = [EVENT, "Expires: 600"];
    check(&alice.ask(&mut call, "SUBSCRIBE", &lines, None), 200);
    let notify = alice.accept("NOTIFY");
    assert_eq!(notify.header("Call-ID"), call.call_id);
    assert!(notify.body.contains(&alice.uri()));
    let mut bob = Agent::new(&server, "bob");
    let other = bob.call(&room);
    loop {
        let notify = alice.accept("NOTIFY");
        if notify.body.contains(&bob.uri()) {
            break;
        }
    }
    // Ending one use of the dialog leaves the other.
    check(
        &alice.ask(&mut call, "SUBSCRIBE", &[EVENT, "Expires: 0"], None),
        200,
    );
    while !alice
        .accept("NOTIFY")
        .header("Subscription-State")
        .starts_with("terminated")
    {}
    alice.fence(&mut call);
    // And the call takes its subscriptions with it.
    check(&alice.ask(&mut call, "SUBSCRIBE", &lines, None), 200);
    alice.accept("NOTIFY");
    alice.hang_up(call);
    bob.hang_up(other);
    check_nothing_left(&server);
}

#[test]
fn what_cannot_be_subscribed_to() {
    let server = serve(&["rooms.names=lounge"]);
    let mut agent = Agent::new(&server, "agent");
    let mut answer = |room: &str, lines: &[&str]| {
        let mut dialog = agent.dialog(&server.uri(room));
        agent.ask(&mut dialog, "SUBSCRIBE", lines, None)
    };
    let other = answer("lounge", &["Event: presence"]);
    check(&other, 489);
    assert!(other.header("Allow-Events").contains("conference"));
    check(&answer("lounge", &[]), 489);
    let accept = "Accept: application/pidf+xml";
    check(&answer("lounge", &[EVENT, accept]), 406);
    check(&answer("nowhere", &[EVENT]), 404);
    let brief = answer("lounge", &[EVENT, "Expires: 10"]);
    check(&brief, 423);
    assert_eq!(brief.header("Min-Expires"), "60");
    check_nothing_left(&server);
}

/// A room that is there without anybody in it may be subscribed to, and its callers come to where its
/// subscribers are, whichever core that is.
#[test]
fn an_empty_room_is_watched_and_stays() {
    let rooms: Vec<String> = (0..8).map(|i| format!("lounge{i}")).collect();
    let names = format!("rooms.names={}", rooms.join(","));
    let server = serve(&[&names, "rooms.notify_ms=0"]);
    for room in &rooms {
        let room = server.uri(room);
        let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
        assert_eq!(watcher.conference().users.len(), 0);
        let mut alice = Agent::new(&server, "alice");
        let call = alice.call(&room);
        watcher.hear_until(|known| known.status(&alice) == Some(Status::Connected));
        alice.hang_up(call);
        watcher.hear_until(|known| known.user(&alice).is_none());
        watcher.unsubscribe();
    }
    check_nothing_left(&server);
}

#[test]
fn changes_are_told_together_and_not_more_often_than_configured() {
    let server = serve(&["rooms.notify_ms=1500"]);
    let room = server.uri("staff");
    let mut first = Agent::new(&server, "first");
    let call = first.call(&room);
    server.wait_until("somebody is in", |server| server.participants() == 1);
    let begin = Instant::now();
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let mut others: Vec<(Agent, Dialog)> = (0..6)
        .map(|i| {
            let mut agent = Agent::new(&server, &format!("guest{i}"));
            let call = agent.call(&room);
            (agent, call)
        })
        .collect();
    server.wait_until("all are in", |server| server.participants() == 7);
    let mut told = 0;
    watcher.hear_until(|known| known.conference().users.len() == 7);
    while watcher.replica.version() > Some(told + 1) {
        told += 1;
    }
    // As many as the interval allows since the first, and no more: six came.
    let most = begin.elapsed().as_millis() as u32 / 1_500;
    assert!(told <= most, "{told} NOTIFYs, at most {most} in that time");
    for (agent, call) in others.drain(..) {
        let mut agent = agent;
        agent.hang_up(call);
    }
    watcher.unsubscribe();
    first.hang_up(call);
    check_nothing_left(&server);
}

/// So many that the roster does not fit into a datagram.
fn crowd(server: &Server, room: &str) -> Vec<(Agent, Dialog)> {
    let guest = |i| {
        let mut agent = Agent::new(server, &format!("guest{i}"));
        let call = agent.call(room);
        (agent, call)
    };
    (0..5).map(guest).collect()
}

#[test]
fn a_large_roster_goes_by_tcp_where_somebody_listens_and_by_udp_where_nobody_does() {
    let server = serve(&[]);
    let room = server.uri("crowd");
    let guests = crowd(&server, &room);
    server.wait_until("all are in", |server| server.participants() == 5);
    for (agent, by_tcp) in [
        (Agent::with_tcp(&server, "roomy"), true),
        (Agent::new(&server, "narrow"), false),
    ] {
        let mut agent = agent;
        let mut dialog = agent.dialog(&room);
        let lines = [EVENT, "Expires: 600"];
        check(&agent.ask(&mut dialog, "SUBSCRIBE", &lines, None), 200);
        for expires in ["Expires: 600", "Expires: 0"] {
            let notify = agent.accept("NOTIFY");
            assert_eq!(notify.is_over_tcp(), by_tcp, "{notify:?}");
            assert!(notify.body.len() > 1_300, "{}", notify.body.len());
            let document = read(notify.body.as_bytes()).unwrap();
            let (_, users) = document.users.unwrap();
            assert_eq!(users.len(), 5);
            check(
                &agent.ask(&mut dialog, "SUBSCRIBE", &[EVENT, expires], None),
                200,
            );
        }
        agent.accept("NOTIFY");
    }
    for (mut agent, call) in guests {
        agent.hang_up(call);
    }
    check_nothing_left(&server);
}

#[test]
fn a_subscriber_who_refuses_a_notify_is_asked_no_more() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    let mut agent = Agent::new(&server, "forgetful");
    let mut dialog = agent.dialog(&room);
    check(&agent.ask(&mut dialog, "SUBSCRIBE", &[EVENT], None), 200);
    let notify = agent.request("NOTIFY");
    agent.reply(&notify, 481, &[], None);
    server.wait_until("it is forgotten", |server| {
        server.metric("plenum_sip_subscriptions") == 0.0
    });
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn two_calls_of_one_user_are_two_endpoints() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let calls = [alice.call(&room), alice.call(&room)];
    server.wait_until("both are in", |server| server.participants() == 2);
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let count = |known: &Watcher, agent: &Agent| known.user(agent).map(|u| u.endpoints.len());
    assert_eq!(count(&watcher, &alice), Some(2));
    let [first, second] = calls;
    alice.hang_up(first);
    watcher.hear_until(|known| count(known, &alice) == Some(1));
    watcher.unsubscribe();
    alice.hang_up(second);
    check_nothing_left(&server);
}

#[test]
fn a_subscription_with_a_number_keeps_it() {
    let server = serve(&["rooms.names=lounge"]);
    let mut agent = Agent::new(&server, "agent");
    let mut dialog = agent.dialog(&server.uri("lounge"));
    for (expires, state) in [("600", "active"), ("600", "active"), ("0", "terminated")] {
        let lines = ["Event: conference;id=7", &format!("Expires: {expires}")];
        check(&agent.ask(&mut dialog, "SUBSCRIBE", &lines, None), 200);
        let notify = agent.accept("NOTIFY");
        assert_eq!(notify.header("Event"), "conference;id=7");
        assert!(notify.header("Subscription-State").starts_with(state));
    }
    check_nothing_left(&server);
}

#[test]
fn who_is_on_his_way_is_told_too() {
    let server = serve(&[
        "rooms.names=lounge",
        "rooms.notify_ms=0",
        "rooms.answer_after_ms=60000",
        "auth.trusted=127.0.0.1",
    ]);
    let room = server.uri("lounge");
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.dialog(&room);
    let offer = alice.sdp("sendrecv");
    let branch = alice.send(&mut call, "INVITE", &[], Some((SDP, &offer)));
    alice.next("ringing", |message| message.status() == Some(180));
    watcher.hear_until(|known| known.status(&alice) == Some(Status::DialingIn));
    alice.cancel(&mut call, &branch);
    watcher.hear_until(|known| known.user(&alice).is_none());

    // Who is called: by whom, and how far it has come.
    let mut bob = Agent::new(&server, "bob");
    let mut referrer = Agent::new(&server, "referrer");
    let mut refer = |target: &Agent| {
        let mut dialog = referrer.dialog(&room);
        let line = format!("Refer-To: <{}>", target.uri());
        let lines = ["Refer-Sub: false", &line];
        check(&referrer.ask(&mut dialog, "REFER", &lines, None), 200);
        referrer.uri()
    };
    let by = refer(&bob);
    let invite = bob.request("INVITE");
    watcher.hear_until(|known| known.status(&bob) == Some(Status::DialingOut));
    let endpoint = &watcher.user(&bob).unwrap().endpoints[0];
    assert_eq!(endpoint.joining_method, Some(JoiningMethod::DialedOut));
    assert!(
        endpoint
            .joining
            .by
            .as_ref()
            .is_some_and(|who| who.contains(&by))
    );
    bob.reply(&invite, 180, &[], None);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::Alerting));
    let called = bob.pick_up(&invite);
    watcher.hear_until(|known| known.status(&bob) == Some(Status::Connected));
    bob.hang_up(called);
    watcher.hear_until(|known| known.user(&bob).is_none());
    refer(&bob);
    let invite = bob.request("INVITE");
    watcher.hear_until(|known| known.status(&bob) == Some(Status::DialingOut));
    bob.reply(&invite, 486, &[], None);
    watcher.hear_until(|known| known.user(&bob).is_none());
    watcher.unsubscribe();
    check_nothing_left(&server);
}

#[test]
fn a_caller_who_owes_a_number_is_pending() {
    let server = serve(&[
        "rooms.notify_ms=0",
        "rooms.access=pin:4711",
        "auth.trusted=127.0.0.9",
    ]);
    let room = server.uri("sales");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut watcher = Watcher::new(Agent::at([127, 0, 0, 9], &server, "watcher"), &room);
    watcher.hear_until(|known| known.status(&alice) == Some(Status::Pending));
    for key in ["4", "7", "1", "1", "#"] {
        let body = Some(("application/dtmf", key));
        check(&alice.ask(&mut call, "INFO", &[], body), 200);
    }
    watcher.hear_until(|known| known.status(&alice) == Some(Status::Connected));
    watcher.unsubscribe();
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_slow_subscriber_misses_nothing() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut watcher = Watcher::new(Agent::new(&server, "slow"), &room);
    // More changes than anybody keeps NOTIFYs for, while one waits for its answer.
    for direction in ["inactive", "sendrecv"].iter().cycle().take(40) {
        let offer = alice.sdp(direction);
        check(
            &alice.ask(&mut call, "UPDATE", &[], Some((SDP, &offer))),
            200,
        );
    }
    let last = alice.sdp("recvonly");
    check(
        &alice.ask(&mut call, "UPDATE", &[], Some((SDP, &last))),
        200,
    );
    watcher.hear_until(|known| {
        let media = &known.user(&alice).expect("alice").endpoints[0].media[0];
        media.status == Some(MediaStatus::RecvOnly)
    });
    watcher.unsubscribe();
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_server_that_ends_tells_its_subscribers() {
    let mut server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let _call = alice.call(&room);
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    server.signal("INT");
    alice.accept("BYE");
    while watcher.replica.conference().is_some() {
        watcher.hear();
    }
    assert!(server.wait_for_end().success());
}

/// It is what stands in the CSRC lists of what other servers hear of him.
#[test]
fn who_is_in_the_room_is_named_by_the_source_of_his_sound() {
    let server = serve(&["rooms.notify_ms=0"]);
    let room = server.uri("staff");
    let mut agents = ["alice", "bob"].map(|name| Agent::new(&server, name));
    let calls = agents.each_mut().map(|agent| agent.call(&room));
    let mut watcher = Watcher::new(Agent::new(&server, "watcher"), &room);
    let mut sources = Vec::new();
    for agent in &agents {
        watcher.hear_until(|known| known.status(agent) == Some(Status::Connected));
        let media = &watcher.user(agent).expect("he is in").endpoints[0].media[0];
        sources.push(media.src_id.expect("a source"));
    }
    assert_ne!(sources[0], sources[1]);
    watcher.unsubscribe();
    for (mut agent, call) in agents.into_iter().zip(calls) {
        agent.hang_up(call);
    }
    check_nothing_left(&server);
}
