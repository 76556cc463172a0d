//! Writes messages: valid by the schema, no white space between elements, no attribute that says what its
//! absence says.

use super::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, OpResult, ParticipantOp, Reach, Request,
    ReservedState, ReservedSvrs, Response, SysOp, System, UserStatus, Users,
};
use super::xml::push_attribute;
use super::{NAMESPACE, load, time};

/// Writes a message as a body. Texts lose the characters that XML cannot hold (most below U+0020) to
/// U+FFFD.
pub fn write(message: &Message) -> String {
    let mut xml = format!(r#"<msc-dist-conf xmlns="{NAMESPACE}" version="1.0">"#);
    match message {
        Message::Request(message) => request(&mut xml, message),
        Message::Response(message) => response(&mut xml, message),
    }
    xml.push_str("</msc-dist-conf>");
    xml
}

fn request(xml: &mut String, request: &Request) {
    xml.push_str("<request");
    optional(xml, "svr-id", request.svr_id);
    attribute(xml, "epoch", request.epoch);
    attribute(xml, "seq", request.seq);
    end(xml, "request", |xml| {
        for element in &request.elements {
            match element {
                Element::Load(element) => load::write(xml, element, None),
                Element::ConfInfo(element) => conf_info(xml, element),
                Element::Reserved(element) => reserved(xml, element),
                Element::Sys(element) => sys_op(xml, element),
                Element::Participant(element) => participant_op(xml, element),
            }
        }
    });
}

fn response(xml: &mut String, response: &Response) {
    xml.push_str("<response");
    optional(xml, "svr-id", response.svr_id);
    attribute(xml, "seq", response.seq);
    attribute(xml, "status", response.status);
    optional(xml, "reason", response.reason.as_deref());
    end(xml, "response", |xml| {
        for result in &response.results {
            op_result(xml, result);
        }
        if let Some(info) = &response.conf_info {
            conf_info(xml, info);
        }
        if let Some(load) = &response.load {
            load::write(xml, load, None);
        }
    });
}

fn op_result(xml: &mut String, result: &OpResult) {
    xml.push_str("<result");
    attribute(xml, "op", &result.op);
    attribute(xml, "status", result.status);
    optional(xml, "conf-obj-id", result.conf_obj_id.as_deref());
    optional(xml, "ver", result.ver);
    xml.push_str("/>");
}

fn conf_info(xml: &mut String, info: &ConfInfo) {
    xml.push_str("<crt-conf-info");
    flag(xml, "full", info.full);
    flag(xml, "query", info.query);
    if info.parts > 1 {
        attribute(xml, "part", info.part);
        attribute(xml, "parts", info.parts);
    }
    end(xml, "crt-conf-info", |xml| {
        for system in &info.systems {
            self::system(xml, system);
        }
        for conference in &info.conferences {
            users_start(xml, conference);
            end(xml, "crt-users", |xml| {
                for user in &conference.users {
                    self::user(xml, user);
                }
            });
        }
    });
}

pub(super) fn system(xml: &mut String, system: &System) {
    xml.push_str("<crt-system");
    attribute(xml, "svr-id", system.svr_id);
    attribute(xml, "active-svrs", system.active_svrs);
    optional(xml, "uri", system.uri.as_deref());
    optional(xml, "cfw-uri", system.cfw_uri.as_deref());
    attribute(xml, "state", system.state);
    attribute(xml, "epoch", system.epoch);
    xml.push_str("/>");
}

/// The tag that opens a `crt-users`, without its end.
pub(super) fn users_start(xml: &mut String, users: &Users) {
    xml.push_str("<crt-users");
    attribute(xml, "conf-obj-id", &users.conf_obj_id);
    optional(xml, "owner", users.owner);
    attribute(xml, "ver", users.ver);
    attribute(xml, "epoch", users.epoch);
    if users.state != ConfState::default() {
        attribute(xml, "state", users.state.as_str());
    }
    flag(xml, "locked", users.locked);
    optional(xml, "max-users", users.max_users);
    optional(xml, "subject", users.subject.as_deref());
    flag(xml, "full", users.full);
}

pub(super) fn user(xml: &mut String, user: &ConfUser) {
    xml.push_str("<conf-user");
    attribute(xml, "entity", &user.entity);
    optional(xml, "svr-id", user.svr_id);
    attribute(xml, "endpoint", &user.endpoint);
    optional(xml, "display-name", user.display_name.as_deref());
    if user.status != UserStatus::default() {
        attribute(xml, "status", user.status.as_str());
    }
    optional(xml, "ssrc", user.ssrc);
    optional(xml, "codec", user.codec.as_deref());
    optional(xml, "role", user.role.as_deref());
    flag(xml, "muted", user.muted);
    optional(xml, "joined", user.joined.map(time::write));
    end_with_reach(xml, "conf-user", user.reach.as_ref());
}

/// Ends the element of which the tag is open, with the child `reach` if there is one.
fn end_with_reach(xml: &mut String, element: &str, reach: Option<&Reach>) {
    end(xml, element, |xml| {
        let Some(reach) = reach else {
            return;
        };
        xml.push_str("<reach");
        attribute(xml, "contact", &reach.contact);
        attribute(xml, "call-id", &reach.call_id);
        attribute(xml, "local-tag", &reach.local_tag);
        attribute(xml, "remote-tag", &reach.remote_tag);
        flag(xml, "refer", reach.refer);
        flag(xml, "replaces", reach.replaces);
        xml.push_str("/>");
    });
}

fn reserved(xml: &mut String, reserved: &ReservedSvrs) {
    xml.push_str("<reserved-svrs");
    attribute(xml, "ver", reserved.ver);
    end(xml, "reserved-svrs", |xml| {
        for server in &reserved.servers {
            xml.push_str("<reserved-svr");
            attribute(xml, "svr-id", server.svr_id);
            optional(xml, "uri", server.uri.as_deref());
            if server.state != ReservedState::default() {
                attribute(xml, "state", server.state.as_str());
            }
            optional(xml, "by", server.by);
            xml.push_str("/>");
        }
    });
}

fn sys_op(xml: &mut String, op: &SysOp) {
    xml.push_str("<conf_op_sys><");
    xml.push_str(op.op.sys_name());
    attribute(xml, "conf-obj-id", &op.conf_obj_id);
    optional(xml, "base-ver", op.base_ver);
    optional(xml, "mode", op.mode.as_deref());
    optional(xml, "conf-uri", op.conf_uri.as_deref());
    optional(xml, "max-users", op.max_users);
    optional(xml, "locked", op.locked);
    optional(xml, "subject", op.subject.as_deref());
    xml.push_str("/></conf_op_sys>");
}

fn participant_op(xml: &mut String, op: &ParticipantOp) {
    let name = op.op.participant_name();
    xml.push_str("<conf_op_prtcs");
    attribute(xml, "conf-obj-id", &op.conf_obj_id);
    xml.push_str("><");
    xml.push_str(name);
    attribute(xml, "entity", &op.entity);
    optional(xml, "endpoint", op.endpoint.as_deref());
    optional(xml, "svr-id", op.svr_id);
    optional(xml, "move-to", op.move_to);
    optional(xml, "muted", op.muted);
    optional(xml, "role", op.role.as_deref());
    end_with_reach(xml, name, op.reach.as_ref());
    xml.push_str("</conf_op_prtcs>");
}

/// Ends the element of which the tag is open: after its content, or at once if it has none.
fn end(xml: &mut String, element: &str, content: impl FnOnce(&mut String)) {
    let tag_len = xml.len();
    xml.push('>');
    content(xml);
    if xml.len() == tag_len + 1 {
        xml.truncate(tag_len);
        return xml.push_str("/>");
    }
    xml.push_str("</");
    xml.push_str(element);
    xml.push('>');
}

fn attribute(xml: &mut String, name: &str, value: impl ToString) {
    push_attribute(xml, name, &value.to_string());
}

fn optional(xml: &mut String, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        attribute(xml, name, value);
    }
}

fn flag(xml: &mut String, name: &str, flag: bool) {
    if flag {
        attribute(xml, name, true);
    }
}
