//! What is written down of decisions.

use std::sync::Arc;

use cfw::dist_conf::message::Element;

use super::super::*;
use super::net::{Phone, config, id, load, room, user};
use super::one::{One, report as report_of, told};
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
    for (refer, reason) in [
        (true, "not done in time"),
        (false, "he could not be called from there: 510"),
    ] {
        let one = &mut One::new(config("M", &[]));
        one.meet("B", 100);
        let replaces = !refer;
        let user = Box::new(user("sip:a@phone", "a", Phone { refer, replaces }));
        let (shard, room) = (0, room("r"));
        let report = Report::User { room, user };
        one.hear(Input::Report { shard, report });
        let wanted = Wanted::Drain { deadline: None };
        one.hear(Input::Operator { id: 1, wanted });
        one.wait(150);
        // He is asked to call B, and nothing comes of it; or B is asked to call him, and does not answer.
        let channel = One::channel("B");
        let asked = one.said.iter().rev().find_map(|output| match output {
            Output::Send { id, request, .. } => {
                let is_his = |element: &Element| matches!(element, Element::Participant(_));
                request.elements.iter().any(is_his).then_some(*id)
            }
            _ => None,
        });
        assert_eq!(asked.is_some(), replaces);
        if let Some(id) = asked {
            let result = Err(408);
            one.hear(Input::Response {
                channel,
                id,
                result,
            });
        }
        for seq in 2..(if refer { 44 } else { 3 }) {
            one.request("B", seq, vec![Element::Load(report_of("B", 100))]);
            one.wait(1_000);
        }
        let mut decisions = one.cluster.decisions();
        let failed = decisions.find(|it| it.reason == reason).unwrap();
        let server = failed.server.as_deref();
        assert_eq!((failed.what, server), (What::Move, Some("B")));
        assert_eq!(failed.who.as_deref(), Some("sip:a@phone"));
    }
}

#[test]
fn who_cannot_be_called_back_is_kept() {
    let recall = true;
    let one = &mut One::new(Config {
        recall,
        ..config("M", &[])
    });
    one.meet("B", 100);
    let phone = Phone {
        refer: false,
        replaces: true,
    };
    let info = told("B", vec![user("sip:a@phone", "a", phone)]);
    one.request("B", 2, vec![Element::ConfInfo(info)]);
    let (channel, why) = (One::channel("B"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    for _ in 0..2 {
        one.wait(3_000);
        let order = one.said.drain(..).find_map(|output| match output {
            Output::Order {
                order: Order::TakeOver { room, user, .. },
                ..
            } => Some((room, user)),
            _ => None,
        });
        let (room, user) = order.unwrap();
        let report = Report::Done {
            room,
            svr_id: id("B"),
            endpoint: user.endpoint.clone(),
            status: 486,
        };
        one.hear(Input::Report { shard: 0, report });
    }
    let failed = last(one);
    assert_eq!(failed.what, What::Recall);
    assert_eq!(failed.who.as_deref(), Some("sip:a@phone"));
    assert_eq!(failed.reason, "he could not be called back");
}
