//! linphone on its command line, with files for a microphone and a loudspeaker.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::program::Program;
use super::{free_port, free_ports, write_tone};

pub struct Linphone {
    pub program: Program,
    port: u16,
}

impl Linphone {
    /// Says a tone of `hz` in its calls. `config` is added to section `[sip]` of its configuration.
    pub fn start(hz: f64, config: &str) -> Self {
        let port = free_port();
        // And the next for RTCP.
        let rtp_port = free_ports(2);
        let home = Program::home("linphone", port);
        write_tone(&home.join("tone.wav"), hz);
        // Where it keeps its database; it does not make this directory itself.
        fs::create_dir_all(home.join(".local/share/linphone")).unwrap();
        let text = format!(
            "[sip]\nsip_port={port}\nsip_tcp_port={port}\nguess_hostname=0\n\
             register_only_when_network_is_up=0\ncontact=\"Linphone\" <sip:linphone@127.0.0.1>\n{config}\n\
             [rtp]\naudio_rtp_port={rtp_port}\n"
        );
        fs::write(home.join("linphonerc"), text).unwrap();
        let mut command = Command::new("linphonec");
        command.args(["-d", "5", "-l", "trace", "-c", "linphonerc"]);
        let program = Program::start("linphone", home, command.stdin(Stdio::piped()));
        let mut phone = Self { program, port };
        phone.command("soundcard use files");
        phone.program.wait_until("it uses files", |program| {
            program
                .log()
                .contains("Using wav files instead of soundcard")
        });
        phone.command(&format!(
            "play {}",
            phone.program.file("tone.wav").display()
        ));
        phone.command(&format!(
            "record {}",
            phone.program.file("heard.wav").display()
        ));
        phone
    }

    /// A line as if it was typed (`help` lists them).
    pub fn command(&mut self, command: &str) {
        let stdin = self
            .program
            .child
            .stdin
            .as_mut()
            .expect("its input is ours");
        writeln!(stdin, "{command}").expect("it takes commands");
    }

    /// Where it can be called; it answers after `autoanswer enable`.
    pub fn uri(&self) -> String {
        format!("sip:linphone@127.0.0.1:{}", self.port)
    }

    pub fn dial(&mut self, uri: &str) {
        self.command(&format!("call <{uri}>"));
    }

    /// Everything it has heard so far: when it holds and resumes a call it goes on writing. The header of
    /// the file is not up to date meanwhile.
    pub fn heard(&self) -> Vec<i16> {
        const HEADER_LEN: usize = 44;
        let bytes = fs::read(self.program.file("heard.wav")).unwrap_or_default();
        let samples = bytes.get(HEADER_LEN..).unwrap_or_default();
        samples
            .chunks_exact(2)
            .map(|sample| i16::from_le_bytes([sample[0], sample[1]]))
            .collect()
    }

    /// Ends its calls and itself.
    pub fn quit(&mut self) {
        self.command("quit");
        let status = self.program.wait_for_end();
        assert!(status.success(), "{status}");
    }
}
