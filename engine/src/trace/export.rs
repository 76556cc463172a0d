//! Sends every message to a capture server, without ever waiting for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::Record;
use super::hep::{self, Agent};
use super::redact::redact;
use crate::config::TraceConfig;
use crate::meters::CoreMeters;

/// One shard's socket towards the capture server.
#[derive(Debug)]
pub(super) struct Exporter {
    socket: UdpSocket,
    id: u32,
    password: Option<String>,
    packet: Vec<u8>,
}

impl Exporter {
    /// None without a capture server.
    ///
    /// # Errors
    /// The system gives no socket, or knows no way there.
    pub(super) fn new(config: &TraceConfig) -> io::Result<Option<Self>> {
        let Some(server) = config.hep else {
            return Ok(None);
        };
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(server)?;
        Ok(Some(Self {
            socket,
            id: config.hep_id,
            password: config.hep_password.clone(),
            packet: Vec::new(),
        }))
    }

    /// Sends it now or counts it as lost: a full buffer, a message too large, nobody there.
    pub(super) fn send(&mut self, record: &Record, meters: &CoreMeters) {
        let agent = Agent {
            id: self.id,
            password: self.password.as_deref(),
        };
        let glance = sip::scan(&record.message);
        let call_id = glance.ok().map(|glance| glance.call_id);
        let payload = redact(&record.message);
        let fits = hep::encode(&mut self.packet, agent, record, &payload, call_id);
        if fits && self.socket.send(&self.packet).is_ok() {
            meters.hep_sent.add(1);
        } else {
            meters.hep_failed.add(1);
        }
    }
}
