//! The UDP sockets of IKE: ports 500 and 4500, of both families, each datagram with our own address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use ike::Transmit;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn, SockaddrIn6, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use tracing::warn;

use crate::watched::Watched;

/// Longest datagram that is read.
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// What each socket may hold: some ten thousand first messages, for the hour when everybody returns.
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024 * 1024;

/// A datagram as it came.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// One socket.
#[derive(Debug)]
struct Socket {
    port: u16,
    is_ipv6: bool,
    watched: Watched<OwnedFd>,
}

/// All of them; a family that the host does not have is left out.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: [Option<Socket>; 4],
}

impl Sockets {
    /// Binds both ports of both families, within the runtime.
    ///
    /// # Errors
    /// Where no family can be bound.
    pub(crate) fn open(port: u16, nat_t_port: u16) -> io::Result<Self> {
        let mut fault = None;
        let mut opened = |port, is_ipv6| match Socket::open(port, is_ipv6) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let family = if is_ipv6 { "IPv6" } else { "IPv4" };
                // A host without IPv6 is no fault, a port that is taken is.
                if error.raw_os_error() != Some(libc::EAFNOSUPPORT) {
                    warn!(port, family, %error, "the UDP port of IKE cannot be bound");
                }
                fault = Some(error);
                None
            }
        };
        let sockets = [
            opened(port, false),
            opened(nat_t_port, false),
            opened(port, true),
            opened(nat_t_port, true),
        ];
        match fault {
            Some(error) if sockets.iter().all(Option::is_none) => Err(error),
            _ => Ok(Self { sockets }),
        }
    }

    /// The next datagram; safe to cancel. An error concerns that datagram only.
    pub(crate) async fn receive(&self) -> io::Result<Datagram> {
        let [a, b, c, d] = &self.sockets;
        tokio::select! {
            datagram = next(a.as_ref()) => datagram,
            datagram = next(b.as_ref()) => datagram,
            datagram = next(c.as_ref()) => datagram,
            datagram = next(d.as_ref()) => datagram,
        }
    }

    /// Sends from the address and port that the datagram names.
    ///
    /// # Errors
    /// Where the kernel has no way to the peer, or no room at the moment: it is as good as lost on the way.
    pub(crate) fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let fits = |socket: &&Socket| {
            socket.port == transmit.local.port() && socket.is_ipv6 == transmit.remote.is_ipv6()
        };
        let socket = self
            .sockets
            .iter()
            .flatten()
            .find(fits)
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        socket.send(transmit)
    }
}

async fn next(socket: Option<&Socket>) -> io::Result<Datagram> {
    match socket {
        Some(socket) => socket.watched.read(|_| socket.try_receive()).await?,
        None => std::future::pending().await,
    }
}

impl Socket {
    fn open(port: u16, is_ipv6: bool) -> io::Result<Self> {
        let family = if is_ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
        // Without the capability the smaller buffer has to do.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        if is_ipv6 {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?;
            bind(
                socket.as_raw_fd(),
                &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)),
            )?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            // A path that drops large packets silently must not stop a negotiation (RFC 7296 section 2): routers may
            // fragment where RFC 7383 was not agreed on.
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
            bind(
                socket.as_raw_fd(),
                &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
            )?;
        }
        Ok(Self {
            port,
            is_ipv6,
            watched: Watched::new(socket)?,
        })
    }

    /// `None` where nothing is there.
    fn try_receive(&self) -> Option<io::Result<Datagram>> {
        let mut bytes = vec![0; MAX_DATAGRAM_BYTES];
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let descriptor = self.watched.get().as_raw_fd();
        let received =
            match recvmsg::<SockaddrStorage>(descriptor, &mut parts, Some(&mut control), MsgFlags::empty()) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR) => return None,
                Err(error) => return Some(Err(error.into())),
            };
        let address = received.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
                _ => None,
            })
        });
        let remote = received.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
        });
        let length_bytes = received.bytes;
        let (Some(address), Some(remote)) = (address, remote) else {
            return Some(Err(io::ErrorKind::InvalidData.into()));
        };
        bytes.truncate(length_bytes);
        bytes.shrink_to_fit();
        Some(Ok(Datagram {
            local: SocketAddr::new(address, self.port),
            remote,
            bytes,
        }))
    }

    fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let descriptor = self.watched.get().as_raw_fd();
        let parts = [IoSlice::new(&transmit.bytes)];
        match (transmit.local.ip(), transmit.remote) {
            (IpAddr::V4(local), SocketAddr::V4(remote)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(local.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(
                    descriptor,
                    &parts,
                    &control,
                    MsgFlags::empty(),
                    Some(&SockaddrIn::from(remote)),
                )?;
            }
            (IpAddr::V6(local), SocketAddr::V6(remote)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: local.octets(),
                    },
                    ipi6_ifindex: remote.scope_id(),
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(
                    descriptor,
                    &parts,
                    &control,
                    MsgFlags::empty(),
                    Some(&SockaddrIn6::from(remote)),
                )?;
            }
            _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_is_answered_from_the_address_it_came_to() {
        let sockets = Sockets::open(20500, 24500).unwrap();
        for (ours, host) in [("127.0.0.9", "127.0.0.1:0"), ("::1", "[::1]:0")] {
            let peer = std::net::UdpSocket::bind(host).unwrap();
            peer.set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            peer.send_to(b"hello", (ours, 24500)).unwrap();
            let datagram = sockets.receive().await.unwrap();
            assert_eq!(datagram.local, SocketAddr::new(ours.parse().unwrap(), 24500));
            assert_eq!(
                (datagram.remote, datagram.bytes.as_slice()),
                (peer.local_addr().unwrap(), &b"hello"[..])
            );
            let answer = Transmit {
                local: datagram.local,
                remote: datagram.remote,
                bytes: b"there".to_vec(),
            };
            sockets.send(&answer).unwrap();
            let mut buffer = [0; 16];
            let (length_bytes, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length_bytes], from), (&b"there"[..], datagram.local));
        }
    }
}
