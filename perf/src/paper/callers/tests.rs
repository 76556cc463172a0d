use engine::codec::Codec;
use sip::scan;
use sip::scan::Start;

use super::*;

/// A server by hand: what it gets, and what it says.
struct Desk(UdpSocket);

impl Desk {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Some(Duration::from_millis(10));
        socket.set_read_timeout(patience).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next request with this method, while the callers go on.
    fn expect(&self, callers: &mut Callers, method: &str) -> (String, SocketAddr) {
        let start = Instant::now();
        let mut datagram = [0; 4_096];
        while start.elapsed() < Duration::from_secs(10) {
            callers.turn(Instant::now()).unwrap();
            let Ok((len, from)) = self.0.recv_from(&mut datagram) else {
                continue;
            };
            let Start::Request { method: got, .. } = scan(&datagram[..len]).unwrap().start else {
                continue;
            };
            if got == method.as_bytes() {
                return (String::from_utf8(datagram[..len].to_vec()).unwrap(), from);
            }
        }
        panic!("no {method} came");
    }

    fn answer(&self, request: &(String, SocketAddr), status: &str, more: &str, body: &str) {
        let (request, from) = request;
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let (name, _) = line.split_once(':').unwrap_or_default();
            if name == "To" && !line.contains(";tag=") {
                answer += &format!("{line};tag=desk\r\n");
            } else if ["Via", "From", "To", "Call-ID", "CSeq"].contains(&name) {
                answer += &format!("{line}\r\n");
            }
        }
        answer += &format!("{more}Content-Length: {}\r\n\r\n{body}", body.len());
        self.0.send_to(answer.as_bytes(), from).unwrap();
    }

    fn accept(&self, invite: &(String, SocketAddr)) {
        let here = self.address();
        let more = format!("Contact: <sip:desk@{here}>\r\nContent-Type: application/sdp\r\n");
        let body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=audio 4000 RTP/AVP 0\r\n";
        self.answer(invite, "200 OK", &more, body);
    }
}

fn callers(entry: &Desk, every: Duration) -> Callers {
    let mut callers = Callers::new(entry.address(), every).unwrap();
    let seat = Seat {
        room: 0,
        local: "127.0.0.1:5000".parse().unwrap(),
        codec: Codec::Pcmu,
        ptime_ms: 20,
    };
    callers.dial(Instant::now(), &seat);
    callers
}

fn until(callers: &mut Callers, reached: impl Fn(&Callers) -> bool) {
    let start = Instant::now();
    while !reached(callers) {
        callers.turn(Instant::now()).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            callers.tally
        );
    }
}

#[test]
fn a_redirect_is_followed_as_it_is_written_and_calls_are_asked_within() {
    let (a, b) = (Desk::new(), Desk::new());
    let mut callers = callers(&a, Duration::from_millis(20));
    let invite = a.expect(&mut callers, "INVITE");
    assert!(
        invite
            .0
            .starts_with(&format!("INVITE sip:perf0@{} ", a.address()))
    );
    let target = format!("sip:perf0@{};transport=udp;crt-hop=1", b.address());
    a.answer(
        &invite,
        "302 Moved",
        &format!("Contact: <{target}>\r\n"),
        "",
    );
    let invite = b.expect(&mut callers, "INVITE");
    assert!(
        invite
            .0
            .starts_with(&format!("INVITE {target} SIP/2.0\r\n")),
        "{}",
        invite.0
    );
    b.accept(&invite);
    let options = b.expect(&mut callers, "OPTIONS");
    b.answer(&options, "200 OK", "", "");
    until(&mut callers, |callers| callers.delays.options.len() == 1);
    // What is refused at once is no delay.
    let options = b.expect(&mut callers, "OPTIONS");
    b.answer(&options, "481 Gone", "", "");
    until(&mut callers, |callers| callers.tally.options_failed == 1);
    assert_eq!(callers.delays.options.len(), 1);
    let waiting = callers.unanswered() as u64;
    assert_eq!(callers.tally.options_sent, 2 + waiting);

    let stream = Joined {
        remote: "127.0.0.1:4000".parse().unwrap(),
        payload_type: 0,
    };
    let happenings = [
        Happening::Redirected {
            user: 0,
            from: a.address(),
            to: b.address(),
        },
        Happening::Joined {
            user: 0,
            server: b.address(),
            stream,
        },
    ];
    assert_eq!(callers.happenings(), happenings);
    let tally = callers.tally;
    assert_eq!((tally.up, tally.redirects, tally.given_up), (1, 1, 0));
    assert_eq!(
        (callers.delays.invite.len(), callers.delays.join.len()),
        (2, 1)
    );
}

#[test]
fn who_is_refused_for_now_comes_again_and_who_is_refused_does_not() {
    let a = Desk::new();
    let mut callers = callers(&a, Duration::from_secs(60));
    let invite = a.expect(&mut callers, "INVITE");
    a.answer(&invite, "503 Full", "Retry-After: 1\r\n", "");
    let again = a.expect(&mut callers, "INVITE");
    assert_eq!((callers.tally.refusals, callers.tally.given_up), (1, 0));
    a.answer(&again, "404 Not Found", "", "");
    until(&mut callers, |callers| callers.tally.given_up == 1);
    assert_eq!((callers.tally.refusals, callers.tally.up), (2, 0));
    assert_eq!(callers.delays.invite.len(), 0);
}

#[test]
fn circles_and_strange_places_end_a_call() {
    let a = Desk::new();
    let mut circling = callers(&a, Duration::from_secs(60));
    for _ in 0..=REDIRECTS_MAX {
        let invite = a.expect(&mut circling, "INVITE");
        let here = format!("Contact: <sip:perf0@{}>\r\n", a.address());
        a.answer(&invite, "302 Moved", &here, "");
    }
    until(&mut circling, |callers| callers.tally.given_up == 1);

    let mut sent_away = callers(&a, Duration::from_secs(60));
    let invite = a.expect(&mut sent_away, "INVITE");
    a.answer(
        &invite,
        "302 Moved",
        "Contact: <sip:perf0@192.0.2.1>\r\n",
        "",
    );
    until(&mut sent_away, |callers| callers.tally.given_up == 1);
}

#[test]
fn a_caller_who_is_hung_up_is_said_to_be() {
    let a = Desk::new();
    let mut callers = callers(&a, Duration::from_secs(60));
    let invite = a.expect(&mut callers, "INVITE");
    a.accept(&invite);
    let (ack, from) = a.expect(&mut callers, "ACK");
    let value = |name: &str| {
        let line = ack.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    let bye = format!(
        "BYE sip:caller0@{from} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
        a.address(),
        value("To"),
        value("From"),
        value("Call-ID"),
    );
    a.0.send_to(bye.as_bytes(), from).unwrap();
    until(&mut callers, |callers| callers.tally.hung_up == 1);
    assert_eq!(callers.tally.up, 0);
}
