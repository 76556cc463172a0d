//! Documents of the package: what is written is what the golden files say and what the schema allows, and
//! what others write is understood.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fs};

use cfw::SvrId;
use cfw::dist_conf::load::{LoadError, SvrLoad, SvrState};
use cfw::dist_conf::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, Op, OpResult, ParticipantOp, Reach, Request,
    ReservedState, ReservedSvr, ReservedSvrs, Response, SysOp, System, UserStatus, Users,
};
use cfw::dist_conf::read::{Fault, Malformed};
use cfw::dist_conf::{DEPTH_MAX, ELEMENTS_MAX, ReadError, XML_LEN_MAX, read, write};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn id(name: &str) -> SvrId {
    name.parse().unwrap()
}

fn load() -> SvrLoad {
    SvrLoad {
        svr_id: id("srv-a"),
        current: 431,
        max_load: 500,
        min_load: 50,
        state: SvrState::Active,
        hot: None,
    }
}

fn request(elements: Vec<Element>) -> Message {
    Message::Request(Request {
        svr_id: Some(id("srv-a")),
        epoch: 7,
        seq: 912,
        elements,
    })
}

fn system(svr_id: &str) -> System {
    System {
        svr_id: id(svr_id),
        active_svrs: 2,
        uri: None,
        cfw_uri: None,
        state: SvrState::Active,
        epoch: 0,
    }
}

fn users(conf_obj_id: &str, users: Vec<ConfUser>) -> Users {
    Users {
        conf_obj_id: conf_obj_id.to_owned(),
        owner: None,
        ver: 0,
        epoch: 0,
        state: ConfState::Active,
        locked: false,
        max_users: None,
        subject: None,
        full: false,
        users,
    }
}

fn user(entity: &str) -> ConfUser {
    ConfUser {
        entity: entity.to_owned(),
        svr_id: None,
        endpoint: entity.to_owned(),
        display_name: None,
        status: UserStatus::Connected,
        ssrc: None,
        codec: None,
        role: None,
        muted: false,
        joined: None,
        reach: None,
    }
}

fn reach() -> Reach {
    Reach {
        contact: "<sip:alice@192.0.2.7:5062;ob>".to_owned(),
        call_id: "a84b4c76e66710@pc33.example.com".to_owned(),
        local_tag: "as7d900as8".to_owned(),
        remote_tag: "1928301774".to_owned(),
        refer: true,
        replaces: true,
    }
}

fn sys_op(op: Op, conf_obj_id: &str) -> SysOp {
    SysOp {
        op,
        conf_obj_id: conf_obj_id.to_owned(),
        base_ver: None,
        mode: None,
        conf_uri: None,
        max_users: None,
        locked: None,
        subject: None,
    }
}

fn participant_op(op: Op) -> ParticipantOp {
    ParticipantOp {
        op,
        conf_obj_id: "c42".to_owned(),
        entity: "sip:alice@example.com".to_owned(),
        endpoint: None,
        svr_id: None,
        move_to: None,
        muted: None,
        role: None,
        reach: None,
    }
}

/// Messages with everything in them that there is, by the names of their files.
fn golden() -> Vec<(&'static str, Message)> {
    let alice = ConfUser {
        svr_id: Some(id("srv-a")),
        endpoint: "7-12".to_owned(),
        display_name: Some("Alice \"<&>\"\n\u{1f600}".to_owned()),
        status: UserStatus::OnHold,
        ssrc: Some(u32::MAX),
        codec: Some("opus".to_owned()),
        role: Some("moderator".to_owned()),
        muted: true,
        joined: Some(UNIX_EPOCH + Duration::from_millis(1_772_654_400_250)),
        reach: Some(reach()),
        ..user("sip:alice@example.com")
    };
    let server = System {
        uri: Some("sip:192.0.2.1:5060".to_owned()),
        cfw_uri: Some("sip:cfw@192.0.2.1:5060".to_owned()),
        state: SvrState::Full,
        epoch: 7,
        ..system("srv-a")
    };
    let conference = Users {
        owner: Some(id("srv-b")),
        ver: 6,
        epoch: 3,
        locked: true,
        max_users: Some(100),
        subject: Some("Monday".to_owned()),
        full: true,
        ..users("c42", vec![alice, user("sip:bob@example.com")])
    };
    let over = Users {
        state: ConfState::Deleted,
        ..users("c43", Vec::new())
    };
    let snapshot = ConfInfo {
        full: true,
        systems: vec![server, system("srv-b")],
        conferences: vec![conference, over],
        ..ConfInfo::default()
    };
    let reserved = ReservedSvrs {
        ver: 4,
        servers: vec![
            ReservedSvr {
                svr_id: id("srv-c"),
                uri: Some("sip:cfw@192.0.2.3:5060".to_owned()),
                state: ReservedState::Claimed,
                by: Some(id("srv-a")),
            },
            ReservedSvr {
                svr_id: id("srv-d"),
                uri: None,
                state: ReservedState::Free,
                by: None,
            },
        ],
    };
    let part = ConfInfo {
        full: true,
        part: 2,
        parts: 3,
        ..ConfInfo::default()
    };
    let query = ConfInfo {
        query: true,
        ..ConfInfo::default()
    };
    let hot = SvrLoad {
        state: SvrState::Draining,
        hot: Some(0.43),
        ..load()
    };
    let created = SysOp {
        base_ver: Some(5),
        mode: Some("own".to_owned()),
        conf_uri: Some("sip:c42@192.0.2.1".to_owned()),
        max_users: Some(100),
        locked: Some(false),
        subject: Some("Monday".to_owned()),
        ..sys_op(Op::Create, "c42")
    };
    let moved = ParticipantOp {
        endpoint: Some("7-12".to_owned()),
        svr_id: Some(id("srv-a")),
        move_to: Some(id("srv-b")),
        muted: Some(true),
        role: Some("moderator".to_owned()),
        reach: Some(reach()),
        ..participant_op(Op::Modify)
    };
    let operations = vec![
        Element::Sys(created),
        Element::Sys(sys_op(Op::Modify, "c42")),
        Element::Sys(sys_op(Op::Delete, "c42")),
        Element::Participant(participant_op(Op::Create)),
        Element::Participant(moved),
        Element::Participant(participant_op(Op::Delete)),
    ];
    let mut refused = Response::new(Some(id("srv-b")), 913, 409);
    refused.reason = Some("it is there already".to_owned());
    refused.results = vec![
        OpResult {
            op: "conf_sys_create".to_owned(),
            status: 409,
            conf_obj_id: Some("c42".to_owned()),
            ver: Some(6),
        },
        OpResult {
            op: "conf_prtcs_del".to_owned(),
            status: 420,
            conf_obj_id: None,
            ver: None,
        },
    ];
    let mut audited = Response::new(Some(id("srv-b")), 914, 200);
    audited.conf_info = Some(ConfInfo {
        full: true,
        systems: vec![system("srv-b")],
        ..ConfInfo::default()
    });
    audited.load = Some(load());
    vec![
        ("load", request(vec![Element::Load(load())])),
        (
            "snapshot",
            request(vec![
                Element::ConfInfo(snapshot),
                Element::Reserved(reserved),
                Element::Load(hot),
            ]),
        ),
        ("part", request(vec![Element::ConfInfo(part)])),
        ("query", request(vec![Element::ConfInfo(query)])),
        ("operations", request(operations)),
        ("alive", request(Vec::new())),
        (
            "ok",
            Message::Response(Response::new(Some(id("srv-b")), 912, 200)),
        ),
        ("refused", Message::Response(refused)),
        ("audited", Message::Response(audited)),
    ]
}

fn documents(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/documents")
        .join(folder)
}

#[test]
fn messages_are_written_as_the_golden_documents() {
    for (name, message) in golden() {
        let path = documents("ours").join(format!("{name}.xml"));
        if env::var_os("UPDATE_DOCUMENTS").is_some() {
            fs::write(&path, write(&message) + "\n").unwrap();
        }
        let document = fs::read_to_string(&path).expect("UPDATE_DOCUMENTS=1 writes it");
        assert_eq!(write(&message), document.trim_end(), "{name}");
        assert_eq!(read(document.as_bytes()), Ok(message), "{name}");
    }
}

/// What `xmllint --schema` says of files: what is wrong with them. None if it is not there.
fn validate(files: &[PathBuf]) -> Option<Result<(), String>> {
    let xsd = Path::new(env!("CARGO_MANIFEST_DIR")).join("msc-dist-conf.xsd");
    let run = Command::new("xmllint")
        .args(["--noout", "--schema"])
        .arg(xsd)
        .args(files)
        .output();
    let Ok(output) = run else {
        eprintln!("skipped: no xmllint on this machine (Debian: apt-get install libxml2-utils)");
        return None;
    };
    let errors = || String::from_utf8_lossy(&output.stderr).into_owned();
    Some(output.status.success().then_some(()).ok_or_else(errors))
}

#[test]
fn golden_documents_are_valid() {
    let files = golden()
        .into_iter()
        .map(|(name, _)| documents("ours").join(format!("{name}.xml")))
        .collect::<Vec<_>>();
    assert_eq!(validate(&files).unwrap_or(Ok(())), Ok(()));
}

#[test]
fn whatever_is_written_is_valid() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("valid");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut runner = TestRunner::deterministic();
    let files = (0..64)
        .map(|number| {
            let message = any_message().new_tree(&mut runner).unwrap().current();
            let file = folder.join(format!("{number}.xml"));
            fs::write(&file, write(&message)).unwrap();
            file
        })
        .collect::<Vec<_>>();
    assert_eq!(validate(&files).unwrap_or(Ok(())), Ok(()));
}

/// The schema is no rubber stamp.
#[test]
fn the_schema_refuses_what_is_no_message() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("invalid");
    fs::create_dir_all(&folder).unwrap();
    let whole = write(&request(vec![Element::Load(load())]));
    for (number, (from, to)) in [
        ("max-load=\"500\"", "max-load=\"0\""),
        ("state=\"active\"", "state=\"busy\""),
        ("svr-id=\"srv-a\"", "svr-id=\"srv a\""),
        ("<request", "<question"),
        ("seq=\"912\"", "seq=\"-1\""),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.join(format!("{number}.xml"));
        let spoiled = whole.replace(from, to).replace("/request", "/question");
        assert_ne!(spoiled, whole);
        fs::write(&file, spoiled).unwrap();
        assert_ne!(validate(&[file]), Some(Ok(())), "{from} -> {to}");
    }
}

#[test]
fn messages_of_others() {
    let bare = |elements| {
        Message::Request(Request {
            svr_id: None,
            epoch: 0,
            seq: 0,
            elements,
        })
    };
    let loaded = SvrLoad {
        svr_id: id("srv-b"),
        ..load()
    };
    let hot = SvrLoad {
        hot: Some(0.5),
        ..load()
    };
    let snapshot = ConfInfo {
        systems: vec![system("A"), system("B")],
        conferences: vec![users(
            "c42",
            vec![user("sip:alice@example.com"), user("sip:bob@example.com")],
        )],
        ..ConfInfo::default()
    };
    let reserved = ReservedSvrs {
        ver: 0,
        servers: vec![ReservedSvr {
            svr_id: id("C"),
            uri: None,
            state: ReservedState::Free,
            by: None,
        }],
    };
    let muted = ParticipantOp {
        muted: Some(true),
        ..participant_op(Op::Modify)
    };
    let unlocked = SysOp {
        locked: Some(false),
        ..sys_op(Op::Modify, "c42")
    };
    for (name, message) in [
        ("bare_load", bare(vec![Element::Load(loaded)])),
        ("paper_snapshot", bare(vec![Element::ConfInfo(snapshot)])),
        (
            "paper_request",
            bare(vec![
                Element::Sys(sys_op(Op::Create, "c42")),
                Element::Participant(participant_op(Op::Create)),
                Element::Participant(muted),
                Element::Participant(participant_op(Op::Delete)),
                Element::Sys(unlocked),
                Element::Sys(sys_op(Op::Delete, "c42")),
            ]),
        ),
        (
            "later_version",
            request(vec![Element::Load(hot), Element::Reserved(reserved)]),
        ),
    ] {
        let path = documents("others").join(format!("{name}.xml"));
        let document = fs::read(path).unwrap();
        assert_eq!(read(&document), Ok(message), "{name}");
    }
}

#[test]
fn bad_content_is_answered_inside_a_200() {
    let missing = |element: &str, attribute| Fault::Missing {
        element: element.to_owned(),
        attribute,
    };
    let value = |element: &str, attribute| Fault::Value {
        element: element.to_owned(),
        attribute,
    };
    let asks = |content: &str| format!("<request seq='5'>{content}</request>");
    for (document, seq, fault) in [
        ("<html/>".to_owned(), 0, Fault::NotDistConf),
        ("<request xmlns='urn:o'/>".to_owned(), 0, Fault::NotDistConf),
        ("<msc-dist-conf/>".to_owned(), 0, Fault::NotOne),
        (
            "<msc-dist-conf><request/><response/></msc-dist-conf>".to_owned(),
            0,
            Fault::NotOne,
        ),
        (
            "<msc-dist-conf version='2.0'><request seq='6'/></msc-dist-conf>".to_owned(),
            6,
            Fault::Version,
        ),
        ("<request seq='-1'/>".to_owned(), 0, value("request", "seq")),
        (
            asks("<crt-svr-load svr-id='A' max-load='1' min-load='1'>0</crt-svr-load>"),
            5,
            Fault::Load(LoadError::MinNotBelowMax),
        ),
        (
            asks("<crt-conf-info full='yes'/>"),
            5,
            value("crt-conf-info", "full"),
        ),
        (
            asks("<crt-conf-info part='2'/>"),
            5,
            value("crt-conf-info", "part"),
        ),
        (
            asks("<crt-conf-info part='1' parts='65'/>"),
            5,
            value("crt-conf-info", "parts"),
        ),
        (
            asks("<crt-conf-info><crt-system/></crt-conf-info>"),
            5,
            missing("crt-system", "svr-id"),
        ),
        (
            asks("<crt-conf-info><crt-users/></crt-conf-info>"),
            5,
            missing("crt-users", "conf-obj-id"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'><conf-user/></crt-users></crt-conf-info>",
            ),
            5,
            missing("conf-user", "entity"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a' joined='now'/></crt-users></crt-conf-info>",
            ),
            5,
            value("conf-user", "joined"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a' status='asleep'/></crt-users></crt-conf-info>",
            ),
            5,
            value("conf-user", "status"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a'><reach contact='b'/></conf-user></crt-users></crt-conf-info>",
            ),
            5,
            missing("reach", "call-id"),
        ),
        (
            asks("<reserved-svrs><reserved-svr svr-id='A' by='b c'/></reserved-svrs>"),
            5,
            value("reserved-svr", "by"),
        ),
        (
            asks("<conf_op_sys><conf_sys_del/></conf_op_sys>"),
            5,
            missing("conf_sys_del", "conf-obj-id"),
        ),
        (
            asks("<conf_op_prtcs conf-obj-id='c'><conf_prtcs_mod/></conf_op_prtcs>"),
            5,
            missing("conf_prtcs_mod", "entity"),
        ),
        (
            "<response seq='9'/>".to_owned(),
            9,
            missing("response", "status"),
        ),
        (
            "<response status='99'/>".to_owned(),
            0,
            value("response", "status"),
        ),
    ] {
        let error = read(document.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            ReadError::Content {
                seq,
                fault: fault.clone()
            }
        );
        let response = error.response(id("srv-b")).unwrap();
        assert_eq!((response.seq, response.status), (seq, 400), "{document}");
        assert_eq!(response.reason, Some(fault.to_string()));
    }
}

#[test]
fn what_is_no_xml_is_refused_by_the_channel() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let many = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
    let lengthy = format!("<a>{}</a>", " ".repeat(XML_LEN_MAX));
    for (document, malformed) in [
        ("", Malformed::NotXml),
        ("load", Malformed::NotXml),
        ("<request>", Malformed::NotXml),
        ("<request></response>", Malformed::NotXml),
        ("<request a='1' a='2'/>", Malformed::NotXml),
        ("<request a='<'/>", Malformed::NotXml),
        ("<request a='&other;'/>", Malformed::NotXml),
        ("<request a='&#0;'/>", Malformed::NotXml),
        ("<request>&other;</request>", Malformed::NotXml),
        ("<request>\u{1}</request>", Malformed::NotXml),
        ("<request/><request/>", Malformed::NotXml),
        ("<request/>text", Malformed::NotXml),
        // Bad content does not hide that the rest is no XML.
        ("<html><request>", Malformed::NotXml),
        (
            "<!DOCTYPE r [<!ENTITY e 'ee'>]><request>&e;</request>",
            Malformed::DocumentType,
        ),
        (&nested(DEPTH_MAX + 1), Malformed::TooDeep),
        (&many(ELEMENTS_MAX + 1), Malformed::TooMany),
        (&lengthy, Malformed::TooLong),
    ] {
        let error = read(document.as_bytes()).unwrap_err();
        assert_eq!(error, ReadError::Malformed(malformed));
        assert_eq!(error.response(id("srv-b")), None);
    }
    assert_eq!(
        read(b"<a>\xff</a>"),
        Err(ReadError::Malformed(Malformed::NotUtf8))
    );
    for document in [nested(DEPTH_MAX), many(ELEMENTS_MAX)] {
        let error = read(document.as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::Content { .. }));
    }
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

fn any_message() -> impl Strategy<Value = Message> {
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
