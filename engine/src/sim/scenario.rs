//! What happens in a simulation, drawn from its seed: how many servers and callers there are, who calls
//! when, and what goes wrong.

use super::caller::Skills;
use super::clock::{Clock, MS, SECOND, Time};
use super::net::{Host, Weather};
use super::shard::UNIT;
use crate::random::Random;

/// Hosts of callers have numbers from here on.
pub(super) const FIRST_CALLER: u16 = 1_000;

/// When the last fault has ended; nobody calls or hangs up after it, until the evening.
pub(super) const LAST_FAULT: Time = 110 * SECOND;

/// When all are told to hang up.
pub(super) const EVENING: Time = LAST_FAULT + 70 * SECOND;

/// When nothing of any call may be left. Sessions of callers who vanished have run out by then.
pub(super) const NIGHT: Time = EVENING + 150 * SECOND;

#[derive(Clone, Debug)]
pub(super) struct ServerPlan {
    pub(super) clock: Clock,
    pub(super) max: u32,
    pub(super) min: u32,
    /// It waits to be added: as a process, or for whoever starts one ([`Scenario::hooks`]).
    pub(super) standby: bool,
}

#[derive(Clone, Debug)]
pub(super) struct CallerPlan {
    pub(super) skills: Skills,
    /// Servers in the order in which he tries them.
    pub(super) servers: Vec<Host>,
    /// How long he listens to silence.
    pub(super) patience: Time,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Join {
        caller: usize,
        room: String,
    },
    Leave {
        caller: usize,
    },
    /// A server dies. Its peers hear so from its kernel, unless the power fails.
    Kill {
        server: usize,
        power: bool,
    },
    Start {
        server: usize,
    },
    Freeze {
        server: usize,
        until: Time,
    },
    Close {
        ways: Vec<(Host, Host)>,
    },
    Open {
        ways: Vec<(Host, Host)>,
    },
    CutStreams {
        a: Host,
        b: Host,
    },
    Slow {
        server: usize,
        bytes_per_s: Option<u64>,
    },
    Weather(Weather),
    Garbage {
        server: usize,
    },
    Drain {
        server: usize,
    },
    Undrain {
        server: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) servers: Vec<ServerPlan>,
    pub(super) callers: Vec<CallerPlan>,
    pub(super) steps: Vec<(Time, Step)>,
    pub(super) recall: bool,
    /// Programs start servers that are added, and stop them when they have given all users away.
    pub(super) hooks: bool,
    /// Mean share of the maximum at which a reserved server is added.
    pub(super) grow_at: f64,
    /// Datagrams are lost or doubled at some time.
    pub(super) lossy: bool,
}

pub(super) fn server_host(server: usize) -> Host {
    Host(1 + server as u16)
}

pub(super) fn caller_host(caller: usize) -> Host {
    Host(FIRST_CALLER + caller as u16)
}

/// Draws numbers.
struct Dice(Random);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit.max(1)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// In so many of a hundred cases.
    fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }
}

impl Scenario {
    /// The server that has to run for a step to be taken: somebody tells it something.
    pub(super) fn host_of(&self, step: usize) -> Option<Host> {
        match self.steps.get(step)?.1 {
            Step::Drain { server } | Step::Undrain { server } => Some(server_host(server)),
            _ => None,
        }
    }

    pub(super) fn from_seed(seed: u64) -> Self {
        let mut dice = Dice(Random::new(seed ^ 0x5CE7_A210));
        // Small ones most of the time: they find as much, and there can be more of them.
        let servers = match dice.below(10) {
            0..6 => 3,
            6..8 => 4,
            8 => 5,
            _ => dice.between(6, 8) as usize,
        };
        let standby = match dice.percent(50) {
            true => dice.between(1, (servers as u64 - 1) / 2) as usize,
            false => 0,
        };
        let skewed = dice.percent(40);
        let drains = dice.percent(30);
        let plan = |dice: &mut Dice, server: usize| ServerPlan {
            clock: match skewed {
                true => Clock {
                    ppm: dice.between(0, 4_000) as i64 - 2_000,
                    ahead_ms: dice.between(0, 600_000) as i64 - 300_000,
                },
                false => Clock::default(),
            },
            max: UNIT * dice.between(10, 15) as u32,
            min: if drains { 2 * UNIT } else { 0 },
            standby: server >= servers - standby,
        };
        let plans: Vec<ServerPlan> = (0..servers).map(|at| plan(&mut dice, at)).collect();
        let known: Vec<Host> = (0..servers - standby).map(server_host).collect();
        // Few, and nothing happens but that one server dies: then nobody has an excuse.
        let calm = dice.percent(12);
        let most = if calm { 5 } else { 18 } * servers as u64;
        let callers = dice.between(6, most) as usize;
        // All at one door, or at any.
        let central = dice.percent(40);
        let callers = (0..callers)
            .map(|_| {
                let mut servers = known.clone();
                let first = if central {
                    0
                } else {
                    dice.below(known.len() as u64)
                };
                servers.rotate_left(first as usize);
                CallerPlan {
                    skills: Skills {
                        refer: dice.percent(50),
                        replaces: dice.percent(60),
                    },
                    servers,
                    patience: dice.between(15, 30) * SECOND,
                }
            })
            .collect();
        let mut scenario = Self {
            servers: plans,
            callers,
            steps: Vec::new(),
            recall: dice.percent(80),
            hooks: false,
            grow_at: if dice.percent(50) { 0.85 } else { 1.0 },
            lossy: false,
        };
        scenario.draw_calls(&mut dice);
        match calm {
            true => scenario.draw_death(&mut dice, known.len()),
            false => scenario.draw_faults(&mut dice),
        }
        scenario.hooks = standby > 0 && dice.percent(40);
        scenario.steps.sort_by_key(|(at, _)| *at);
        scenario
    }

    fn draw_calls(&mut self, dice: &mut Dice) {
        let rooms = dice.between(1, 4);
        // Either all at once, as when a meeting begins, or by and by.
        let rush = dice.percent(30);
        for caller in 0..self.callers.len() {
            let room = format!("room{}", dice.below(rooms));
            let first = match rush {
                true => 5 * SECOND + dice.below(2_000) * MS,
                false => dice.between(4_000, 60_000) * MS,
            };
            let mut at = first;
            loop {
                let join = Step::Join {
                    caller,
                    room: room.clone(),
                };
                self.steps.push((at, join));
                if dice.percent(60) {
                    break;
                }
                at += dice.between(1_000, 40_000) * MS;
                if at >= LAST_FAULT {
                    break;
                }
                self.steps.push((at, Step::Leave { caller }));
                at += dice.between(100, 20_000) * MS;
                if at >= LAST_FAULT || dice.percent(40) {
                    break;
                }
            }
        }
    }

    /// One of the servers that take callers from the beginning dies.
    fn draw_death(&mut self, dice: &mut Dice, servers: usize) {
        let server = dice.below(servers as u64) as usize;
        let at = dice.between(60, 90) * SECOND;
        let power = false;
        self.steps.push((at, Step::Kill { server, power }));
        // Perhaps it is back before anybody takes it for dead.
        if dice.percent(50) {
            let at = at + dice.between(100, 3_000) * MS;
            self.steps.push((at, Step::Start { server }));
        }
    }

    fn draw_faults(&mut self, dice: &mut Dice) {
        if dice.percent(40) {
            self.lossy = true;
            let weather = Weather {
                lost: dice.below(150),
                doubled: dice.below(100),
                delay_min: MS,
                delay_max: dice.between(2, 120) * MS,
            };
            let at = dice.between(0, 60) * SECOND;
            self.steps.push((at, Step::Weather(weather)));
            self.steps
                .push((LAST_FAULT, Step::Weather(Weather::default())));
        }
        for _ in 0..dice.below(5) {
            self.draw_fault(dice);
        }
    }

    fn draw_fault(&mut self, dice: &mut Dice) {
        let servers = self.servers.len() as u64;
        let server = dice.below(servers) as usize;
        let at = dice.between(8_000, 90_000) * MS;
        let end = (at + dice.between(200, 45_000) * MS).min(LAST_FAULT);
        match dice.below(10) {
            0 | 1 => {
                let power = dice.percent(30);
                self.steps.push((at, Step::Kill { server, power }));
                if dice.percent(70) {
                    let end = end.max(at + SECOND).min(LAST_FAULT);
                    self.steps.push((end, Step::Start { server }));
                }
            }
            2 => self.steps.push((at, Step::Freeze { server, until: end })),
            3 => {
                let peer = (server + 1 + dice.below(servers - 1) as usize) % servers as usize;
                let ways = vec![(server_host(server), server_host(peer))];
                self.close(at, end, ways);
            }
            4 => {
                let half = 1 + dice.below(servers - 1) as usize;
                let of = |low: usize, high: usize| (low..high).map(server_host);
                let all = servers as usize;
                let ways = of(0, half).flat_map(|a| of(half, all).map(move |b| (a, b)));
                self.close(at, end, ways.collect());
            }
            5 => {
                let peer = (server + 1 + dice.below(servers - 1) as usize) % servers as usize;
                let (a, b) = (server_host(server), server_host(peer));
                self.steps.push((at, Step::CutStreams { a, b }));
            }
            6 => {
                let bytes_per_s = Some(dice.between(200, 20_000));
                self.steps.push((
                    at,
                    Step::Slow {
                        server,
                        bytes_per_s,
                    },
                ));
                let bytes_per_s = None;
                self.steps.push((
                    end,
                    Step::Slow {
                        server,
                        bytes_per_s,
                    },
                ));
            }
            7 => self.steps.push((at, Step::Garbage { server })),
            8 => {
                let caller = dice.below(self.callers.len() as u64) as usize;
                let end = end.min(at + 20 * SECOND);
                let ways = (0..servers as usize).map(|at| (caller_host(caller), server_host(at)));
                self.close(at, end, ways.collect());
            }
            _ => {
                // One that stands by and is sent to work by hand would know nobody, and nobody it.
                let active = self.servers.iter().filter(|plan| !plan.standby).count();
                let server = server % active;
                self.steps.push((at, Step::Drain { server }));
                if dice.percent(50) {
                    self.steps.push((end, Step::Undrain { server }));
                }
            }
        }
    }

    fn close(&mut self, at: Time, end: Time, ways: Vec<(Host, Host)>) {
        let open = Step::Open { ways: ways.clone() };
        self.steps.push((at, Step::Close { ways }));
        self.steps.push((end, open));
    }
}
