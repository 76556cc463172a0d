//! Where a call goes: `sip:ROOM@HOST[:PORT][;transport=tcp]`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use sip::Transport;

/// Port of `sip:` URIs without one (RFC 3261 §19.1.2).
const DEFAULT_PORT: u16 = 5060;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given: parameters belong to the far end (a redirecting server marks its URIs with them).
    uri: String,
    host: String,
    port: u16,
    transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not sip:ROOM@HOST:PORT", self.0)
    }
}

impl std::error::Error for TargetError {}

impl Target {
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// # Errors
    /// The host has no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses.next().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} has no address", self.host),
            )
        })
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(uri: &str) -> Result<Self, TargetError> {
        let error = || TargetError(uri.to_owned());
        let rest = uri.strip_prefix("sip:").ok_or_else(error)?;
        let (user, rest) = rest.split_once('@').ok_or_else(error)?;
        let (authority, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').ok_or_else(error)?;
                (host, rest.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port
            .map_or(Ok(DEFAULT_PORT), str::parse)
            .map_err(|_| error())?;
        let transport = match parameters
            .split(';')
            .find_map(|parameter| parameter.strip_prefix("transport="))
        {
            None => Transport::Udp,
            Some(name) if name.eq_ignore_ascii_case("udp") => Transport::Udp,
            Some(name) if name.eq_ignore_ascii_case("tcp") => Transport::Tcp,
            Some(_) => return Err(error()),
        };
        if user.is_empty()
            || host.is_empty()
            || uri.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(error());
        }
        Ok(Self {
            uri: uri.to_owned(),
            host: host.to_owned(),
            port,
            transport,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Option<(&str, u16, Transport)>) {
        let target: Option<Target> = uri.parse().ok();
        assert_eq!(
            target
                .as_ref()
                .map(|target| (target.host.as_str(), target.port, target.transport)),
            expected
        );
    }

    #[test]
    fn uris_name_host_port_and_transport() {
        check(
            "sip:lobby@127.0.0.1:5062",
            Some(("127.0.0.1", 5062, Transport::Udp)),
        );
        check(
            "sip:lobby@example.test",
            Some(("example.test", 5060, Transport::Udp)),
        );
        check(
            "sip:lobby@[::1]:5070;transport=TCP",
            Some(("::1", 5070, Transport::Tcp)),
        );
        check(
            "sip:lobby@h;crt-hop=1;transport=udp",
            Some(("h", 5060, Transport::Udp)),
        );
        for wrong in [
            "lobby",
            "sips:a@b",
            "sip:lobby",
            "sip:@h",
            "sip:a@",
            "sip:a@h:x",
            "sip:a@h;transport=tls",
            "sip:a b@h",
        ] {
            check(wrong, None);
        }
    }
}
