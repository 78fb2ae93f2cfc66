//! The socket that the control process connects to, served by the main thread between its other duties.
//!
//! Nothing here waits. A control process that reads slowly is not read from until it has taken its answers; events
//! wait in the forwarding plane, which bounds them. One connection is served at a time and a new one replaces the
//! old: a control process that was restarted must not wait for its predecessor's socket to be found dead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags};
use nix::unistd::{getegid, geteuid};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use southbound::{
    Channel, ChannelError, ForwardingPlane, MAX_UPDATES_PER_MESSAGE, PROTOCOL_VERSION, Query, Status,
    ToControl, ToDataplane,
};

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Connections that may wait to be taken.
const BACKLOG_CONNECTIONS: i32 = 4;
/// Messages read in one round, so that a flood of updates does not keep the main thread from its ports.
const MESSAGES_PER_ROUND: usize = 64;
/// Records of one answer; far below what a message holds.
const RECORDS_PER_MESSAGE: usize = 128;
/// The same of packets that were watched, which carry their bytes twice.
const TRACES_PER_MESSAGE: usize = 8;
/// Events of one message; far below what a message holds.
const EVENTS_PER_MESSAGE: usize = 256;

/// What a new connection is told.
#[derive(Debug)]
pub struct Welcome {
    /// Random at each start of the process.
    pub instance: u64,
    /// Number of workers.
    pub workers: u16,
    /// The counters' memfd.
    pub counters: OwnedFd,
}

/// The listening socket and the connection, if there is one.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: OwnedFd,
    welcome: Welcome,
    connection: Option<Connection>,
    /// The highest generation that any connection applied.
    generation: u64,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    has_greeted: bool,
    pending: VecDeque<ToControl>,
}

impl Server {
    /// Listens at `path`; a socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// The kernel's; `AddrInUse` where another process listens there.
    pub fn bind(path: &Path, welcome: Welcome) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = seqpacket()?;
        match bind(&listener, &address) {
            Err(Errno::ADDRINUSE) => {
                match connect(seqpacket()?, &address) {
                    Err(Errno::CONNREFUSED | Errno::NOENT) => std::fs::remove_file(path)?,
                    _ => return Err(io::ErrorKind::AddrInUse.into()),
                }
                bind(&listener, &address)?;
            }
            outcome => outcome?,
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        listen(&listener, BACKLOG_CONNECTIONS)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            welcome,
            connection: None,
            generation: 0,
        })
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let connection = self.connection.as_ref().map(|connection| {
            let interest = if connection.pending.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLOUT
            };
            PollFd::new(connection.channel.as_fd(), interest)
        });
        std::iter::once(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)).chain(connection)
    }

    /// Whether a control process is connected and has greeted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.has_greeted)
    }

    /// Does what can be done now: takes a new connection, applies updates, answers, passes events on.
    pub fn serve(&mut self, plane: &mut impl ForwardingPlane) {
        if self.accept() {
            // Who wanted packets watched is gone.
            plane.trace(None);
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        match connection.round(plane, &self.welcome, &mut self.generation) {
            Ok(()) => {}
            Err(ChannelError::Closed) => {
                tracing::info!("the control process is gone; traffic goes on");
                self.connection = None;
                plane.trace(None);
            }
            Err(error) => {
                tracing::warn!(%error, "the control process is disconnected; traffic goes on");
                self.connection = None;
                plane.trace(None);
            }
        }
    }

    /// Takes new connections; tells whether there was one.
    fn accept(&mut self) -> bool {
        let mut is_new = false;
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return is_new,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    return is_new;
                }
            };
            match refuse(socket.as_fd()) {
                None => {
                    let channel = Channel::new(socket);
                    is_new = true;
                    self.connection = Some(Connection {
                        channel,
                        has_greeted: false,
                        pending: VecDeque::new(),
                    });
                }
                Some(reason) => tracing::warn!(reason, "a connection is refused"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where somebody replaced it, it is no longer ours to remove; where it is gone, nothing is.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Why the process at the other end may not speak, if it may not.
fn refuse(socket: BorrowedFd<'_>) -> Option<String> {
    match socket_peercred(socket) {
        Ok(peer) => {
            let (user, group) = (peer.uid.as_raw(), peer.gid.as_raw());
            let is_known = user == 0 || user == geteuid().as_raw() || group == getegid().as_raw();
            (!is_known).then(|| format!("user {user} of group {group} is neither root nor of this service"))
        }
        Err(error) => Some(error.to_string()),
    }
}

impl Connection {
    fn round(
        &mut self,
        plane: &mut impl ForwardingPlane,
        welcome: &Welcome,
        generation: &mut u64,
    ) -> Result<(), ChannelError> {
        self.flush(welcome)?;
        for _ in 0..MESSAGES_PER_ROUND {
            if !self.pending.is_empty() {
                return Ok(());
            }
            match self.channel.receive::<ToDataplane>() {
                Ok((message, _)) => self.obey(message, plane, welcome, generation)?,
                Err(ChannelError::WouldBlock) => break,
                Err(error) => return Err(error),
            }
            self.flush(welcome)?;
        }
        if self.has_greeted && self.pending.is_empty() {
            let mut events = Vec::new();
            plane.drain_events(&mut events);
            self.pending
                .extend(chunks(events, EVENTS_PER_MESSAGE).map(|(part, _)| ToControl::Events(part)));
            self.flush(welcome)?;
        }
        Ok(())
    }

    fn obey(
        &mut self,
        message: ToDataplane,
        plane: &mut impl ForwardingPlane,
        welcome: &Welcome,
        generation: &mut u64,
    ) -> Result<(), ChannelError> {
        if !self.has_greeted && !matches!(message, ToDataplane::Hello { .. }) {
            return Err(protocol("the first message is no greeting"));
        }
        match message {
            ToDataplane::Hello { version } => {
                self.has_greeted = version == PROTOCOL_VERSION;
                self.pending.push_back(ToControl::Welcome {
                    version: PROTOCOL_VERSION,
                    instance: welcome.instance,
                    generation: *generation,
                    workers: welcome.workers,
                });
                if !self.has_greeted {
                    self.flush(welcome)?;
                    return Err(protocol("the control process speaks another version"));
                }
            }
            ToDataplane::BeginSync { generation: new } => {
                *generation = (*generation).max(new);
                plane.begin_sync(new);
            }
            ToDataplane::Apply { updates, .. } if updates.len() > MAX_UPDATES_PER_MESSAGE => {
                return Err(protocol("more updates than a message may hold"));
            }
            ToDataplane::Apply {
                sequence,
                generation: new,
                updates,
            } => {
                *generation = (*generation).max(new);
                let rejections = (0u32..)
                    .zip(updates)
                    .filter_map(|(index, update)| Some((index, plane.apply(new, update).err()?)))
                    .collect();
                // The answer says that all took effect.
                plane.settle();
                self.pending
                    .push_back(ToControl::Applied { sequence, rejections });
            }
            ToDataplane::EndSync { generation } => {
                let removed = plane.end_sync(generation);
                self.pending.push_back(ToControl::Synced { generation, removed });
            }
            ToDataplane::Trace { spec } => plane.trace(spec),
            ToDataplane::Ask { sequence, query } => self.answer(sequence, query, plane),
        }
        Ok(())
    }

    fn answer(&mut self, sequence: u64, query: Query, plane: &impl ForwardingPlane) {
        let records: Vec<Status> = plane.query(query);
        if records.is_empty() {
            self.pending.push_back(ToControl::Answer {
                sequence,
                records,
                last: true,
            });
            return;
        }
        let records_per_message = match query {
            Query::Traces => TRACES_PER_MESSAGE,
            _ => RECORDS_PER_MESSAGE,
        };
        self.pending.extend(
            chunks(records, records_per_message).map(|(records, last)| ToControl::Answer {
                sequence,
                records,
                last,
            }),
        );
    }

    /// Sends what waits, as far as the socket takes it.
    fn flush(&mut self, welcome: &Welcome) -> Result<(), ChannelError> {
        while let Some(message) = self.pending.front() {
            let counters = matches!(message, ToControl::Welcome { .. }).then(|| welcome.counters.as_fd());
            match self.channel.send(message, counters) {
                Ok(()) => {
                    self.pending.pop_front();
                }
                Err(ChannelError::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn protocol(what: &str) -> ChannelError {
    ChannelError::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Cuts `items` into parts of at most `size`, each with whether it is the last.
fn chunks<T>(items: Vec<T>, size: usize) -> impl Iterator<Item = (Vec<T>, bool)> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = items.by_ref().take(size).collect();
        let last = items.len() == 0;
        (!part.is_empty()).then_some((part, last))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, Instant};

    use rustix::fs::{MemfdFlags, memfd_create};
    use southbound::{IpPrefix, NextHop, Recorder, RouteSpec, Update, VrfId};

    use super::*;

    fn server(name: &str) -> Server {
        let path = std::env::temp_dir().join(format!("penstock-server-{}-{name}", std::process::id()));
        let counters = memfd_create("counters", MemfdFlags::CLOEXEC).unwrap();
        Server::bind(
            &path,
            Welcome {
                instance: 42,
                workers: 3,
                counters,
            },
        )
        .unwrap()
    }

    fn client(server: &Server) -> Channel {
        let socket = seqpacket().unwrap();
        connect(&socket, &SocketAddrUnix::new(&server.path).unwrap()).unwrap();
        Channel::new(socket)
    }

    fn receive(server: &mut Server, plane: &mut Recorder, channel: &Channel) -> (ToControl, Option<OwnedFd>) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            server.serve(plane);
            match channel.receive() {
                Err(ChannelError::WouldBlock) => assert!(Instant::now() < deadline, "no answer"),
                outcome => return outcome.unwrap(),
            }
        }
    }

    fn greet(server: &mut Server, plane: &mut Recorder) -> Channel {
        let channel = client(server);
        channel
            .send(
                &ToDataplane::Hello {
                    version: PROTOCOL_VERSION,
                },
                None,
            )
            .unwrap();
        let (welcome, counters) = receive(server, plane, &channel);
        assert!(
            matches!(
                welcome,
                ToControl::Welcome {
                    instance: 42,
                    workers: 3,
                    ..
                }
            ),
            "{welcome:?}"
        );
        assert!(counters.is_some_and(|counters| File::from(counters).metadata().is_ok()));
        channel
    }

    fn route(number: u8) -> Update {
        Update::PutRoute(RouteSpec {
            vrf: VrfId::MAIN,
            prefix: IpPrefix::host([10, 0, 0, number].into()),
            next_hops: vec![NextHop::Blackhole],
            weights: Vec::new(),
        })
    }

    #[test]
    fn updates_are_applied_and_what_is_not_named_again_is_swept() {
        let (mut server, mut plane) = (server("apply"), Recorder::default());
        let channel = greet(&mut server, &mut plane);
        let apply = |sequence, generation, updates| ToDataplane::Apply {
            sequence,
            generation,
            updates,
        };
        channel
            .send(&apply(1, 5, vec![route(1), route(2)]), None)
            .unwrap();
        let applied = ToControl::Applied {
            sequence: 1,
            rejections: vec![],
        };
        assert_eq!(receive(&mut server, &mut plane, &channel).0, applied);
        assert_eq!(plane.unsettled(), 0, "the answer says that all took effect");

        // A restarted control process takes over.
        let channel = greet(&mut server, &mut plane);
        channel
            .send(&ToDataplane::BeginSync { generation: 6 }, None)
            .unwrap();
        channel.send(&apply(1, 6, vec![route(2)]), None).unwrap();
        channel
            .send(&ToDataplane::EndSync { generation: 6 }, None)
            .unwrap();
        assert_eq!(receive(&mut server, &mut plane, &channel).0, applied);
        let synced = ToControl::Synced {
            generation: 6,
            removed: 1,
        };
        assert_eq!(receive(&mut server, &mut plane, &channel).0, synced);
        assert_eq!(plane.installed().collect::<Vec<_>>(), [&route(2)]);
    }

    #[test]
    fn who_does_not_greet_or_speaks_another_version_is_disconnected() {
        let (mut server, mut plane) = (server("greet"), Recorder::default());
        for first in [
            ToDataplane::BeginSync { generation: 1 },
            ToDataplane::Hello { version: 99 },
        ] {
            let channel = client(&server);
            channel.send(&first, None).unwrap();
            server.serve(&mut plane);
            assert!(!server.is_connected(), "{first:?}");
        }
    }

    #[test]
    fn fault_84_a_client_that_never_reads_stops_only_itself() {
        let (mut server, mut plane) = (server("slow"), Recorder::default());
        let channel = greet(&mut server, &mut plane);
        let mut sent = 0;
        for sequence in 0..100_000 {
            match channel.send(
                &ToDataplane::Ask {
                    sequence,
                    query: Query::Sas,
                },
                None,
            ) {
                Ok(()) => sent += 1,
                Err(ChannelError::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
            server.serve(&mut plane);
        }
        assert!((1..100_000).contains(&sent), "the socket never filled");
        assert!(server.connection.as_ref().unwrap().pending.len() <= 1);
        // It reads at last: every answer comes, in order.
        for expected in 0..sent {
            let (answer, _) = receive(&mut server, &mut plane, &channel);
            assert_eq!(
                answer,
                ToControl::Answer {
                    sequence: expected,
                    records: vec![],
                    last: true
                }
            );
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let first = server("stale");
        let counters = memfd_create("counters", MemfdFlags::CLOEXEC).unwrap();
        let welcome = Welcome {
            instance: 1,
            workers: 1,
            counters,
        };
        assert_eq!(
            Server::bind(&first.path, welcome).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );

        let path = first.path.clone();
        drop(first);
        let abandoned = seqpacket().unwrap();
        bind(&abandoned, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(abandoned);
        drop(server("stale"));
    }
}
