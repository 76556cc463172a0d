//! What is written down of decisions.

use std::sync::Arc;

use super::super::*;
use super::net::{Phone, config, id, load, room, user};
use super::one::One;
use crate::focus::liaison::{Arrival, Order};

fn last(one: &One) -> Decision {
    one.cluster.decisions().next_back().unwrap().clone()
}

#[test]
fn refusals_of_shards_are_kept_and_share_what_was_seen() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let refuse = |one: &mut One, others| {
        let report = Report::Refused {
            room: room("r"),
            from: "sip:caller@phone".to_owned(),
            status: 403,
            why: "The conference is locked".to_owned(),
            others,
        };
        one.hear(Input::Report { shard: 0, report });
        last(one)
    };
    let first = refuse(one, 0);
    assert_eq!((first.what, first.status), (What::Refuse, Some(403)));
    assert_eq!(first.room.as_deref(), Some("r"));
    assert_eq!(first.who.as_deref(), Some("sip:caller@phone"));
    assert_eq!(first.reason, "The conference is locked");
    assert_eq!(first.seen.len(), 2);
    let second = refuse(one, 7);
    assert!(
        second
            .reason
            .ends_with("7 others were refused since the last")
    );
    assert!(Arc::ptr_eq(&first.seen, &second.seen));
    one.wait(100);
    assert!(!Arc::ptr_eq(&first.seen, &refuse(one, 0).seen));
    // Each redirect shows what was predicted before it.
    one.hear(Input::Load(load(500)));
    let predicted = |one: &mut One| {
        one.arrive("r", false);
        last(one).seen[1].predicted
    };
    assert_eq!((predicted(one), predicted(one)), (100, 110));
}

#[test]
fn nobody_fills_the_list_with_his_name() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.hear(Input::Load(load(500)));
    let asked = Arrival {
        room: room("r"),
        participants: 0,
        hopped: false,
        from: format!("sip:{}@phone", "é".repeat(60_000)),
    };
    let call = sip::CallKey::invented(1);
    let (shard, report) = (0, Report::Asked { call, asked });
    one.hear(Input::Report { shard, report });
    let who = last(one).who.unwrap();
    assert_eq!(who.chars().count(), decisions::WHO_MAX);
}

#[test]
fn moves_that_fail_are_kept() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let phone = Phone {
        refer: true,
        replaces: false,
    };
    let user = Box::new(user("sip:a@phone", "a", phone));
    let (shard, room) = (0, room("r"));
    let report = Report::User {
        room: room.clone(),
        user,
    };
    one.hear(Input::Report { shard, report });
    let wanted = Wanted::Drain { deadline: None };
    one.hear(Input::Operator { id: 1, wanted });
    one.wait(150);
    let is_move = |output: &Output| {
        matches!(
            output,
            Output::Order {
                order: Order::Move { .. },
                ..
            }
        )
    };
    assert!(one.said.iter().any(is_move));
    let (endpoint, status) = ("a".to_owned(), 603);
    let report = Report::Done {
        room,
        svr_id: id("M"),
        endpoint,
        status,
    };
    one.hear(Input::Report { shard, report });
    let failed = last(one);
    assert_eq!(
        (failed.what, failed.server.as_deref()),
        (What::Move, Some("B"))
    );
    assert_eq!(failed.who.as_deref(), Some("sip:a@phone"));
    assert_eq!(failed.reason, "he was sent by REFER in vain: 603");
}
