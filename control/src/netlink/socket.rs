//! An rtnetlink socket and the framing of what comes from it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto,
    setsockopt, socket, sockopt,
};

use crate::watched::Watched;

/// Room for one datagram: the kernel fills dumps up to 32 KiB.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// `nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The multicast groups of a mirror (`RTMGRP_*`, and `RTNLGRP_NEXTHOP` as its bit).
pub(super) const MIRROR_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400 | 1 << 31;

/// One framed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Header and payload, as the parser wants them.
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    /// Whether the kernel's table changed under the dump, which may hence have holes.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// The error of an `NLMSG_ERROR`, 0 for an acknowledgement; for `NLMSG_DONE`, that of the dump.
    pub(crate) fn error_code(&self) -> i32 {
        match self.bytes.get(HEADER_BYTES..HEADER_BYTES + 4) {
            Some(&[a, b, c, d]) => -i32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    /// The message itself; `None` where it is of no kind we know or malformed.
    pub(crate) fn parse(&self) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(self.bytes)
            .ok()?
            .payload
        {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }
}

/// The messages of a datagram. Stops where the framing is broken.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER_BYTES)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < HEADER_BYTES {
            return None;
        }
        let bytes = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            bytes,
        })
    })
}

/// What one read brought.
#[derive(Debug)]
pub(super) enum Datagram<'a> {
    /// Messages.
    Messages(&'a [u8]),
    /// The kernel had to drop some.
    Overrun,
    /// It came from another process, and is none of the kernel's.
    Stranger,
}

/// A socket under the runtime's watch, with a buffer of its own.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: Watched<OwnedFd>,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Socket {
    /// Opens a socket that hears `groups`, with a receive buffer of `receive_bytes`, where the kernel
    /// grants it.
    pub(super) fn open(groups: u32, receive_bytes: usize) -> io::Result<Self> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // The limit that ordinary users have may be passed with CAP_NET_ADMIN in the first namespace only.
        if setsockopt(&descriptor, sockopt::RcvBufForce, &receive_bytes).is_err() {
            setsockopt(&descriptor, sockopt::RcvBuf, &receive_bytes)?;
        }
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            descriptor: Watched::new(descriptor)?,
            buffer: vec![0; DATAGRAM_BYTES],
            sequence: 0,
        })
    }

    /// The next datagram; safe to cancel.
    pub(super) async fn receive(&mut self) -> io::Result<Datagram<'_>> {
        let Self {
            descriptor, buffer, ..
        } = self;
        let received = descriptor
            .read(|descriptor| {
                loop {
                    match recvfrom::<NetlinkAddr>(descriptor.as_raw_fd(), buffer) {
                        Err(Errno::EAGAIN) => return None,
                        Err(Errno::EINTR) => {}
                        result => return Some(result),
                    }
                }
            })
            .await?;
        match received {
            Ok((length, Some(sender))) if sender.pid() == 0 => {
                Ok(Datagram::Messages(self.buffer.get(..length).unwrap_or_default()))
            }
            Ok(_) => Ok(Datagram::Stranger),
            Err(Errno::ENOBUFS) => Ok(Datagram::Overrun),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for a dump; the answers carry the number returned.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<u32> {
        self.send(message, NLM_F_DUMP)
    }

    /// Asks for a change, acknowledged under the number returned.
    pub(super) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.send(message, NLM_F_ACK | flags)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(
            self.descriptor.get().as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        Ok(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_cut_into_its_messages() {
        let mut datagram = frame(NLMSG_ERROR, &(-19i32).to_ne_bytes());
        datagram.extend(frame(7, b"abcde"));
        let found: Vec<_> = frames(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].error_code(), 19);
        assert_eq!((found[1].kind, found[1].bytes.len()), (7, HEADER_BYTES + 5));
    }

    #[test]
    fn lying_lengths_end_the_datagram() {
        for length in [0u32, 15, 21, u32::MAX] {
            let mut datagram = frame(7, b"abcd");
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(frames(&datagram).count(), 0, "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 16u16..32) {
            for frame in frames(&bytes) {
                let _ = frame.parse();
                let _ = frame.error_code();
            }
            let framed = frame(kind, &bytes);
            for frame in frames(&framed) {
                let _ = frame.parse();
            }
        }
    }
}
