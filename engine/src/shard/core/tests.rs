//! Two shards on one socket and a clock of ours: what takes minutes elsewhere takes a moment here.

use std::cell::Cell;
use std::io::ErrorKind;

use mixer_simd::Kernels;
use tokio::sync::oneshot;

use super::*;
use crate::focus::RoomName;
use crate::io::batch::BatchIo;
use crate::io::ports::Ports;
use crate::load::Admission;
use crate::meters::{ServerState, State};
use crate::shard::mailbox::DialOrder;
use crate::shard::stage::StageConfig;

mod between;
mod cluster;
mod parts;
mod refusing;

const SHARDS: usize = 2;

/// A turn of every shard, this often.
const STEP: Duration = Duration::from_millis(20);

/// Servers of tests that run at once take their ports from different places.
const RTP_PORTS_FROM: u16 = 14_000;
const RTP_PORTS: u16 = 200;

struct Server {
    cores: Vec<Core<BatchIo>>,
    mailboxes: Mailboxes,
    load: Arc<ServerLoad>,
    state: Arc<ServerState>,
    address: SocketAddr,
    now: Instant,
    wall: SystemTime,
}

impl Server {
    fn new(place: u16, sets: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        sets.push(format!("sip.listen=udp:{address}"));
        sets.push("rtp.timeout_s=0".to_owned());
        let mut config = Config::load(None, [].into_iter(), &sets, &[0, 1]).unwrap();
        config.load.derive(100_000).unwrap();
        let load = Arc::new(ServerLoad::new(&config.load));
        let state = Arc::new(ServerState::default());
        state.set(State::Active);
        let mailboxes = Mailboxes::new(SHARDS);
        let common = Common {
            access: Arc::new(Access::load(&config.auth).unwrap()),
            meters: Arc::new(Meters::new(&[0, 1])),
            mailboxes: mailboxes.clone(),
            spread: Spread::default(),
            load: load.clone(),
            watchers: Watchers::default(),
            quiet: (0..SHARDS).map(|_| AtomicBool::new(false)).collect(),
            config: Arc::new(config),
        };
        let now = Instant::now();
        let core = |index: usize| {
            let listener = sip::ListenerIdentity {
                transport: Transport::Udp,
                sent_by: address.to_string(),
            };
            let mut identity = sip::Config::new(index as u16, vec![listener], index as u64);
            identity.focus = true;
            let admission = Admission {
                load: load.clone(),
                state: state.clone(),
            };
            let (config, access) = (common.config.clone(), common.access.clone());
            let focus = Focus::new(config, access, admission, index as u64);
            let low = RTP_PORTS_FROM + place * RTP_PORTS;
            let ports = Ports::new(low..=low + RTP_PORTS - 1, index, SHARDS);
            let stage_config = StageConfig {
                address: address.ip(),
                shared_ports: true,
                talkers_max: 8,
                media_timeout: None,
            };
            let io = BatchIo::new().unwrap();
            let stage = Stage::new(now, io, ports, Kernels::detect(), &stage_config);
            let own = vec![Some(socket.try_clone().unwrap())];
            let index = ShardIndex(index as u16);
            let sip = Endpoint::new(identity);
            Core::new(index, common.clone(), sip, focus, stage, now, own).unwrap()
        };
        Self {
            cores: (0..SHARDS).map(core).collect(),
            mailboxes,
            load,
            state,
            address,
            now,
            wall: SystemTime::now(),
        }
    }

    fn turn(&mut self) {
        self.now += STEP;
        self.wall += STEP;
        for core in &mut self.cores {
            let turned = core.turn(self.now, self.wall, &mut Vec::new(), &mut Vec::new());
            assert!(!turned.ended);
        }
    }

    /// Lets time pass for as long as nothing comes for the phone; gives what does.
    fn until(&mut self, phone: &Phone, most: Duration) -> Option<String> {
        let end = self.now + most;
        while self.now < end {
            self.turn();
            if let Some(message) = phone.hear() {
                return Some(message);
            }
        }
        None
    }

    /// The next message that begins so; others are passed over.
    #[track_caller]
    fn expect(&mut self, phone: &Phone, start: &str, most: Duration) -> String {
        let end = self.now + most;
        let mut others = Vec::new();
        while let Some(message) = self.until(phone, end.saturating_duration_since(self.now)) {
            if message.starts_with(start) {
                return message;
            }
            others.push(message);
        }
        panic!("no {start} within {most:?}, but {others:?}");
    }

    fn calls(&self) -> usize {
        self.cores.iter().map(|core| core.focus.calls()).sum()
    }

    fn subscriptions(&self) -> usize {
        let of = |core: &Core<BatchIo>| core.sip.sizes().subscriptions;
        self.cores.iter().map(of).sum()
    }
}

/// What a message that has just been sent takes to be handled.
const SOON: Duration = Duration::from_secs(2);

const WITH_SDP: &str = "Content-Type: application/sdp\r\n";
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=audio 9 RTP/AVP 0\r\n";

struct Phone {
    socket: UdpSocket,
    to: SocketAddr,
    sent: Cell<u32>,
}

impl Phone {
    fn new(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            to: server.address,
            sent: Cell::new(0),
        }
    }

    fn uri(&self) -> String {
        format!("sip:phone@{}", self.socket.local_addr().unwrap())
    }

    fn hear(&self) -> Option<String> {
        let mut datagram = [0; 65_536];
        match self.socket.recv(&mut datagram) {
            Ok(len) => Some(String::from_utf8(datagram[..len].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn say(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.to).unwrap();
    }

    /// A request to a room, or within the dialog that `to` names.
    fn request(&self, method: &str, room: &str, to: Option<&str>, lines: &str, body: &str) {
        self.request_of(method, room, "", to, lines, body);
    }

    /// The same, with parameters in the Request-URI.
    fn request_of(
        &self,
        method: &str,
        room: &str,
        parameters: &str,
        to: Option<&str>,
        lines: &str,
        body: &str,
    ) {
        let number = self.sent.get() + u32::from(method != "ACK");
        self.sent.set(number);
        let here = self.socket.local_addr().unwrap();
        let uri = format!("sip:{room}@{}{parameters}", self.to);
        let to = to.map_or_else(|| format!("<{uri}>"), str::to_owned);
        self.say(&format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{}{method}{number}\r\n\
             Max-Forwards: 70\r\nFrom: <{}>;tag=p\r\nTo: {to}\r\nCall-ID: {}{room}\r\n\
             CSeq: {number} {method}\r\nContact: <{}>\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            here.port(),
            self.uri(),
            here.port(),
            self.uri(),
            body.len()
        ));
    }

    /// Takes back the INVITE that was sent last: a CANCEL has its branch and number.
    fn cancel(&self, room: &str, to: Option<&str>) {
        let here = self.socket.local_addr().unwrap();
        let (port, number) = (here.port(), self.sent.get());
        let uri = format!("sip:{room}@{}", self.to);
        let to = to.map_or_else(|| format!("<{uri}>"), str::to_owned);
        self.say(&format!(
            "CANCEL {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{port}INVITE{number}\r\n\
             From: <{}>;tag=p\r\nTo: {to}\r\nCall-ID: {port}{room}\r\nCSeq: {number} CANCEL\r\n\
             Content-Length: 0\r\n\r\n",
            self.uri(),
        ));
    }

    fn call(&self, server: &mut Server, room: &str) -> String {
        self.request("INVITE", room, None, WITH_SDP, SDP);
        let answer = server.expect(self, "SIP/2.0 200", SOON);
        let to = header(&answer, "To").to_owned();
        self.request("ACK", room, Some(&to), "", "");
        to
    }

    /// Answers a request of the server's.
    fn answer(&self, request: &str, status: u16) {
        self.answer_with(request, status, "", "");
    }

    fn answer_with(&self, request: &str, status: u16, lines: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status} Whatever\r\n");
        for name in ["Via", "From", "Call-ID", "CSeq"] {
            text += &format!("{name}: {}\r\n", header(request, name));
        }
        let to = header(request, "To");
        let tag = if to.contains("tag=") { "" } else { ";tag=p" };
        self.say(&format!(
            "{text}To: {to}{tag}\r\nContact: <{}>\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            self.uri(),
            body.len()
        ));
    }
}

#[track_caller]
fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    let found = message.lines().find_map(line);
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

#[test]
fn who_rings_for_ever_is_given_up() {
    let mut server = Server::new(0, &[]);
    let phone = Phone::new(&server);
    let (reply, mut status) = oneshot::channel();
    let order = DialOrder {
        room: RoomName::from_user("staff").unwrap(),
        target: phone.uri(),
        reply,
        is_placed: false,
    };
    server
        .mailboxes
        .post(ShardIndex(0), Mail::Dial(Box::new(order)))
        .unwrap();
    let invite = server.expect(&phone, "INVITE", SOON);
    assert_eq!(status.try_recv(), Ok(100));
    phone.answer(&invite, 180);
    let patience = Duration::from_secs(170);
    assert_eq!(server.until(&phone, patience), None);
    assert_eq!(server.calls(), 1);
    let cancel = server.expect(&phone, "CANCEL", Duration::from_secs(20));
    phone.answer(&cancel, 200);
    phone.answer(&invite, 487);
    server.expect(&phone, "ACK", SOON);
    assert_eq!(server.calls(), 0);
}

#[test]
fn who_keys_in_no_number_is_given_up() {
    let mut server = Server::new(1, &["rooms.access=pin:4711"]);
    let phone = Phone::new(&server);
    phone.call(&mut server, "sales");
    assert_eq!(server.until(&phone, Duration::from_secs(50)), None);
    let bye = server.expect(&phone, "BYE", Duration::from_secs(20));
    assert!(header(&bye, "Reason").contains("no PIN"), "{bye}");
    phone.answer(&bye, 200);
    server.turn();
    assert_eq!(server.calls(), 0);
}

#[test]
fn a_subscription_that_is_not_refreshed_ends() {
    let mut server = Server::new(2, &["rooms.names=lounge"]);
    let phone = Phone::new(&server);
    let lines = "Event: conference\r\nExpires: 60\r\n";
    phone.request("SUBSCRIBE", "lounge", None, lines, "");
    let notify = server.expect(&phone, "NOTIFY", SOON);
    phone.answer(&notify, 200);
    server.turn();
    assert_eq!(server.subscriptions(), 1);
    let last = server.expect(&phone, "NOTIFY", Duration::from_secs(62));
    let state = header(&last, "Subscription-State");
    assert_eq!(state, "terminated;reason=timeout");
    phone.answer(&last, 200);
    server.turn();
    assert_eq!(server.subscriptions(), 0);
}

/// The directory forgets an empty room after a while, and may then place it anew: not where nobody of those
/// who subscribed to it would hear of its callers.
#[test]
fn callers_of_a_room_that_was_empty_for_long_meet_its_subscribers() {
    let rooms: Vec<String> = (0..8).map(|i| format!("lounge{i}")).collect();
    let names = format!("rooms.names={}", rooms.join(","));
    let mut server = Server::new(3, &[&names, "rooms.notify_ms=0"]);
    let watchers: Vec<Phone> = rooms.iter().map(|_| Phone::new(&server)).collect();
    for (watcher, room) in watchers.iter().zip(&rooms) {
        watcher.request("SUBSCRIBE", room, None, "Event: conference\r\n", "");
        let notify = server.expect(watcher, "NOTIFY", SOON);
        watcher.answer(&notify, 200);
    }
    for _ in 0..(120_000 / STEP.as_millis()) {
        server.turn();
    }
    for (watcher, room) in watchers.iter().zip(&rooms) {
        let caller = Phone::new(&server);
        caller.call(&mut server, room);
        let notify = server.expect(watcher, "NOTIFY", SOON);
        assert!(notify.contains(&caller.uri()), "{notify}");
        watcher.answer(&notify, 200);
    }
}
