//! The offer/answer model (RFC 3264) for one audio stream.
//!
//! Every `m=` line of an offer is repeated in the answer; the first audio line we can serve wins
//! and the others are refused with port 0. An answer names exactly one codec, the first of the
//! offerer's order that is ours too. Left a choice, the peer could change codec at any packet and
//! with it the RTP clock, for which RFC 7160 wants a new SSRC that few phones take.
//!
//! **Hold.** `sendonly` is answered `recvonly`, `inactive` with `inactive`; the older way, an
//! unspecified address (`0.0.0.0` or `::`), means that the peer receives nothing and is answered
//! the same. **Disabled.** When all audio lines of an offer have port 0 the stream is off: the
//! answer has port 0 too, and [`Agreed`] is `Inactive` with a `remote_rtp` port of 0 and nothing
//! to receive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::agreement::{Agreed, Capabilities, CodecOffer, Local, Refusal};
use super::format::{
    Format, TELEPHONE_EVENT, TELEPHONE_EVENT_PAYLOAD_TYPE, TelephoneEvent, common_formats,
    is_one_host, may_mux, ptime_ms, rtcp_address, rtpmap, telephone_event,
    telephone_event_clock_rates,
};
use super::{Attribute, Direction, Host, Media, Origin, SessionDescription};

/// Answers an offer, as the module head says.
///
/// # Errors
/// What is wrong with the first audio line that is not disabled; the call is to be refused.
pub fn answer(
    offer: &SessionDescription,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<(SessionDescription, Agreed), Refusal> {
    let choice = choose_media(offer, capabilities, local)?;
    let media = offer.media.iter().enumerate().map(|(index, offered)| {
        match index == choice.agreed.media_index && offered.port != 0 {
            true => accepted(offered, &choice, capabilities, local),
            false => refused(offered),
        }
    });
    let answer = describe(local, offer.times.clone(), media.collect());
    Ok((answer, choice.agreed))
}

/// What [`answer`] would agree on, without writing the answer. The ports in `local` do not matter yet.
///
/// # Errors
/// As [`answer`].
pub fn preview(
    offer: &SessionDescription,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<Agreed, Refusal> {
    choose_media(offer, capabilities, local).map(|choice| choice.agreed)
}

/// Makes the offer for a new leg: one audio line with all our codecs. A codec that finds no
/// dynamic payload type left is not offered.
pub fn offer(capabilities: &Capabilities, local: &Local) -> SessionDescription {
    let mut dynamic =
        DYNAMIC_PAYLOAD_TYPES.filter(|number| *number != TELEPHONE_EVENT_PAYLOAD_TYPE);
    let mut formats = Vec::new();
    let mut attributes = Vec::new();
    for codec in &capabilities.codecs {
        let number = codec.static_payload_type.or_else(|| dynamic.next());
        if let Some(number) = number {
            formats.push(number.to_string());
            push_codec(&mut attributes, number, codec);
        }
    }
    if capabilities.telephone_event {
        formats.push(TELEPHONE_EVENT_PAYLOAD_TYPE.to_string());
        push_telephone_event(&mut attributes, &TelephoneEvent::offered());
    }
    attributes.push(Attribute::new("ptime", capabilities.ptime_ms));
    push_rtcp(&mut attributes, local);
    attributes.push(Attribute::flag("rtcp-mux"));
    let media = Media {
        kind: "audio".to_owned(),
        port: local.rtp_port,
        port_count: 1,
        protocol: "RTP/AVP".to_owned(),
        formats,
        connection: None,
        direction: Some(Direction::SendRecv),
        attributes,
    };
    describe(local, vec![(0, 0)], vec![media])
}

/// What an answer to an offer of ours amounts to. `offer` is the description as it was sent.
///
/// # Errors
/// The answer leaves no usable audio: a new dialog is to be ended, an old one stays as it was.
pub fn accept_answer(
    offer: &SessionDescription,
    answer: &SessionDescription,
    capabilities: &Capabilities,
) -> Result<Agreed, Refusal> {
    let is_open = |media: &Media| is_audio(media) && media.port != 0;
    let media_index = offer.media.iter().position(is_open);
    let media_index = media_index.ok_or(Refusal::NoAudio)?;
    let offered = &offer.media[media_index];
    let answered = answer.media.get(media_index).filter(|media| is_open(media));
    let answered = answered.ok_or(Refusal::NoAudio)?;
    if !is_plain_rtp(answered) {
        return Err(Refusal::UnsupportedProtocol);
    }

    // RFC 3264 section 6.1: the two sides may number the same format differently, and each sends
    // with the other's number.
    let ours: Vec<Format> = common_formats(offered, None, capabilities).collect();
    let theirs: Vec<Format> = common_formats(answered, Some(offered), capabilities)
        .filter(|format| ours.iter().any(|our| our.codec == format.codec))
        .collect();
    let chosen = *theirs.first().ok_or(Refusal::NoCommonCodec)?;
    let receive_payload_types = ours
        .iter()
        .filter(|our| theirs.iter().any(|format| format.codec == our.codec))
        .map(|our| (our.payload_type, our.codec))
        .collect();
    let codec = &capabilities.codecs[chosen.codec];
    let event = telephone_event_clock_rates(codec)
        .filter(|_| capabilities.telephone_event)
        .filter(|clock_rate| telephone_event(answered, Some(offered), *clock_rate).is_some())
        .find_map(|clock_rate| telephone_event(offered, None, clock_rate));

    let Some(Host::Ip(our_address)) = offer.connection_of(offered) else {
        return Err(Refusal::UnusableAddress);
    };
    let remote = Remote::new(answer, answered, *our_address)?;
    let rtcp_mux = [offered, answered]
        .iter()
        .all(|media| media.attribute("rtcp-mux").is_some());
    let direction = remote.direction.reversed();
    let direction = direction.and(offer.direction_of(offered));
    Ok(Agreed {
        media_index,
        codec: chosen.codec,
        payload_type: chosen.payload_type,
        receive_payload_types,
        telephone_event: event.map(|event| event.payload_type),
        remote_rtp: remote.rtp,
        remote_rtcp: remote.rtcp(answered, rtcp_mux),
        rtcp_mux,
        ptime_ms: ptime_ms(answered, capabilities),
        direction,
        held: !remote.direction.receives(),
    })
}

/// RFC 3551 section 6; codecs without a static number get these in turn.
const DYNAMIC_PAYLOAD_TYPES: RangeInclusive<u8> = 96..=127;

/// The outcome for an offer, with what its answer needs beside it.
struct Choice {
    agreed: Agreed,
    telephone_event: Option<TelephoneEvent>,
}

fn choose_media(
    offer: &SessionDescription,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<Choice, Refusal> {
    let mut disabled = None;
    let mut refusal = None;
    for (index, media) in offer.media.iter().enumerate() {
        if !is_audio(media) {
            continue;
        }
        if media.port == 0 {
            disabled.get_or_insert(index);
            continue;
        }
        match choose_formats(offer, index, capabilities, local) {
            Ok(choice) => return Ok(choice),
            Err(reason) => {
                refusal.get_or_insert(reason);
            }
        }
    }
    match (refusal, disabled) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(index)) => choose_nothing(offer, index, capabilities, local),
        (None, None) => Err(Refusal::NoAudio),
    }
}

fn choose_formats(
    offer: &SessionDescription,
    media_index: usize,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<Choice, Refusal> {
    let media = &offer.media[media_index];
    if !is_plain_rtp(media) {
        return Err(Refusal::UnsupportedProtocol);
    }
    let format = common_formats(media, None, capabilities).next();
    let format = format.ok_or(Refusal::NoCommonCodec)?;
    let remote = Remote::new(offer, media, local.address)?;
    let telephone_event = telephone_event_clock_rates(&capabilities.codecs[format.codec])
        .filter(|_| capabilities.telephone_event)
        .find_map(|clock_rate| telephone_event(media, None, clock_rate));
    let event_payload_type = telephone_event.as_ref().map(|event| event.payload_type);
    let rtcp_mux = media.attribute("rtcp-mux").is_some()
        && may_mux([format.payload_type].into_iter().chain(event_payload_type));
    let agreed = Agreed {
        media_index,
        codec: format.codec,
        payload_type: format.payload_type,
        receive_payload_types: vec![(format.payload_type, format.codec)],
        telephone_event: event_payload_type,
        remote_rtp: remote.rtp,
        remote_rtcp: remote.rtcp(media, rtcp_mux),
        rtcp_mux,
        ptime_ms: ptime_ms(media, capabilities),
        direction: remote.direction.reversed(),
        held: !remote.direction.receives(),
    };
    Ok(Choice {
        agreed,
        telephone_event,
    })
}

/// The stream is disabled. Its line need not name a codec of ours, nor an address.
fn choose_nothing(
    offer: &SessionDescription,
    media_index: usize,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<Choice, Refusal> {
    let media = &offer.media[media_index];
    let (codec, payload_type) = match common_formats(media, None, capabilities).next() {
        Some(format) => (format.codec, format.payload_type),
        None => {
            let first = capabilities.codecs.first().ok_or(Refusal::NoCommonCodec)?;
            let number = first.static_payload_type;
            (0, number.unwrap_or(*DYNAMIC_PAYLOAD_TYPES.start()))
        }
    };
    let nowhere = SocketAddr::new(unspecified_like(local.address), 0);
    let agreed = Agreed {
        media_index,
        codec,
        payload_type,
        receive_payload_types: Vec::new(),
        telephone_event: None,
        remote_rtp: nowhere,
        remote_rtcp: nowhere,
        rtcp_mux: false,
        ptime_ms: ptime_ms(media, capabilities),
        direction: Direction::Inactive,
        held: true,
    };
    Ok(Choice {
        agreed,
        telephone_event: None,
    })
}

fn is_audio(media: &Media) -> bool {
    media.kind.eq_ignore_ascii_case("audio")
}

/// RTP without encryption. The feedback profile (RFC 4585) differs only in when RTCP may be sent.
fn is_plain_rtp(media: &Media) -> bool {
    ["RTP/AVP", "RTP/AVPF"]
        .iter()
        .any(|protocol| media.protocol.eq_ignore_ascii_case(protocol))
}

/// The other end of the leg, from its own description.
struct Remote {
    rtp: SocketAddr,
    /// From the peer's side, with an old-style hold counted as not receiving.
    direction: Direction,
}

impl Remote {
    fn new(
        description: &SessionDescription,
        media: &Media,
        our_address: IpAddr,
    ) -> Result<Self, Refusal> {
        let Some(Host::Ip(address)) = description.connection_of(media) else {
            return Err(Refusal::UnusableAddress);
        };
        let direction = description.direction_of(media);
        // RFC 3264 section 8.4: how holding was said before `sendonly` existed.
        if address.is_unspecified() {
            return Ok(Self {
                rtp: SocketAddr::new(unspecified_like(our_address), media.port),
                direction: direction.and(Direction::SendOnly),
            });
        }
        let address = match our_address {
            IpAddr::V4(_) => address.to_canonical(),
            IpAddr::V6(_) => *address,
        };
        if !is_one_host(address) {
            return Err(Refusal::UnusableAddress);
        }
        // A phone with both families names the one it prefers, whatever it signals over; where it is in
        // ours shows when it sends.
        if address.is_ipv4() != our_address.is_ipv4() {
            return Ok(Self {
                rtp: SocketAddr::new(unspecified_like(our_address), media.port),
                direction,
            });
        }
        Ok(Self {
            rtp: SocketAddr::new(address, media.port),
            direction,
        })
    }

    fn rtcp(&self, media: &Media, rtcp_mux: bool) -> SocketAddr {
        match rtcp_mux {
            true => self.rtp,
            false => rtcp_address(media, self.rtp),
        }
    }
}

fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn accepted(offered: &Media, choice: &Choice, capabilities: &Capabilities, local: &Local) -> Media {
    let agreed = &choice.agreed;
    let mut formats = vec![agreed.payload_type.to_string()];
    let mut attributes = Vec::new();
    push_codec(
        &mut attributes,
        agreed.payload_type,
        &capabilities.codecs[agreed.codec],
    );
    if let Some(event) = &choice.telephone_event {
        formats.push(event.payload_type.to_string());
        push_telephone_event(&mut attributes, event);
    }
    attributes.push(Attribute::new("ptime", agreed.ptime_ms));
    if agreed.rtcp_mux {
        attributes.push(Attribute::flag("rtcp-mux"));
    } else {
        push_rtcp(&mut attributes, local);
    }
    Media {
        kind: offered.kind.clone(),
        port: local.rtp_port,
        port_count: 1,
        protocol: offered.protocol.clone(),
        formats,
        connection: None,
        direction: Some(agreed.direction),
        attributes,
    }
}

/// RFC 3264 section 6: port 0, and the formats repeated because one at least must stand there.
fn refused(offered: &Media) -> Media {
    Media {
        kind: offered.kind.clone(),
        port: 0,
        port_count: 1,
        protocol: offered.protocol.clone(),
        formats: offered.formats.clone(),
        connection: None,
        direction: None,
        attributes: Vec::new(),
    }
}

fn describe(local: &Local, times: Vec<(u64, u64)>, media: Vec<Media>) -> SessionDescription {
    SessionDescription {
        origin: Origin {
            // "-" would do, but some clients look for letters and digits (SIPp's own `regexp` is one).
            username: "plenum".to_owned(),
            session_id: local.session_id,
            version: local.version,
            address: Host::Ip(local.address),
        },
        session_name: "-".to_owned(),
        connection: Some(Host::Ip(local.address)),
        // RFC 3264 section 6: the answer's times must equal the offer's.
        times,
        direction: None,
        attributes: Vec::new(),
        media,
    }
}

fn push_codec(attributes: &mut Vec<Attribute>, payload_type: u8, codec: &CodecOffer) {
    attributes.push(rtpmap(payload_type, codec));
    if let Some(parameters) = codec.format_parameters {
        attributes.push(Attribute::new(
            "fmtp",
            format_args!("{payload_type} {parameters}"),
        ));
    }
}

fn push_telephone_event(attributes: &mut Vec<Attribute>, event: &TelephoneEvent) {
    let TelephoneEvent {
        payload_type,
        clock_rate,
        events,
    } = event;
    attributes.push(Attribute::new(
        "rtpmap",
        format_args!("{payload_type} {TELEPHONE_EVENT}/{clock_rate}"),
    ));
    attributes.push(Attribute::new(
        "fmtp",
        format_args!("{payload_type} {events}"),
    ));
}

/// RFC 3605, needed only where RTCP is not on the next port.
fn push_rtcp(attributes: &mut Vec<Attribute>, local: &Local) {
    if local.rtp_port.checked_add(1) != Some(local.rtcp_port) {
        attributes.push(Attribute::new("rtcp", local.rtcp_port));
    }
}
