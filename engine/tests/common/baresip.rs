//! baresip, a phone without a handset here: it says a tone from a file and keeps what it hears in one.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use simd_json::prelude::*;

use super::program::Program;
use super::{PATIENCE, free_port, free_ports, json, read_wav, write_tone};

/// Where Debian puts its modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// Tone and recorder (`sndfile`, which keeps what is decoded), G.711, commands over TCP (`ctrl_tcp`).
const USED: [&str; 6] = ["account", "menu", "g711", "aufile", "sndfile", "ctrl_tcp"];

pub struct Baresip {
    pub program: Program,
    port: u16,
    control: BufReader<TcpStream>,
}

impl Baresip {
    /// Says a tone of `hz` in its calls. `config` is added to its configuration.
    pub fn start(hz: f64, config: &str) -> Self {
        // It takes the next port for TLS.
        let port = free_ports(2);
        let control = free_port();
        let home = Program::home("baresip", control);
        write_tone(&home.join("tone.wav"), hz);
        let mut text = format!(
            "module_path {MODULES}\nsip_listen 127.0.0.1:{port}\nnet_interface 127.0.0.1\n\
             ctrl_tcp_listen 127.0.0.1:{control}\naudio_source aufile,{home}/tone.wav\nsnd_path {home}\n",
            home = home.display(),
        );
        for module in USED {
            text += &format!("module {module}.so\n");
        }
        fs::write(home.join("config"), text + config).unwrap();
        fs::write(
            home.join("accounts"),
            "<sip:baresip@127.0.0.1>;regint=0;answermode=auto\n",
        )
        .unwrap();
        fs::write(home.join("contacts"), "").unwrap();
        let mut command = Command::new("baresip");
        // -s traces SIP into the log.
        command.args(["-4", "-s", "-f"]).arg(&home);
        let mut program = Program::start("baresip", home, command.stdin(Stdio::null()));
        let mut stream = None;
        program.wait_until("it takes commands", |_| {
            stream = TcpStream::connect(("127.0.0.1", control)).ok();
            stream.is_some()
        });
        let stream = stream.expect("it has just been made");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            program,
            port,
            control: BufReader::new(stream),
        }
    }

    /// One of its commands (`help` lists them), done when this returns.
    pub fn command(&mut self, command: &str, parameters: &str) {
        let request =
            format!("{{\"command\":\"{command}\",\"params\":\"{parameters}\",\"token\":\"t\"}}");
        write!(self.control.get_mut(), "{}:{request},", request.len()).expect("it takes commands");
        loop {
            let answer = json(self.read_netstring());
            if answer.get("response").is_some() {
                return assert_eq!(answer["ok"], true, "{command} {parameters}: {answer:?}");
            }
        }
    }

    /// Where it can be called; it answers.
    pub fn uri(&self) -> String {
        format!("sip:baresip@127.0.0.1:{}", self.port)
    }

    pub fn dial(&mut self, uri: &str) {
        self.command("dial", uri);
    }

    /// Everything it has heard, when it has hung up.
    pub fn heard(&self) -> Vec<i16> {
        let is_heard = |name: &str| name.starts_with("dump-") && name.ends_with("-dec.wav");
        let file = fs::read_dir(self.program.file(""))
            .expect("its directory")
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_str().is_some_and(is_heard))
            .expect("a recording");
        read_wav(&file.path())
    }

    /// Answers and events are `length:JSON,`.
    fn read_netstring(&mut self) -> String {
        let mut len = Vec::new();
        self.control.read_until(b':', &mut len).expect("an answer");
        len.pop();
        let len: usize = String::from_utf8_lossy(&len).parse().expect("a length");
        let mut text = vec![0; len + 1];
        self.control.read_exact(&mut text).expect("a whole answer");
        text.pop();
        String::from_utf8(text).expect("text")
    }
}
