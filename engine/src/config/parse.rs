//! Single values: text in, a type that cannot be wrong out.
//!
//! Errors are the reason alone; the key is put before it by the caller.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use cfw::svr_id::{SvrId, SvrIdError};
use sip::Transport;

/// Longest room name: it stands in every SIP message of the room.
const ROOM_NAME_LEN_MAX: usize = 64;
/// Longest host name (RFC 1035 §2.3.4).
const HOST_LEN_MAX: usize = 253;
/// Longest password for a capture server.
const HEP_PASSWORD_LEN_MAX: usize = 256;

pub(super) fn svr_id(text: &str) -> Result<SvrId, String> {
    text.parse().map_err(|error: SvrIdError| error.to_string())
}

/// `all`, or processors and ranges of them: `0-3,6`.
pub(super) fn cores(text: &str, available: &[usize]) -> Result<Vec<usize>, String> {
    let mut available = available.to_vec();
    available.sort_unstable();
    available.dedup();
    if available.is_empty() {
        return Err("this process may use no core".to_owned());
    }
    if text == "all" {
        return Ok(available);
    }
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim) {
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| format!("\"{part}\" is neither a core nor a range such as 0-3"))
        };
        let (low, high) = match part.split_once('-') {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(part)?, number(part)?),
        };
        if low > high {
            return Err(format!("{low} is above {high} in \"{part}\""));
        }
        // Walks at most one step past what exists, however wide the range is.
        for core in low..=high {
            if available.binary_search(&core).is_err() {
                return Err(format!(
                    "core {core} does not exist here ({})",
                    ranges(&available)
                ));
            }
            if cores.contains(&core) {
                return Err(format!("core {core} stands twice"));
            }
            cores.push(core);
        }
    }
    cores.sort_unstable();
    Ok(cores)
}

/// `[0, 1, 2, 5]` as `0-2,5`.
fn ranges(sorted: &[usize]) -> String {
    sorted
        .chunk_by(|one, next| one + 1 == *next)
        .map(|run| match run {
            [only] => only.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// A transport and the address to listen on: `udp:127.0.0.1:5060`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipListen {
    pub transport: Transport,
    pub address: SocketAddr,
}

impl FromStr for SipListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (transport, address) = text.split_once(':').unwrap_or((text, ""));
        let transport = match transport {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            "ws" => Transport::Ws,
            "wss" => Transport::Wss,
            _ => {
                return Err(format!(
                    "\"{text}\" does not begin with udp:, tcp:, tls:, ws: or wss:"
                ));
            }
        };
        Ok(Self {
            transport,
            address: socket_address(address)?,
        })
    }
}

impl fmt::Display for SipListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.name().to_ascii_lowercase();
        write!(f, "{transport}:{}", self.address)
    }
}

impl SipListen {
    /// Callers speak TLS here.
    pub const fn is_secure(self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Wss)
    }
}

/// A web origin as browsers send it (RFC 6454 §6.2): `https://example.org`, a port where it is not the
/// scheme's own, no path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, authority)| {
        !scheme.is_empty()
            && !authority.is_empty()
            && !authority.contains(|c: char| c == '/' || c.is_whitespace())
    });
    if is_origin {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is not an origin such as https://example.org"
        ))
    }
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address and port such as 127.0.0.1:5060 or [::1]:5060")
    })
}

/// `udp:` and an address somebody can be reached at.
pub(super) fn udp_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("\"{text}\" is not udp:ADDRESS:PORT such as udp:127.0.0.1:9060");
    let address = text.strip_prefix("udp:").ok_or_else(wrong)?;
    let address: SocketAddr = address.parse().map_err(|_| wrong())?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!("nobody can be reached at {address}"));
    }
    Ok(address)
}

/// Short enough that it never crowds out a message.
pub(super) fn hep_password(text: &str) -> Result<String, String> {
    if text.len() > HEP_PASSWORD_LEN_MAX {
        return Err(format!("longer than {HEP_PASSWORD_LEN_MAX} octets"));
    }
    Ok(text.to_owned())
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not an address such as 127.0.0.1 or ::1"))
}

/// `host[:port]` as others reach this server. IPv6 literals stand in brackets, as in a SIP URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not host or host:port");
        let host_len = match text.strip_prefix('[') {
            Some(rest) => rest.find(']').ok_or_else(wrong)? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(host_len);
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(
                port.parse()
                    .ok()
                    .filter(|&port| port != 0)
                    .ok_or_else(wrong)?,
            ),
            None if rest.is_empty() => None,
            None => return Err(wrong()),
        };
        if is_host(host) {
            Ok(Self {
                host: host.to_owned(),
                port,
            })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return literal.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.len() <= HOST_LEN_MAX
        && host.trim_end_matches('.').split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// UDP ports for media, both ends included; holds at least one even port with its odd successor,
/// RTP and its RTCP (RFC 3550 §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub low: u16,
    pub high: u16,
}

impl PortRange {
    /// How many pairs of an even port and its odd successor there are.
    pub fn pairs(self) -> usize {
        let first_even = u32::from(self.low).next_multiple_of(2);
        ((u32::from(self.high) + 1).saturating_sub(first_even) / 2) as usize
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a range of ports such as 16384-32767");
        let (low, high) = text.split_once('-').ok_or_else(wrong)?;
        let range = Self {
            low: low.trim().parse().map_err(|_| wrong())?,
            high: high.trim().parse().map_err(|_| wrong())?,
        };
        if range.low == 0 {
            return Err("port 0 cannot be offered to a caller".to_owned());
        }
        if range.low > range.high {
            return Err(format!("{} is above {}", range.low, range.high));
        }
        if range.pairs() == 0 {
            return Err(format!("{text} holds no even port with its odd successor"));
        }
        Ok(range)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

/// An address, or a block of them: `127.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= self.prefix
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not an address or a network such as 10.0.0.0/8");
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix > bits {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

/// What a full server does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// Answers 302 with the peer that has room.
    MovedTemporarily,
    /// Passes the call on itself, for phones that do not follow redirects.
    Relay,
}

impl FromStr for Redirect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "302" => Ok(Self::MovedTemporarily),
            "relay" => Ok(Self::Relay),
            _ => Err(format!("\"{text}\" is neither 302 nor relay")),
        }
    }
}

/// How the sound of a conference travels between two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkCodec {
    /// Uncompressed: 145 kbit/s each way, no delay.
    L16,
    /// A tenth of the bits, for some time of both processors.
    Opus,
}

impl FromStr for TrunkCodec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "l16" => Ok(Self::L16),
            "opus" => Ok(Self::Opus),
            _ => Err(format!("\"{text}\" is neither l16 nor opus")),
        }
    }
}

/// The URI of a peer's control channel, `sip:user@host[:port][;transport=udp|tcp|tls]`.
pub(super) fn peer(text: &str) -> Result<String, String> {
    let address = text
        .split_once(";transport=")
        .map_or(text, |(address, _)| address);
    let transport = text
        .split_once(";transport=")
        .map(|(_, transport)| transport);
    let is_transport = transport.is_none_or(|name| ["udp", "tcp", "tls"].contains(&name));
    let is_peer = address
        .strip_prefix("sip:")
        .filter(|_| is_transport)
        .and_then(|rest| rest.split_once('@'))
        .is_some_and(|(user, host)| is_user(user) && host.parse::<Advertise>().is_ok());
    if is_peer {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is not a URI such as sip:cfw@127.0.0.1:5070"
        ))
    }
}

/// `svr-id=URI`.
pub(super) fn reserved(text: &str) -> Result<(SvrId, String), String> {
    let (id, uri) = text
        .split_once('=')
        .ok_or_else(|| format!("\"{text}\" is not svr-id=URI"))?;
    Ok((svr_id(id)?, peer(uri)?))
}

/// A room by its name in the configuration: a SIP user part that needs no escapes and is none of
/// the names the server answers to itself.
pub(super) fn room_name(text: &str) -> Result<String, String> {
    if ["conference", "cfw"].contains(&text) {
        return Err(format!("\"{text}\" is an address of the server itself"));
    }
    if !is_user(text) || text.len() > ROOM_NAME_LEN_MAX {
        return Err(format!(
            "\"{text}\" is not 1-{ROOM_NAME_LEN_MAX} of A-Z a-z 0-9 . _ ~ + -"
        ));
    }
    Ok(text.to_owned())
}

/// Who gets into a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Users with a password, and trusted addresses.
    Authenticated,
    /// Who keys in this number, ended by #; users with a password and trusted addresses need not.
    Pin(String),
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const PIN_LEN: std::ops::RangeInclusive<usize> = 3..=16;
        match text {
            "open" => Ok(Self::Open),
            "authenticated" => Ok(Self::Authenticated),
            _ => match text.strip_prefix("pin:") {
                Some(pin)
                    if PIN_LEN.contains(&pin.len()) && pin.bytes().all(|c| c.is_ascii_digit()) =>
                {
                    Ok(Self::Pin(pin.to_owned()))
                }
                Some(_) => Err("a PIN has 3 to 16 digits".to_owned()),
                None => Err(format!(
                    "\"{text}\" is none of open, authenticated and pin:DIGITS"
                )),
            },
        }
    }
}

/// `room=access`.
pub(super) fn policy(text: &str) -> Result<(String, Access), String> {
    let (room, access) = text
        .split_once('=')
        .ok_or_else(|| format!("\"{text}\" is not ROOM=ACCESS"))?;
    Ok((room_name(room)?, access.parse()?))
}

/// Who may have a conference call somebody, or throw somebody out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nobody by SIP.
    Nobody,
    /// Users with a password, and trusted addresses.
    Authenticated,
    /// Those as well who are in the room, within their call.
    Members,
}

impl FromStr for Control {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nobody" => Ok(Self::Nobody),
            "authenticated" => Ok(Self::Authenticated),
            "members" => Ok(Self::Members),
            _ => Err(format!(
                "\"{text}\" is none of members, authenticated and nobody"
            )),
        }
    }
}

/// What users see beside the field for their password.
pub(super) fn realm(text: &str) -> Result<String, String> {
    const LEN_MAX: usize = 128;
    let fits = (1..=LEN_MAX).contains(&text.len());
    if fits
        && text
            .bytes()
            .all(|c| (b' '..=b'~').contains(&c) && c != b'"' && c != b'\\')
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is not 1-{LEN_MAX} printable characters without quotes"
        ))
    }
}

/// The reason never shows it.
pub(super) fn secret(text: &str) -> Result<String, String> {
    const LEN_MIN: usize = 32;
    if text.len() < LEN_MIN {
        return Err(format!("shorter than {LEN_MIN} characters"));
    }
    Ok(text.to_owned())
}

/// How a User-Agent begins, in lower case: printable, and not so long that nobody could have meant it.
pub(super) fn user_agent(text: &str) -> Result<String, String> {
    const LEN_MAX: usize = 64;
    let fits = (1..=LEN_MAX).contains(&text.len());
    if fits && text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "\"{text}\" is not 1-{LEN_MAX} printable characters"
        ))
    }
}

fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~+-".contains(&byte))
}

/// Least important events that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(format!(
                "\"{text}\" is none of error, warn, info, debug, trace"
            )),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{text}\" is neither text nor json")),
        }
    }
}
