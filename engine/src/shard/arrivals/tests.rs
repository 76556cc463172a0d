use std::time::Duration;

use sip::Transport;

use super::*;
use crate::config::Config;
use crate::meters::Meters;

fn arrival(way: Way, name: usize) -> Arrival {
    Arrival {
        flow: Flow {
            transport: Transport::Udp,
            peer: ([127, 0, 0, 1], 9).into(),
            listener: 0,
            stream: 0,
        },
        message: Bytes::from(name.to_string()),
        way,
    }
}

fn new(name: usize) -> Arrival {
    arrival(Way::Any(ShardIndex(0)), name)
}

fn dialogs(name: usize) -> Arrival {
    arrival(Way::Owner(ShardIndex(0)), name)
}

fn names(arrivals: &mut Arrivals, count: usize) -> Vec<String> {
    let name = |arrival: Arrival| String::from_utf8(arrival.message.to_vec()).unwrap();
    std::iter::from_fn(|| arrivals.pop())
        .take(count)
        .map(name)
        .collect()
}

#[test]
fn dialogs_come_first_and_each_kind_in_its_order() {
    let mut arrivals = Arrivals::default();
    for name in 0..6 {
        let lost = arrivals.push(if name % 2 == 0 {
            new(name)
        } else {
            dialogs(name)
        });
        assert!(!lost);
    }
    assert_eq!(names(&mut arrivals, 9), ["1", "3", "5", "0", "2", "4"]);
    assert!(arrivals.is_empty());
}

#[test]
fn a_full_queue_loses_what_is_of_no_dialog_first_and_never_grows() {
    let mut arrivals = Arrivals::default();
    for name in 0..WAITING_MAX {
        assert!(!arrivals.push(new(name)));
    }
    assert!(!arrivals.has_room(&Way::Here) && arrivals.push(new(9_999)));
    assert!(arrivals.push(dialogs(7_777)), "the latest gives way");
    assert_eq!(arrivals.len(), WAITING_MAX);
    assert_eq!(names(&mut arrivals, 2), ["7777", "0"]);
    let rest = names(&mut arrivals, WAITING_MAX);
    assert_eq!(rest.last().unwrap(), &(WAITING_MAX - 2).to_string());

    for name in 0..WAITING_MAX {
        assert!(!arrivals.push(dialogs(name)));
    }
    assert!(arrivals.push(dialogs(1)) && arrivals.push(new(1)));
    assert_eq!(arrivals.len(), WAITING_MAX);
}

/// A gate, and what it counted.
struct Door {
    gate: Gate,
    meters: Meters,
    now: Instant,
    ignored: Vec<String>,
    spread: Spread,
}

impl Door {
    fn new(sets: &[&str]) -> Self {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let config = Config::load(None, [].into_iter(), &sets, &[0]).unwrap();
        let now = Instant::now();
        Self {
            gate: Gate::new(&config.abuse, now),
            meters: Meters::new(&[0]),
            now,
            ignored: config.abuse.drop_user_agents,
            spread: Spread::default(),
        }
    }

    fn look(&mut self, message: &str) -> Option<Way> {
        let mut doorman = Doorman {
            gate: &mut self.gate,
            meters: &self.meters.cores[0],
            spread: &self.spread,
            shards: 2,
            drop_user_agents: &self.ignored,
        };
        let from = [192, 0, 2, 66].into();
        doorman.look(self.now, from, message.as_bytes())
    }

    fn counted(&self, what: Unwanted) -> u64 {
        self.meters.cores[0].unwanted.get(what)
    }
}

fn request(method: &str, user: &str, to_tag: &str, also: &str) -> String {
    format!(
        "{method} sip:{user}@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: <sip:e@h>;tag=1\r\nTo: <sip:{user}@h>{to_tag}\r\n\
         Call-ID: i\r\nCSeq: 1 {method}\r\n{also}\r\n"
    )
}

#[test]
fn each_message_finds_its_way() {
    let mut door = Door::new(&[]);
    let spread = door.spread.clone();
    let any = || Some(Way::Any(spread.shard(b"i", 2)));
    let room = || RoomName::from_user("lobby").map(Way::Room);
    for (message, way) in [
        (request("INVITE", "lobby", "", ""), room()),
        (request("CANCEL", "lobby", "", ""), room()),
        (
            request("BYE", "lobby", ";tag=1-00ff", ""),
            Some(Way::Owner(ShardIndex(1))),
        ),
        // Behind the shards is the hub.
        (
            request("BYE", "lobby", ";tag=2-00ff", ""),
            Some(Way::Owner(ShardIndex(2))),
        ),
        (
            request("INVITE", "cfw", "", ""),
            Some(Way::Any(ShardIndex(2))),
        ),
        (
            request("OPTIONS", "cfw", "", ""),
            Some(Way::Any(ShardIndex(2))),
        ),
        (request("MESSAGE", "cfw", "", ""), any()),
        // A shard that we do not have, and a tag that is none of ours.
        (request("BYE", "lobby", ";tag=3-00ff", ""), any()),
        (request("BYE", "lobby", ";tag=xyz", ""), any()),
        (request("OPTIONS", "lobby", "", ""), any()),
        (request("INVITE", "conference", "", ""), any()),
        (request("REGISTER", "lobby", "", ""), Some(Way::Here)),
        (
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1-0a\r\nCall-ID: i\r\n\r\n"
                .to_owned(),
            Some(Way::Owner(ShardIndex(1))),
        ),
        (
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKfoo\r\nCall-ID: i\r\n\r\n"
                .to_owned(),
            any(),
        ),
        ("\u{1}\u{2}".to_owned(), Some(Way::Here)),
    ] {
        assert_eq!(door.look(&message), way, "{message}");
    }
    assert_eq!(door.counted(Unwanted::Garbage), 1);
}

#[test]
fn who_floods_keeps_his_dialogs_and_nothing_else() {
    let mut door = Door::new(&[]);
    for _ in 0..100 {
        assert_eq!(door.look("garbage"), Some(Way::Here));
    }
    for message in [
        "garbage".to_owned(),
        request("INVITE", "lobby", "", ""),
        request("BYE", "lobby", ";tag=foreign", ""),
        request("REGISTER", "lobby", "", ""),
    ] {
        assert_eq!(door.look(&message), None, "{message}");
    }
    let bye = request("BYE", "lobby", ";tag=1-00ff", "");
    assert_eq!(door.look(&bye), Some(Way::Owner(ShardIndex(1))));
    assert_eq!(door.counted(Unwanted::Garbage), 100);
    assert_eq!(door.counted(Unwanted::Muted), 4);
    door.now += Duration::from_secs(61);
    assert_ne!(door.look(&request("INVITE", "lobby", "", "")), None);
}

#[test]
fn known_scanners_get_no_answer_except_for_what_is_of_a_dialog() {
    let mut door = Door::new(&[]);
    for agent in ["friendly-scanner", "SIPcli/v1.8", "VaxSIPUserAgent/3.1"] {
        let invite = request("INVITE", "lobby", "", &format!("User-Agent: {agent}\r\n"));
        assert_eq!(door.look(&invite), None, "{agent}");
    }
    assert_eq!(door.counted(Unwanted::UserAgent), 3);
    for agent in ["sipclient", "Linphone", "", "x friendly-scanner"] {
        let invite = request("INVITE", "lobby", "", &format!("User-Agent: {agent}\r\n"));
        assert!(matches!(door.look(&invite), Some(Way::Room(_))), "{agent}");
    }
    let in_body = request(
        "INVITE",
        "lobby",
        "",
        "\r\nUser-Agent: friendly-scanner\r\n",
    );
    assert!(door.look(&in_body).is_some());
    let bye = request("BYE", "lobby", ";tag=1-0a", "User-Agent: sipvicious\r\n");
    assert_eq!(door.look(&bye), Some(Way::Owner(ShardIndex(1))));

    for sets in ["abuse.drop_user_agents=", "abuse.trusted=192.0.2.0/24"] {
        let mut door = Door::new(&[sets]);
        let invite = request("INVITE", "lobby", "", "User-Agent: sipvicious\r\n");
        assert!(door.look(&invite).is_some(), "{sets}");
    }
}
