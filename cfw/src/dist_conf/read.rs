//! Reads messages. What only this package has in addition to the paper may be missing; what is unknown
//! here is stepped over; what is known has to make sense.

use std::fmt;
use std::str::FromStr;

use super::load::{self, LoadError};
use super::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, Op, OpResult, ParticipantOp, Reach, Request,
    ReservedState, ReservedSvr, ReservedSvrs, Response, SysOp, System, UserStatus, Users,
};
use super::parts::PARTS_MAX;
use super::xml::{self, Node, trim};
use super::{XML_LEN_MAX, time};
use crate::svr_id::SvrId;

pub use super::xml::Malformed;

/// Why bytes are no message. The two kinds are answered in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No XML: the channel answers 400 (RFC 6230 §7, as RFC 6505 §3.2 reads it).
    Malformed(Malformed),
    /// XML, but no message that makes sense: the channel answers 200, the package in it 400.
    Content {
        /// Of the request, for the response; 0 if it has none.
        seq: u64,
        fault: Fault,
    },
}

/// What makes no sense in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The root is no element of this package.
    NotDistConf,
    /// Neither one request nor one response.
    NotOne,
    /// Of another major version.
    Version,
    /// The element has to have this attribute.
    Missing {
        element: String,
        attribute: &'static str,
    },
    /// The attribute has a value that it cannot have.
    Value {
        element: String,
        attribute: &'static str,
    },
    Load(LoadError),
}

impl ReadError {
    /// The response of the server `svr_id`, unless the channel is to answer 400.
    pub fn response(&self, svr_id: SvrId) -> Option<Response> {
        let Self::Content { seq, fault } = self else {
            return None;
        };
        let mut response = Response::new(Some(svr_id), *seq, 400);
        response.reason = Some(fault.to_string());
        Some(response)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Content { fault, .. } => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDistConf => f.write_str("the root is no element of msc-dist-conf"),
            Self::NotOne => f.write_str("neither one request nor one response"),
            Self::Version => f.write_str("a version other than 1"),
            Self::Missing { element, attribute } => write!(f, "{element} without {attribute}"),
            Self::Value { element, attribute } => {
                write!(f, "{element} with an impossible {attribute}")
            }
            Self::Load(error) => write!(f, "crt-svr-load: {error}"),
        }
    }
}

/// Reads a message, from the body of a CONTROL, of its 200, or of a REPORT.
///
/// An element of a request may stand alone, as the root: that is a request of a sender who knows the
/// paper only.
///
/// # Errors
/// The bytes are no XML, or no message that makes sense.
pub fn read(document: &[u8]) -> Result<Message, ReadError> {
    let root = xml::parse(document, XML_LEN_MAX).map_err(ReadError::Malformed)?;
    let mut seq = 0;
    let message = match &root {
        Some(root) => read_root(root, &mut seq),
        None => Err(Fault::NotDistConf),
    };
    message.map_err(|fault| ReadError::Content { seq, fault })
}

fn read_root(root: &Node, seq: &mut u64) -> Result<Message, Fault> {
    match root.name.as_str() {
        "msc-dist-conf" => {}
        "request" | "response" => return read_message(root, seq),
        _ => {
            let mut elements = Vec::new();
            return match add_elements(root, &mut elements)? {
                true => Ok(Message::Request(Request {
                    svr_id: None,
                    epoch: 0,
                    seq: 0,
                    elements,
                })),
                false => Err(Fault::NotDistConf),
            };
        }
    }
    let version = root.attribute("version").map_or("1", trim);
    let is_message = |node: &&Node| matches!(node.name.as_str(), "request" | "response");
    let mut messages = root.children.iter().filter(is_message);
    let (Some(message), None) = (messages.next(), messages.next()) else {
        return Err(Fault::NotOne);
    };
    if version.split('.').next() != Some("1") {
        *seq = value(message, "seq")?.unwrap_or(0);
        return Err(Fault::Version);
    }
    read_message(message, seq)
}

fn read_message(node: &Node, seq: &mut u64) -> Result<Message, Fault> {
    *seq = value(node, "seq")?.unwrap_or(0);
    if node.name == "response" {
        return Ok(Message::Response(response(node, *seq)?));
    }
    let mut elements = Vec::new();
    for child in &node.children {
        add_elements(child, &mut elements)?;
    }
    Ok(Message::Request(Request {
        svr_id: svr_id(node, "svr-id")?,
        epoch: value(node, "epoch")?.unwrap_or(0),
        seq: *seq,
        elements,
    }))
}

/// Adds what a child of a request holds; false if the child is unknown.
fn add_elements(node: &Node, elements: &mut Vec<Element>) -> Result<bool, Fault> {
    match node.name.as_str() {
        "crt-svr-load" => {
            elements.push(Element::Load(load::read(node).map_err(Fault::Load)?));
        }
        "crt-conf-info" => elements.push(Element::ConfInfo(conf_info(node)?)),
        "reserved-svrs" => elements.push(Element::Reserved(reserved(node)?)),
        "conf_op_sys" => {
            for child in &node.children {
                let mut ops = Op::ALL.into_iter();
                if let Some(op) = ops.find(|op| op.sys_name() == child.name) {
                    elements.push(Element::Sys(sys_op(node, child, op)?));
                }
            }
        }
        "conf_op_prtcs" => {
            for child in &node.children {
                let mut ops = Op::ALL.into_iter();
                if let Some(op) = ops.find(|op| op.participant_name() == child.name) {
                    elements.push(Element::Participant(participant_op(node, child, op)?));
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn response(node: &Node, seq: u64) -> Result<Response, Fault> {
    let mut response = Response::new(svr_id(node, "svr-id")?, seq, status(node)?);
    response.reason = text(node, "reason");
    for child in &node.children {
        match child.name.as_str() {
            "result" => response.results.push(OpResult {
                op: required(child, "op")?,
                status: status(child)?,
                conf_obj_id: text(child, "conf-obj-id"),
                ver: value(child, "ver")?,
            }),
            "crt-conf-info" => response.conf_info = Some(conf_info(child)?),
            "crt-svr-load" => response.load = Some(load::read(child).map_err(Fault::Load)?),
            _ => {}
        }
    }
    Ok(response)
}

/// Three digits.
fn status(node: &Node) -> Result<u16, Fault> {
    let status = value(node, "status")?.ok_or_else(|| missing(node, "status"))?;
    match (100..=999).contains(&status) {
        true => Ok(status),
        false => Err(impossible(node, "status")),
    }
}

fn conf_info(node: &Node) -> Result<ConfInfo, Fault> {
    let parts = value(node, "parts")?.unwrap_or(1);
    let part = value(node, "part")?.unwrap_or(1);
    if !(1..=PARTS_MAX).contains(&parts) {
        return Err(impossible(node, "parts"));
    }
    if !(1..=parts).contains(&part) {
        return Err(impossible(node, "part"));
    }
    let mut info = ConfInfo {
        full: flag(node, "full")?.unwrap_or(false),
        query: flag(node, "query")?.unwrap_or(false),
        part,
        parts,
        ..ConfInfo::default()
    };
    for child in &node.children {
        match child.name.as_str() {
            "crt-system" => info.systems.push(system(child)?),
            "crt-users" => info.conferences.push(users(child)?),
            _ => {}
        }
    }
    Ok(info)
}

fn system(node: &Node) -> Result<System, Fault> {
    Ok(System {
        svr_id: required_svr_id(node)?,
        active_svrs: value(node, "active-svrs")?.unwrap_or(0),
        uri: text(node, "uri"),
        cfw_uri: text(node, "cfw-uri"),
        state: value(node, "state")?.unwrap_or_default(),
        epoch: value(node, "epoch")?.unwrap_or(0),
    })
}

fn users(node: &Node) -> Result<Users, Fault> {
    let mut users = Users {
        conf_obj_id: required(node, "conf-obj-id")?,
        owner: svr_id(node, "owner")?,
        ver: value(node, "ver")?.unwrap_or(0),
        epoch: value(node, "epoch")?.unwrap_or(0),
        state: word(node, "state", ConfState::from_word)?,
        locked: flag(node, "locked")?.unwrap_or(false),
        max_users: value(node, "max-users")?,
        subject: text(node, "subject"),
        full: flag(node, "full")?.unwrap_or(false),
        users: Vec::new(),
    };
    for child in &node.children {
        if child.name == "conf-user" {
            users.users.push(user(child)?);
        }
    }
    Ok(users)
}

fn user(node: &Node) -> Result<ConfUser, Fault> {
    // The paper says nothing of what is in the element; most likely it is who is meant.
    let entity = text(node, "entity").unwrap_or_else(|| trim(&node.text).to_owned());
    if entity.is_empty() {
        return Err(missing(node, "entity"));
    }
    let joined = node.attribute("joined").map(|joined| {
        let joined = time::read(trim(joined));
        joined.ok_or_else(|| impossible(node, "joined"))
    });
    Ok(ConfUser {
        svr_id: svr_id(node, "svr-id")?,
        endpoint: text(node, "endpoint").unwrap_or_else(|| entity.clone()),
        entity,
        display_name: text(node, "display-name"),
        status: word(node, "status", UserStatus::from_word)?,
        ssrc: value(node, "ssrc")?,
        codec: text(node, "codec"),
        role: text(node, "role"),
        muted: flag(node, "muted")?.unwrap_or(false),
        joined: joined.transpose()?,
        reach: reach(node)?,
    })
}

/// The child `reach` of the element.
fn reach(node: &Node) -> Result<Option<Reach>, Fault> {
    let Some(node) = node.children.iter().find(|child| child.name == "reach") else {
        return Ok(None);
    };
    Ok(Some(Reach {
        contact: required(node, "contact")?,
        call_id: required(node, "call-id")?,
        local_tag: required(node, "local-tag")?,
        remote_tag: required(node, "remote-tag")?,
        refer: flag(node, "refer")?.unwrap_or(false),
        replaces: flag(node, "replaces")?.unwrap_or(false),
    }))
}

fn reserved(node: &Node) -> Result<ReservedSvrs, Fault> {
    let mut reserved = ReservedSvrs {
        ver: value(node, "ver")?.unwrap_or(0),
        servers: Vec::new(),
    };
    for child in &node.children {
        if child.name == "reserved-svr" {
            reserved.servers.push(ReservedSvr {
                svr_id: required_svr_id(child)?,
                uri: text(child, "uri"),
                state: word(child, "state", ReservedState::from_word)?,
                by: svr_id(child, "by")?,
            });
        }
    }
    Ok(reserved)
}

fn sys_op(parent: &Node, node: &Node, op: Op) -> Result<SysOp, Fault> {
    Ok(SysOp {
        op,
        conf_obj_id: conf_obj_id(parent, node)?,
        base_ver: value(node, "base-ver")?,
        mode: text(node, "mode"),
        conf_uri: text(node, "conf-uri"),
        max_users: value(node, "max-users")?,
        locked: flag(node, "locked")?,
        subject: text(node, "subject"),
    })
}

fn participant_op(parent: &Node, node: &Node, op: Op) -> Result<ParticipantOp, Fault> {
    Ok(ParticipantOp {
        op,
        conf_obj_id: conf_obj_id(parent, node)?,
        entity: required(node, "entity")?,
        endpoint: text(node, "endpoint"),
        svr_id: svr_id(node, "svr-id")?,
        move_to: svr_id(node, "move-to")?,
        muted: flag(node, "muted")?,
        role: text(node, "role"),
        reach: reach(node)?,
    })
}

/// Of the operation, or of the element around it: the paper does not say where it stands.
fn conf_obj_id(parent: &Node, node: &Node) -> Result<String, Fault> {
    let own = text(node, "conf-obj-id").or_else(|| text(parent, "conf-obj-id"));
    own.ok_or_else(|| missing(node, "conf-obj-id"))
}

fn missing(node: &Node, attribute: &'static str) -> Fault {
    Fault::Missing {
        element: node.name.clone(),
        attribute,
    }
}

fn impossible(node: &Node, attribute: &'static str) -> Fault {
    Fault::Value {
        element: node.name.clone(),
        attribute,
    }
}

fn text(node: &Node, attribute: &'static str) -> Option<String> {
    node.attribute(attribute).map(str::to_owned)
}

fn required(node: &Node, attribute: &'static str) -> Result<String, Fault> {
    text(node, attribute).ok_or_else(|| missing(node, attribute))
}

fn value<T: FromStr>(node: &Node, attribute: &'static str) -> Result<Option<T>, Fault> {
    let read = node.attribute(attribute).map(|text| trim(text).parse());
    read.transpose().map_err(|_| impossible(node, attribute))
}

fn svr_id(node: &Node, attribute: &'static str) -> Result<Option<SvrId>, Fault> {
    value(node, attribute)
}

fn required_svr_id(node: &Node) -> Result<SvrId, Fault> {
    svr_id(node, "svr-id")?.ok_or_else(|| missing(node, "svr-id"))
}

/// As XML Schema writes truth (`xs:boolean`).
fn flag(node: &Node, attribute: &'static str) -> Result<Option<bool>, Fault> {
    match node.attribute(attribute).map(trim) {
        None => Ok(None),
        Some("true" | "1") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(_) => Err(impossible(node, attribute)),
    }
}

fn word<T: Default>(
    node: &Node,
    attribute: &'static str,
    from_word: fn(&str) -> Option<T>,
) -> Result<T, Fault> {
    match node.attribute(attribute) {
        None => Ok(T::default()),
        Some(word) => from_word(trim(word)).ok_or_else(|| impossible(node, attribute)),
    }
}
