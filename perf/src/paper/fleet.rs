//! The servers: real processes, each with an address and a processor share of its own.
//!
//! The first is there from the beginning. The others are reserved: either they run and stand by, or they
//! do not exist until the service asks for them. It asks by its `start_hook`, here a script that writes
//! the server's name into a file; the servers are started by us, so that they end with us.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::quota::{Group, Hierarchy, Quota, Throttling};
use crate::child::{Server, free_port};
use crate::process::{self, Usage};

/// How often is looked whether a server was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How servers that are not needed yet wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reserve {
    /// They are started when the service asks for them
    Hook,
    /// They run from the beginning and stand by
    Standby,
}

/// A port that was free a moment ago may be somebody else's when the server wants it.
const STARTS_MAX: usize = 3;

/// What all servers of a run have in common.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) binary: &'a Path,
    /// Their processor.
    pub(super) core: usize,
    pub(super) hierarchy: Option<&'a Hierarchy>,
    pub(super) quota: Quota,
    /// 0: no maximum that could ever be reached.
    pub(super) max_load: u32,
    pub(super) weight: f64,
    pub(super) reserve: Reserve,
    /// Further `--set` arguments.
    pub(super) sets: &'a [String],
}

/// Where a server is or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) name: String,
    pub(super) sip: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Address {
    fn uri(&self) -> String {
        format!("sip:cfw@{}", self.sip)
    }
}

struct Machine {
    // Fields are dropped in this order: the group goes when its process has ended.
    server: Server,
    group: Option<Group>,
}

pub(super) struct Fleet<'a> {
    terms: Terms<'a>,
    addresses: Vec<Address>,
    machines: Vec<Option<Machine>>,
    folder: Folder,
    looked: Instant,
}

impl<'a> Fleet<'a> {
    /// Starts the first of so many servers, and those that stand by.
    ///
    /// # Errors
    /// A server does not start, or cannot be held to its quota.
    pub(super) fn start(terms: Terms<'a>, count: usize) -> Result<Self, String> {
        let mut outcome = Self::start_once(terms, count);
        for _ in 1..STARTS_MAX {
            if outcome.is_err() {
                outcome = Self::start_once(terms, count);
            }
        }
        outcome
    }

    fn start_once(terms: Terms<'a>, count: usize) -> Result<Self, String> {
        let addresses = (0..count)
            .map(|index| {
                let host = host(std::process::id(), index);
                Ok(Address {
                    name: name(index),
                    sip: free_port(host)?,
                    http: free_port(host)?,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let folder =
            Folder::new().map_err(|error| format!("the hook cannot be written: {error}"))?;
        let mut fleet = Self {
            machines: addresses.iter().map(|_| None).collect(),
            terms,
            addresses,
            folder,
            looked: Instant::now(),
        };
        let waiting = match fleet.terms.reserve {
            Reserve::Standby => 1..count,
            Reserve::Hook => 1..1,
        };
        // Those that stand by first, so that the first finds them.
        for index in waiting.chain([0]) {
            fleet.launch(index)?;
            let url = format!("http://{}/healthz", fleet.addresses[index].http);
            if let Some(machine) = &mut fleet.machines[index] {
                let ready = machine
                    .server
                    .wait_until(|| ureq::get(&url).call().ok().map(drop));
                ready.map_err(|error| {
                    let name = &fleet.addresses[index].name;
                    format!("server {name} {error}: {}", fleet.folder.last_words(name))
                })?;
            }
        }
        Ok(fleet)
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(super) fn is_running(&self, index: usize) -> bool {
        self.machines[index].is_some()
    }

    /// Starts what the service has asked for; returns which.
    ///
    /// # Errors
    /// A server cannot be started.
    pub(super) fn poll(&mut self, now: Instant) -> Result<Vec<usize>, String> {
        if now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return Ok(Vec::new());
        }
        self.looked = now;
        let mut started = Vec::new();
        for asked in self.folder.asked() {
            let index = self.addresses.iter().position(|known| known.name == asked);
            if let Some(index) = index.filter(|&index| !self.is_running(index)) {
                self.launch(index)?;
                started.push(index);
            }
        }
        Ok(started)
    }

    /// CPU time and memory of a running server.
    pub(super) fn usage(&self, index: usize) -> Option<Usage> {
        let machine = self.machines[index].as_ref()?;
        process::usage(machine.server.pid()).ok()
    }

    pub(super) fn throttling(&self, index: usize) -> Throttling {
        let group = self.machines[index]
            .as_ref()
            .and_then(|machine| machine.group.as_ref());
        group.map(Group::throttling).unwrap_or_default()
    }

    /// Nobody is held to anything any more: for the end.
    pub(super) fn lift(&self) {
        for group in self
            .machines
            .iter()
            .flatten()
            .flat_map(|machine| &machine.group)
        {
            // Where this fails the end takes longer.
            let _ = group.limit(None);
        }
    }

    fn launch(&mut self, index: usize) -> Result<(), String> {
        let mut command = Command::new(self.terms.binary);
        command
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // Into the live picture it would be painted over.
        let log = self.folder.log(&self.addresses[index].name);
        let log = fs::File::create(log).map_err(|error| format!("its log: {error}"))?;
        command.stderr(log);
        for set in self.sets(index) {
            command.arg("--set").arg(set);
        }
        let server = Server::start(&mut command, self.terms.core)?;
        let held = |error| format!("the server cannot be held to its quota: {error}");
        let group = match self.terms.hierarchy {
            None => None,
            Some(hierarchy) => {
                let group = hierarchy.group(&self.addresses[index].name).map_err(held)?;
                group.admit(server.pid()).map_err(held)?;
                group.limit(Some(self.terms.quota)).map_err(held)?;
                Some(group)
            }
        };
        self.machines[index] = Some(Machine { server, group });
        Ok(())
    }

    fn sets(&self, index: usize) -> Vec<String> {
        let Address { name, sip, http } = &self.addresses[index];
        let terms = &self.terms;
        let max_load = match terms.max_load {
            // Far beyond what anything here can reach.
            0 => 4_000_000,
            max_load => max_load,
        };
        let mut sets = vec![
            format!("server.id={name}"),
            format!("server.cores={}", terms.core),
            format!("sip.listen=udp:{sip},tcp:{sip}"),
            format!("rtp.address={}", sip.ip()),
            format!("http.listen={http}"),
            "log.level=error".to_owned(),
            format!("load.max={max_load}"),
            // The number of users decides who is full, as in the paper: who is stopped by his quota
            // looks busy all the time.
            "load.hot_max=1".to_owned(),
        ];
        for kind in ["sip", "audio", "video"] {
            sets.push(format!("load.weights.{kind}={}", terms.weight));
        }
        if self.addresses.len() > 1 {
            let reserved: Vec<String> = self.addresses[1..]
                .iter()
                .filter(|other| other.name != *name)
                .map(|other| format!("{}={}", other.name, other.uri()))
                .collect();
            match (index, terms.reserve) {
                (0, Reserve::Hook) => {
                    sets.push(format!("cluster.reserved={}", reserved.join(",")));
                    sets.push(format!(
                        "cluster.start_hook={}",
                        self.folder.hook().display()
                    ));
                }
                (0, Reserve::Standby) => {
                    sets.push(format!("cluster.reserved={}", reserved.join(",")));
                }
                _ => sets.push("cluster.standby=true".to_owned()),
            }
        }
        sets.extend(terms.sets.iter().cloned());
        sets
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        self.lift();
        // All at once; each is then waited for.
        for machine in self.machines.iter().flatten() {
            machine.server.interrupt();
        }
    }
}

/// A, B, ... Z, A1, B1, ...
fn name(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{round}"),
    }
}

/// A loopback address for each server, so that ports need not be shared out; other runs have others.
fn host(pid: u32, index: usize) -> IpAddr {
    // 127.0.x.x is where everybody else is.
    let (high, low) = (1 + (pid >> 8) % 254, pid % 256);
    IpAddr::V4(Ipv4Addr::new(127, high as u8, low as u8, 1 + index as u8))
}

/// A folder of this run, with the hook and what it was called for.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let number = std::process::id();
        let folder = Self(std::env::temp_dir().join(format!("plenum-paper-{number}")));
        fs::create_dir_all(&folder.0)?;
        let asked = folder.0.join("asked");
        fs::write(&asked, "")?;
        let script = format!(
            "#!/bin/sh\n# start_hook of this run: $1 is the server to start, $2 its URI.\necho \"$1\" >>'{}'\n",
            asked.display()
        );
        fs::write(folder.hook(), script)?;
        fs::set_permissions(folder.hook(), fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    fn hook(&self) -> PathBuf {
        self.0.join("start-server")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    /// The last line that a server has written.
    fn last_words(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// All that was ever asked for.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("asked")).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_names_and_addresses_of_their_own() {
        assert_eq!([0, 1, 25, 26].map(name), ["A", "B", "Z", "A1"]);
        let hosts = [host(300, 0), host(300, 1), host(301, 0)].map(|host| host.to_string());
        assert_eq!(hosts, ["127.2.44.1", "127.2.44.2", "127.2.45.1"]);
        assert!(host(u32::MAX, 200).is_loopback());
    }

    #[test]
    fn the_hook_says_which_server_is_asked_for() {
        let folder = Folder::new().unwrap();
        assert!(folder.asked().is_empty());
        for name in ["B", "C"] {
            let mut hook = Command::new(folder.hook());
            let status = hook
                .args([name, "sip:cfw@127.0.0.1:5060"])
                .status()
                .unwrap();
            assert!(status.success());
        }
        assert_eq!(folder.asked(), ["B", "C"]);
        assert_eq!(folder.last_words("B"), "it said nothing");
        fs::write(folder.log("B"), "one\ntwo\n").unwrap();
        assert_eq!(folder.last_words("B"), "two");
        let path = folder.0.clone();
        drop(folder);
        assert!(!path.exists());
    }
}
