//! Messages over a `SOCK_SEQPACKET` Unix socket: one message a datagram, order and boundaries kept by the
//! kernel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::MAX_MESSAGE_BYTES;

/// What goes wrong on the socket. Every variant but [`ChannelError::WouldBlock`] ends the connection.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// Nothing to read, or no room to write, on a non-blocking socket.
    #[error("the socket is not ready")]
    WouldBlock,
    /// The other side is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// The message is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message of {0} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// The bytes are no message of this version.
    #[error("not a message of this version: {0}")]
    Malformed(postcard::Error),
    /// The kernel said no.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

/// The bytes of a message, erased when dropped: it may carry keys.
///
/// # Errors
/// [`ChannelError::TooLong`] where the message should have been split.
pub fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
    // Reserved whole, so that growing never leaves a copy of a key behind in freed memory.
    let mut buffer = Zeroizing::new(vec![0u8; MAX_MESSAGE_BYTES]);
    let used_bytes = match postcard::to_slice(message, &mut buffer) {
        Ok(used) => used.len(),
        Err(postcard::Error::SerializeBufferFull) => {
            return Err(ChannelError::TooLong(MAX_MESSAGE_BYTES + 1));
        }
        Err(error) => return Err(ChannelError::Malformed(error)),
    };
    buffer.truncate(used_bytes);
    Ok(buffer)
}

/// The message in `bytes`, which must hold it and nothing else.
///
/// # Errors
/// [`ChannelError::Malformed`] for anything else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ChannelError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(ChannelError::Malformed(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(ChannelError::Malformed(error)),
    }
}

/// One end of the connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Takes over a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends `message`, and with it `descriptor` (`SCM_RIGHTS`).
    ///
    /// # Errors
    /// See [`ChannelError`]; on [`ChannelError::WouldBlock`] nothing was sent.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let bytes = encode(message)?;
        let descriptors: &[BorrowedFd<'_>] = descriptor.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            match sendmsg(
                &self.socket,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(ChannelError::WouldBlock),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(ChannelError::Io(error.into())),
            }
        }
    }

    /// Receives one message and the descriptor that came with it.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Option<OwnedFd>), ChannelError> {
        let mut buffer = Zeroizing::new(vec![0u8; MAX_MESSAGE_BYTES]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (received, descriptor) = loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            match recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break (received, first_descriptor(&mut control)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(ChannelError::WouldBlock),
                Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(ChannelError::Io(error.into())),
            }
        };
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong(received.bytes));
        }
        decode(&buffer[..received.bytes]).map(|message| (message, descriptor))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn first_descriptor(control: &mut RecvAncillaryBuffer<'_>) -> Option<OwnedFd> {
    // What is not taken is closed as the iterator drops it.
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::{
        Event, KeyMaterial, Lifetime, Mode, ReplayWindow, SaDirection, SaSpec, ToControl, ToDataplane,
        TunnelId, Update,
    };

    fn pair() -> (Channel, Channel) {
        let (left, right) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        (Channel::new(left), Channel::new(right))
    }

    fn apply() -> ToDataplane {
        ToDataplane::Apply {
            sequence: 7,
            generation: 3,
            updates: vec![Update::InstallSa(SaSpec {
                direction: SaDirection::Inbound,
                spi: 0x1000,
                tunnel: TunnelId(1),
                mode: Mode::Tunnel,
                local: "192.0.2.1".parse().unwrap(),
                remote: "2001:db8::1".parse().unwrap(),
                udp: None,
                transform: "aes128gcm16".parse().unwrap(),
                key: KeyMaterial::new(vec![9; 20]),
                extended_sequence_numbers: true,
                replay_window: Some(ReplayWindow::DEFAULT),
                selectors: vec![],
                lifetime: Lifetime::default(),
                last_sequence: 0,
            })],
        }
    }

    #[test]
    fn a_message_arrives_whole_and_in_order() {
        let (control, dataplane) = pair();
        control.send(&ToDataplane::Hello { version: 1 }, None).unwrap();
        control.send(&apply(), None).unwrap();
        assert_eq!(
            dataplane.receive::<ToDataplane>().unwrap().0,
            ToDataplane::Hello { version: 1 }
        );
        assert_eq!(dataplane.receive::<ToDataplane>().unwrap().0, apply());
        assert!(matches!(
            dataplane.receive::<ToDataplane>(),
            Err(ChannelError::WouldBlock)
        ));
        drop(control);
        assert!(matches!(
            dataplane.receive::<ToDataplane>(),
            Err(ChannelError::Closed)
        ));
    }

    #[test]
    fn a_descriptor_travels_along() {
        let (control, dataplane) = pair();
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(b"counters").unwrap();
        dataplane
            .send(&ToControl::Events(vec![]), Some(file.as_fd()))
            .unwrap();
        let (_, descriptor) = control.receive::<ToControl>().unwrap();
        let mut received = File::from(descriptor.unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "counters");
    }

    #[test]
    fn fault_87_an_overlong_message_is_refused_on_both_sides() {
        let (control, dataplane) = pair();
        let events = vec![Event::EventsLost { count: u64::MAX }; MAX_MESSAGE_BYTES];
        assert!(matches!(
            control.send(&ToControl::Events(events), None),
            Err(ChannelError::TooLong(_))
        ));
        let bytes = vec![0u8; MAX_MESSAGE_BYTES + 1];
        rustix::net::send(&control.socket, &bytes, SendFlags::empty()).unwrap();
        assert!(matches!(
            dataplane.receive::<ToDataplane>(),
            Err(ChannelError::TooLong(_))
        ));
    }

    #[test]
    fn fault_87_a_message_truncated_at_any_byte_is_refused() {
        let bytes = encode(&apply()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode::<ToDataplane>(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode::<ToDataplane>(&longer).is_err(), "a trailing byte");
    }

    proptest! {
        #[test]
        fn fault_87_arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<ToDataplane>(&bytes);
            let _ = decode::<ToControl>(&bytes);
        }
    }
}
