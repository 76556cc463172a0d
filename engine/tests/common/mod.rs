//! The real binary on ports of its own, and what tests ask of it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod baresip;
pub mod cluster;
pub mod kamailio;
pub mod linphone;
pub mod program;
pub mod registrar;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use simd_json::OwnedValue;
use simd_json::prelude::*;

pub const PLENUM: &str = env!("CARGO_BIN_EXE_plenum");

/// Says why a test, or a part of it, is left out here; where `PLENUM_TEST_ALL` is set nothing may be.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("PLENUM_TEST_ALL").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// How long anything may take before a test gives up: far beyond what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One server at a time: phones keep time, and a machine of two cores that runs several conferences at
/// once makes them late for reasons that are no server's.
static ALONE: Mutex<()> = Mutex::new(());

/// A running server; killed when dropped, if it has not ended before.
pub struct Server {
    /// Of the first one of a test.
    _alone: Option<MutexGuard<'static, ()>>,
    child: Child,
    pub sip: SocketAddr,
    pub http: SocketAddr,
    /// First and last port of its media.
    pub rtp: (u16, u16),
    log: PathBuf,
}

impl Server {
    /// On free ports with these `--set` overrides.
    pub fn start(sets: &[&str]) -> Self {
        let sip: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        Self::start_on(sip, &format!("udp:{sip},tcp:{sip}"), sets)
    }

    /// The same with a `sip.listen` that begins with `sip`.
    pub fn start_on(sip: SocketAddr, listen: &str, sets: &[&str]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self::launch(Some(alone), sip, listen, sets)
    }

    /// In a network namespace, on an address of its own there.
    pub fn start_in(namespace: &str, sip: SocketAddr, sets: &[&str], first: Option<&Self>) -> Self {
        let alone = || ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = first.is_none().then(alone);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, PLENUM]);
        Self::launch_by(
            &mut command,
            alone,
            sip,
            &format!("udp:{sip},tcp:{sip}"),
            sets,
        )
    }

    /// One more beside `self`, for a test of several servers.
    pub fn start_beside(&self, sets: &[&str]) -> Self {
        let sip: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        self.start_beside_on(sip, &format!("udp:{sip},tcp:{sip}"), sets)
    }

    /// The same with a `sip.listen` that begins with `sip`.
    pub fn start_beside_on(&self, sip: SocketAddr, listen: &str, sets: &[&str]) -> Self {
        Self::launch(None, sip, listen, sets)
    }

    fn launch(
        alone: Option<MutexGuard<'static, ()>>,
        sip: SocketAddr,
        listen: &str,
        sets: &[&str],
    ) -> Self {
        Self::launch_by(&mut Command::new(PLENUM), alone, sip, listen, sets)
    }

    /// By `command`, which runs plenum with the arguments added to it, in the network that has `sip`.
    fn launch_by(
        command: &mut Command,
        alone: Option<MutexGuard<'static, ()>>,
        sip: SocketAddr,
        listen: &str,
        sets: &[&str],
    ) -> Self {
        let host = match sip.ip() {
            ip if ip.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        };
        let http = SocketAddr::new(host, free_port());
        let (low, high) = rtp_ports();
        let mut all = vec![
            format!("sip.listen={listen}"),
            format!("http.listen={http}"),
            format!("rtp.ports={low}-{high}"),
        ];
        all.extend(sets.iter().map(|&set| set.to_owned()));
        let name: String = sip.to_string().replace([':', '[', ']'], "-");
        let log = scratch(&format!("server-{name}.log"));
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.arg("serve");
        for set in &all {
            command.args(["--set", set]);
        }
        let log_file = std::fs::File::create(&log).expect("a log file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("plenum runs");
        let stdout = child.stdout.take().expect("its output is ours");
        let (told, tell) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut ready = String::new();
            let read = BufReader::new(stdout).read_line(&mut ready);
            let _ = told.send(read.map(|_| ready));
        });
        let server = Self {
            _alone: alone,
            child,
            sip,
            http,
            rtp: (low, high),
            log,
        };
        let ready = tell.recv_timeout(PATIENCE);
        let ready = ready.unwrap_or_else(|_| panic!("never ready\n{}", server.log()));
        let ready = ready.expect("a ready line");
        let addresses = format!(" ready sip={} http=http://{}\n", server.sip, server.http);
        assert!(
            ready.starts_with("plenum ") && ready.ends_with(&addresses),
            "{ready:?} without {addresses:?}\n{}",
            server.log()
        );
        server
    }

    pub fn uri(&self, room: &str) -> String {
        format!("sip:{room}@{}", self.sip)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        http(self.http, "GET", path, "")
    }

    /// JSON.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        http(self.http, "POST", path, body)
    }

    pub fn status(&self) -> OwnedValue {
        let (code, body) = self.get("/api/v1/status");
        assert_eq!(code, 200, "{body}");
        json(body)
    }

    pub fn participants(&self) -> u64 {
        self.status()["participants"].as_u64().expect("a number")
    }

    /// The sum over all cores of one metric.
    pub fn metric(&self, name: &str) -> f64 {
        let (code, text) = self.get("/metrics");
        assert_eq!(code, 200);
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let values: Vec<f64> = text
            .lines()
            .filter(of_name)
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in\n{text}");
        values.iter().sum()
    }

    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "never: {what}\n{:?}\n{}",
                self.status(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Whether the process still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.lives() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

pub fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("process {} did not end", child.id());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A phone in the background, `plenum call`.
pub struct Phone(Child);

impl Phone {
    pub fn call(uri: &str, arguments: &[&str]) -> Self {
        let child = Command::new(PLENUM)
            .args(["call", uri])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("plenum runs"))
    }

    pub fn finish(mut self) -> Output {
        let status = wait(&mut self.0);
        let mut output = Output {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut output.stdout)
            .unwrap();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut output.stderr)
            .unwrap();
        output
    }

    /// Its summary line.
    #[track_caller]
    pub fn succeed(self) -> String {
        let output = self.finish();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A file name of this test process.
pub fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("plenum-test-{}-{name}", std::process::id()))
}

pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the HTTP port answers");
    stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a text answer");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status line");
    (code, body.to_owned())
}

pub fn json(text: String) -> OwnedValue {
    let mut bytes = text.into_bytes();
    simd_json::to_owned_value(&mut bytes).expect("JSON")
}

/// A port free for UDP and TCP on both loopback addresses, below the ephemeral ports so that no client
/// socket takes it meanwhile.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many in a row.
pub fn free_ports(count: u16) -> u16 {
    let is_free = |host: &str, port: u16| {
        UdpSocket::bind((host, port)).is_ok() && TcpListener::bind((host, port)).is_ok()
    };
    let is_free = |port| is_free("127.0.0.1", port) && (!has_ipv6() || is_free("::1", port));
    loop {
        let port = next_port(count);
        if (port..port + count).all(is_free) {
            return port;
        }
    }
}

/// Containers often have no IPv6, not even for themselves; what needs it says so and is left out.
pub fn has_ipv6() -> bool {
    let found = UdpSocket::bind("[::1]:0").is_ok();
    if !found {
        eprintln!("no IPv6 on this machine");
    }
    found
}

/// A range of RTP ports that no other server of this test run uses.
fn rtp_ports() -> (u16, u16) {
    const LEN: u16 = 512;
    let low = next_port(LEN);
    (low, low + LEN - 1)
}

fn next_port(count: u16) -> u16 {
    const LOW: u16 = 10_000;
    // The last range may go beyond, and still ends before the ports that the kernel hands out.
    const HIGH: u16 = 32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at once begin at different places.
    let offset = (std::process::id() as u16).wrapping_mul(521) % (HIGH - LOW);
    let taken = NEXT.fetch_add(count, Ordering::Relaxed);
    LOW + (offset + taken) % (HIGH - LOW)
}

/// Share of a recording's energy at one pitch, 0 to 1: the median over quarters of a second, since a tone
/// that a busy machine interrupts goes on in another phase, and would cancel itself out over the whole.
pub fn share_of_pitch(samples: &[i16], hz: f64) -> f64 {
    const PART: usize = 2_000;
    let parts = samples.chunks(PART.min(samples.len().max(1)));
    let mut shares: Vec<f64> = parts.map(|part| share_in_part(part, hz)).collect();
    shares.sort_unstable_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied().unwrap_or_default()
}

/// Goertzel.
fn share_in_part(samples: &[i16], hz: f64) -> f64 {
    let omega = std::f64::consts::TAU * hz / 8_000.0;
    let (mut s1, mut s2) = (0.0, 0.0);
    for &sample in samples {
        let s0 = f64::from(sample) + 2.0 * omega.cos() * s1 - s2;
        (s2, s1) = (s1, s0);
    }
    let power = s1 * s1 + s2 * s2 - 2.0 * omega.cos() * s1 * s2;
    let energy: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    2.0 * power / (energy.max(1.0) * samples.len() as f64)
}

pub fn read_wav(path: &Path) -> Vec<i16> {
    hound::WavReader::open(path)
        .expect("a recording")
        .samples::<i16>()
        .map(|sample| sample.unwrap())
        .collect()
}

/// A minute of a tone of `hz`, longer than any call of a test; 16 bits at 8 kHz.
pub fn write_tone(path: &Path, hz: f64) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for i in 0..480_000 {
        let phase = std::f64::consts::TAU * hz * f64::from(i) / 8_000.0;
        writer.write_sample((phase.sin() * 8_000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
}
