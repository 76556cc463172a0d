//! Kamailio with the configuration that operators get in `engine/examples/kamailio`.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::free_port;
use super::program::{Program, path_of};

const CONFIGURATION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/kamailio/dispatcher.cfg"
);

pub struct Kamailio {
    pub program: Program,
    port: u16,
}

impl Kamailio {
    /// Before `servers`, which are SIP URIs, over UDP and TCP.
    pub fn start(servers: &[String]) -> Self {
        let port = free_port();
        let home = Program::home("kamailio", port);
        let list = home.join("dispatcher.list");
        let lines: String = servers.iter().map(|uri| format!("1 {uri}\n")).collect();
        fs::write(&list, lines).unwrap();
        let mut command = Command::new(path_of("kamailio").expect("Kamailio is installed"));
        command
            .args(["-f", CONFIGURATION, "-A"])
            .arg(format!("SERVERS=\"{}\"", list.display()))
            .args(["-l", &format!("udp:127.0.0.1:{port}")])
            .args(["-l", &format!("tcp:127.0.0.1:{port}")])
            // In the foreground, errors on standard error, shared memory of 32 MB.
            .args(["-DD", "-E", "-m", "32", "-Y"])
            .arg(&home)
            .stdin(Stdio::null());
        let mut program = Program::start("kamailio", home, &mut command);
        program.wait_until("it takes calls", |_| {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { program, port }
    }

    /// Where it takes calls.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
