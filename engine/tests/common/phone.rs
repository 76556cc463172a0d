//! One phone of a crowd: its calls, and what it says and hears.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Heard, Skills, Story, Voice, address_in};
use crate::agent::{Dialog, Message, SDP, parameter, uri_in};

const SAMPLES: usize = 160;

/// An unanswered INVITE is said again after this (RFC 3261 §17.1.1.2 begins with it).
const T1: Duration = Duration::from_millis(500);

/// Packets of which a phone keeps what it heard: 20 s.
const HEARD_MAX: usize = 1_000;

/// A burst comes every so many frames, and is so many of them long.
const BURST_EVERY: u64 = 40;
const BURST_LEN: u64 = 10;

/// One call of a phone.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) dialog: Dialog,
    /// An INVITE of ours that has no final answer yet, and when it was sent.
    asked: Option<(String, Instant)>,
    /// Where its sound goes to, once it is up.
    media: Option<SocketAddr>,
    /// The Call-ID of the call that it takes the place of, which we end then.
    ends: Option<String>,
    /// The Call-ID of the call in which we were referred, which wants to know how it goes.
    tells: Option<String>,
}

pub(super) struct Phone {
    pub(super) name: String,
    skills: Skills,
    pub(super) voice: Voice,
    socket: UdpSocket,
    rtp: UdpSocket,
    address: SocketAddr,
    pub(super) ssrc: u32,
    legs: Vec<Leg>,
    pub(super) story: Story,
    /// Final answers we gave, by branch and method.
    answered: HashMap<String, String>,
    sequence: u16,
    frames: u64,
    pub(super) heard: VecDeque<Heard>,
    /// Something loud has come since the last look at it.
    is_loud: bool,
    gap: u32,
    pub(super) gap_max: u32,
    pub(super) bursts: VecDeque<Instant>,
}

impl Phone {
    pub(super) fn new(name: &str, server: SocketAddr, skills: Skills, voice: Voice) -> Self {
        // The address from which that server is reached.
        let probe = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
        probe.connect(server).expect("a way to the server");
        let ip = probe.local_addr().expect("an address").ip();
        let bind = || {
            let socket = UdpSocket::bind((ip, 0)).expect("a port");
            socket.set_nonblocking(true).expect("an option");
            socket
        };
        let socket = bind();
        Self {
            name: name.to_owned(),
            skills,
            voice,
            address: socket.local_addr().expect("an address"),
            socket,
            rtp: bind(),
            ssrc: number().wrapping_mul(0x9E37_79B9),
            legs: Vec::new(),
            story: Story::default(),
            answered: HashMap::new(),
            sequence: 0,
            frames: 0,
            heard: VecDeque::new(),
            is_loud: false,
            gap: 0,
            gap_max: 0,
            bursts: VecDeque::new(),
        }
    }

    pub(super) fn uri(&self) -> String {
        format!("sip:{}@{}", self.name, self.address)
    }

    /// The call it speaks in: the last one that is up.
    pub(super) fn leg(&self) -> Option<&Leg> {
        self.legs.iter().rev().find(|leg| leg.media.is_some())
    }

    fn position(&self, call_id: &str) -> Option<usize> {
        let is_it = |leg: &Leg| leg.dialog.call_id == call_id;
        self.legs.iter().position(is_it)
    }

    fn sdp(&self) -> String {
        let rtp = self.rtp.local_addr().expect("an address");
        let (ip, port) = (rtp.ip(), rtp.port());
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na=sendrecv\r\n"
        )
    }

    /// Contact, and what it can do.
    fn abilities(&self) -> String {
        let refer = if self.skills.refer { ", REFER" } else { "" };
        let mut lines = format!(
            "Contact: <{}>\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY{refer}\r\n",
            self.uri()
        );
        if self.skills.replaces {
            lines.push_str("Supported: replaces\r\n");
        }
        lines
    }

    pub(super) fn invite(&mut self, uri: &str, tells: Option<String>) {
        let tag = format!("t{}", number());
        let dialog = Dialog {
            call_id: format!("crowd{}x{}", std::process::id(), number()),
            local: format!("<{}>;tag={tag}", self.uri()),
            remote: format!("<{uri}>"),
            target: uri.to_owned(),
            cseq: 0,
        };
        self.legs.push(Leg {
            dialog,
            asked: None,
            media: None,
            ends: None,
            tells,
        });
        self.ask(self.legs.len() - 1);
    }

    fn ask(&mut self, leg: usize) {
        let (lines, sdp) = (self.abilities(), self.sdp());
        let branch = branch();
        self.legs[leg].dialog.cseq += 1;
        let dialog = self.legs[leg].dialog.clone();
        let text = self.request(&dialog, "INVITE", &branch, &lines, Some((SDP, &sdp)));
        self.send(&dialog.target, &text);
        self.legs[leg].asked = Some((text, Instant::now()));
    }

    fn request(
        &self,
        dialog: &Dialog,
        method: &str,
        branch: &str,
        lines: &str,
        body: Option<(&str, &str)>,
    ) -> String {
        let Dialog {
            call_id,
            local,
            remote,
            target,
            cseq,
        } = dialog;
        let mut text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: {local}\r\nTo: {remote}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n{lines}",
            self.address
        );
        close(&mut text, body);
        text
    }

    fn send(&self, uri: &str, text: &str) {
        // A server that is gone, or behind a link that is cut, is a reason to try, not to fail.
        let _ = self.socket.send_to(text.as_bytes(), address_in(uri));
    }

    pub(super) fn hang_up(&mut self) {
        for leg in std::mem::take(&mut self.legs) {
            self.bye(leg.dialog);
        }
    }

    fn bye(&self, mut dialog: Dialog) {
        dialog.cseq += 1;
        let text = self.request(&dialog, "BYE", &branch(), "", None);
        self.send(&dialog.target, &text);
    }

    /// Takes in what is there.
    pub(super) fn look(&mut self) {
        let mut datagram = [0; 65_536];
        while let Ok((len, from)) = self.socket.recv_from(&mut datagram) {
            // Media for whoever had this port before.
            let Ok(text) = str::from_utf8(&datagram[..len]) else {
                continue;
            };
            let message = Message::parse_from(text, from);
            match message.status() {
                Some(status) => self.on_answer(status, &message),
                None => self.on_request(&message, from),
            }
        }
        while let Ok((len, from)) = self.rtp.recv_from(&mut datagram) {
            self.listen(&datagram[..len], from);
        }
        let late = |leg: &Leg| {
            let (text, at) = leg.asked.as_ref().filter(|(_, at)| at.elapsed() > T1)?;
            Some((text.clone(), leg.dialog.target.clone(), *at))
        };
        for leg in 0..self.legs.len() {
            if let Some((text, target, at)) = late(&self.legs[leg]) {
                self.send(&target, &text);
                self.legs[leg].asked = Some((text, at + T1));
            }
        }
    }

    fn on_answer(&mut self, status: u16, answer: &Message) {
        if status < 200 || !answer.header("CSeq").ends_with("INVITE") {
            return;
        }
        let Some(leg) = self.position(answer.header("Call-ID")) else {
            return;
        };
        let mut dialog = self.legs[leg].dialog.clone();
        if answer.header("CSeq") != format!("{} INVITE", dialog.cseq) {
            return;
        }
        dialog.remote = answer.header("To").to_owned();
        if status >= 300 {
            // To where the request went, with its branch (RFC 3261 §17.1.1.3).
            let via = parameter(answer.header("Via"), "branch").expect("a branch");
            let ack = self.request(&dialog, "ACK", via, "", None);
            self.send(&dialog.target, &ack);
            if self.legs[leg].asked.take().is_some() {
                self.on_refused(leg, status, answer);
            }
            return;
        }
        dialog.target = uri_in(answer.header("Contact")).to_owned();
        let ack = self.request(&dialog, "ACK", &branch(), "", None);
        self.send(&dialog.target, &ack);
        if self.legs[leg].asked.take().is_none() {
            return;
        }
        self.story.status = Some(status);
        let up = &mut self.legs[leg];
        up.dialog = dialog;
        up.media = Some(answer.media_address());
        if let Some(call_id) = up.tells.take() {
            self.tell(&call_id, "SIP/2.0 200 OK", "terminated;reason=noresource");
        }
    }

    fn on_refused(&mut self, leg: usize, status: u16, answer: &Message) {
        self.story.status = Some(status);
        if status == 302 && self.story.redirects < 10 {
            self.story.redirects += 1;
            let dialog = &mut self.legs[leg].dialog;
            dialog.target = uri_in(answer.header("Contact")).to_owned();
            self.ask(leg);
            return;
        }
        if let Some(call_id) = self.legs.remove(leg).tells {
            let line = format!("SIP/2.0 {status} Whatever");
            self.tell(&call_id, &line, "terminated;reason=noresource");
        }
    }

    /// NOTIFY of a REFER (RFC 3515 §2.4.4).
    fn tell(&mut self, call_id: &str, line: &str, state: &str) {
        let Some(leg) = self.position(call_id) else {
            return;
        };
        self.legs[leg].dialog.cseq += 1;
        let dialog = self.legs[leg].dialog.clone();
        let lines = format!(
            "Contact: <{}>\r\nEvent: refer\r\nSubscription-State: {state}\r\n",
            self.uri()
        );
        let body = format!("{line}\r\n");
        let body = Some(("message/sipfrag;version=2.0", body.as_str()));
        let text = self.request(&dialog, "NOTIFY", &branch(), &lines, body);
        self.send(&dialog.target, &text);
    }

    fn on_request(&mut self, request: &Message, from: SocketAddr) {
        let method = request.start.split(' ').next().expect("a method");
        let branch = parameter(request.header("Via"), "branch").expect("a branch");
        let name = format!("{branch} {method}");
        if let Some(answer) = self.answered.get(&name) {
            let _ = self.socket.send_to(answer.as_bytes(), from);
            return;
        }
        let known = self.position(request.header("Call-ID"));
        if method == "ACK" {
            // The call that took the place of another is up: the other one ends (RFC 3891 §3).
            if let Some(old) = known.and_then(|leg| self.legs[leg].ends.take())
                && let Some(old) = self.position(&old)
            {
                let old = self.legs.remove(old);
                self.bye(old.dialog);
            }
            return;
        }
        let status = match (method, known) {
            ("INVITE", Some(_)) | ("OPTIONS" | "NOTIFY" | "UPDATE", _) => 200,
            ("INVITE", None) => self.on_call(request),
            ("BYE", Some(leg)) => {
                self.legs.remove(leg);
                self.story.byes += 1;
                200
            }
            ("REFER", Some(_)) if self.skills.refer => 200,
            ("BYE", None) => 481,
            _ => 501,
        };
        if status >= 300 {
            self.story.refused.push(request.start.clone());
        }
        let answer = self.answer(request, status);
        let _ = self.socket.send_to(answer.as_bytes(), from);
        self.answered.insert(name, answer);
        if method == "REFER" && status == 200 {
            self.story.referred += 1;
            let call_id = request.header("Call-ID").to_owned();
            self.tell(&call_id, "SIP/2.0 100 Trying", "active;expires=60");
            let target = uri_in(request.header("Refer-To")).to_owned();
            self.invite(&target, Some(call_id));
        }
    }

    /// Somebody calls: only in place of a call that is there.
    fn on_call(&mut self, invite: &Message) -> u16 {
        let Some(replaces) = invite.find("Replaces").filter(|_| self.skills.replaces) else {
            return 486;
        };
        let call_id = replaces.split(';').next().expect("a Call-ID").trim();
        let Some(old) = self.position(call_id) else {
            return 481;
        };
        // The tags as we see them: to-tag is ours (RFC 3891 §3).
        let dialog = &self.legs[old].dialog;
        let is_it = parameter(replaces, "to-tag") == Some(dialog.local_tag())
            && parameter(replaces, "from-tag") == Some(dialog.remote_tag());
        if !is_it {
            return 481;
        }
        self.story.replaced += 1;
        self.legs.push(Leg {
            dialog: Dialog {
                call_id: invite.header("Call-ID").to_owned(),
                local: self.own(invite),
                remote: invite.header("From").to_owned(),
                target: uri_in(invite.header("Contact")).to_owned(),
                cseq: 0,
            },
            asked: None,
            media: Some(invite.media_address()),
            ends: Some(call_id.to_owned()),
            tells: None,
        });
        200
    }

    /// The To value of our answers.
    fn own(&self, request: &Message) -> String {
        let to = request.header("To");
        match parameter(to, "tag") {
            Some(_) => to.to_owned(),
            None => format!("{to};tag={}{}", self.name, self.address.port()),
        }
    }

    fn answer(&self, request: &Message, status: u16) -> String {
        let mut text = format!("SIP/2.0 {status} Whatever\r\n");
        for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
            for value in request.headers(name) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        let _ = write!(text, "To: {}\r\n{}", self.own(request), self.abilities());
        let sdp = self.sdp();
        let is_invite = request.is("INVITE") && status == 200;
        close(&mut text, is_invite.then_some((SDP, sdp.as_str())));
        text
    }

    /// One frame of what it says.
    pub(super) fn speak(&mut self) {
        self.frames += 1;
        let Some(to) = self.leg().and_then(|leg| leg.media) else {
            return;
        };
        let place = self.frames % BURST_EVERY;
        let sample = |i: usize| {
            let hz = match self.voice {
                Voice::Tone { hz } => hz,
                Voice::Bursts if place < BURST_LEN => 1_000.0,
                _ => return 0.0,
            };
            let n = (self.frames as usize % 400 * SAMPLES + i) as f64;
            (std::f64::consts::TAU * hz * n / 8_000.0).sin() * 8_000.0
        };
        let payload: [u8; SAMPLES] = std::array::from_fn(|i| to_mu_law(sample(i) as i16));
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(
            (self.frames as u32)
                .wrapping_mul(SAMPLES as u32)
                .to_be_bytes(),
        );
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        match self.voice {
            Voice::Nothing => return,
            Voice::Bursts if place == 0 => remember(&mut self.bursts, Instant::now()),
            _ => {}
        }
        let _ = self.rtp.send_to(&packet, to);
    }

    /// Packets of the call it has; those of one that was replaced go unheard.
    fn listen(&mut self, packet: &[u8], from: SocketAddr) {
        let contributors = packet.first().map_or(0, |first| usize::from(first & 0x0F));
        let is_extended = packet.first().is_some_and(|first| first & 0x10 != 0);
        let is_ours = self.leg().and_then(|leg| leg.media) == Some(from);
        if !is_ours || packet.len() < 12 + 4 * contributors || packet[1] & 0x7F != 0 {
            return;
        }
        let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().expect("4 octets"));
        let mut begin = 12 + 4 * contributors;
        if is_extended {
            begin += 4 + 4 * (word(begin) & 0xFFFF) as usize;
        }
        let samples = packet[begin..].iter().map(|&octet| from_mu_law(octet));
        let energy: f64 = samples.map(|sample| f64::from(sample).powi(2)).sum();
        let heard = Heard {
            at: Instant::now(),
            rms: (energy / (packet.len() - begin).max(1) as f64).sqrt(),
            ssrc: word(8),
            contributors: (0..contributors).map(|i| word(12 + 4 * i)).collect(),
        };
        self.is_loud |= heard.is_loud();
        remember(&mut self.heard, heard);
    }

    pub(super) fn count_silence(&mut self) {
        self.gap = if std::mem::take(&mut self.is_loud) {
            0
        } else {
            self.gap + 1
        };
        self.gap_max = self.gap_max.max(self.gap);
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == HEARD_MAX {
        list.pop_front();
    }
    list.push_back(item);
}

/// Differs from all others of this test process.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn branch() -> String {
    format!("z9hG4bKcrowd{}x{}", std::process::id(), number())
}

fn close(text: &mut String, body: Option<(&str, &str)>) {
    let (kind, content) = body.unwrap_or_default();
    if !kind.is_empty() {
        let _ = write!(text, "Content-Type: {kind}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{content}", content.len());
}

/// ITU-T G.711, µ-law, from 16 bits.
fn to_mu_law(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    let magnitude = i32::from(sample).abs().min(32_635) + BIAS;
    let segment = (31 - (magnitude as u32).leading_zeros()) - 7;
    let mantissa = (magnitude >> (segment + 3)) & 0x0F;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4) as u8 | mantissa as u8)
}

fn from_mu_law(octet: u8) -> i16 {
    let octet = !octet;
    let segment = (octet >> 4) & 7;
    let magnitude = (((i32::from(octet & 0x0F) << 3) + 0x84) << segment) - 0x84;
    let sample = if octet & 0x80 != 0 {
        -magnitude
    } else {
        magnitude
    };
    sample as i16
}
