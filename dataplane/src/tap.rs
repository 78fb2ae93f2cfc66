//! The TAP port: how packets between tunnels and the host's own stack pass.
//!
//! The device is of the kernel's TUN kind: it carries IP packets without Ethernet headers. What comes out of a tunnel
//! has none, a tunnel's other end answers no ARP, and routing protocols over a point-to-point link need no address
//! resolution; an Ethernet TAP would add a header, a made-up neighbour and its MAC address to both ways for nothing.
//! "TAP" remains the word for the port, as in the design.
//!
//! - To the host: any worker writes; the kernel takes one packet a call, whole, from any thread. A packet that the
//!   kernel does not take at once (the device's queue is full or the device is down) is dropped as
//!   [`DropReason::PuntFull`](southbound::DropReason::PuntFull). A system call a packet: this is the way of
//!   management and routing protocols, not of the traffic.
//! - From the host: the first worker reads, at most a batch in a turn; the device's own queue is the bound.
//!
//! The kernel checks the source of what it receives here (`rp_filter`): a tunnel's inner source is reached by the route
//! into this very device, which the control process makes, so loose and strict checking both pass for tunnel traffic.
//! What is punted for other reasons (IKE in reassembled fragments, a packet under a router alert) has a source behind another
//! interface. A device without an address, as this one is, fails loose checking then, too (`__fib_validate_source` in
//! net/ipv4/fib_frontend.c): [`Tap::open`] switches the check off here, where only what passed our own comes, and warns
//! where it may not, or where the host checks on every interface.

mod device;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::xsk::Frame;

/// The device's MTU: larger than what fits any tunnel, so that it is the tunnel that says what fits, by an ICMP error.
pub const TAP_MTU_BYTES: u16 = 3500;

/// The open device.
#[derive(Debug)]
pub struct Tap {
    name: String,
    device: OwnedFd,
}

impl Tap {
    /// Makes the device `name`, or takes over one that exists and is not in use, and brings it up.
    ///
    /// # Errors
    /// The kernel's: no `/dev/net/tun`, no CAP_NET_ADMIN, a device of that name that is another's.
    pub fn open(name: &str) -> io::Result<Self> {
        let device = device::open(name)?;
        device::bring_up(name, TAP_MTU_BYTES)?;
        let setting = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        if let Err(error) = std::fs::write(setting(name), "0") {
            tracing::warn!(%error, name, "packets punted to the host may fail its source check");
        }
        // The kernel goes by the stricter of the two.
        if std::fs::read_to_string(setting("all")).is_ok_and(|all| all.trim() != "0") {
            tracing::warn!(
                "net.ipv4.conf.all.rp_filter is set: packets punted to the host may fail its source check"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            device,
        })
    }

    /// A socket pair's end in the place of a device: one packet a datagram as well.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn over(device: OwnedFd) -> Self {
        Self {
            name: "test".to_owned(),
            device,
        }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives one packet to the host; false where the host did not take it.
    #[must_use]
    pub fn write(&self, packet: &[u8]) -> bool {
        matches!(nix::unistd::write(&self.device, packet), Ok(written) if written == packet.len())
    }

    /// Reads one packet into an empty frame; false where none waits. The packet is whole: the device's MTU is less than
    /// the frame's room.
    #[must_use]
    pub fn read(&self, frame: &mut Frame<'_>) -> bool {
        loop {
            match nix::unistd::read(&self.device, frame.space_mut()) {
                Ok(0) => return false,
                Ok(length_bytes) => return frame.set_len(length_bytes),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
