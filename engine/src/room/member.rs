//! One participant as his room sees him.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixer_simd::Kernels;
use rtp::{RtcpReceived, Session, Stats};

use super::Activity;
use crate::codec::playout::Playout;
use crate::codec::{Codec, Encode};
use crate::io::SocketId;

/// A member's place in his room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberId(pub u32);

/// What was agreed with the member for his audio, by SDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// What we send him.
    pub codec: Codec,
    /// What he may send us, by RTP payload type.
    pub receives: Vec<(u8, Codec)>,
    pub ptime: Duration,
    /// RTCP travels on the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// He sends audio to us (false while he only listens or holds).
    pub heard: bool,
    /// We send audio to him.
    pub spoken_to: bool,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    Taken,
    Discarded,
    /// It says that this key was pressed (RFC 4733).
    Key(char),
}

/// Somebody about to become a member.
pub struct Newcomer {
    /// Who he is: the URI of his From header.
    pub entity: String,
    pub joined: SystemTime,
    pub session: Session,
    pub leg: Leg,
}

pub struct Member {
    pub(super) session: Session,
    pub(super) leg: Leg,
    pub(super) rtp_socket: SocketId,
    pub(super) rtcp_socket: SocketId,
    /// His ACK has come. Until then nothing is sent to him: the address in an INVITE may not be his.
    pub(super) confirmed: bool,
    /// The room does not hear him.
    muted: bool,
    pub(super) activity: Activity,
    /// He is one of those mixed in this tick.
    pub(super) in_mix: bool,

    playout: Playout,
    /// His own encoder, used while he talks: then his mix is his alone.
    pub(super) encoder: Box<dyn Encode>,
    /// The playout's frame is of this tick.
    has_frame: bool,
    /// Encoded frames waiting until a packet of his ptime is full.
    pub(super) pending: Vec<u8>,
    pub(super) pending_for: Duration,

    /// What his shard knows him by.
    badge: u32,
    joined_at: Instant,
    cold: Box<Cold>,
}

/// What no packet and no tick needs, out of the way of what they do.
struct Cold {
    entity: String,
    joined: SystemTime,
    /// Statistics already counted in the meters.
    counted: Stats,
}

impl Member {
    pub fn new(
        now: Instant,
        badge: u32,
        newcomer: Newcomer,
        sockets: (SocketId, SocketId),
        kernels: Kernels,
    ) -> Self {
        let Newcomer {
            entity,
            joined,
            session,
            leg,
        } = newcomer;
        Self {
            badge,
            session,
            rtp_socket: sockets.0,
            rtcp_socket: sockets.1,
            confirmed: false,
            muted: false,
            activity: Activity::default(),
            in_mix: false,
            playout: Playout::new(kernels, leg.receives.clone()),
            encoder: leg.codec.encoder(kernels),
            leg,
            has_frame: false,
            pending: Vec::new(),
            pending_for: Duration::ZERO,
            joined_at: now,
            cold: Box::new(Cold {
                entity,
                joined,
                counted: Stats::default(),
            }),
        }
    }

    /// Who he is: the URI of his From header.
    pub fn entity(&self) -> &str {
        &self.cold.entity
    }

    pub fn badge(&self) -> u32 {
        self.badge
    }

    pub fn joined(&self) -> SystemTime {
        self.cold.joined
    }

    pub fn leg(&self) -> &Leg {
        &self.leg
    }

    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    pub fn ptime(&self) -> Duration {
        self.leg.ptime
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// He is reached through other sockets from now on (those for RTP and RTCP).
    pub fn set_sockets(&mut self, sockets: (SocketId, SocketId)) {
        (self.rtp_socket, self.rtcp_socket) = sockets;
    }

    /// Lets the room hear him, or not.
    pub fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    pub fn is_muted(&self) -> bool {
        self.muted
    }

    pub fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// A new agreement (re-INVITE); the session is told separately.
    pub fn agree(&mut self, leg: Leg, kernels: Kernels) {
        if leg.codec != self.leg.codec {
            self.encoder = leg.codec.encoder(kernels);
        }
        if leg.codec != self.leg.codec || leg.ptime != self.leg.ptime {
            self.pending.clear();
            self.pending_for = Duration::ZERO;
        }
        if !leg.heard {
            self.playout.reset();
            self.activity = Activity::default();
        }
        self.playout.agree(leg.receives.clone());
        self.leg = leg;
    }

    /// What the session made of a datagram.
    pub fn handle_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Handled {
        match self.session.handle_rtp(now, from, datagram) {
            rtp::Received::Restarted => {
                self.playout.reset();
                Handled::Taken
            }
            rtp::Received::Discarded(_) => Handled::Discarded,
            rtp::Received::Event(event) => event.digit().map_or(Handled::Taken, Handled::Key),
            _ => Handled::Taken,
        }
    }

    pub fn handle_rtcp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Handled {
        match self.session.handle_rtcp(now, from, datagram) {
            RtcpReceived::Discarded => Handled::Discarded,
            _ => Handled::Taken,
        }
    }

    /// How long nothing came from him although something should; zero while he is on hold.
    pub fn silent_for(&self, now: Instant) -> Duration {
        if !self.leg.heard {
            return Duration::ZERO;
        }
        let last = self
            .session
            .last_received()
            .unwrap_or(self.joined_at)
            .max(self.joined_at);
        now.saturating_duration_since(last)
    }

    /// His statistics since the last call.
    pub fn count(&mut self) -> StatsDelta {
        let now = self.session.stats();
        let delta = StatsDelta {
            lost: now.lost.saturating_sub(self.cold.counted.lost),
            late: now.late.saturating_sub(self.cold.counted.late),
        };
        self.cold.counted = now;
        delta
    }

    /// His samples of this tick; only of meaning while he [`speaks`](Self::speaks).
    pub(super) fn frame(&self, samples: usize) -> &[i16] {
        self.playout.frame(samples)
    }

    /// He has something to be heard in this tick, and it is speech.
    pub(super) fn speaks(&self) -> bool {
        self.has_frame && self.activity.talking()
    }

    /// He is being sent the mix.
    pub(super) fn listens(&self) -> bool {
        self.confirmed
    }

    pub fn talking(&self) -> bool {
        self.in_mix
    }

    /// Takes this tick's samples out of the jitter buffer; false if there is nothing to be heard.
    /// `pcm` is working memory.
    #[inline]
    pub(super) fn play(&mut self, now: Instant, samples: usize, pcm: &mut Vec<i16>) -> bool {
        let Self {
            playout, session, ..
        } = self;
        self.leg.heard && playout.advance(now, session, samples, pcm)
    }

    /// He as a source in other mixers' lists. Under the number of our stream to him: his own may be
    /// somebody else's, too, for phones need not choose well.
    pub(super) fn contributor(&self) -> rtp::Contributor {
        rtp::Contributor {
            ssrc: self.session.ssrc(),
            level: self.activity.level(),
        }
    }

    /// Takes this tick's samples out of the jitter buffer and judges them.
    /// `pcm` is working memory.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        samples: usize,
        kernels: &Kernels,
        pcm: &mut Vec<i16>,
    ) {
        // Who is muted goes on being played out, so that he is heard without delay when he is heard again.
        self.has_frame = self.play(now, samples, pcm) && !self.muted;
        let level = if self.has_frame {
            mixer_simd::level_dbov(kernels.energy(self.playout.frame(samples)), samples)
        } else {
            Activity::SILENCE
        };
        self.activity.update(level, samples);
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct StatsDelta {
    pub lost: u64,
    pub late: u64,
}
