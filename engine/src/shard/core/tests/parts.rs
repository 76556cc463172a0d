//! A room on two cores.

use super::*;

const RATE_MS: u32 = 8;

/// A caller with sound.
struct Caller {
    phone: Phone,
    rtp: UdpSocket,
    to: SocketAddr,
    sequence: u16,
    /// His dialog, as To says it.
    dialog: String,
}

impl Caller {
    fn new(server: &mut Server, room: &str) -> Self {
        let phone = Phone::new(server);
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        rtp.set_nonblocking(true).unwrap();
        let lines = "Content-Type: application/sdp\r\n";
        phone.request("INVITE", room, None, lines, &sdp(&rtp));
        let answer = server.expect(&phone, "SIP/2.0 200", SOON);
        let dialog = header(&answer, "To").to_owned();
        phone.request("ACK", room, Some(&dialog), "", "");
        let port = answer.lines().find_map(|line| {
            let media = line.strip_prefix("m=audio ")?;
            media.split(' ').next()?.parse().ok()
        });
        Self {
            phone,
            rtp,
            to: SocketAddr::new(server.address.ip(), port.expect("a port")),
            sequence: 0,
            dialog,
        }
    }

    /// 20 ms of a loud tone.
    fn speak(&mut self) {
        self.sequence += 1;
        let header = rtp::Header {
            marker: false,
            payload_type: 0,
            sequence: self.sequence,
            timestamp: u32::from(self.sequence) * 20 * RATE_MS,
            ssrc: 7,
        };
        let mut datagram = header.write().to_vec();
        datagram.extend((0..160).map(|i| if i / 10 % 2 == 0 { 0x90 } else { 0x10 }));
        self.rtp.send_to(&datagram, self.to).unwrap();
    }

    /// Whether what came since the last call was loud.
    fn hears(&self) -> Option<bool> {
        let mut datagram = [0; 1_500];
        let mut loud = None;
        while let Ok(len) = self.rtp.recv(&mut datagram) {
            if rtp::classify(&datagram[..len]) == rtp::Kind::Rtp {
                // Silence is 0xFF and 0x7F in µ-law; 0x90 and its like are loud.
                loud = Some(datagram[12..len].iter().any(|octet| octet & 0x7F < 0x20));
            }
        }
        loud
    }
}

fn sdp(rtp: &UdpSocket) -> String {
    let port = rtp.local_addr().unwrap().port();
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtcp-mux\r\n"
    )
}

fn taken(server: &Server, room: &str) -> Vec<usize> {
    let of = |core: &Core<BatchIo>| core.stage.taken(room).unwrap_or(0);
    let mut taken: Vec<_> = server.cores.iter().map(of).collect();
    taken.sort_unstable();
    taken
}

#[test]
fn a_room_goes_on_on_another_core_and_is_one_room() {
    let mut server = Server::new(30, &["rooms.span_at=2"]);
    let mut callers: Vec<_> = (0..5).map(|_| Caller::new(&mut server, "hall")).collect();
    // Two where it began; the other core is the last, which takes the rest.
    assert_eq!(taken(&server, "hall"), [2, 3]);
    let parts = |core: &Core<BatchIo>| core.stage.parts("hall").count();
    assert!(server.cores.iter().all(|core| parts(core) == 1));

    // Whoever talks, all others hear him, and he does not hear himself.
    for talker in [0, 4] {
        for _ in 0..60 {
            server.turn();
            callers.iter().for_each(|caller| {
                caller.hears();
            });
        }
        let mut heard = vec![None; callers.len()];
        for _ in 0..20 {
            callers[talker].speak();
            server.turn();
            for (heard, caller) in heard.iter_mut().zip(&callers) {
                *heard = caller.hears().or(*heard);
            }
        }
        let wanted = (0..callers.len()).map(|listener| Some(listener != talker));
        assert!(heard.iter().copied().eq(wanted), "{talker}: {heard:?}");
    }

    // An INVITE that comes again is no further call, even when there is room where it first came.
    let last = callers.pop().unwrap();
    let first = callers.remove(0);
    first
        .phone
        .request("BYE", "hall", Some(&first.dialog), "", "");
    server.expect(&first.phone, "SIP/2.0 200", SOON);
    assert_eq!(taken(&server, "hall"), [1, 3]);
    last.phone.sent.set(0);
    let lines = "Content-Type: application/sdp\r\n";
    last.phone
        .request("INVITE", "hall", None, lines, &sdp(&last.rtp));
    assert_eq!(server.until(&last.phone, SOON), None, "it is absorbed");
    assert_eq!((taken(&server, "hall"), server.calls()), (vec![1, 3], 4));
    // The next caller takes the free seat.
    let next = Caller::new(&mut server, "hall");
    assert_eq!(taken(&server, "hall"), [2, 3]);

    // Who goes last closes the room, and nothing is left.
    for caller in callers.into_iter().chain([last, next]) {
        caller.phone.sent.set(5);
        caller
            .phone
            .request("BYE", "hall", Some(&caller.dialog), "", "");
        server.expect(&caller.phone, "SIP/2.0 200", SOON);
    }
    assert_eq!(server.calls(), 0);
    assert!(
        server
            .cores
            .iter()
            .all(|core| core.stage.rooms().count() == 0)
    );
}

#[test]
fn without_a_limit_a_room_stays_on_its_core() {
    let mut server = Server::new(31, &["rooms.span_at=0"]);
    let callers: Vec<_> = (0..4).map(|_| Caller::new(&mut server, "hall")).collect();
    assert_eq!(taken(&server, "hall"), [0, callers.len()]);
}
