use super::*;
use crate::io::batch::BatchIo;

struct Scene {
    io: BatchIo,
    transports: Transports,
    now: Instant,
    next: u32,
}

const SIP: &str = "198.51.100.7";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Scene {
    fn new(ports: std::ops::RangeInclusive<u16>) -> Self {
        // Below those that the kernel hands out by itself.
        let ports = Ports::new(ports, 0, 1);
        Self {
            io: BatchIo::new().unwrap(),
            transports: Transports::new(IpAddr::from([127, 0, 0, 1]), ports, true),
            now: Instant::now(),
            next: 0,
        }
    }

    /// Places somebody whose SDP names this address.
    fn place(&mut self, rtp: &str) -> (SeatKey, TransportKey) {
        let rtp = address(rtp);
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
        self.place_remote(Remote::new(rtp, rtcp, SIP.parse().unwrap()))
    }

    fn place_remote(&mut self, remote: Option<Remote>) -> (SeatKey, TransportKey) {
        let seat = SeatKey(self.next);
        self.next += 1;
        let key = self
            .transports
            .place(self.now, &mut self.io, seat, remote)
            .unwrap();
        (seat, key)
    }

    fn leave(&mut self, (seat, key): (SeatKey, TransportKey)) {
        self.transports.leave(self.now, &mut self.io, key, seat);
    }

    fn whose(&self, key: TransportKey, from: &str) -> Whose {
        self.transports
            .whose_rtp(key, address(from), None, |_| None)
    }

    /// A packet from there comes, and its latch believes it.
    fn hear(&mut self, (seat, key): (SeatKey, TransportKey), from: &str) {
        assert_eq!(self.whose(key, from), Whose::Perhaps(seat), "{from}");
        self.transports.latched(key, seat, address(from));
        assert_eq!(self.whose(key, from), Whose::His(seat), "{from}");
    }

    fn wait(&mut self, time: Duration, silent: &[SeatKey]) {
        self.now += time;
        self.transports
            .keep_house(self.now, |seat| silent.contains(&seat));
    }
}

#[test]
fn callers_who_can_be_told_apart_share_a_transport() {
    let mut scene = Scene::new(12_000..=12_999);
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.1:4002");
    let c = scene.place("203.0.113.2:4000");
    assert!(a.1 == b.1 && b.1 == c.1);
    for (who, from) in [
        (a, "203.0.113.1:4000"),
        (b, "203.0.113.1:4002"),
        (c, "203.0.113.2:4000"),
    ] {
        scene.hear(who, from);
    }
    assert_eq!(scene.whose(a.1, "192.0.2.66:1"), Whose::Nobodys);
    assert_eq!(
        scene
            .transports
            .whose_rtcp(a.1, address("203.0.113.1:4003")),
        Whose::His(b.0)
    );
}

#[test]
fn nobody_shares_when_told_not_to() {
    let mut scene = Scene::new(12_000..=12_999);
    scene.transports.shared = false;
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.2:4000");
    assert_ne!(a.1, b.1);
}

#[test]
fn callers_of_one_address_do_not() {
    let mut scene = Scene::new(12_000..=12_999);
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.1:4000");
    assert_ne!(a.1, b.1);
    // Nor does anybody whose address is not known.
    let offerless = scene.place_remote(None);
    assert!(offerless.1 != a.1 && offerless.1 != b.1);
    let c = scene.place("203.0.113.9:4000");
    assert_ne!(c.1, offerless.1);
    assert_eq!(
        scene.whose(offerless.1, "192.0.2.5:77"),
        Whose::Perhaps(offerless.0)
    );
    // Once it is, others may join him.
    let answer = address("203.0.113.7:4000");
    let answer = Remote::new(answer, answer, SIP.parse().unwrap()).unwrap();
    let (seat, key) = offerless;
    assert!(scene.transports.expect(key, seat, answer));
    let d = scene.place("203.0.113.8:4000");
    assert_eq!(d.1, key);
    for (who, from) in [(offerless, "203.0.113.7:4000"), (d, "203.0.113.8:4000")] {
        assert_eq!(scene.whose(key, from), Whose::Perhaps(who.0));
        scene.hear(who, from);
    }
}

#[test]
fn behind_nats_one_at_a_time_is_looked_for() {
    let mut scene = Scene::new(12_000..=12_999);
    let a = scene.place("192.168.1.2:4000");
    let b = scene.place("192.168.1.3:4000");
    assert_ne!(a.1, b.1, "either may come from anywhere");
    let open = scene.place("203.0.113.1:4000");
    assert_eq!(open.1, b.1);
    scene.hear(b, "192.0.2.1:30000");
    scene.hear(open, "203.0.113.1:4000");
    // Both are known now, and the next one may join them.
    let c = scene.place("192.168.1.4:4000");
    assert!(c.1 == a.1 || c.1 == b.1);
}

#[test]
fn a_caller_who_sends_from_another_port_is_found_when_only_he_can_be_meant() {
    let mut scene = Scene::new(12_000..=12_999);
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.1:4002");
    assert_eq!(a.1, b.1);
    assert_eq!(scene.whose(a.1, "203.0.113.1:9999"), Whose::Nobodys);
    scene.hear(b, "203.0.113.1:4002");
    scene.hear(a, "203.0.113.1:9999");
}

#[test]
fn who_moved_is_found_by_his_source_or_because_he_is_the_only_one() {
    let mut scene = Scene::new(12_000..=12_999);
    let callers = ["203.0.113.1:4000", "203.0.113.2:4000", "203.0.113.3:4000"]
        .map(|from| (scene.place(from), from));
    for (who, from) in callers {
        scene.hear(who, from);
    }
    let [(a, _), (b, _), _] = callers;
    let ssrc_of = |seat: SeatKey| Some(100 + seat.0);
    let whose = |scene: &Scene, ssrc| {
        let from = address("192.0.2.77:5000");
        scene.transports.whose_rtp(a.1, from, ssrc, ssrc_of)
    };
    scene.wait(Duration::from_secs(3), &[a.0, b.0]);
    assert_eq!(whose(&scene, Some(100 + b.0.0)), Whose::Perhaps(b.0));
    assert_eq!(whose(&scene, Some(7)), Whose::Nobodys);
    scene.wait(Duration::from_secs(1), &[a.0]);
    assert_eq!(whose(&scene, Some(7)), Whose::Perhaps(a.0));
    // Found, his former address is nobody's.
    scene
        .transports
        .latched(a.1, a.0, address("192.0.2.77:5000"));
    scene
        .transports
        .latched(a.1, a.0, address("192.0.2.78:5000"));
    scene.wait(Duration::from_secs(1), &[]);
    assert_eq!(whose(&scene, Some(7)), Whose::Nobodys);
}

#[test]
fn what_a_caller_who_hung_up_still_sends_is_no_newcomers_voice() {
    let mut scene = Scene::new(14_000..=14_001);
    let gone = scene.place("203.0.113.1:4000");
    scene.hear(gone, "203.0.113.1:4000");
    scene.leave(gone);
    let next = scene.place("192.168.1.2:4000");
    assert_eq!(next.1, gone.1, "the only port there is");
    assert_eq!(scene.whose(next.1, "203.0.113.1:4000"), Whose::Nobodys);
    scene.wait(GONE_FOR, &[next.0]);
    assert_eq!(
        scene.whose(next.1, "203.0.113.1:4000"),
        Whose::Perhaps(next.0)
    );
    // Unless it is he who calls again.
    scene.leave(next);
    let again = scene.place("203.0.113.1:4000");
    scene.hear(again, "203.0.113.1:4000");
}

#[test]
fn a_new_sdp_moves_the_claim_unless_it_is_somebody_elses() {
    let mut scene = Scene::new(12_000..=12_999);
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.2:4000");
    scene.hear(a, "203.0.113.1:4000");
    scene.hear(b, "203.0.113.2:4000");
    let remote = |rtp: &str| Remote::new(address(rtp), address(rtp), SIP.parse().unwrap()).unwrap();
    assert!(
        !scene
            .transports
            .expect(a.1, a.0, remote("203.0.113.2:4000"))
    );
    assert_eq!(scene.whose(a.1, "203.0.113.1:4000"), Whose::His(a.0));
    assert!(
        scene
            .transports
            .expect(a.1, a.0, remote("203.0.113.5:4000"))
    );
    scene.hear(a, "203.0.113.5:4000");
    // He may still have been found anywhere, his old address among it, but claims it no more.
    assert_eq!(scene.whose(a.1, "203.0.113.1:4000"), Whose::Nobodys);
}

#[test]
fn ports_come_back_and_not_all_of_them_stay_open() {
    let mut scene = Scene::new(10_000..=11_999);
    let free = scene.transports.free();
    let callers: Vec<_> = (0..IDLE_MAX + 50)
        .map(|_| scene.place("203.0.113.1:4000"))
        .collect();
    assert_eq!(scene.transports.free(), free - callers.len());
    callers.into_iter().for_each(|caller| scene.leave(caller));
    assert_eq!(scene.transports.free(), free);
    assert_eq!(scene.transports.transports.len(), IDLE_MAX);
    // Idle ones are used again, and shared.
    let a = scene.place("203.0.113.1:4000");
    let b = scene.place("203.0.113.1:4002");
    assert_eq!(a.1, b.1);
    assert_eq!(scene.transports.transports.len(), IDLE_MAX);
}

#[test]
fn seats_end_with_the_buffer() {
    let mut scene = Scene::new(12_000..=12_999);
    let first = scene.place("203.0.113.1:1");
    let most = scene.transports.transports[first.1.0 as usize].seats_max;
    assert!((1..=SEATS_MAX).contains(&most));
    for port in 1..most as u16 {
        assert_eq!(scene.place(&format!("203.0.113.2:{port}")).1, first.1);
    }
    assert_ne!(scene.place("203.0.113.3:1").1, first.1);
}
