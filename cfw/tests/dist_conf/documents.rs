//! What is written is what the golden files say and what the schema allows, and what others write is
//! understood.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fs};

use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, Op, OpResult, ParticipantOp, Request,
    ReservedState, ReservedSvr, ReservedSvrs, Response, SysOp, System, UserStatus, Users,
};
use cfw::dist_conf::{read, write};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::any::any_message;
use crate::values::{id, load, participant_op, reach, request, sys_op, system, user, users};

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

/// What `xmllint --schema` says of files: what is wrong with them. None if it is not there, and cannot be had
/// by apt either.
fn validate(files: &[PathBuf]) -> Option<Result<(), String>> {
    let xsd = Path::new(env!("CARGO_MANIFEST_DIR")).join("msc-dist-conf.xsd");
    let run = Command::new("xmllint")
        .args(["--noout", "--schema"])
        .arg(xsd)
        .args(files)
        .output();
    let Ok(output) = run else {
        let can_be_had = Command::new("apt-get").arg("--version").output().is_ok();
        assert!(!can_be_had, "no xmllint: apt-get install libxml2-utils");
        eprintln!("skipped: no xmllint on this machine");
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
    let check = |name: &str, document: &str| {
        let file = folder.join(format!("{name}.xml"));
        fs::write(&file, document).unwrap();
        validate(&[file])
    };
    assert_eq!(check("whole", &whole).unwrap_or(Ok(())), Ok(()));
    for (name, from, to) in [
        ("max", "max-load=\"500\"", "max-load=\"0\""),
        ("state", "state=\"active\"", "state=\"busy\""),
        ("id", "svr-id=\"srv-a\"", "svr-id=\"srv a\""),
        // Both tags of the element.
        ("element", "request", "question"),
        ("seq", "seq=\"912\"", "seq=\"-1\""),
    ] {
        let spoiled = whole.replace(from, to);
        assert_ne!(spoiled, whole);
        let Some(found) = check(name, &spoiled) else {
            return;
        };
        // It is a document, but not one of these.
        let errors = found.expect_err(name);
        assert!(
            errors.contains("Schemas validity error"),
            "{name}: {errors}"
        );
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
