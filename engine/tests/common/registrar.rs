//! A registrar that believes everybody: some phones do nothing before they are registered.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub struct Registrar {
    pub address: SocketAddr,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Registrar {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let thread = thread::spawn(move || {
            let mut datagram = [0; 8_192];
            while !is_done.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                if let Some(answer) = answer(&String::from_utf8_lossy(&datagram[..len])) {
                    socket.send_to(answer.as_bytes(), from).expect("loopback");
                }
            }
        });
        Self {
            address,
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(request: &str) -> Option<String> {
    if !request.starts_with("REGISTER ") {
        return None;
    }
    let copied = request.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["Via", "From", "Call-ID", "CSeq"]
            .iter()
            .any(|copied| name.eq_ignore_ascii_case(copied))
    });
    let with = |name: &str, end: &str| {
        let line = request.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        });
        line.map(|line| format!("{line}{end}"))
    };
    let lines: Vec<String> = copied
        .map(str::to_owned)
        .chain(with("To", ";tag=registrar"))
        .chain(with("Contact", ";expires=600"))
        .collect();
    Some(format!(
        "SIP/2.0 200 OK\r\n{}\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n",
        lines.join("\r\n")
    ))
}
