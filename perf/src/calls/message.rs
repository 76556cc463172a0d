//! What a caller writes: five requests and the answer to a request of the server.
//!
//! Everything a request needs follows from the number of the call, so that a repeat is written again
//! instead of being kept.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;

use sip::scan;

/// Prefix of RFC 3261 branches.
const MAGIC: &[u8] = b"z9hG4bK";

/// A call in every message of its own: Call-ID, From-tag and the beginning of every branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId {
    /// Tells this run's calls from those of another against the same server.
    pub(super) run: u32,
    pub(super) number: u64,
    /// Where the call is kept; with its number, because places are used again.
    pub(super) slot: usize,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}-{:x}", self.run, self.number, self.slot)
    }
}

impl CallId {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = str::from_utf8(text).ok()?.split('-');
        let mut part = || u64::from_str_radix(parts.next()?, 16).ok();
        Some(Self {
            run: part()?.try_into().ok()?,
            number: part()?,
            slot: part()?.try_into().ok()?,
        })
    }
}

/// The number behind the Call-ID in a branch of ours: the CSeq of the request that is answered.
pub(super) fn cseq_of_branch(branch: &[u8], call_id: &[u8]) -> Option<u32> {
    let rest = branch.strip_prefix(MAGIC)?.strip_prefix(call_id)?;
    str::from_utf8(rest.strip_prefix(b"-")?).ok()?.parse().ok()
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) uri: String,
    pub(super) peer: SocketAddr,
}

impl Target {
    /// The first address of a Contact. None when it is no address of this host reached by UDP: load
    /// stays on loopback.
    pub(super) fn parse(contact: &[u8]) -> Option<Self> {
        /// Port of SIP without TLS (RFC 3261 §19.1.2).
        const DEFAULT_PORT: u16 = 5060;
        let contact = str::from_utf8(contact).ok()?;
        let uri = match contact.split_once('<') {
            Some((_, rest)) => rest.split_once('>')?.0,
            // Without brackets what follows belongs to the header (RFC 3261 §20).
            None => contact.split([';', ',']).next()?.trim(),
        };
        let (scheme, rest) = uri.split_once(':')?;
        let mut parts = rest.split(';');
        let address = parts.next()?.rsplit('@').next()?;
        let address = address.split('?').next()?;
        let is_udp = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.eq_ignore_ascii_case("transport") || value.eq_ignore_ascii_case("udp")
        });
        let peer: SocketAddr = match address.parse() {
            Ok(peer) => peer,
            Err(_) => SocketAddr::new(address.trim_matches(['[', ']']).parse().ok()?, DEFAULT_PORT),
        };
        (scheme.eq_ignore_ascii_case("sip") && is_udp && peer.ip().is_loopback()).then(|| Self {
            uri: uri.to_owned(),
            peer,
        })
    }
}

/// What a 200 adds to a call.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) to_tag: Vec<u8>,
    pub(super) target: Target,
}

/// What is the same in all calls.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) server: SocketAddr,
    /// Our own address, by socket.
    pub(super) locals: Vec<SocketAddr>,
    /// Rooms that calls spread over; 0 is a room for each call.
    pub(super) rooms: u64,
    pub(super) offer: String,
}

/// The parts in which requests differ.
struct Request<'a> {
    method: &'static str,
    id: CallId,
    cseq: u32,
    target: Option<&'a Target>,
    /// The ACK of a 200 is a transaction of its own (RFC 3261 §13.2.2.4).
    branch_end: &'static str,
    to: To<'a>,
}

enum To<'a> {
    Untagged,
    Tagged(&'a [u8]),
    /// As the reply wrote it.
    Copied(&'a [u8]),
}

impl Script {
    pub(super) fn socket(&self, id: CallId) -> usize {
        (id.number % self.locals.len() as u64) as usize
    }

    pub(super) fn invite(&self, out: &mut Vec<u8>, id: CallId, cseq: u32, target: Option<&Target>) {
        self.head(
            out,
            &Request {
                method: "INVITE",
                id,
                cseq,
                target,
                branch_end: "",
                to: To::Untagged,
            },
        );
        let local = self.locals[self.socket(id)];
        let (number, offer) = (id.number, &self.offer);
        push(
            out,
            format_args!(
                "Contact: <sip:caller{number}@{local}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}",
                offer.len()
            ),
        );
    }

    pub(super) fn cancel(&self, out: &mut Vec<u8>, id: CallId, cseq: u32, target: Option<&Target>) {
        self.bodiless(
            out,
            &Request {
                method: "CANCEL",
                id,
                cseq,
                target,
                branch_end: "",
                to: To::Untagged,
            },
        );
    }

    /// The ACK of a refusal, which repeats the To of `reply` (RFC 3261 §17.1.1.3).
    pub(super) fn ack_refusal(
        &self,
        out: &mut Vec<u8>,
        id: CallId,
        cseq: u32,
        target: Option<&Target>,
        reply: &[u8],
    ) {
        let to = scan::headers(reply, "To", Some(b't')).next();
        self.bodiless(
            out,
            &Request {
                method: "ACK",
                id,
                cseq,
                target,
                branch_end: "",
                to: to.map_or(To::Untagged, To::Copied),
            },
        );
    }

    /// The ACK of a 200.
    pub(super) fn ack(&self, out: &mut Vec<u8>, id: CallId, cseq: u32, dialog: &Dialog) {
        self.bodiless(
            out,
            &Request {
                method: "ACK",
                id,
                cseq,
                target: Some(&dialog.target),
                branch_end: "-ack",
                to: To::Tagged(&dialog.to_tag),
            },
        );
    }

    pub(super) fn bye(&self, out: &mut Vec<u8>, id: CallId, cseq: u32, dialog: &Dialog) {
        self.bodiless(
            out,
            &Request {
                method: "BYE",
                id,
                cseq,
                target: Some(&dialog.target),
                branch_end: "",
                to: To::Tagged(&dialog.to_tag),
            },
        );
    }

    fn bodiless(&self, out: &mut Vec<u8>, request: &Request<'_>) {
        self.head(out, request);
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    fn head(&self, out: &mut Vec<u8>, request: &Request<'_>) {
        let &Request {
            method,
            id,
            cseq,
            target,
            branch_end,
            ref to,
        } = request;
        let server = self.server;
        let local = self.locals[self.socket(id)];
        let number = id.number;
        let room = match self.rooms {
            0 => number,
            rooms => number % rooms,
        };
        match target {
            Some(target) => push(out, format_args!("{method} {} SIP/2.0\r\n", target.uri)),
            None => push(
                out,
                format_args!("{method} sip:perf{room}@{server} SIP/2.0\r\n"),
            ),
        }
        push(
            out,
            format_args!(
                "Via: SIP/2.0/UDP {local};branch=z9hG4bK{id}-{cseq}{branch_end};rport\r\nMax-Forwards: 70\r\n\
                From: <sip:caller{number}@{local}>;tag={id}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\nTo: "
            ),
        );
        // The To of a redirected call stays that of its first request (RFC 3261 §8.1.3.4).
        match to {
            To::Copied(value) => out.extend_from_slice(value),
            To::Untagged => push(out, format_args!("<sip:perf{room}@{server}>")),
            To::Tagged(tag) => {
                push(out, format_args!("<sip:perf{room}@{server}>;tag="));
                out.extend_from_slice(tag);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The answer to a request of the server.
pub(super) fn answer(out: &mut Vec<u8>, status: &str, request: &[u8]) {
    push(out, format_args!("SIP/2.0 {status}\r\n"));
    for (name, compact) in [
        ("Via", Some(b'v')),
        ("From", Some(b'f')),
        ("To", Some(b't')),
        ("Call-ID", Some(b'i')),
        ("CSeq", None),
    ] {
        for value in scan::headers(request, name, compact) {
            push(out, format_args!("{name}: "));
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use sip::scan::Start;

    use super::*;

    const ID: CallId = CallId {
        run: 0xA1,
        number: 75,
        slot: 3,
    };

    fn script() -> Script {
        Script {
            server: "127.0.0.1:5060".parse().unwrap(),
            locals: vec![
                "127.0.0.1:1000".parse().unwrap(),
                "127.0.0.1:1001".parse().unwrap(),
            ],
            rooms: 10,
            offer: "v=0\r\n".to_owned(),
        }
    }

    #[track_caller]
    fn check(method: &str, uri: &str, to_tag: Option<&str>, message: &[u8]) {
        let glance = scan(message).unwrap();
        let (method, uri) = (method.as_bytes(), uri.as_bytes());
        assert_eq!(glance.start, Start::Request { method, uri });
        assert_eq!(CallId::parse(glance.call_id), Some(ID));
        assert_eq!(glance.from_tag, Some(glance.call_id));
        assert_eq!(glance.to_tag, to_tag.map(str::as_bytes));
        assert_eq!(glance.cseq_method, Some(method));
        assert!(message.windows(4).any(|end| end == b"\r\n\r\n"));
    }

    #[test]
    fn requests_carry_their_call() {
        let script = script();
        let mut out = Vec::new();
        script.invite(&mut out, ID, 1, None);
        check("INVITE", "sip:perf5@127.0.0.1:5060", None, &out);
        assert!(out.ends_with(b"Content-Length: 5\r\n\r\nv=0\r\n"));
        let branch = scan(&out).unwrap().branch.unwrap();
        assert_eq!(cseq_of_branch(branch, b"000000a1-4b-3"), Some(1));
        assert_eq!(cseq_of_branch(branch, b"000000a1-4b-4"), None);

        let target = Target::parse(b"<sip:b@127.0.0.1:7>").unwrap();
        let dialog = Dialog {
            to_tag: b"theirs".to_vec(),
            target: target.clone(),
        };
        out.clear();
        script.bye(&mut out, ID, 2, &dialog);
        check("BYE", "sip:b@127.0.0.1:7", Some("theirs"), &out);
        out.clear();
        script.ack(&mut out, ID, 1, &dialog);
        check("ACK", "sip:b@127.0.0.1:7", Some("theirs"), &out);
        let branch = scan(&out).unwrap().branch.unwrap();
        assert_eq!(cseq_of_branch(branch, b"000000a1-4b-3"), None);
        out.clear();
        let reply = b"SIP/2.0 486 No\r\nt: <sip:x>;tag=no\r\n\r\n";
        script.ack_refusal(&mut out, ID, 2, Some(&target), reply);
        check("ACK", "sip:b@127.0.0.1:7", Some("no"), &out);
        out.clear();
        script.cancel(&mut out, ID, 1, None);
        check("CANCEL", "sip:perf5@127.0.0.1:5060", None, &out);
    }

    #[test]
    fn contacts_lead_to_loopback_addresses_only() {
        #[track_caller]
        fn check(contact: &str, expected: Option<(&str, &str)>) {
            let found = Target::parse(contact.as_bytes());
            let found = found.map(|target| (target.uri, target.peer.to_string()));
            let expected = expected.map(|(uri, peer)| (uri.to_owned(), peer.to_owned()));
            assert_eq!(found, expected, "{contact}");
        }
        let here = Some(("sip:a@127.0.0.1:5070", "127.0.0.1:5070"));
        check("<sip:a@127.0.0.1:5070>;isfocus", here);
        check("sip:a@127.0.0.1:5070;q=1.0", here);
        check("\"A; B\" <sip:a@127.0.0.1:5070>", here);
        check("<sip:127.0.0.1>", Some(("sip:127.0.0.1", "127.0.0.1:5060")));
        check("<sip:a@[::1]>", Some(("sip:a@[::1]", "[::1]:5060")));
        let udp = "sip:a@127.0.0.1:7;transport=UDP;x";
        check(&format!("<{udp}>"), Some((udp, "127.0.0.1:7")));
        for elsewhere in [
            "<sip:a@192.0.2.1:5060>",
            "<sip:a@example.org>",
            "<sip:a@127.0.0.1;transport=tcp>",
            "<sips:a@127.0.0.1>",
            "<tel:+1>",
            "*",
            "",
        ] {
            check(elsewhere, None);
        }
    }

    #[test]
    fn an_answer_repeats_what_ties_it_to_its_request() {
        let request = b"BYE sip:c@h SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b\r\nf: <sip:x>;tag=1\r\n\
            t: <sip:y>;tag=2\r\ni: id\r\nCSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n";
        let mut out = Vec::new();
        answer(&mut out, "200 OK", request);
        let expected = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b\r\nFrom: <sip:x>;tag=1\r\n\
            To: <sip:y>;tag=2\r\nCall-ID: id\r\nCSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
