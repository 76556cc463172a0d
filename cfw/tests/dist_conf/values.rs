//! Messages, small and short of everything optional.

use cfw::SvrId;
use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::message::{
    ConfState, ConfUser, Element, Message, Op, ParticipantOp, Reach, Request, SysOp, System,
    UserStatus, Users,
};

pub(crate) fn id(name: &str) -> SvrId {
    name.parse().unwrap()
}

pub(crate) fn load() -> SvrLoad {
    SvrLoad {
        svr_id: id("srv-a"),
        current: 431,
        max_load: 500,
        min_load: 50,
        state: SvrState::Active,
        hot: None,
    }
}

pub(crate) fn request(elements: Vec<Element>) -> Message {
    Message::Request(Request {
        svr_id: Some(id("srv-a")),
        epoch: 7,
        seq: 912,
        elements,
    })
}

pub(crate) fn system(svr_id: &str) -> System {
    System {
        svr_id: id(svr_id),
        active_svrs: 2,
        uri: None,
        cfw_uri: None,
        state: SvrState::Active,
        epoch: 0,
    }
}

pub(crate) fn users(conf_obj_id: &str, users: Vec<ConfUser>) -> Users {
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

pub(crate) fn user(entity: &str) -> ConfUser {
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

pub(crate) fn reach() -> Reach {
    Reach {
        contact: "<sip:alice@192.0.2.7:5062;ob>".to_owned(),
        call_id: "a84b4c76e66710@pc33.example.com".to_owned(),
        local_tag: "as7d900as8".to_owned(),
        remote_tag: "1928301774".to_owned(),
        refer: true,
        replaces: true,
    }
}

pub(crate) fn sys_op(op: Op, conf_obj_id: &str) -> SysOp {
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

pub(crate) fn participant_op(op: Op) -> ParticipantOp {
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
