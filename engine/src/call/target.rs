//! Where a call goes: `sip:ROOM@HOST[:PORT][;transport=tcp]`, or `tls`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use sip::Transport;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given: parameters belong to the far end (a redirecting server marks its URIs with them).
    uri: String,
    host: String,
    port: u16,
    transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    NotSip(String),
    /// This phone does not speak it.
    Transport(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSip(uri) => write!(f, "\"{uri}\" is not sip:ROOM@HOST:PORT"),
            Self::Transport(name) => {
                write!(f, "transport \"{name}\" is none of udp, tcp, tls")
            }
        }
    }
}

impl std::error::Error for TargetError {}

impl Target {
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// A name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
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
        let error = || TargetError::NotSip(uri.to_owned());
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
        let transport = match parameters
            .split(';')
            .find_map(|parameter| parameter.strip_prefix("transport="))
        {
            None => Transport::Udp,
            Some(name) if name.eq_ignore_ascii_case("udp") => Transport::Udp,
            Some(name) if name.eq_ignore_ascii_case("tcp") => Transport::Tcp,
            Some(name) if name.eq_ignore_ascii_case("tls") => Transport::Tls,
            Some(name) => return Err(TargetError::Transport(name.to_owned())),
        };
        let port = port
            .map_or_else(|| Ok(transport.default_port()), str::parse)
            .map_err(|_| error())?;
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
        check(
            "sip:lobby@example.test;transport=tls",
            Some(("example.test", 5061, Transport::Tls)),
        );
        for wrong in [
            "lobby",
            "sips:a@b",
            "sip:lobby",
            "sip:@h",
            "sip:a@",
            "sip:a@h:x",
            "sip:a@h;transport=ws",
            "sip:a b@h",
        ] {
            check(wrong, None);
        }
        let browser: Result<Target, _> = "sip:a@h;transport=ws".parse();
        assert_eq!(
            browser.unwrap_err().to_string(),
            "transport \"ws\" is none of udp, tcp, tls"
        );
    }
}
