//! The jitter buffer: packets in as the network brings them, packets out at the listener's pace.
//!
//! The listener's clock drives it: he asks when his samples run out. Rules:
//!
//! 1. **Start.** A talk spurt is due `depth` after its first packet arrived. Once that has been taken,
//!    packets follow whenever the listener asks.
//! 2. **Order.** Packets leave by extended sequence number. One whose place has passed is late and
//!    dropped; one that was here already is a duplicate and dropped.
//! 3. **Loss.** A number that is missing while a later one is here is lost once the listener gets there,
//!    for as long as the timestamps say, less what he has concealed already.
//! 4. **Underrun.** With nothing there, the listener gets nothing and conceals; the stream goes on with
//!    the next packet. A path that got longer thereby moves the play-out point by as much, and no more.
//! 5. **Talk spurts.** A gap in time that no missing packets explain is a pause, not loss. The packet
//!    behind it is due `depth` after it arrived, as is one after [`PAUSE`] of nothing.
//! 6. **Excess.** If for [`EXCESS_FOR`] more waits than the depth and [`EXCESS`], the delay has grown for
//!    no reason (the network calmed down, or the sender's clock is fast): the oldest packet is dropped.
//!    Beyond [`EXCESS_MAX`] (a stall has ended) everything above the depth is, at once.
//! 7. **Breaks.** A jump of the numbers or timestamps beyond reason, or [`LATE_IN_A_ROW`] late packets,
//!    mean that the sender counts anew: everything starts over with that packet.
//! 8. **Other payloads.** Packets of the stream that are no audio ([`JitterBuffer::skip`]) leave no gap.
//!
//! The depth is fixed; `target` is the one place that would compute another. All memory is taken by
//! [`JitterBuffer::new`].
//!
//! Not here: decoding, concealment, whose packets they are.

mod store;

use std::time::{Duration, Instant};

use crate::Packet;
use crate::clock::ticks;
use crate::seq::extend;
use store::{Audio, SLOTS, Store};

/// Longest payload kept: more does not fit into an Ethernet frame.
pub const PAYLOAD_LEN_MAX: usize = 1_500;

/// Numbers may jump this far from the newest, in both directions, within one stream. What is further
/// away could not be held beside it; and a loss that long is audible whatever we do.
const JUMP_MAX: i64 = SLOTS as i64 / 2;
const _: () = assert!(JUMP_MAX < u64::BITS as i64, "numbers played are bits");

/// Nothing for this long ends a talk spurt: longer than an underrun that one would want to make up for.
const PAUSE: Duration = Duration::from_millis(200);

/// A listener asks up to one frame before he needs the packet. So far a packet may be ahead of the time
/// that has passed before that is a pause.
const LISTENER_FRAME_MAX: Duration = Duration::from_millis(40);

/// Margin above the depth that is tolerated, and for how long.
const EXCESS: Duration = Duration::from_millis(20);
const EXCESS_FOR: Duration = Duration::from_secs(1);

/// Margin above the depth that is not tolerated at all: a conversation with more delay is no longer one,
/// and one packet a second would take too long to get rid of it.
const EXCESS_MAX: Duration = Duration::from_millis(200);
const _: () = assert!(EXCESS_MAX.as_millis() > EXCESS.as_millis());

/// Timestamps further apart than this, while numbers follow each other, are no pause but a new count.
const TIMESTAMP_JUMP: Duration = Duration::from_secs(60);

/// Packets are at most this long; a larger step of the timestamps is a pause.
const PACKET_MAX: Duration = Duration::from_millis(120);

/// So many packets in a row that came too late, none of which was here before, come from a sender that
/// counts anew nearby. Fewer may have been overtaken by one that took a quicker path.
const LATE_IN_A_ROW: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub struct JitterConfig {
    /// Delay from the arrival of the first packet until it is due.
    pub depth: Duration,
    /// Timestamp units per second.
    pub clock_rate: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    Late,
    Duplicate,
    /// Too long to be kept.
    Overflow,
    /// Queued, as the first of a new count.
    Resynced,
}

/// What there is to play.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<'a> {
    /// One packet, as it came.
    Frame {
        payload: &'a [u8],
        timestamp: u32,
        payload_type: u8,
    },
    /// These timestamp units are missing; what follows them is here.
    Lost { ticks: u32 },
    /// Nothing is due.
    Empty,
}

/// The packets of one stream on their way to one listener.
#[derive(Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    store: Store,
    /// None before the first packet.
    stream: Option<Stream>,
    /// Of the sender's packets, as their timestamps say; 0 until two have come in a row.
    duration: u32,
    /// The latest step between timestamps of packets in a row: the duration, unless there was a pause.
    step: u32,
    /// Since when more is held than should be.
    excess_since: Option<Instant>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The number that is to be played next; all slots below it are empty.
    next: i64,
    /// The timestamp at which what the listener was given ends, as far as we know.
    next_timestamp: u32,
    /// Which of the numbers below `next` were played: bit 0 is the one just below. They reach back
    /// further than any packet that is not a new count.
    played: u64,
    /// What the listener was given last, and when.
    given_timestamp: u32,
    given_at: Instant,
    newest: i64,
    /// The newest packet with audio.
    newest_audio: (i64, u32),
    late_in_a_row: u32,
    pace: Pace,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// A talk spurt is about to begin; its first packet arrived then. In the first one of a stream
    /// (`fresh`) nothing has passed yet, and an overtaken packet may still become the first.
    Gathering {
        since: Instant,
        fresh: bool,
    },
    Playing,
    /// The listener has been given nothing since then.
    Starved {
        since: Instant,
    },
}

/// What to do about the oldest packet held.
enum Due {
    Now,
    NotYet,
    /// The next packets that are missing are given up, for so much time.
    AfterLost {
        packets: i64,
        ticks: u32,
    },
}

impl JitterBuffer {
    pub fn new(config: JitterConfig) -> Self {
        Self {
            config,
            store: Store::new(),
            stream: None,
            duration: 0,
            step: 0,
            excess_since: None,
            dropped: 0,
        }
    }

    /// Forgets the stream; memory is kept.
    pub fn reset(&mut self) {
        self.dropped += self.store.held() as u64;
        self.store.clear_all();
        self.stream = None;
        self.excess_since = None;
    }

    /// Takes in a packet with audio.
    pub fn push(&mut self, now: Instant, packet: &Packet<'_>) -> Pushed {
        if packet.payload.len() > PAYLOAD_LEN_MAX {
            return Pushed::Overflow;
        }
        let Some(stream) = &mut self.stream else {
            self.begin(now, packet);
            return Pushed::Queued;
        };
        let number = extend(stream.newest, packet.sequence);
        if !stream.has_room_for(number) || stream.counts_anew(&self.config, number, packet) {
            return self.resync(now, packet);
        }
        if number < stream.next {
            if let Pace::Gathering { fresh: true, .. } = stream.pace {
                stream.next = number;
                stream.next_timestamp = packet.timestamp;
                self.store.put(now, number, packet);
                return Pushed::Queued;
            }
            if stream.was_played(number) {
                return Pushed::Duplicate;
            }
            stream.late_in_a_row += 1;
            return if stream.late_in_a_row >= LATE_IN_A_ROW {
                self.resync(now, packet)
            } else {
                Pushed::Late
            };
        }
        if !self.store.is_empty(number) {
            return Pushed::Duplicate;
        }
        if let Pace::Starved { since } = stream.pace
            && now.saturating_duration_since(since) >= PAUSE
            && self.store.held() == 0
        {
            stream.pace = Pace::Gathering {
                since: now,
                fresh: false,
            };
        }
        let (newest, timestamp) = stream.newest_audio;
        let step = packet.timestamp.wrapping_sub(timestamp);
        if number == newest + 1 && (1..=self.config.ticks(PACKET_MAX)).contains(&step) {
            if self.duration == 0 && !matches!(stream.pace, Pace::Gathering { .. }) {
                // The first packet was given before anybody knew how long it is.
                stream.next_timestamp = stream.next_timestamp.wrapping_add(step);
            }
            // A longer step may be a pause; two alike are not.
            if self.duration == 0 || step < self.duration || step == self.step {
                self.duration = step;
            }
            self.step = step;
        }
        if number > newest {
            stream.newest_audio = (number, packet.timestamp);
        }
        stream.newest = stream.newest.max(number);
        stream.late_in_a_row = 0;
        self.store.put(now, number, packet);
        Pushed::Queued
    }

    /// Takes notice of a packet of the stream that is no audio (a telephone event, comfort noise): that
    /// its number does not come is no loss.
    pub fn skip(&mut self, sequence: u16) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let number = extend(stream.newest, sequence);
        if stream.has_room_for(number) && number >= stream.next && self.store.is_empty(number) {
            self.store.put_silent(number);
            stream.newest = stream.newest.max(number);
        }
    }

    /// What is due now. To be called when the listener has too few samples left for his next frame.
    pub fn pop(&mut self, now: Instant) -> Popped<'_> {
        self.pass_silent();
        let Some(stream) = &mut self.stream else {
            return Popped::Empty;
        };
        let mut begins = false;
        if let Pace::Gathering { since, .. } = stream.pace {
            if now < since + target(&self.config) {
                return Popped::Empty;
            }
            stream.pace = Pace::Playing;
            begins = true;
        }
        self.drop_excess(now);
        let due = self.oldest().map(|(number, audio)| {
            let due = if begins {
                Due::Now
            } else {
                self.judge(now, number, audio)
            };
            (number, audio, due)
        });
        match due {
            Some((number, audio, Due::Now)) => self.play(now, number, audio),
            Some((_, _, Due::AfterLost { packets, ticks })) => self.lose(now, packets, ticks),
            Some((_, _, Due::NotYet)) | None => self.starve(now),
        }
    }

    /// Packets waiting.
    pub fn held(&self) -> usize {
        self.store.held()
    }

    /// Packets that were here and never played: excess, and what a break or reset found waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn begin(&mut self, now: Instant, packet: &Packet<'_>) {
        // Far from zero, so that a packet overtaken by the first has a number too.
        let number = i64::from(packet.sequence) + (1 << 32);
        self.stream = Some(Stream {
            next: number,
            next_timestamp: packet.timestamp,
            played: 0,
            given_timestamp: packet.timestamp,
            given_at: now,
            newest: number,
            newest_audio: (number, packet.timestamp),
            late_in_a_row: 0,
            pace: Pace::Gathering {
                since: now,
                fresh: true,
            },
        });
        self.store.put(now, number, packet);
    }

    fn resync(&mut self, now: Instant, packet: &Packet<'_>) -> Pushed {
        self.reset();
        self.begin(now, packet);
        Pushed::Resynced
    }

    /// Goes past numbers that came without audio.
    fn pass_silent(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while self.store.is_silent(stream.next) {
            self.store.clear(stream.next);
            stream.advance(true);
        }
    }

    /// The oldest packet held, and its number.
    fn oldest(&self) -> Option<(i64, Audio)> {
        let stream = self.stream.filter(|_| self.store.held() > 0)?;
        (stream.next..=stream.newest)
            .find_map(|number| self.store.audio(number).map(|audio| (number, audio)))
    }

    fn judge(&self, now: Instant, number: i64, audio: Audio) -> Due {
        let Some(stream) = &self.stream else {
            return Due::NotYet;
        };
        let duration = i64::from(self.duration);
        let missing = (stream.next..number)
            .filter(|&number| self.store.is_empty(number))
            .count() as i64;
        let gap = i64::from(audio.timestamp.wrapping_sub(stream.next_timestamp) as i32);
        let concealed = match stream.pace {
            Pace::Starved { since } => Some(self.config.elapsed(now, since)),
            Pace::Playing | Pace::Gathering { .. } => None,
        };
        // Rule 5. Durations are known from steps of the timestamps only: a packet may have been longer
        // than we think, or the listener away. Then the time has passed, and there is no gap.
        let unexplained = gap - missing * duration > duration / 2;
        let ahead = i64::from(audio.timestamp.wrapping_sub(stream.given_timestamp) as i32)
            - self.config.elapsed(now, stream.given_at);
        let passed = concealed.is_none() && ahead <= self.config.ticks(LISTENER_FRAME_MAX).into();
        let paused = unexplained && !passed || audio.marker && missing == 0;
        if paused {
            return if now < audio.arrived + target(&self.config) {
                Due::NotYet
            } else {
                Due::Now
            };
        }
        // Rule 3.
        let lost = match concealed {
            Some(concealed) => gap - concealed,
            None if unexplained => gap.min(ahead),
            None => gap,
        };
        if missing == 0 || lost <= 0 || lost < duration / 2 {
            return Due::Now;
        }
        // The time of the first ones may have been concealed; of the rest, one packet at a time, so that
        // one that still comes finds its place.
        let left = (lost + duration / 2)
            .checked_div(duration)
            .map_or(missing, |left| left.clamp(1, missing));
        Due::AfterLost {
            packets: missing - left + 1,
            ticks: (lost as u32 / left as u32).max(1),
        }
    }

    fn play(&mut self, now: Instant, number: i64, audio: Audio) -> Popped<'_> {
        self.take(now, number, audio);
        Popped::Frame {
            payload: self.store.payload(audio),
            timestamp: audio.timestamp,
            payload_type: audio.payload_type,
        }
    }

    fn lose(&mut self, now: Instant, packets: i64, ticks: u32) -> Popped<'_> {
        if let Some(stream) = &mut self.stream {
            if let Pace::Starved { since } = stream.pace {
                let concealed = self.config.elapsed(now, since) as u32;
                stream.next_timestamp = stream.next_timestamp.wrapping_add(concealed);
            }
            stream.given_timestamp = stream.next_timestamp;
            stream.given_at = now;
            stream.next_timestamp = stream.next_timestamp.wrapping_add(ticks);
            stream.pace = Pace::Playing;
        }
        for _ in 0..packets {
            self.pass_silent();
            if let Some(stream) = &mut self.stream {
                stream.advance(false);
            }
        }
        Popped::Lost { ticks }
    }

    fn starve(&mut self, now: Instant) -> Popped<'_> {
        if let Some(stream) = &mut self.stream
            && let Pace::Playing = stream.pace
        {
            stream.pace = Pace::Starved { since: now };
        }
        Popped::Empty
    }

    /// Takes a packet out, and everything before it is past.
    fn take(&mut self, now: Instant, number: i64, audio: Audio) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while stream.next < number {
            self.store.clear(stream.next);
            stream.advance(false);
        }
        self.store.clear(number);
        stream.advance(true);
        stream.next_timestamp = audio.timestamp.wrapping_add(self.duration);
        stream.given_timestamp = audio.timestamp;
        stream.given_at = now;
        stream.pace = Pace::Playing;
    }

    /// Rule 6.
    fn drop_excess(&mut self, now: Instant) {
        let target = target(&self.config);
        // How long the newest packet will wait.
        let waiting = |held: usize| (held as u64 - 1) * u64::from(self.duration);
        let above = |margin: Duration| u64::from(self.config.ticks(target + margin));
        let held = self.store.held();
        if held == 0 || waiting(held) <= above(EXCESS) {
            self.excess_since = None;
            return;
        }
        let mut excess = 0;
        if waiting(held) > above(EXCESS_MAX) {
            excess = (1..held)
                .find(|&excess| waiting(held - excess) <= above(Duration::ZERO))
                .unwrap_or(held - 1);
        } else {
            let since = *self.excess_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= EXCESS_FOR {
                excess = 1;
            }
        }
        for _ in 0..excess {
            self.excess_since = None;
            if let Some((number, audio)) = self.oldest() {
                self.take(now, number, audio);
                self.dropped += 1;
            }
        }
    }
}

/// How long the first packet of a talk spurt waits.
fn target(config: &JitterConfig) -> Duration {
    config.depth
}

impl JitterConfig {
    fn ticks(&self, duration: Duration) -> u32 {
        ticks(duration, self.clock_rate)
    }

    fn elapsed(&self, now: Instant, since: Instant) -> i64 {
        self.ticks(now.saturating_duration_since(since)).into()
    }
}

impl Stream {
    fn has_room_for(&self, number: i64) -> bool {
        (number - self.newest).abs() <= JUMP_MAX && number < self.next + SLOTS as i64
    }

    /// Newer by its number, but far away by its timestamp.
    fn counts_anew(&self, config: &JitterConfig, number: i64, packet: &Packet<'_>) -> bool {
        let (newest, timestamp) = self.newest_audio;
        let jump = packet.timestamp.wrapping_sub(timestamp) as i32;
        number > newest && (jump < 0 || jump as u32 > config.ticks(TIMESTAMP_JUMP))
    }

    /// The number lies below `next`.
    fn was_played(&self, number: i64) -> bool {
        self.played >> (self.next - number - 1) & 1 != 0
    }

    /// The next number is past; what came without audio has been played, too.
    fn advance(&mut self, played: bool) {
        self.next += 1;
        self.played = self.played << 1 | u64::from(played);
    }
}
