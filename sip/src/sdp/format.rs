//! What the payload types of one audio line mean: `rtpmap`, the static table, `fmtp`, `ptime`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::agreement::{Capabilities, CodecOffer};
use super::parse::read_host;
use super::{Attribute, Host, Media};

/// Telephone events we understand: the sixteen keys and flash (RFC 4733 section 3.2).
const TELEPHONE_EVENTS: &str = "0-16";
const TELEPHONE_EVENT_MAX: u32 = 16;

/// The number we offer them with, which most phones use too.
pub(super) const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 101;

/// The name of DTMF payloads in `rtpmap` (RFC 4733 section 7.1.1).
pub(super) const TELEPHONE_EVENT: &str = "telephone-event";

/// The clock of telephone events beside narrowband codecs, and what nearly every phone offers
/// beside the others too.
const TELEPHONE_EVENT_CLOCK_RATE: u32 = 8000;

/// Payload types whose first byte looks like RTCP when both share a port (RFC 5761 section 4).
const RTCP_LOOKALIKES: std::ops::RangeInclusive<u8> = 64..=95;

/// Largest RTP payload type, 7 bits.
const PAYLOAD_TYPE_MAX: u8 = 127;

/// One format of an audio line that we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) payload_type: u8,
    /// Index in [`Capabilities::codecs`].
    pub(super) codec: usize,
}

/// DTMF as one `m=` line has it.
pub(super) struct TelephoneEvent {
    pub(super) payload_type: u8,
    pub(super) clock_rate: u32,
    /// The events we can take, as `fmtp` text.
    pub(super) events: String,
}

impl TelephoneEvent {
    /// As we offer it.
    pub(super) fn offered() -> Self {
        Self {
            payload_type: TELEPHONE_EVENT_PAYLOAD_TYPE,
            clock_rate: TELEPHONE_EVENT_CLOCK_RATE,
            events: TELEPHONE_EVENTS.to_owned(),
        }
    }
}

/// What `a=rtpmap` says of one payload type.
struct Encoding<'a> {
    name: &'a str,
    clock_rate: u32,
    channels: u8,
}

impl CodecOffer {
    fn is(&self, encoding: &Encoding<'_>) -> bool {
        encoding.name.eq_ignore_ascii_case(self.name)
            && encoding.clock_rate == self.clock_rate
            && encoding.channels == self.channels
    }
}

/// The payload types of an `m=` line, in order; what is no payload type is left out.
fn payload_types(media: &Media) -> impl Iterator<Item = u8> {
    media
        .formats
        .iter()
        .filter_map(|format| format.parse().ok())
        .filter(|payload_type| *payload_type <= PAYLOAD_TYPE_MAX)
}

/// The formats we can decode and encode, in the order of the `m=` line. `fallback` explains the
/// payload types that `media` itself does not: an answer may leave the offer's `rtpmap` lines out.
pub(super) fn common_formats<'a>(
    media: &'a Media,
    fallback: Option<&'a Media>,
    capabilities: &'a Capabilities,
) -> impl Iterator<Item = Format> {
    payload_types(media).filter_map(move |payload_type| {
        let encoding = encoding_or(media, fallback, payload_type);
        let codec = capabilities
            .codecs
            .iter()
            .position(|codec| match &encoding {
                Some(encoding) => codec.is(encoding),
                None => codec.static_payload_type == Some(payload_type),
            })?;
        Some(Format {
            payload_type,
            codec,
        })
    })
}

fn encoding_or<'a>(
    media: &'a Media,
    fallback: Option<&'a Media>,
    payload_type: u8,
) -> Option<Encoding<'a>> {
    encoding(media, payload_type)
        .or_else(|| fallback.and_then(|fallback| encoding(fallback, payload_type)))
}

fn encoding(media: &Media, payload_type: u8) -> Option<Encoding<'_>> {
    parameters(media, "rtpmap", payload_type).and_then(read_encoding)
}

/// The text after the payload type in `a=rtpmap:` and `a=fmtp:` lines.
fn parameters<'a>(media: &'a Media, name: &str, payload_type: u8) -> Option<&'a str> {
    media
        .attributes
        .iter()
        .filter(|attribute| attribute.name == name)
        .filter_map(|attribute| attribute.value.as_deref()?.trim_start().split_once(' '))
        .find(|(number, _)| number.parse() == Ok(payload_type))
        .map(|(_, parameters)| parameters.trim())
}

/// Reads `opus/48000/2`.
fn read_encoding(text: &str) -> Option<Encoding<'_>> {
    let mut parts = text.split('/');
    Some(Encoding {
        name: parts.next()?,
        clock_rate: parts.next()?.parse().ok()?,
        channels: parts.next().map_or(Some(1), |count| count.parse().ok())?,
    })
}

/// The clocks telephone events may have beside `codec`, the better first: its own (RFC 4733
/// section 2.1), else 8000 Hz.
pub(super) fn telephone_event_clock_rates(codec: &CodecOffer) -> impl Iterator<Item = u32> {
    [codec.clock_rate, TELEPHONE_EVENT_CLOCK_RATE].into_iter()
}

/// The telephone events of this line with that clock, if we can take any. `fallback` as above.
pub(super) fn telephone_event(
    media: &Media,
    fallback: Option<&Media>,
    clock_rate: u32,
) -> Option<TelephoneEvent> {
    payload_types(media).find_map(|payload_type| {
        let encoding = encoding_or(media, fallback, payload_type)?;
        let is_wanted = encoding.name.eq_ignore_ascii_case(TELEPHONE_EVENT)
            && encoding.clock_rate == clock_rate;
        let events = common_events(parameters(media, "fmtp", payload_type));
        (is_wanted && !events.is_empty()).then_some(TelephoneEvent {
            payload_type,
            clock_rate,
            events,
        })
    })
}

/// The offered events that are ours too, as `fmtp` text: `0-15,66,70` becomes `0-15`. A list that
/// is absent or unreadable stands for all of ours.
fn common_events(offered: Option<&str>) -> String {
    let Some(ranges) = offered.and_then(read_ranges) else {
        return TELEPHONE_EVENTS.to_owned();
    };
    let mut common = String::new();
    for (first, last) in ranges {
        let last = last.min(TELEPHONE_EVENT_MAX);
        if first > last {
            continue;
        }
        if !common.is_empty() {
            common.push(',');
        }
        common.push_str(&first.to_string());
        if first != last {
            common.push_str(&format!("-{last}"));
        }
    }
    common
}

/// Reads `0-11,16`. Ranges that run backwards are kept and hold nothing.
fn read_ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    text.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        })
        .collect()
}

/// The duration of the packets we send, in ms: what the peer asks for, within its `maxptime` and
/// what we can do, and a multiple of the 10 ms our codecs frame by.
pub(super) fn ptime_ms(media: &Media, capabilities: &Capabilities) -> u32 {
    let wanted = milliseconds(media, "ptime").unwrap_or(capabilities.ptime_ms);
    let max = milliseconds(media, "maxptime").unwrap_or(u32::MAX);
    let range = &capabilities.ptime_range_ms;
    let rounded = wanted.min(max) / PTIME_STEP_MS * PTIME_STEP_MS;
    // Not `clamp`, which panics on a range whose ends are swapped.
    rounded.min(*range.end()).max(*range.start())
}

const PTIME_STEP_MS: u32 = 10;

/// Whole milliseconds, above 0. RFC 8866 section 6.4 allows a fraction, which is cut off.
fn milliseconds(media: &Media, name: &str) -> Option<u32> {
    let text = media.attribute(name)?.trim();
    let whole = text.split('.').next()?.parse().ok()?;
    (whole > 0).then_some(whole)
}

/// Whether RTCP of these payload types may share the RTP port.
pub(super) fn may_mux(payload_types: impl IntoIterator<Item = u8>) -> bool {
    payload_types
        .into_iter()
        .all(|payload_type| !RTCP_LOOKALIKES.contains(&payload_type))
}

/// Where the peer's RTCP goes when it does not share the RTP port: `a=rtcp:port [IN IP4 address]`
/// (RFC 3605), else the next port.
pub(super) fn rtcp_address(media: &Media, rtp: SocketAddr) -> SocketAddr {
    let explicit = media.attribute("rtcp").and_then(|text| {
        let (port, host) = match text.trim().split_once(' ') {
            Some((port, host)) => (port, read_host(host)),
            None => (text.trim(), None),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        match host {
            Some(Host::Ip(address))
                if is_one_host(address) && address.is_ipv4() == rtp.is_ipv4() =>
            {
                Some(SocketAddr::new(address, port))
            }
            _ => Some(SocketAddr::new(rtp.ip(), port)),
        }
    });
    // RTP on the last port leaves no next one; then RTCP can only share it.
    explicit.unwrap_or_else(|| SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1)))
}

/// Whether packets to `address` reach one host.
pub(super) fn is_one_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// `a=rtpmap` of one of our codecs.
pub(super) fn rtpmap(payload_type: u8, codec: &CodecOffer) -> Attribute {
    let CodecOffer {
        name, clock_rate, ..
    } = codec;
    match codec.channels {
        0 | 1 => Attribute::new("rtpmap", format_args!("{payload_type} {name}/{clock_rate}")),
        channels => Attribute::new(
            "rtpmap",
            format_args!("{payload_type} {name}/{clock_rate}/{channels}"),
        ),
    }
}
