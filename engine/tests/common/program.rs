//! Programs of other people that tests run: in a directory of their own, ended and removed with the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{PATIENCE, scratch, skip, wait};

/// Whether a test can run `program`. On Debian, where `perf/setup.sh` installs it, it has to be there;
/// elsewhere a test without it is skipped, and says so.
pub fn is_installed(program: &str) -> bool {
    let found = path_of(program).is_some();
    if !found {
        assert!(
            !Path::new("/etc/debian_version").exists(),
            "{program} is missing: perf/setup.sh {program} installs it"
        );
        skip(&format!(
            "{program} is not installed, and this is no Debian to install it on"
        ));
    }
    found
}

/// Where a program is. Servers are in /usr/sbin, which is not on everybody's path.
pub fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// A running program with a directory of its own, which is its home too.
pub struct Program {
    name: &'static str,
    pub child: Child,
    home: PathBuf,
}

impl Program {
    /// An empty directory for one run of `name`. `id` tells runs of one test process apart, as a port does.
    pub fn home(name: &str, id: u16) -> PathBuf {
        let home = scratch(&format!("{name}-{id}"));
        fs::create_dir_all(&home).expect("a scratch directory");
        home
    }

    /// Runs `command` in `home`. What it says goes into a file there, shown when the test fails.
    pub fn start(name: &'static str, home: PathBuf, command: &mut Command) -> Self {
        let log = File::create(home.join("log")).expect("a log file");
        let child = command
            .current_dir(&home)
            .env("HOME", &home)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not run: {error}"));
        Self { name, child, home }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub fn log(&self) -> String {
        let bytes = fs::read(self.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            let status = self.child.try_wait().expect("it is our child");
            assert!(
                status.is_none(),
                "{} has ended, {status:?}: {what}",
                self.name
            );
            assert!(start.elapsed() < PATIENCE, "{}, never: {what}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By SIGTERM first: a program of several processes, as Kamailio, ends the others itself.
        let pid = self.child.id().to_string();
        let is_alive = |child: &mut Child| child.try_wait().is_ok_and(|ended| ended.is_none());
        if is_alive(&mut self.child) {
            let _ = Command::new("kill").arg(pid).stdin(Stdio::null()).status();
            let start = Instant::now();
            while is_alive(&mut self.child) && start.elapsed() < PATIENCE / 3 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what {} said\n{}", self.name, self.log());
            if let Ok(trace) = fs::read(self.file("trace")) {
                eprintln!("--- its trace\n{}", String::from_utf8_lossy(&trace));
            }
        }
        let _ = fs::remove_dir_all(&self.home);
    }
}
