//! One arm of the experiment: a service of one server or of several, users added step by step.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::board::{Board, Phase};
use super::callers::{Callers, Happening};
use super::delays::Seconds;
use super::fleet::{Fleet, Terms};
use super::plan::Series;
use super::quota::{Hierarchy, Quota, Throttling};
use super::report::{Arm, Delay, Row, ServerRow, Variant};
use super::{Options, PaperError};
use crate::process;
use crate::rooms::{Caller, Media, Place, Scene, Seat, Silence, Sockets};

/// Beyond the time that dialling takes, until everybody who was dialled is in or has given up.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// For the answers to the BYEs.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the board is brought up to date.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Delays are averaged over each second, and of the averages the median counts.
const SECOND: Duration = Duration::from_secs(1);

/// What an arm is run with.
pub(super) struct Setting<'a> {
    pub(super) options: &'a Options,
    pub(super) series: &'a Series,
    pub(super) variant: Variant,
    /// From 1.
    pub(super) round: u32,
    pub(super) hierarchy: Option<&'a Hierarchy>,
    pub(super) quota: Quota,
    pub(super) board: &'a Board,
    /// Set by Ctrl-C.
    pub(super) stop: &'a Arc<AtomicBool>,
}

/// # Errors
/// A server or the callers could not be set up, or the run was interrupted. Every process that was
/// started has ended by then.
pub(super) fn run(setting: &Setting<'_>) -> Result<Arm, PaperError> {
    let series = setting.series;
    let mut stage = Stage::begin(setting)?;
    let mut arm = Arm {
        variant: setting.variant,
        round: setting.round,
        rows: Vec::new(),
    };
    for &users in &series.steps {
        stage.fill(users)?;
        let row = stage.measure(users)?;
        setting.board.say(row.to_string());
        arm.rows.push(row);
    }
    stage.leave()?;
    Ok(arm)
}

/// The part of a processor that one server takes with as many users as fill it, if it is not held to a part.
///
/// # Errors
/// As those of [`run`].
pub(super) fn weigh(setting: &Setting<'_>) -> Result<f64, PaperError> {
    let mut stage = Stage::begin(setting)?;
    let users = setting.series.steps[0];
    stage.fill(users)?;
    let row = stage.measure(users)?;
    stage.leave()?;
    match row.servers.first() {
        Some(server) if row.up == users => Ok(server.cpu),
        _ => Err(PaperError::Server(format!(
            "one server cannot carry {users} users on this machine, {} came in",
            row.up
        ))),
    }
}

/// Servers, callers and their media while an arm runs.
struct Stage<'a> {
    setting: &'a Setting<'a>,
    // Before the servers, which wait for nobody at their end.
    callers: Callers,
    media: Media,
    scene: Scene,
    /// Where each user listens.
    seats: Vec<Seat>,
    /// What each user's media is known by, while he is in.
    streaming: Vec<Option<usize>>,
    fleet: Fleet<'a>,
    shown: Instant,
}

impl<'a> Stage<'a> {
    /// Starts the servers.
    fn begin(setting: &'a Setting<'a>) -> Result<Self, PaperError> {
        let Setting {
            options, series, ..
        } = *setting;
        let (servers, max_load) = match setting.variant {
            Variant::Central => (1, 0),
            Variant::Service => (series.servers(), series.max_load),
        };
        let terms = Terms {
            binary: &options.plenum,
            core: options.server_core,
            hierarchy: setting.hierarchy,
            quota: setting.quota,
            max_load,
            weight: series.weight,
            reserve: options.reserve,
            sets: &options.sets,
        };
        let fleet = Fleet::start(terms, servers).map_err(PaperError::Server)?;
        setting.board.begin(setting, fleet.addresses());
        Stage::new(setting, fleet)
    }

    fn new(setting: &'a Setting<'a>, fleet: Fleet<'a>) -> Result<Self, PaperError> {
        let options = setting.options;
        let users = setting.series.users();
        let room_size = options.room_size(users);
        let scene = scene(options);
        // Enough that a server which takes all users can still tell them apart.
        let sockets = Sockets::open(options.sockets.clamp(1, users))?;
        let seats = (0..users)
            .map(|user| Seat {
                room: user / room_size,
                local: sockets.address(user),
                codec: scene.codec,
                ptime_ms: scene.ptime,
            })
            .collect();
        let every = Duration::from_millis(options.options_every_ms());
        Ok(Self {
            callers: Callers::new(fleet.addresses()[0].sip, every)?,
            media: Media::new(sockets, &scene, users.div_ceil(room_size)),
            scene,
            seats,
            streaming: vec![None; users],
            fleet,
            shown: Instant::now(),
            setting,
        })
    }

    /// Calls until so many users have been called, and waits for what becomes of them.
    fn fill(&mut self, users: usize) -> Result<(), PaperError> {
        self.setting.board.step(users, Phase::Joining);
        self.callers.delays.clear();
        let start = Instant::now();
        let before = self.callers.tally.dialled;
        let rate = f64::from(self.setting.options.dial_rate());
        let needed = Duration::from_secs_f64((users - before) as f64 / rate);
        let decided = |stage: &Self| {
            let tally = stage.callers.tally;
            tally.up + tally.given_up + tally.hung_up
        };
        while decided(self) < users {
            let now = Instant::now();
            let due = before + ((now - start).as_secs_f64() * rate) as usize + 1;
            while self.callers.tally.dialled < due.min(users) {
                self.callers
                    .dial(now, &self.seats[self.callers.tally.dialled]);
            }
            if now - start > needed + JOIN_PATIENCE {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Lets everything settle and measures.
    fn measure(&mut self, users: usize) -> Result<Row, PaperError> {
        let (invite, join) = {
            let delays = &self.callers.delays;
            (Delay::of(&delays.invite), Delay::of(&delays.join))
        };
        let options = self.setting.options;
        self.setting.board.step(users, Phase::Settling);
        self.turn_for(Duration::from_secs(options.settle))?;

        self.setting.board.step(users, Phase::Measuring);
        let used_before = self.used();
        let own_before = process::usage(std::process::id())?;
        let before = self.callers.tally;
        let start = Instant::now();
        self.media.begin_measuring();
        let mut sip = Seconds::new(&self.callers.delays.options);
        let mut media = Seconds::new(&self.media.heard.delays_us);
        let mut near = Seconds::new(&self.media.heard.delays_us);
        let mut far = Seconds::new(&self.media.heard.delays_us);
        self.callers.delays.clear();
        self.media.heard.clear();
        for _ in 0..options.seconds_per_step {
            self.turn_for(SECOND)?;
            let heard = &self.media.heard;
            sip.add(&[&self.callers.delays.options]);
            media.add(&[&heard.delays_us, &heard.far_delays_us]);
            near.add(&[&heard.delays_us]);
            far.add(&[&heard.far_delays_us]);
            self.callers.delays.clear();
            self.media.heard.delays_us.reset();
            self.media.heard.far_delays_us.reset();
        }
        self.media.end_measuring();
        let took = start.elapsed();
        let own = process::usage(std::process::id())?.cpu - own_before.cpu;
        let used = self.used();

        let callers = || self.media.present();
        let sum = |count: fn(&Caller) -> u64| callers().map(count).sum::<u64>();
        let packets = took.as_millis() as u64 / u64::from(options.ptime);
        let tally = self.callers.tally;
        Ok(Row {
            users,
            up: tally.up,
            sip: sip.typical(),
            invite,
            join,
            media: media.typical(),
            near: near.typical(),
            far: far.typical(),
            packets_received: sum(|caller| caller.counts().received),
            packets_expected: packets * callers().count() as u64,
            packets_lost: sum(|caller| caller.counts().lost),
            starved: sum(Caller::starved),
            bursts_expected: self.media.heard.bursts_expected,
            echoes: sum(Caller::echoes),
            echoes_max: callers().map(Caller::echoes).max().unwrap_or(0),
            options_sent: tally.options_sent - before.options_sent,
            options_failed: tally.options_failed - before.options_failed,
            unanswered: self.callers.unanswered(),
            redirects: tally.redirects,
            refusals: tally.refusals,
            given_up: tally.given_up,
            hung_up: tally.hung_up,
            generator_cpu: own.as_secs_f64() / took.as_secs_f64(),
            generator_gap_ms: self.media.gap_max.as_secs_f64() * 1e3,
            servers: self.server_rows(&used_before, &used, took),
        })
    }

    /// CPU time and throttling of each server.
    fn used(&self) -> Vec<Option<(Duration, Throttling)>> {
        (0..self.fleet.addresses().len())
            .map(|index| {
                let usage = self.fleet.usage(index)?;
                Some((usage.cpu, self.fleet.throttling(index)))
            })
            .collect()
    }

    fn server_rows(
        &self,
        before: &[Option<(Duration, Throttling)>],
        after: &[Option<(Duration, Throttling)>],
        took: Duration,
    ) -> Vec<ServerRow> {
        let shown = self.setting.board.servers();
        let mut rows = Vec::new();
        for (index, line) in shown.into_iter().enumerate() {
            if let (Some(before), Some(after)) = (before[index], after[index]) {
                let cpu = (after.0 - before.0).as_secs_f64() / took.as_secs_f64();
                rows.push(ServerRow {
                    name: line.name,
                    state: line.state,
                    load: line.load,
                    participants: line.participants,
                    cpu,
                    cpu_of_quota: cpu / self.setting.quota.share(),
                    throttled: after.1.since(before.1).share(),
                });
            }
        }
        rows
    }

    fn turn_for(&mut self, time: Duration) -> Result<(), PaperError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), PaperError> {
        if self.setting.stop.load(Ordering::Relaxed) {
            return Err(PaperError::Interrupted);
        }
        self.media.turn()?;
        let now = Instant::now();
        self.callers.turn(now)?;
        for happening in self.callers.happenings() {
            self.on_happening(&happening)?;
        }
        for index in self.fleet.poll(now).map_err(PaperError::Server)? {
            let name = &self.fleet.addresses()[index].name;
            self.setting
                .board
                .say(format!("{name} is asked for: its process is started"));
        }
        if now - self.shown > SHOW_EVERY {
            self.shown = now;
            let running: Vec<bool> = (0..self.fleet.addresses().len())
                .map(|index| self.fleet.is_running(index))
                .collect();
            self.setting.board.update(self.callers.tally, &running);
        }
        Ok(())
    }

    fn on_happening(&mut self, happening: &Happening) -> Result<(), PaperError> {
        let board = self.setting.board;
        match *happening {
            Happening::Joined {
                user,
                server,
                stream,
            } => {
                let addresses = self.fleet.addresses();
                let home = addresses.iter().position(|known| known.sip == server);
                let room_size = self.setting.options.room_size(self.setting.series.users());
                let seat = user % room_size;
                let place = Place {
                    room: user / room_size,
                    talker: (seat < self.scene.talkers).then_some(seat),
                    home: home.unwrap_or(usize::MAX),
                };
                board.joined(home);
                // All look into what they get, up to so many: a close look costs microseconds.
                let share = self.scene.listeners as f64 / self.setting.series.users() as f64;
                let listens =
                    (user as f64 * share) as usize != ((user + 1) as f64 * share) as usize;
                let added = self
                    .media
                    .add(user, place, stream.into(), listens || share >= 1.0);
                self.streaming[user] = Some(added.map_err(PaperError::Server)?);
            }
            Happening::Redirected { user, from, to } => board.redirected(user, from, to),
            Happening::Refused { user, by, status } => board.refused(user, by, status),
            Happening::HungUp { user } => {
                if let Some(streaming) = self.streaming[user].take() {
                    self.media.remove(streaming);
                }
                board.hung_up(user);
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), PaperError> {
        self.setting
            .board
            .step(self.callers.tally.dialled, Phase::Leaving);
        self.fleet.lift();
        let Self { callers, media, .. } = self;
        let stop = self.setting.stop;
        callers.leave(500.0, LEAVE_PATIENCE, || {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            media.turn()
        })?;
        Ok(())
    }
}

fn scene(options: &Options) -> Scene {
    Scene {
        talkers: options.talkers,
        codec: engine::codec::Codec::Pcmu,
        ptime: options.ptime,
        silence: Silence::Packets,
        seconds: options.seconds_per_step,
        settle: options.settle,
        listeners: options.listeners,
        sockets: options.sockets,
        dial_rate: options.dial_rate(),
        core: None,
        pid: None,
        http: None,
    }
}
