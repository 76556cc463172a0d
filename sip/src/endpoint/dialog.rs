//! What two user agents share between their requests (RFC 3261 §12).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::incoming::Identity;
use super::{CallKey, Endpoint, SlotKey, SubscriptionKey};
use crate::message::build::{Extra, Request};
use crate::message::uri::Uri;
use crate::message::{Message, Party, address};
use crate::{Body, Flow, ListenerIdentity, Transport};

/// A dialog by what an incoming request says of it. Our tags are unique, so the peer's need not be here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DialogKey {
    pub(super) call_id: String,
    pub(super) local_tag: String,
}

/// What a dialog is used for (RFC 5057).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Call(CallKey),
    Subscription(SubscriptionKey),
    /// Our BYE is under way: the call is over, and the peer may say so too.
    Closing(SlotKey),
}

#[derive(Clone, Debug)]
pub(super) struct Dialog {
    /// Where requests of ours go.
    pub(super) flow: Flow,
    pub(super) call_id: String,
    /// Our From and To values: addresses with tags.
    pub(super) local: String,
    pub(super) remote: String,
    pub(super) local_tag: String,
    pub(super) remote_tag: Option<String>,
    /// Number of our latest request, and of the peer's.
    pub(super) local_cseq: u32,
    pub(super) remote_cseq: Option<u32>,
    pub(super) routes: Vec<String>,
    /// The peer's Contact: Request-URI of our requests.
    pub(super) target: String,
    /// The value of our Contact.
    pub(super) contact: String,
    /// No connection can be had to the peer, so that large requests go in fragments after all.
    pub(super) only_udp: bool,
}

impl Dialog {
    /// The dialog that a request of the peer begins (RFC 3261 §12.1.1).
    pub(super) fn accepted(
        request: &Message<'_>,
        identity: &Identity,
        flow: Flow,
        target: String,
        local_tag: String,
        listeners: &[ListenerIdentity],
    ) -> Self {
        let routes: Vec<String> = request.all("Record-Route").map(str::to_owned).collect();
        // A proxy between that does not stay in the path leaves us to reach the peer by his Contact; one
        // that stays is reached as it says, which may be elsewhere than where it sends from.
        let next_hop = match routes.first() {
            Some(route) => address(route).and_then(|uri| direct(&uri, flow, listeners)),
            None if request.all("Via").count() > 1 => direct(&target, flow, listeners),
            None => None,
        };
        Self {
            flow: next_hop.unwrap_or(flow),
            call_id: identity.call_id.clone(),
            local: format!("{};tag={local_tag}", identity.to.value),
            remote: identity.from.value.clone(),
            local_tag,
            remote_tag: identity.from.tag.clone(),
            local_cseq: 0,
            remote_cseq: Some(identity.cseq.number),
            routes,
            target,
            contact: String::new(),
            only_udp: false,
        }
    }

    /// A new connection for one that is gone; None where none can be made.
    pub(super) fn reached_anew(&self, listeners: &[ListenerIdentity]) -> Option<Flow> {
        let uri = match self.routes.first() {
            Some(route) => address(route)?,
            None => self.target.clone(),
        };
        let nowhere = Flow {
            peer: ([0; 4], 0).into(),
            ..self.flow
        };
        direct(&uri, nowhere, listeners).filter(|anew| anew.transport != Transport::Udp)
    }

    pub(super) fn key(&self) -> DialogKey {
        DialogKey {
            call_id: self.call_id.clone(),
            local_tag: self.local_tag.clone(),
        }
    }

    /// Whether a request or response with this tag is the peer's.
    pub(super) fn is_with(&self, peer: &Party) -> bool {
        self.remote_tag == peer.tag
    }

    /// Follows the peer to where he now speaks from: another connection, or another mapping of his NAT.
    /// A proxy that brought his request and recorded no route is not where he is.
    pub(super) fn follow(&mut self, request: &Message<'_>, flow: Flow) {
        let is_himself = self.routes.is_empty() && request.all("Via").count() == 1;
        let is_same_way = self.flow.transport == flow.transport && is_himself;
        if is_same_way || self.flow.peer == flow.peer {
            self.flow = flow;
        }
    }

    /// A request within the dialog as text. Loose and strict routers are told apart by `lr`
    /// (RFC 3261 §12.2.1.1).
    pub(super) fn request(
        &self,
        method: &str,
        via: &str,
        cseq: u32,
        extra: Extra,
        body: Option<&Body>,
    ) -> Bytes {
        let first = self.routes.first().and_then(|route| address(route));
        let strict = first.filter(|uri| !is_loose(uri));
        let mut shifted = Vec::new();
        let (uri, routes) = match &strict {
            None => (&self.target, &self.routes),
            Some(first) => {
                shifted.extend_from_slice(&self.routes[1..]);
                shifted.push(format!("<{}>", self.target));
                (first, &shifted)
            }
        };
        Request {
            method,
            uri,
            via,
            from: &self.local,
            to: &self.remote,
            call_id: &self.call_id,
            cseq,
            routes,
            extra,
            body,
        }
        .write()
    }
}

fn is_loose(uri: &str) -> bool {
    uri.split(';').skip(1).any(|parameter| {
        let name = parameter.split(['=', '?']).next().unwrap_or_default();
        name.eq_ignore_ascii_case("lr")
    })
}

/// The flow straight to a URI, where that is an address: over a listener of the transport it asks for, or
/// else the way `like` goes.
pub(super) fn direct(uri: &str, like: Flow, listeners: &[ListenerIdentity]) -> Option<Flow> {
    let uri = uri.split('?').next().unwrap_or_default();
    let Uri::Sip(host) = Uri::parse(uri)? else {
        return None;
    };
    let asked = uri.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("transport")
            .then(|| value.to_ascii_lowercase())
    });
    let transport = match asked.as_deref() {
        None if uri
            .get(..5)
            .is_some_and(|s| s.eq_ignore_ascii_case("sips:")) =>
        {
            Transport::Tls
        }
        None | Some("udp") => Transport::Udp,
        Some("tcp") => Transport::Tcp,
        Some("tls") => Transport::Tls,
        // Nobody listens at the far end of a browser's connection.
        Some(_) => return None,
    };
    let ip = host.ip()?;
    let port = host.port.unwrap_or_else(|| transport.default_port());
    let peer = SocketAddr::new(ip, port);
    if transport == like.transport
        && (peer == like.peer || transport.is_reliable() && ip == like.peer.ip())
    {
        // The connection we have leads there.
        return Some(like);
    }
    Some(Flow {
        transport,
        peer,
        listener: listener_for(transport, like.listener, ip, listeners)?,
        stream: 0,
    })
}

/// A listener of this transport whose address is of the peer's family; the given one if it will do.
pub(super) fn listener_for(
    transport: Transport,
    preferred: u16,
    peer: IpAddr,
    listeners: &[ListenerIdentity],
) -> Option<u16> {
    let fits = |listener: &ListenerIdentity| {
        let is_v6 = listener.sent_by.starts_with('[');
        listener.transport == transport && is_v6 == peer.is_ipv6()
    };
    if listeners.get(usize::from(preferred)).is_some_and(fits) {
        return Some(preferred);
    }
    listeners.iter().position(fits).map(|index| index as u16)
}

impl Endpoint {
    /// The way to a URI whose host is an address; None where it is a name, or no listener speaks its
    /// transport.
    pub fn flow_to(&self, uri: &str) -> Option<Flow> {
        let nowhere = Flow {
            transport: Transport::Udp,
            peer: ([0, 0, 0, 0], 0).into(),
            listener: 0,
            stream: 0,
        };
        direct(uri, nowhere, &self.config.listeners)
    }

    /// The way to an address; None where no listener speaks the transport.
    pub fn flow_over(&self, transport: Transport, peer: SocketAddr) -> Option<Flow> {
        Some(Flow {
            transport,
            peer,
            listener: listener_for(transport, 0, peer.ip(), &self.config.listeners)?,
            stream: 0,
        })
    }

    pub(super) fn via(&self, flow: &Flow, branch: &str) -> String {
        format!(
            "SIP/2.0/{} {};branch={branch};rport",
            flow.transport.name(),
            self.identity(flow).sent_by
        )
    }

    /// Our Contact's value on this flow.
    pub(super) fn contact_value(&self, user: &str, flow: &Flow) -> String {
        let user = escape(user);
        let sent_by = &self.identity(flow).sent_by;
        let transport = match flow.transport.uri_parameter() {
            None => String::new(),
            Some(name) => format!(";transport={name}"),
        };
        let focus = if self.config.focus { ";isfocus" } else { "" };
        format!("<sip:{user}@{sent_by}{transport}>{focus}")
    }

    /// The dialog of a usage that has one.
    pub(super) fn dialog(&mut self, usage: Usage) -> Option<&mut Dialog> {
        match usage {
            Usage::Call(key) => self.call(key).map(|call| &mut call.dialog),
            Usage::Subscription(key) => self.subscription_dialog(key),
            Usage::Closing(_) => None,
        }
    }
}

/// Escapes what RFC 3261 §25.1 does not allow in a user part.
fn escape(user: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(user.len());
    for octet in user.bytes() {
        match octet {
            b'0'..=b'9'
            | b'a'..=b'z'
            | b'A'..=b'Z'
            | b'-'
            | b'_'
            | b'.'
            | b'!'
            | b'~'
            | b'*'
            | b'\''
            | b'('
            | b')'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b';'
            | b'?'
            | b'/' => escaped.push(octet.into()),
            _ => drop(write!(escaped, "%{octet:02X}")),
        }
    }
    escaped
}
