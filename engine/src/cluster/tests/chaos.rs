//! Servers that die, stall, restart and lose each other at random: in the end all agree.

use super::super::*;
use super::net::*;
use super::service::check_agreement;

const NAMES: [&str; 4] = ["A", "B", "C", "D"];

struct Chaos {
    net: Net,
    random: Random,
    callers: u32,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut net = Net::new(Vec::new());
        net.jitter = Some(Random::new(seed));
        for name in NAMES {
            net.start(config(name, &NAMES));
        }
        Self {
            net,
            random: Random::new(!seed),
            callers: 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit as u64) as usize
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }

    fn step(&mut self) {
        let (name, other) = (self.name(), self.name());
        let runs = self.net.servers.contains_key(&id(name));
        match self.below(24) {
            0..10 if runs => {
                let (caller, room) = (self.callers, self.below(3));
                self.callers += 1;
                self.net
                    .call(name, &format!("r{room}"), &format!("sip:{caller}@phone"));
            }
            10..15 if runs => {
                let users: Vec<_> = self.net.at(name).users.keys().cloned().collect();
                if !users.is_empty() {
                    let (room, endpoint) = users[self.below(users.len())].clone();
                    self.net.leave(id(name), &room, &endpoint);
                }
            }
            15 if runs && self.net.servers.len() > 2 => self.net.kill(name),
            16 | 17 if !runs => self.net.start(config(name, &NAMES)),
            18 if name != other => self.net.cut(name, other),
            19 => self.net.heal(),
            20 if runs => self.net.stop(name, true),
            21 if runs => self.net.stop(name, false),
            22 if runs => {
                let wanted = match self.below(2) {
                    0 => Wanted::Drain { deadline: None },
                    _ => Wanted::Undrain,
                };
                self.net.input(id(name), Input::Operator { id: 0, wanted });
            }
            _ => {
                let wait = self.below(8_000) as u64;
                self.net.run(wait);
            }
        }
        let wait = self.below(400) as u64;
        self.net.run(wait);
    }

    /// No more faults: everybody runs and can reach everybody.
    fn calm(&mut self) {
        self.net.heal();
        for name in NAMES {
            if !self.net.servers.contains_key(&id(name)) {
                self.net.start(config(name, &NAMES));
            }
            self.net.stop(name, false);
        }
        self.net.run(100_000);
    }
}

#[test]
fn after_the_last_fault_all_agree() {
    for seed in 0..20 {
        let chaos = &mut Chaos::new(seed);
        for _ in 0..120 {
            chaos.step();
        }
        chaos.calm();
        let net = &chaos.net;
        for (own, server) in &net.servers {
            let cluster = &server.cluster;
            assert_eq!(cluster.held(), 0, "seed {seed}");
            assert_eq!(cluster.links.len(), 3, "{own}, seed {seed}");
            assert_eq!(server.channels.len(), 3, "{own}, seed {seed}");
            for peer in cluster.servers(net.now) {
                assert_eq!(
                    peer.life,
                    Life::Alive,
                    "{} for {own}, seed {seed}",
                    peer.svr_id
                );
            }
        }
        for room in ["r0", "r1", "r2"] {
            check_agreement(net, room);
            let view = |server: &Server| {
                let it = server.cluster.conference(room)?;
                (!it.users.is_empty()).then_some((it.owner, it.epoch, it.ver))
            };
            let views: Vec<_> = net.servers.values().map(view).collect();
            assert!(
                views.iter().all(|view| *view == views[0]),
                "seed {seed}, {room}: {views:?}"
            );
        }
    }
}

#[test]
fn a_seed_is_one_history() {
    let history = |seed| {
        let chaos = &mut Chaos::new(seed);
        let began = chaos.net.now;
        for _ in 0..80 {
            chaos.step();
        }
        let decisions = chaos.net.servers.values().map(|server| {
            let decisions = server.cluster.decisions().cloned();
            (decisions.collect::<Vec<_>>(), server.bytes)
        });
        (chaos.net.now - began, decisions.collect::<Vec<_>>())
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}
