//! A link to another server: an RTP leg without a caller.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::{Counts, Handled, Member};
use super::Talkers;
use super::outgoing::Outgoing;
use crate::io::MediaIo;

/// How long the first packet of a talk spurt waits. Servers send at an even pace, and what comes a little
/// late only moves the play-out point: with the wait for the next tick, a talker is heard no more than
/// 25 ms and the way later than at home.
pub const TRUNK_JITTER_DEPTH: Duration = Duration::from_millis(5);

/// The extension that levels come in. A trunk's SDP says `a=extmap:1` with
/// `urn:ietf:params:rtp-hdrext:csrc-audio-level` (RFC 6465 §4).
pub const LEVELS_EXTENSION_ID: u8 = 1;

/// RTCP of the far end comes every seven seconds or sooner (RFC 3550 §6.3.1): so many are missed before
/// it is gone.
const SILENT_MIN: Duration = Duration::from_secs(30);

/// One server's end of a conference's trunk to another. It is no participant: it speaks for whoever talks
/// over there.
pub struct Trunk {
    member: Member,
    /// Who is in what came last.
    talkers: Talkers,
    has_frame: bool,
}

impl Trunk {
    /// `member` holds what was agreed on with the far end.
    pub fn new(member: Member) -> Self {
        Self {
            member,
            talkers: Talkers::new(),
            has_frame: false,
        }
    }

    /// The leg, as if somebody sat there.
    pub fn member(&self) -> &Member {
        &self.member
    }

    pub fn member_mut(&mut self) -> &mut Member {
        &mut self.member
    }

    pub fn into_member(self) -> Member {
        self.member
    }

    /// Who talks over there, with the levels of the latest packet.
    pub fn talkers(&self) -> &[rtp::Contributor] {
        &self.talkers
    }

    pub fn handle_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Handled {
        let handled = self.member.handle_rtp(now, from, datagram);
        if handled == Handled::Taken
            && let Ok(packet) = rtp::Packet::parse(datagram)
        {
            self.talkers.clear();
            self.talkers
                .extend(packet.contributors(LEVELS_EXTENSION_ID));
        }
        handled
    }

    /// Nothing came from the far end for so long that it must be gone. That nobody talks there is no
    /// reason: then its RTCP comes.
    pub fn is_dead(&self, now: Instant, media_timeout: Duration) -> bool {
        self.member.silent_for(now) >= media_timeout.max(SILENT_MIN)
    }

    pub(super) fn hear(&mut self, now: Instant, samples: usize, pcm: &mut Vec<i16>) {
        self.has_frame = self.member.play(now, samples, pcm);
        if !self.has_frame {
            self.talkers.clear();
        }
    }

    /// What it brings in this tick, if anything.
    pub(super) fn frame(&self, samples: usize) -> Option<&[i16]> {
        self.has_frame.then(|| self.member.frame(samples))
    }

    /// It is being sent what goes out.
    pub(super) fn listens(&self) -> bool {
        self.member.listens() && self.member.leg.spoken_to
    }

    /// Queues this tick's packet. Its duration is the tick's, whatever the SDP prefers: nothing waits.
    pub(super) fn speak(
        &mut self,
        now: Instant,
        samples: usize,
        outgoing: &Outgoing,
        io: &mut impl MediaIo,
        counts: &mut Counts,
    ) {
        let listens = self.listens();
        let Member {
            session,
            leg,
            rtp_socket,
            ..
        } = &mut self.member;
        let ticks = leg.codec.ticks(samples);
        let to = session.destination();
        let frame = outgoing
            .frame(leg.codec)
            .filter(|frame| listens && frame.len() > 0 && !to.ip().is_unspecified());
        let Some(frame) = frame else {
            return session.skip(ticks);
        };
        let mut header = [0; rtp::MIXED_HEADER_LEN_MAX];
        let who = (outgoing.who().as_slice(), LEVELS_EXTENSION_ID);
        let len = session.next_mixed_header(now, ticks, frame.len(), who, &mut header);
        io.queue(*rtp_socket, to, &header[..len], frame.shared);
        counts.rtp_sent += 1;
    }
}
