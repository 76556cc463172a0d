//! Messages as text.

use std::fmt::Write;
use std::net::SocketAddr;

use bytes::Bytes;

use super::parameters::parameters;
use super::{Message, Via, status};
use crate::overload::{self, Feedback};
use crate::{Body, Flow, Transport};

/// What every response to one request repeats (RFC 3261 §8.2.6), taken from the request once.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Via lines, the first with `received` and `rport` filled in, and From, Call-ID, CSeq.
    head: String,
    /// The value of To, without a tag of ours.
    to: String,
    has_to_tag: bool,
    /// Record-Route lines, repeated where a dialog is made (RFC 3261 §12.1.1).
    record_routes: String,
    /// Where responses go (RFC 3261 §18.2.2, RFC 3581 §4).
    pub(crate) flow: Flow,
}

impl Template {
    /// `overload` goes to the hop before, if that one asks for it.
    pub(crate) fn new(
        request: &Message<'_>,
        via: &Via,
        flow: Flow,
        overload: Option<&Feedback>,
    ) -> Self {
        let mut head = String::with_capacity(512);
        for (index, value) in request.all("Via").enumerate() {
            let _ = match index {
                0 => write!(
                    head,
                    "Via: {}\r\n",
                    with_source(value, via, flow.peer, overload)
                ),
                _ => write!(head, "Via: {value}\r\n"),
            };
        }
        for name in ["From", "Call-ID", "CSeq"] {
            let _ = write!(
                head,
                "{name}: {}\r\n",
                request.header(name).unwrap_or_default()
            );
        }
        let mut record_routes = String::new();
        for value in request.all("Record-Route") {
            let _ = write!(record_routes, "Record-Route: {value}\r\n");
        }
        let to = request.header("To").unwrap_or_default().to_owned();
        let has_to_tag = request.to().is_ok_and(|to| to.tag.is_some());
        Self {
            head,
            to,
            has_to_tag,
            record_routes,
            flow: response_flow(via, flow),
        }
    }

    /// The request names a dialog: its responses repeat the tag and get none of ours.
    pub(crate) fn has_to_tag(&self) -> bool {
        self.has_to_tag
    }

    pub(crate) fn response(
        &self,
        status: u16,
        to_tag: Option<&str>,
        extra: &Extra,
        body: Option<&Body>,
    ) -> Bytes {
        let mut text = String::with_capacity(
            self.head.len() + 512 + body.map_or(0, |body| body.content.len()),
        );
        let _ = write!(
            text,
            "SIP/2.0 {status} {}\r\n{}To: {}",
            status::reason(status),
            self.head,
            self.to
        );
        if let Some(tag) = to_tag {
            let _ = write!(text, ";tag={tag}");
        }
        text.push_str("\r\n");
        if extra.repeats_record_routes {
            text.push_str(&self.record_routes);
        }
        text.push_str(&extra.lines);
        finish(text, body)
    }
}

/// The header lines beyond those of the template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    lines: String,
    repeats_record_routes: bool,
}

impl Extra {
    pub(crate) fn line(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let _ = write!(self.lines, "{name}: {value}\r\n");
        self
    }

    pub(crate) fn record_routes(mut self) -> Self {
        self.repeats_record_routes = true;
        self
    }
}

/// Ends the header block and adds the body.
pub(crate) fn finish(mut text: String, body: Option<&Body>) -> Bytes {
    match body {
        None => text.push_str("Content-Length: 0\r\n\r\n"),
        Some(Body {
            content_type,
            content,
        }) => {
            let _ = write!(
                text,
                "Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
                content.len()
            );
            let mut message = text.into_bytes();
            message.extend_from_slice(content);
            return message.into();
        }
    }
    text.into()
}

/// The value of the top Via with the address that the request really came from, and our feedback in
/// place of the wish for it (RFC 7339 §4).
fn with_source(value: &str, via: &Via, source: SocketAddr, overload: Option<&Feedback>) -> String {
    let overload = overload.filter(|_| overload::is_asked_for(value));
    let (hop, rest) = match value.split_once(';') {
        Some((hop, rest)) => (hop.trim_end(), Some(rest)),
        None => (value, None),
    };
    let mut value = hop.to_owned();
    for (name, content) in rest.into_iter().flat_map(parameters) {
        // A `received` in a request is nobody's but ours to write.
        let is_ours = ["", "received", "rport"]
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours))
            || overload.is_some() && overload::is_parameter(name);
        let _ = match content {
            _ if is_ours => Ok(()),
            "" => write!(value, ";{name}"),
            _ => write!(value, ";{name}={content}"),
        };
    }
    let _ = write!(value, ";received={}", source.ip());
    if via.asks_for_rport {
        let _ = write!(value, ";rport={}", source.port());
    }
    if let Some(feedback) = overload {
        let _ = write!(value, ";{feedback}");
    }
    value
}

/// Default port of SIP without TLS (RFC 3261 §19.1.2).
const DEFAULT_PORT: u16 = 5060;

fn response_flow(via: &Via, flow: Flow) -> Flow {
    match flow.transport {
        // RFC 3581: back to where it came from, if asked so; else to the port it names at that address.
        Transport::Udp if !via.asks_for_rport => {
            let port = via.port.unwrap_or(DEFAULT_PORT);
            Flow {
                peer: SocketAddr::new(flow.peer.ip(), port),
                ..flow
            }
        }
        _ => flow,
    }
}

/// A request of ours.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) via: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
    pub(crate) routes: &'a [String],
    pub(crate) extra: Extra,
    pub(crate) body: Option<&'a Body>,
}

impl Request<'_> {
    pub(crate) fn write(&self) -> Bytes {
        let Self {
            method,
            uri,
            via,
            from,
            to,
            call_id,
            cseq,
            routes,
            extra,
            body,
        } = self;
        let mut text = String::with_capacity(1_024);
        let _ = write!(
            text,
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n"
        );
        for route in *routes {
            let _ = write!(text, "Route: {route}\r\n");
        }
        let _ = write!(
            text,
            "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n"
        );
        text.push_str(&extra.lines);
        finish(text, *body)
    }
}

/// The ACK of a refusal, or a CANCEL: the request again with another method, its first Via, its Routes
/// and its identity (RFC 3261 §17.1.1.3, §9.1). `to` is the To of the response for an ACK.
pub(crate) fn follow_up(request: &Message<'_>, method: &str, to: &str) -> Bytes {
    let super::Start::Request { uri, .. } = request.start else {
        return Bytes::new();
    };
    let header = |name| request.header(name).unwrap_or_default();
    let routes: Vec<String> = request.all("Route").map(str::to_owned).collect();
    Request {
        method,
        uri,
        via: header("Via"),
        from: header("From"),
        to,
        call_id: header("Call-ID"),
        cseq: request.cseq().map_or(0, |cseq| cseq.number),
        routes: &routes,
        extra: Extra::default(),
        body: None,
    }
    .write()
}

/// A request of ours in another form: with another Via, a number of its own if there is one, and these
/// headers instead of those of the same name.
pub(crate) fn again(
    request: &Bytes,
    via: &str,
    cseq: Option<u32>,
    set: &[(&'static str, String)],
) -> Bytes {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = request.split_at(end.map_or(request.len(), |end| end + 2));
    // We wrote it, as text.
    let head = String::from_utf8_lossy(head);
    let mut text = String::with_capacity(request.len() + 512);
    for (index, line) in head.split_terminator("\r\n").enumerate() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let _ = match name {
            _ if index == 0 => write!(text, "{line}\r\n"),
            "Via" => write!(text, "Via: {via}\r\n"),
            "CSeq" => {
                let mut words = value.split_whitespace();
                let number = words.next().unwrap_or_default();
                let method = words.next().unwrap_or_default();
                match cseq {
                    Some(cseq) => write!(text, "CSeq: {cseq} {method}\r\n"),
                    None => write!(text, "CSeq: {number} {method}\r\n"),
                }
            }
            _ if set.iter().any(|(other, _)| *other == name) => Ok(()),
            _ => write!(text, "{line}\r\n"),
        };
        if name == "CSeq" {
            for (name, value) in set {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
    }
    let mut message = text.into_bytes();
    message.extend_from_slice(body);
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(peer: &str) -> Flow {
        Flow {
            transport: Transport::Udp,
            peer: peer.parse().unwrap(),
            listener: 0,
            stream: 0,
        }
    }

    #[track_caller]
    fn check(via: &str, source: &str, written: &str, destination: &str) {
        let text = format!(
            "OPTIONS sip:h SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:h>\r\nCall-ID: c\r\nCSeq: 2 OPTIONS\r\n\r\n"
        );
        let request = Message::parse(text.as_bytes()).unwrap();
        let template = Template::new(&request, &request.via().unwrap(), flow(source), None);
        assert_eq!(template.flow.peer, destination.parse().unwrap());
        let response =
            template.response(200, Some("t"), &Extra::default().line("Allow", "BYE"), None);
        let expected = format!(
            "SIP/2.0 200 OK\r\nVia: {written}\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: c\r\nCSeq: 2 OPTIONS\r\nTo: <sip:h>;tag=t\r\nAllow: BYE\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(response, expected.as_bytes());
    }

    #[test]
    fn responses_find_their_way_back() {
        check(
            "SIP/2.0/UDP 10.0.0.1:5062;rport;branch=z9hG4bKa",
            "192.0.2.7:40000",
            "SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKa;received=192.0.2.7;rport=40000",
            "192.0.2.7:40000",
        );
        check(
            "SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKa;received=6.6.6.6",
            "192.0.2.7:40000",
            "SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKa;received=192.0.2.7",
            "192.0.2.7:5062",
        );
        check(
            "SIP/2.0/UDP h;;lr;x=\"a;received=b\";Received=c;branch=z9hG4bKa",
            "192.0.2.7:40000",
            "SIP/2.0/UDP h;lr;x=\"a;received=b\";branch=z9hG4bKa;received=192.0.2.7",
            "192.0.2.7:5060",
        );
        check(
            "SIP/2.0/UDP h",
            "192.0.2.7:40000",
            "SIP/2.0/UDP h;received=192.0.2.7",
            "192.0.2.7:5060",
        );
        // Without feedback, a wish for it stays as it is.
        check(
            "SIP/2.0/UDP h;oc;oc-algo=\"loss,A\"",
            "192.0.2.7:40000",
            "SIP/2.0/UDP h;oc;oc-algo=\"loss,A\";received=192.0.2.7",
            "192.0.2.7:5060",
        );
    }

    #[test]
    fn feedback_replaces_the_wish_for_it_in_the_first_via_only() {
        let text = "OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/UDP p;branch=z9hG4bKa;oc;oc-algo=\"loss,A\"\r\n\
            Via: SIP/2.0/UDP q;oc;oc-algo=\"loss\"\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:h>\r\nCall-ID: c\r\nCSeq: 2 OPTIONS\r\n\r\n";
        let wall = std::time::UNIX_EPOCH + std::time::Duration::from_millis(5_250);
        let feedback = Feedback::new(20, std::time::Duration::from_secs(2), wall);
        let written = |text: &str| {
            let request = Message::parse(text.as_bytes()).unwrap();
            let via = request.via().unwrap();
            Template::new(&request, &via, flow("192.0.2.7:4000"), Some(&feedback)).head
        };
        let head = written(text);
        let mut lines = head.lines();
        assert_eq!(
            lines.next(),
            Some(
                "Via: SIP/2.0/UDP p;branch=z9hG4bKa;received=192.0.2.7;oc=20;oc-algo=\"loss\";oc-validity=2000;oc-seq=5.250"
            )
        );
        assert_eq!(lines.next(), Some("Via: SIP/2.0/UDP q;oc;oc-algo=\"loss\""));
        assert!(!written(&text.replacen(";oc;", ";", 1)).contains("oc-validity"));
    }
}
