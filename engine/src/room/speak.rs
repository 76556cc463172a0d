//! From encoded mixes to the packets of the members.

use std::time::{Duration, Instant};

use super::mix::{Frame, Mixer};
use super::{Counts, Member, Room};
use crate::io::MediaIo;

impl Room {
    /// Queues everybody's packet.
    pub fn speak(
        &mut self,
        now: Instant,
        mixer: &Mixer,
        io: &mut impl MediaIo,
        counts: &mut Counts,
    ) {
        let samples = self.samples();
        let Self {
            members,
            mixes,
            talkers,
            links,
            period,
            ..
        } = self;
        let mut say = |member: &mut Member, frame: Option<&Frame>| {
            if let Some(frame) = frame {
                member.speak(*period, samples, mixer, frame, now, io, counts);
            }
        };
        for (_, member) in members.iter_mut() {
            if member.listens() && !member.in_mix {
                let frame = mixes.total(member.leg.codec);
                say(member, frame);
            }
        }
        for (&talker, frame) in talkers.iter().zip(&mixes.others_frames) {
            say(&mut members[talker], frame.as_ref());
        }
        if let Some(links) = links {
            links.speak(samples, io, counts);
        }
        counts.ticks += 1;
    }

    /// Queues the RTCP reports that are due.
    pub fn report(&mut self, now: Instant, ntp: u64, io: &mut impl MediaIo, counts: &mut Counts) {
        for (_, member) in &mut self.members {
            member.report(now, ntp, io, counts);
        }
        if let Some(links) = &mut self.links {
            links.report(now, ntp, io, counts);
        }
    }
}

impl Member {
    /// Sends one period's frame: at once behind a header of his own when that fills a packet of his
    /// ptime, else when enough frames have come together.
    #[expect(
        clippy::too_many_arguments,
        reason = "a room's parts, split for borrowing"
    )]
    fn speak(
        &mut self,
        period: Duration,
        samples: usize,
        mixer: &Mixer,
        frame: &Frame,
        now: Instant,
        io: &mut impl MediaIo,
        counts: &mut Counts,
    ) {
        if !self.leg.spoken_to {
            self.session.skip(self.leg.codec.ticks(samples));
            return;
        }
        let bytes = mixer.bytes(frame);
        let (payload, len, duration) = if self.pending.is_empty() && self.leg.ptime == period {
            (frame.shared, bytes.len(), period)
        } else {
            self.pending.extend_from_slice(bytes);
            self.pending_for += period;
            if self.pending_for < self.leg.ptime {
                return;
            }
            let full = (
                io.share(&self.pending),
                self.pending.len(),
                self.pending_for,
            );
            self.pending.clear();
            self.pending_for = Duration::ZERO;
            full
        };
        let periods = (duration.as_millis() / period.as_millis()) as usize;
        let ticks = self.leg.codec.ticks(samples * periods);
        let header = self.session.next_header(now, ticks, len);
        let to = self.session.destination();
        // Where he is shows when he has been heard.
        if to.ip().is_unspecified() {
            return;
        }
        io.queue(self.rtp_socket, to, &header, payload);
        counts.rtp_sent += 1;
    }

    pub(super) fn report(
        &mut self,
        now: Instant,
        ntp: u64,
        io: &mut impl MediaIo,
        counts: &mut Counts,
    ) {
        if !self.confirmed || now < self.session.next_report_at() {
            return;
        }
        let mut packet = [0; rtp::RTCP_LEN_MAX];
        if let Some(len) = self.session.poll_report(now, ntp, &mut packet) {
            self.send_rtcp(&packet[..len], io, counts);
        }
    }

    /// Tells the peer that this stream ends (RFC 3550 §6.6).
    pub fn say_bye(&mut self, now: Instant, ntp: u64, io: &mut impl MediaIo, counts: &mut Counts) {
        if self.confirmed {
            let mut packet = [0; rtp::RTCP_LEN_MAX];
            let len = self.session.write_bye(now, ntp, &mut packet);
            self.send_rtcp(&packet[..len], io, counts);
        }
    }

    fn send_rtcp(&mut self, packet: &[u8], io: &mut impl MediaIo, counts: &mut Counts) {
        let payload = io.share(packet);
        let socket = if self.leg.rtcp_mux {
            self.rtp_socket
        } else {
            self.rtcp_socket
        };
        let to = self.session.rtcp_destination();
        if to.ip().is_unspecified() {
            return;
        }
        io.queue(socket, to, &[], payload);
        counts.rtcp_sent += 1;
    }
}
