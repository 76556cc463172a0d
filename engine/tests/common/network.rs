//! Network namespaces as hosts: a wire (veth) between each two of them, and one from each to here, that can be
//! cut for real.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::skip;

/// A test process has one network at a time: all that it builds have the same name.
static ALONE: Mutex<()> = Mutex::new(());

/// What `ip` says to those who are not root, or only in a container that keeps such things from them.
const NOT_HERE: [&str; 4] = [
    "Operation not permitted",
    "Permission denied",
    "not supported",
    "Unknown device type",
];

/// Removed with everything in it when dropped.
pub struct Network {
    /// Third octet of all addresses, so that two test processes do not meet.
    number: u8,
    hosts: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Network {
    /// So many hosts; None where that is not allowed.
    pub fn new(hosts: usize) -> Option<Self> {
        let network = Self {
            number: (std::process::id() % 250) as u8,
            hosts,
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        };
        // A test that was killed has left them.
        network.remove();
        match network.build() {
            Ok(()) => Some(network),
            Err(reason) if NOT_HERE.iter().any(|text| reason.contains(text)) => {
                skip(&format!(
                    "no network namespaces here, for which one has to be root: {reason}"
                ));
                None
            }
            Err(reason) => panic!("{reason}"),
        }
    }

    fn remove(&self) {
        for host in 0..self.hosts {
            let _ = ip(&format!("link del {}", self.wire(host)));
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("address del {}/32 dev lo", self.here()));
    }

    pub fn namespace(&self, host: usize) -> String {
        format!("plenum{}-{host}", self.number)
    }

    pub fn address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, host as u8 + 1)
    }

    /// The address that all hosts have this side by.
    fn here(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 254)
    }

    fn build(&self) -> Result<(), String> {
        let here = self.here();
        ip(&format!("address add {here}/32 dev lo"))?;
        for host in 0..self.hosts {
            let (name, address) = (self.namespace(host), self.address(host));
            let wire = self.wire(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} address add {address}/32 dev lo"))?;
            ip(&format!(
                "link add {wire} type veth peer name here netns {name}"
            ))?;
            ip(&format!("link set {wire} up"))?;
            ip(&format!("-n {name} link set here up"))?;
            ip(&format!("route add {address}/32 dev {wire} src {here}"))?;
            ip(&format!(
                "-n {name} route add {here}/32 dev here src {address}"
            ))?;
            for other in 0..host {
                let (other_name, end) = (self.namespace(other), format!("to{host}"));
                ip(&format!(
                    "-n {name} link add to{other} type veth peer name {end} netns {other_name}"
                ))?;
                self.connect(host, other)?;
                self.connect(other, host)?;
            }
        }
        Ok(())
    }

    fn wire(&self, host: usize) -> String {
        format!("plenum{}w{host}", self.number)
    }

    /// One end of the wire between two hosts.
    fn connect(&self, host: usize, other: usize) -> Result<(), String> {
        let name = self.namespace(host);
        let (own, address) = (self.address(host), self.address(other));
        ip(&format!("-n {name} link set to{other} up"))?;
        ip(&format!(
            "-n {name} route replace {address}/32 dev to{other} src {own}"
        ))
    }

    /// Cuts the wire between two hosts; each still reaches all others, and here.
    pub fn cut(&self, one: usize, other: usize) {
        let name = self.namespace(one);
        // The one end is down, the other one has no carrier: what either sends is lost without a word.
        ip(&format!("-n {name} link set to{other} down")).expect("the wire is there");
    }

    pub fn mend(&self, one: usize, other: usize) {
        self.connect(one, other).expect("the wire is there");
        self.connect(other, one).expect("the wire is there");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {}", said.trim()))
}
