//! What a daemon tells the service manager, by the protocol of `sd_notify(3)`: datagrams of `NAME=value` lines to the socket
//! that the environment names.
//!
//! The socket is made once and kept, so that a process that may make no more sockets can still tell.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The service manager, or nobody where the daemon was started by hand.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` tell of.
    ///
    /// # Errors
    /// Where there is a socket by name and none to connect to: the service manager would wait in vain.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var_os(name);
        let Some(name) = variable("NOTIFY_SOCKET") else {
            return Ok(Self::default());
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|_| is_ours)
            .map(Duration::from_micros);
        Self::at(&name, watchdog)
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold the daemon up.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            watchdog,
        })
    }

    /// How often [`Self::alive`] is to be called: twice as often as the manager would give up.
    #[must_use]
    pub fn alive_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The daemon does its work: after its start, or after a reload.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The daemon reads its configuration again; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now_us = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
            now.tv_sec().unsigned_abs() * 1_000_000 + now.tv_nsec().unsigned_abs() / 1_000
        });
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// The daemon ends by its own will.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// What the daemon does feeds the watchdog.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// One line for people.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")));
    }

    fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is gone needs no news, and one that is slow gets the next.
            let _ = socket.send(lines.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_hears_every_state_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("service-test-{}", std::process::id()));
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("@service-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let at_name = UnixDatagram::bind_addr(&address).unwrap();
        for (manager, name) in [(&at_path, path.as_os_str()), (&at_name, OsStr::new(&name))] {
            let service = ServiceManager::at(name, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(service.alive_interval(), Some(Duration::from_secs(5)));
            service.ready();
            assert_eq!(heard(manager), "READY=1");
            service.alive();
            assert_eq!(heard(manager), "WATCHDOG=1");
            service.status("two\nlines");
            assert_eq!(heard(manager), "STATUS=two lines");
            service.stopping();
            assert_eq!(heard(manager), "STOPPING=1");
            service.reloading();
            let text = heard(manager);
            let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() > 0);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error_and_one_that_reads_nothing_holds_nobody_up() {
        assert!(ServiceManager::at(OsStr::new("/nonexistent/notify"), None).is_err());
        let name = format!("@service-deaf-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let _deaf = UnixDatagram::bind_addr(&address).unwrap();
        let service = ServiceManager::at(OsStr::new(&name), None).unwrap();
        (0..10_000).for_each(|_| service.alive());
        ServiceManager::default().ready();
    }
}
