//! A stated share of a processor for each server, so that one machine can stand for several.
//!
//! A cgroup of its own holds each server's process: CPU bandwidth control, in hierarchy version 1
//! (`cpu.cfs_quota_us`) or 2 (`cpu.max`), whichever is there and may be written. The period is short:
//! with the kernel's usual 100 ms, who has used his time up would be stopped for most of it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// The kernel takes no shorter quota (`min_cfs_quota_period`).
const QUOTA_MIN: Duration = Duration::from_millis(1);

/// Folders of ours begin so; the process that made them follows.
const PREFIX: &str = "plenum-paper-";

/// The processor time that a server has in each period.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quota {
    pub(crate) quota_us: u64,
    pub(crate) period_us: u64,
}

impl Quota {
    /// `share` of a processor; the period is lengthened where the kernel would not take the quota.
    pub(crate) fn new(share: f64, period: Duration) -> Self {
        let period = period.max(QUOTA_MIN.div_f64(share));
        let quota = period.mul_f64(share).max(QUOTA_MIN);
        Self {
            quota_us: quota.as_micros() as u64,
            period_us: period.as_micros() as u64,
        }
    }

    pub(crate) fn period(self) -> Duration {
        Duration::from_micros(self.period_us)
    }

    /// Whether one is nearly a multiple of the other.
    pub(crate) fn is_in_step_with(self, packet: Duration) -> bool {
        let ratio = self.period().div_duration_f64(packet);
        let ratio = ratio.max(ratio.recip());
        (ratio - ratio.round()).abs() < 0.04
    }

    pub(crate) fn share(self) -> f64 {
        self.quota_us as f64 / self.period_us as f64
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} ms of each {:.2} ms ({:.1} % of a processor)",
            self.quota_us as f64 / 1e3,
            self.period_us as f64 / 1e3,
            self.share() * 1e2
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups can be made.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    version: Version,
    parent: PathBuf,
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.version {
            Version::One => "cgroup v1, cpu.cfs_quota_us",
            Version::Two => "cgroup v2, cpu.max",
        };
        f.write_str(name)
    }
}

impl Hierarchy {
    /// The first hierarchy in which a group can be made and limited. Groups left by runs that were
    /// killed are removed.
    ///
    /// # Errors
    /// There is none; says what each candidate lacked.
    pub(crate) fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let candidates = candidates(&read("/proc/self/mounts"), &read("/proc/self/cgroup"));
        let mut reasons = Vec::new();
        for hierarchy in candidates {
            hierarchy.sweep();
            let tried = hierarchy
                .group("probe")
                .and_then(|probe| probe.limit(Some(Quota::new(0.5, Duration::from_millis(10)))));
            match tried {
                Ok(()) => return Ok(hierarchy),
                Err(error) => reasons.push(format!("{}: {error}", hierarchy.parent.display())),
            }
        }
        if reasons.is_empty() {
            reasons.push("no cpu controller is mounted".to_owned());
        }
        Err(reasons.join("; "))
    }

    /// A new group, without a limit so far.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub(crate) fn group(&self, name: &str) -> io::Result<Group> {
        if self.version == Version::Two {
            // Refused where it is on already and we may not write, which the limit will tell.
            let _ = fs::write(self.parent.join("cgroup.subtree_control"), "+cpu");
        }
        let folder = format!("{PREFIX}{}-{name}", std::process::id());
        let path = self.parent.join(folder);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Group {
                version: self.version,
                path,
            }),
        }
    }

    /// Removes what runs left that are no more.
    fn sweep(&self) {
        let folders = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        for folder in folders {
            let name = folder.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir(folder.path());
            }
        }
    }
}

/// Version 1 before 2: where both are mounted, the cpu controller is in the first (cgroups(7)).
fn candidates(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == "cpu") => Version::One,
            "cgroup2" => Version::Two,
            _ => continue,
        };
        // hierarchy:controllers:path; version 2 has number 0 and no controllers.
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_ours = match version {
                Version::One => controllers.split(',').any(|name| name == "cpu"),
                Version::Two => controllers.is_empty(),
            };
            is_ours.then_some(path)
        });
        let mount = Path::new(mount);
        let mut parents = vec![mount.join(path.unwrap_or("/").trim_start_matches('/'))];
        // Groups with processes of their own cannot have limited children in version 2; the root can.
        if parents[0] != mount.join("") {
            parents.push(mount.join(""));
        }
        let hierarchies = parents
            .into_iter()
            .map(|parent| Hierarchy { version, parent });
        found.extend(hierarchies);
    }
    found.sort_by_key(|hierarchy| hierarchy.version == Version::Two);
    found
}

/// How often a group's processes were stopped for having used up their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Throttling {
    pub(crate) periods: u64,
    pub(crate) throttled: u64,
    pub(crate) throttled_us: u64,
}

impl Throttling {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            periods: self.periods.saturating_sub(earlier.periods),
            throttled: self.throttled.saturating_sub(earlier.throttled),
            throttled_us: self.throttled_us.saturating_sub(earlier.throttled_us),
        }
    }

    /// Part of the periods in which anything ran, in which the time was used up.
    pub(crate) fn share(self) -> f64 {
        self.throttled as f64 / self.periods.max(1) as f64
    }

    fn parse(text: &str) -> Self {
        let mut throttling = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let value: u64 = value.trim().parse().unwrap_or(0);
            match name {
                "nr_periods" => throttling.periods = value,
                "nr_throttled" => throttling.throttled = value,
                "throttled_usec" => throttling.throttled_us = value,
                // Version 1, in nanoseconds.
                "throttled_time" => throttling.throttled_us = value / 1_000,
                _ => {}
            }
        }
        throttling
    }
}

/// A control group that is removed with this value, when its processes have ended.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    /// Takes a process in, with all its threads.
    ///
    /// # Errors
    /// There is no such process, or the kernel does not let us.
    pub(crate) fn admit(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// None: no limit.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub(crate) fn limit(&self, quota: Option<Quota>) -> io::Result<()> {
        let write = |file: &str, value: String| fs::write(self.path.join(file), value);
        match (self.version, quota) {
            (Version::One, None) => write("cpu.cfs_quota_us", "-1".to_owned()),
            (Version::One, Some(quota)) => {
                write("cpu.cfs_period_us", quota.period_us.to_string())?;
                write("cpu.cfs_quota_us", quota.quota_us.to_string())
            }
            (Version::Two, None) => write("cpu.max", "max".to_owned()),
            (Version::Two, Some(quota)) => {
                write("cpu.max", format!("{} {}", quota.quota_us, quota.period_us))
            }
        }
    }

    pub(crate) fn throttling(&self) -> Throttling {
        let text = fs::read_to_string(self.path.join("cpu.stat"));
        Throttling::parse(&text.unwrap_or_default())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has ended leaves its group a moment later.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_those_asked_for_and_never_below_what_the_kernel_takes() {
        #[track_caller]
        fn check(share: f64, period_ms: u64, expected: (u64, u64)) {
            let quota = Quota::new(share, Duration::from_millis(period_ms));
            assert_eq!((quota.quota_us, quota.period_us), expected);
        }
        check(0.10, 10, (1_000, 10_000));
        check(0.25, 10, (2_500, 10_000));
        check(0.05, 10, (1_000, 20_000));
        let text = Quota::new(0.1, Duration::from_millis(10)).to_string();
        assert_eq!(text, "1.00 ms of each 10.00 ms (10.0 % of a processor)");
    }

    #[test]
    fn the_cpu_controller_is_found_in_either_version() {
        #[track_caller]
        fn check(mounts: &str, own: &str, expected: &[(Version, &str)]) {
            let found = candidates(mounts, own);
            let found: Vec<(Version, &str)> = found
                .iter()
                .map(|hierarchy| (hierarchy.version, hierarchy.parent.to_str().unwrap()))
                .collect();
            assert_eq!(found, expected);
        }
        let both = "cgroup2 /cg/unified cgroup2 rw 0 0\ncgroup /cg/cpuacct cgroup rw,cpuacct 0 0\n\
            cgroup /cg/cpu cgroup rw,relatime,cpu 0 0\n";
        let own = "2:cpuacct:/x\n1:cpu:/\n0::/\n";
        let expected = [(Version::One, "/cg/cpu/"), (Version::Two, "/cg/unified/")];
        check(both, own, &expected);
        let two = "cgroup2 /cg cgroup2 rw 0 0\n";
        let expected = [(Version::Two, "/cg/a/b"), (Version::Two, "/cg/")];
        check(two, "0::/a/b\n", &expected);
        check("tmpfs /cg tmpfs rw 0 0\n", own, &[]);
    }

    #[test]
    fn throttling_is_read_in_either_version_and_counted_since_a_moment() {
        let earlier = Throttling::parse("nr_periods 10\nnr_throttled 1\nthrottled_time 5000000\n");
        let later =
            Throttling::parse("usage_usec 7\nnr_periods 30\nnr_throttled 6\nthrottled_usec 9000\n");
        let since = later.since(earlier);
        assert_eq!(
            (since.periods, since.throttled, since.throttled_us),
            (20, 5, 4_000)
        );
        assert_eq!(since.share(), 0.25);
    }

    /// Where the machine has no cpu controller that we may use, there is nothing to see.
    #[test]
    fn a_group_holds_a_process_to_its_quota_and_goes_with_its_value() {
        let Ok(hierarchy) = Hierarchy::find() else {
            return;
        };
        let group = hierarchy.group("test").unwrap();
        let path = group.path.clone();
        group
            .limit(Some(Quota::new(0.1, Duration::from_millis(10))))
            .unwrap();
        let mut spin = std::process::Command::new("sh");
        let mut spin = spin.args(["-c", "while :; do :; done"]).spawn().unwrap();
        group.admit(spin.id()).unwrap();
        let start = std::time::Instant::now();
        while group.throttling().throttled < 3 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let throttled = group.throttling().throttled;
        spin.kill().unwrap();
        spin.wait().unwrap();
        drop(group);
        assert!(throttled >= 3);
        assert!(!path.exists());
    }
}
