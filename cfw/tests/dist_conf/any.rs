//! Any message that there can be, and what holds for all of them.

use std::time::{Duration, UNIX_EPOCH};

use cfw::SvrId;
use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, Op, OpResult, ParticipantOp, Reach, Request,
    ReservedState, ReservedSvr, ReservedSvrs, Response, SysOp, System, UserStatus, Users,
};
use cfw::dist_conf::{read, write};
use proptest::prelude::*;

use crate::values::{request, users};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9@:;<>&\"' ]{1,12}",
        // Everything that XML can hold.
        "[\t\n\r -\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]{1,8}",
    ]
}

fn optional() -> impl Strategy<Value = Option<String>> {
    prop::option::of(text())
}

fn svr_id() -> impl Strategy<Value = SvrId> {
    "[A-Za-z0-9._-]{1,32}".prop_map(|name| name.parse().unwrap())
}

fn any_load() -> impl Strategy<Value = SvrLoad> {
    let limits = (0..u32::MAX).prop_flat_map(|min| (Just(min), min + 1..=u32::MAX));
    let state = prop::sample::select(&SvrState::ALL);
    let hot = prop::option::of(0.0..=1.0_f32);
    (svr_id(), any::<u32>(), limits, state, hot).prop_map(
        |(svr_id, current, (min_load, max_load), state, hot)| SvrLoad {
            svr_id,
            current,
            max_load,
            min_load,
            state,
            hot,
        },
    )
}

prop_compose! {
    fn any_reach()(
        [contact, call_id, local_tag, remote_tag] in [text(), text(), text(), text()],
        refer: bool,
        replaces: bool,
    ) -> Reach {
        Reach { contact, call_id, local_tag, remote_tag, refer, replaces }
    }
}

prop_compose! {
    fn any_user()(
        (entity, endpoint) in (text(), text()),
        svr_id in prop::option::of(svr_id()),
        [display_name, codec, role] in [optional(), optional(), optional()],
        status in prop::sample::select(UserStatus::ALL),
        ssrc: Option<u32>,
        muted: bool,
        joined in prop::option::of((0..253_402_300_800_u64, 0..1_000_000_000_u32)),
        reach in prop::option::of(any_reach()),
    ) -> ConfUser {
        let joined = joined.map(|(s, ns)| UNIX_EPOCH + Duration::new(s, ns));
        ConfUser {
            entity, svr_id, endpoint, display_name, status, ssrc, codec, role, muted, joined, reach,
        }
    }
}

prop_compose! {
    fn any_users()(
        conf_obj_id in text(),
        owner in prop::option::of(svr_id()),
        ver: u64,
        epoch: u64,
        state in prop::sample::select(ConfState::ALL),
        locked: bool,
        max_users: Option<u32>,
        subject in optional(),
        full: bool,
        users in prop::collection::vec(any_user(), 0..4),
    ) -> Users {
        Users { conf_obj_id, owner, ver, epoch, state, locked, max_users, subject, full, users }
    }
}

prop_compose! {
    fn any_system()(
        svr_id in svr_id(),
        active_svrs: u32,
        uri in optional(),
        cfw_uri in optional(),
        state in prop::sample::select(&SvrState::ALL),
        epoch: u64,
    ) -> System {
        System { svr_id, active_svrs, uri, cfw_uri, state, epoch }
    }
}

prop_compose! {
    fn any_info()(
        full: bool,
        query: bool,
        (part, parts) in (1..=64_u32).prop_flat_map(|parts| (1..=parts, Just(parts))),
        systems in prop::collection::vec(any_system(), 0..3),
        conferences in prop::collection::vec(any_users(), 0..3),
    ) -> ConfInfo {
        ConfInfo { full, query, part, parts, systems, conferences }
    }
}

prop_compose! {
    fn any_reserved()(
        ver: u64,
        servers in prop::collection::vec((
            svr_id(),
            optional(),
            prop::sample::select(ReservedState::ALL),
            prop::option::of(svr_id()),
        ), 0..3),
    ) -> ReservedSvrs {
        let entry = |(svr_id, uri, state, by)| ReservedSvr { svr_id, uri, state, by };
        ReservedSvrs { ver, servers: servers.into_iter().map(entry).collect() }
    }
}

prop_compose! {
    fn any_sys_op()(
        op in prop::sample::select(&Op::ALL),
        conf_obj_id in text(),
        base_ver: Option<u64>,
        [mode, conf_uri, subject] in [optional(), optional(), optional()],
        max_users: Option<u32>,
        locked: Option<bool>,
    ) -> SysOp {
        SysOp { op, conf_obj_id, base_ver, mode, conf_uri, max_users, locked, subject }
    }
}

prop_compose! {
    fn any_participant_op()(
        op in prop::sample::select(&Op::ALL),
        [conf_obj_id, entity] in [text(), text()],
        [endpoint, role] in [optional(), optional()],
        svr_id in prop::option::of(svr_id()),
        move_to in prop::option::of(svr_id()),
        muted: Option<bool>,
        reach in prop::option::of(any_reach()),
    ) -> ParticipantOp {
        ParticipantOp { op, conf_obj_id, entity, endpoint, svr_id, move_to, muted, role, reach }
    }
}

fn any_element() -> impl Strategy<Value = Element> {
    prop_oneof![
        any_load().prop_map(Element::Load),
        any_info().prop_map(Element::ConfInfo),
        any_reserved().prop_map(Element::Reserved),
        any_sys_op().prop_map(Element::Sys),
        any_participant_op().prop_map(Element::Participant),
    ]
}

prop_compose! {
    fn any_response()(
        svr_id in prop::option::of(svr_id()),
        seq: u64,
        status in 100..1000_u16,
        reason in optional(),
        results in prop::collection::vec(
            (text(), 100..1000_u16, optional(), any::<Option<u64>>()), 0..3),
        conf_info in prop::option::of(any_info()),
        load in prop::option::of(any_load()),
    ) -> Response {
        let result = |(op, status, conf_obj_id, ver)| OpResult { op, status, conf_obj_id, ver };
        let results = results.into_iter().map(result).collect();
        Response { svr_id, seq, status, reason, results, conf_info, load }
    }
}

pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    let elements = prop::collection::vec(any_element(), 0..4);
    let request = (
        prop::option::of(svr_id()),
        any::<u64>(),
        any::<u64>(),
        elements,
    )
        .prop_map(|(svr_id, epoch, seq, elements)| Request {
            svr_id,
            epoch,
            seq,
            elements,
        });
    prop_oneof![
        request.prop_map(Message::Request),
        any_response().prop_map(Message::Response),
    ]
}

#[test]
fn what_xml_cannot_hold_is_replaced() {
    let message = |subject: &str| {
        let conference = Users {
            subject: Some(subject.to_owned()),
            ..users("c42", Vec::new())
        };
        request(vec![Element::ConfInfo(ConfInfo {
            conferences: vec![conference],
            ..ConfInfo::default()
        })])
    };
    let xml = write(&message("a\0b\u{ffff}"));
    assert_eq!(read(xml.as_bytes()), Ok(message("a\u{fffd}b\u{fffd}")));
}

proptest! {
    #[test]
    fn written_and_read_again(message in any_message()) {
        prop_assert_eq!(read(write(&message).as_bytes()), Ok(message));
    }

    #[test]
    fn spoiled_messages_never_panic(
        message in any_message(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut xml = write(&message).into_bytes();
        for (place, byte) in spoils {
            let place = place.index(xml.len());
            xml[place] = byte;
        }
        if let Ok(message) = read(&xml) {
            prop_assert_eq!(read(write(&message).as_bytes()), Ok(message));
        }
    }
}
