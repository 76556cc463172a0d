//! Offers as data with the answers they must get, and properties of every answer.

mod accept;
mod answers;
mod phones;
mod properties;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::fuzz::{capabilities, check_agreed, check_answer};
use super::*;

/// Indices of the codecs in `fuzz::capabilities`.
const OPUS: usize = 0;
const G722: usize = 1;
const PCMU: usize = 2;
const PCMA: usize = 3;

fn local() -> Local {
    Local {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        rtp_port: 16384,
        rtcp_port: 16385,
        session_id: 7,
        version: 3,
    }
}

fn local_ipv6() -> Local {
    Local {
        address: "2001:db8::1".parse().unwrap(),
        ..local()
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A description from lines that may be indented for reading. The lines up to `t=` are put in
/// front where the case is not about them.
fn description(lines: &str) -> SessionDescription {
    let head = match lines.trim_start().starts_with("v=0") {
        true => "",
        false => "v=0\no=- 1 1 IN IP4 198.51.100.2\ns=-\nt=0 0\n",
    };
    let lines: Vec<&str> = lines.lines().map(str::trim).collect();
    parse(format!("{head}{}", lines.join("\n")).as_bytes()).unwrap()
}

/// Answers `offer`, compares the answer from its first `m=` line on, and gives what was agreed.
fn check_from(local: &Local, offer: &str, expected: &str) -> Agreed {
    let offer = description(offer);
    let (answer, agreed) = answer(&offer, &capabilities(), local).unwrap();
    check_answer(&offer, &answer);
    check_agreed(&agreed, &capabilities());
    assert_eq!(media_lines(&answer), trimmed(expected));
    agreed
}

fn check(offer: &str, expected: &str) -> Agreed {
    check_from(&local(), offer, expected)
}

fn check_refused(offer: &str, refusal: Refusal) {
    let outcome = answer(&description(offer), &capabilities(), &local());
    assert_eq!(outcome, Err(refusal), "{offer}");
}

fn media_lines(description: &SessionDescription) -> Vec<String> {
    let text = description.to_string();
    text.lines()
        .skip_while(|line| !line.starts_with("m="))
        .map(str::to_owned)
        .collect()
}

fn trimmed(lines: &str) -> Vec<&str> {
    lines.trim().lines().map(str::trim).collect()
}
