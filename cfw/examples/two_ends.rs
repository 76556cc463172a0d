//! Two servers and a channel between them, in memory: offer and answer, SYNC, a load report, and an order
//! that takes its time. Prints everything that would go over the network.
//!
//! ```text
//! cargo run -p cfw --example two_ends
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use cfw::channel::{Channel, Config, Content, Event, Unclaimed};
use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::message::{Element, Message, Op, OpResult, ParticipantOp, Request, Response};
use cfw::sdp::{self, Local, Setup};
use cfw::{SvrId, dist_conf};

fn main() -> Result<(), Box<dyn Error>> {
    // The clock is ours.
    let mut now = Instant::now();
    let package = dist_conf::PACKAGE.parse()?;

    // A calls B. The ids are to be random; the descriptions go in the INVITE and its 200.
    let a = Local::new("192.0.2.1".parse()?, None, sdp::cfw_id([0xa; 12]));
    let b = Local::new(
        "192.0.2.2".parse()?,
        Some(sdp::PORT),
        sdp::cfw_id([0xb; 12]),
    );
    let offer = sdp::offer(&a, Setup::Active);
    show("A -> B, in INVITE", offer.as_bytes());
    let (answer, at_b) = sdp::answer(&sdp::read(offer.as_bytes())?, &b, false)?;
    show("B -> A, in 200", answer.as_bytes());
    let at_a = sdp::accept(&a, Setup::Active, &sdp::read(answer.as_bytes())?)?;

    // A connects to at_a.peer_host and peer_port, and tells which dialog the connection is for.
    let mut a = Channel::active(now, Config::new(at_a.cfw_id, vec![package]));
    let mut accepted = Unclaimed::new(now);
    let bytes = take("A -> B", &mut a);
    accepted
        .handle_bytes(&bytes)
        .expect("a SYNC is what a connection begins with");
    assert_eq!(accepted.dialog_id(), Some(at_b.peer_cfw_id.as_str()));
    let mut b = accepted.claim(now, Config::new(at_b.cfw_id, vec![package]));
    a.handle_bytes(now, &take("B -> A", &mut b));
    assert!(matches!(a.poll_event(), Some(Event::Ready { .. })));
    assert!(matches!(b.poll_event(), Some(Event::Ready { .. })));

    // A tells its load; B says 200 in both ways: as the channel does, and as the package does.
    let load = Element::Load(SvrLoad {
        svr_id: "srv-a".parse()?,
        current: 431,
        max_load: 500,
        min_load: 50,
        state: SvrState::Active,
        hot: Some(0.43),
    });
    a.request(now, package, Some(request("srv-a".parse()?, 1, load)))?;
    b.handle_bytes(now, &take("A -> B", &mut a));
    let Some(Event::Control { id, content, .. }) = b.poll_event() else {
        return Err("no CONTROL".into());
    };
    let Message::Request(told) = dist_conf::read(&content.body)? else {
        return Err("no request".into());
    };
    let ok = Response::new(Some("srv-b".parse()?), told.seq, 200);
    b.answer(now, id, Some(body(&Message::Response(ok.clone()))))?;
    a.handle_bytes(now, &take("B -> A", &mut b));
    let Some(Event::Answered { content, .. }) = a.poll_event() else {
        return Err("no answer".into());
    };
    assert_eq!(dist_conf::read(&content.body)?, Message::Response(ok));

    // A has B call somebody. That takes B longer than a transaction may take, so the channel extends it by
    // itself, and keeps it alive.
    let call = Element::Participant(ParticipantOp {
        op: Op::Create,
        conf_obj_id: "lobby".to_owned(),
        entity: "sip:alice@example.com".to_owned(),
        endpoint: None,
        svr_id: None,
        move_to: None,
        muted: None,
        role: None,
        reach: None,
    });
    a.request(now, package, Some(request("srv-a".parse()?, 2, call)))?;
    b.handle_bytes(now, &take("A -> B", &mut a));
    let Some(Event::Control { id, .. }) = b.poll_event() else {
        return Err("no CONTROL".into());
    };
    let answered_at = now + Duration::from_secs(18);
    while let Some(next) = b.poll_timeout().filter(|next| *next < answered_at) {
        now = next;
        b.handle_timeout(now);
        a.handle_bytes(now, &take("B -> A", &mut b));
        assert!(matches!(a.poll_event(), Some(Event::Extended { .. })));
        b.handle_bytes(now, &take("A -> B", &mut a));
    }
    now = answered_at;
    let mut done = Response::new(Some("srv-b".parse()?), 2, 200);
    done.results.push(OpResult {
        op: Op::Create.participant_name().to_owned(),
        status: 200,
        conf_obj_id: Some("lobby".to_owned()),
        ver: None,
    });
    b.answer(now, id, Some(body(&Message::Response(done))))?;
    a.handle_bytes(now, &take("B -> A", &mut b));
    assert!(matches!(a.poll_event(), Some(Event::Answered { .. })));
    b.handle_bytes(now, &take("A -> B", &mut a));
    Ok(())
}

fn request(svr_id: SvrId, seq: u64, element: Element) -> Content {
    body(&Message::Request(Request {
        svr_id: Some(svr_id),
        epoch: 1,
        seq,
        elements: vec![element],
    }))
}

fn body(message: &Message) -> Content {
    Content::new(dist_conf::MEDIA_TYPE, dist_conf::write(message))
}

/// What a channel wants sent, as if it were.
fn take(way: &str, channel: &mut Channel) -> Vec<u8> {
    let bytes = channel.output().to_vec();
    channel.consume(bytes.len());
    if !bytes.is_empty() {
        show(way, &bytes);
    }
    bytes
}

fn show(way: &str, bytes: &[u8]) {
    println!("--- {way}\n{}", String::from_utf8_lossy(bytes));
}

#[test]
fn the_conversation() {
    main().unwrap();
}
