//! A server of our own, on a core of its own, that ends with us, however we end.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::process;

/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server(Child);

impl Server {
    /// Starts it on `core`; our own thread stays where it was.
    pub(crate) fn start(command: &mut Command, core: usize) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| format!("{program}: {error}");
        // A child begins on the processors of the thread that made it.
        let ours = rustix::thread::sched_getaffinity(None).map_err(|error| failed(error.into()))?;
        process::pin(core).map_err(failed)?;
        let with_us = || {
            let kill = rustix::process::Signal::KILL;
            Ok(rustix::process::set_parent_process_death_signal(Some(
                kill,
            ))?)
        };
        // SAFETY: between fork and exec it makes one system call, and neither allocates nor locks.
        unsafe { command.pre_exec(with_us) };
        let child = command.spawn();
        rustix::thread::sched_setaffinity(None, &ours).map_err(|error| failed(error.into()))?;
        child.map(Self).map_err(failed)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until `ready` is.
    pub(crate) fn wait_until<T>(
        &mut self,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(ready) = ready() {
                return Ok(ready);
            }
            if let Ok(Some(status)) = self.0.try_wait() {
                return Err(format!("ended at once: {status}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("is not ready after ten seconds".to_owned())
    }
}

impl Server {
    /// Asks it to end, without waiting; to be dropped afterwards, which waits.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.interrupt();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A TCP port of `host`, and the UDP port of the same number, that were free a moment ago.
pub(crate) fn free_port(host: IpAddr) -> Result<SocketAddr, String> {
    let free = || {
        let listener = TcpListener::bind((host, 0)).ok()?;
        let address = listener.local_addr().ok()?;
        std::net::UdpSocket::bind(address).ok().map(|_| address)
    };
    (0..100)
        .find_map(|_| free())
        .ok_or_else(|| "no port is free".to_owned())
}
