//! Hostile datagrams at a server's SIP port, to see that others notice nothing.
//!
//! Random bytes, cut messages, messages with damage in them, REGISTERs, calls to phone numbers and
//! requests for calls that are not there, in turn. Answers are read and counted, so that they fill no
//! buffer; a server that has had enough of it does not answer any more.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

/// Datagrams sent between two looks at the clock.
const BURST: u64 = 64;

/// After the last datagram, answers are waited for so long.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's SIP address (UDP), on loopback
    pub(crate) server: SocketAddr,
    /// Datagrams to send
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) count: u64,
    /// Datagrams a second; 0 = as fast as one socket can
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// The address they come from, one of loopback; that of the callers by default
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) from: IpAddr,
    /// Another number makes other datagrams
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Why there was no flood.
#[derive(Debug)]
pub(crate) enum FloodError {
    Options(&'static str),
    Network(io::Error),
}

impl fmt::Display for FloodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) => f.write_str(reason),
            Self::Network(error) => write!(f, "network: {error}"),
        }
    }
}

impl From<io::Error> for FloodError {
    fn from(error: io::Error) -> Self {
        Self::Network(error)
    }
}

/// What was sent, and what came back.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    server: String,
    from: String,
    sent: u64,
    /// The kernel had no room for them.
    unsent: u64,
    seconds: f64,
    per_second: f64,
    answers: u64,
}

impl Report {
    /// All has been sent; what it did to others, they say.
    pub(crate) fn holds(&self) -> bool {
        self.sent > 0
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and text are JSON")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            from,
            sent,
            unsent,
            seconds,
            per_second,
            answers,
        } = self;
        write!(
            f,
            "{sent} hostile datagrams from {from} to {server} in {seconds:.1} s, {per_second:.0} a second; {unsent} found no room, {answers} answers"
        )
    }
}

pub(crate) fn run(options: &Options) -> Result<Report, FloodError> {
    if !options.server.ip().is_loopback() || !options.from.is_loopback() {
        return Err(FloodError::Options("floods go over loopback only"));
    }
    let socket = UdpSocket::bind((options.from, 0))?;
    socket.connect(options.server)?;
    socket.set_nonblocking(true)?;
    let mut hostile = Hostile::new(options);
    let (mut unsent, mut answers) = (0, 0);
    let start = Instant::now();
    for number in 0..options.count {
        // Refused here is full there, or (after an ICMP) nobody there at the moment.
        unsent += u64::from(socket.send(hostile.next()).is_err());
        if number % BURST == BURST - 1 {
            answers += read(&socket);
            wait(start, number, options.rate);
        }
    }
    let took = start.elapsed().as_secs_f64();
    let last = Instant::now();
    while last.elapsed() < LAST_ANSWERS {
        answers += read(&socket);
        std::thread::sleep(Duration::from_millis(10));
    }
    let sent = options.count - unsent;
    Ok(Report {
        server: options.server.to_string(),
        from: options.from.to_string(),
        sent,
        unsent,
        seconds: took,
        per_second: sent as f64 / took.max(1e-9),
        answers,
    })
}

/// Until `number` more are due.
fn wait(start: Instant, number: u64, rate: u64) {
    if rate == 0 {
        return;
    }
    let due = Duration::from_secs_f64(number as f64 / rate as f64);
    if let Some(rest) = due.checked_sub(start.elapsed()) {
        std::thread::sleep(rest);
    }
}

fn read(socket: &UdpSocket) -> u64 {
    let mut datagram = [0; 2_048];
    std::iter::from_fn(|| socket.recv(&mut datagram).ok())
        .take(BURST as usize)
        .count() as u64
}

/// Makes datagrams that nobody wants.
struct Hostile {
    uri: String,
    random: u64,
    number: u64,
    datagram: Vec<u8>,
}

impl Hostile {
    fn new(options: &Options) -> Self {
        Self {
            uri: options.server.to_string(),
            random: options.seed,
            number: 0,
            datagram: Vec::with_capacity(2_048),
        }
    }

    fn next(&mut self) -> &[u8] {
        self.number += 1;
        self.datagram.clear();
        match self.number % 6 {
            0 => self.noise(),
            1 => {
                self.request("INVITE", "lobby", "");
                let len = 1 + self.random() as usize % self.datagram.len();
                self.datagram.truncate(len);
            }
            2 => {
                self.request("INVITE", "lobby", "");
                for _ in 0..8 {
                    let at = self.random() as usize % self.datagram.len();
                    self.datagram[at] = self.random() as u8;
                }
            }
            3 => self.request("REGISTER", "100", ""),
            4 => self.request("INVITE", "900441904911000", ""),
            // The tag looks like one of the server's.
            _ => self.request("BYE", "lobby", ";tag=0-00000000deadbeef"),
        }
        &self.datagram
    }

    fn noise(&mut self) {
        let len = 1 + self.random() as usize % 1_400;
        while self.datagram.len() < len {
            let octets = self.random().to_le_bytes();
            self.datagram.extend_from_slice(&octets);
        }
    }

    fn request(&mut self, method: &str, user: &str, to_tag: &str) {
        let (host, number) = (&self.uri, self.number);
        let text = format!(
            "{method} sip:{user}@{host} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKflood{number};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:100@{host}>;tag={number}\r\nTo: <sip:{user}@{host}>{to_tag}\r\n\
             Call-ID: flood{number}\r\nCSeq: 1 {method}\r\nContact: <sip:100@127.0.0.1:9>\r\nContent-Length: 0\r\n\r\n"
        );
        self.datagram.extend_from_slice(text.as_bytes());
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.random;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(server: SocketAddr) -> Options {
        Options {
            server,
            count: 600,
            rate: 0,
            from: [127, 0, 0, 1].into(),
            seed: 1,
        }
    }

    #[test]
    fn every_kind_is_there_and_no_two_are_the_same() {
        let mut hostile = Hostile::new(&options(([127, 0, 0, 1], 5060).into()));
        let all: Vec<Vec<u8>> = (0..600).map(|_| hostile.next().to_vec()).collect();
        let readable = |datagram: &&Vec<u8>| sip::scan(datagram).is_ok();
        let garbage = all.len() - all.iter().filter(readable).count();
        assert!((100..300).contains(&garbage), "{garbage}");
        for method in ["REGISTER ", "INVITE ", "BYE "] {
            let of_method = all
                .iter()
                .filter(|datagram| datagram.starts_with(method.as_bytes()));
            assert!(of_method.count() >= 100, "{method}");
        }
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > all.len() - 10, "{}", distinct.len());
        assert!(
            all.iter()
                .all(|datagram| (1..1_500).contains(&datagram.len()))
        );
    }

    #[test]
    fn it_floods_loopback_and_counts() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let report = run(&options(server.local_addr().unwrap())).unwrap();
        assert_eq!((report.sent + report.unsent, report.answers), (600, 0));
        assert!(report.holds());
        assert!(report.to_json().contains("\"sent\":"));
        server.set_nonblocking(true).unwrap();
        assert!(read(&server) > 0);

        let outside = options(([192, 0, 2, 1], 5060).into());
        assert!(matches!(run(&outside), Err(FloodError::Options(_))));
    }
}
