//! From an encoded mix to the packets of one member.

use std::time::{Duration, Instant};

use super::{Counts, Member};
use crate::io::{MediaIo, Payload};

impl Member {
    /// Sends one period's frame: at once behind a header of his own when that fills a packet of his
    /// ptime, else when enough frames have come together. `shared` is the frame's place in the send
    /// arena, filled by the first member who needs it.
    #[expect(
        clippy::too_many_arguments,
        reason = "the frame in its three forms, and the tick's parts split for borrowing"
    )]
    pub(super) fn speak(
        &mut self,
        period: Duration,
        samples: usize,
        frame: &[u8],
        shared: &mut Option<Payload>,
        now: Instant,
        io: &mut dyn MediaIo,
        counts: &mut Counts,
    ) {
        if !self.leg.spoken_to {
            self.session.skip(samples as u32);
            return;
        }
        let (payload, len, duration) = if self.pending.is_empty() && self.leg.ptime == period {
            (
                *shared.get_or_insert_with(|| io.share(frame)),
                frame.len(),
                period,
            )
        } else {
            self.pending.extend_from_slice(frame);
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
        let ticks = samples as u32 * (duration.as_millis() / period.as_millis()) as u32;
        let header = self.session.next_header(now, ticks, len);
        io.queue(
            self.rtp_socket,
            self.session.destination(),
            &header,
            payload,
        );
        counts.rtp_sent += 1;
    }

    /// Sends the RTCP report that is due, if one is.
    pub(super) fn report(
        &mut self,
        now: Instant,
        ntp: u64,
        io: &mut dyn MediaIo,
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
    pub fn say_bye(&mut self, now: Instant, ntp: u64, io: &mut dyn MediaIo, counts: &mut Counts) {
        if self.confirmed {
            let mut packet = [0; rtp::RTCP_LEN_MAX];
            let len = self.session.write_bye(now, ntp, &mut packet);
            self.send_rtcp(&packet[..len], io, counts);
        }
    }

    fn send_rtcp(&mut self, packet: &[u8], io: &mut dyn MediaIo, counts: &mut Counts) {
        let payload = io.share(packet);
        let socket = if self.leg.rtcp_mux {
            self.rtp_socket
        } else {
            self.rtcp_socket
        };
        io.queue(socket, self.session.rtcp_destination(), &[], payload);
        counts.rtcp_sent += 1;
    }
}
