//! Plenum as a contender: at its defaults, but for ports, one core, and no limit of load of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::child::{Server, free_port};

pub(super) struct Plenum {
    server: Server,
    pub(super) sip: SocketAddr,
}

impl Plenum {
    pub(super) fn start(binary: &Path, core: usize) -> Result<Self, String> {
        let here = Ipv4Addr::LOCALHOST.into();
        let (sip, http) = (free_port(here)?, free_port(here)?);
        let sets = [
            format!("sip.listen=udp:{sip}"),
            format!("http.listen={http}"),
            format!("server.cores={core}"),
            // What it can do is to be found out, not what it promises.
            "load.max=4000000".to_owned(),
            "load.hot_max=1".to_owned(),
            "log.level=error".to_owned(),
        ];
        let mut command = Command::new(binary);
        command.arg("serve").stdout(Stdio::null());
        for set in sets {
            command.arg("--set").arg(set);
        }
        let mut server = Server::start(&mut command, core)?;
        let url = format!("http://{http}/readyz");
        server.wait_until(|| ureq::get(&url).call().ok().map(drop))?;
        Ok(Self { server, sip })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }
}
