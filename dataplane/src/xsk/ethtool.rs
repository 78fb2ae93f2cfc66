//! What a device is asked and told by `ioctl(SIOCETHTOOL)`: how many queues it has, and which offloads are in the way.

use std::{ffi::c_void, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

// linux/ethtool.h
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Receive queues in use: those that packets arrive on, each of which needs a socket. `None` where the driver does not
/// say.
pub fn receive_queues(interface: &str) -> Result<Option<u32>, Errno> {
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    match ask(interface, &mut channels) {
        Ok(()) => Ok(Some((channels.combined + channels.rx).max(1))),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// An offload that changes packets before the XDP program or the worker sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// VLAN tags are taken off received packets, and nothing gives them back.
    ReceiveVlan,
    /// The device glues received TCP segments together.
    LargeReceive,
    /// The kernel glues received packets together, before a generic XDP program sees them.
    GenericReceive,
}

impl std::fmt::Display for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReceiveVlan => "rxvlan",
            Self::LargeReceive => "lro",
            Self::GenericReceive => "gro",
        })
    }
}

/// The offloads in the way that are on. `generic`: the XDP program runs, or will, in generic mode; only then GRO
/// matters, for the driver's hook comes before it.
pub fn harmful_offloads(interface: &str, generic: bool) -> Result<Vec<Offload>, Errno> {
    let mut found = Vec::new();
    let flags = value(interface, ETHTOOL_GFLAGS, 0)?;
    if flags & ETH_FLAG_RXVLAN != 0 {
        found.push(Offload::ReceiveVlan);
    }
    if flags & ETH_FLAG_LRO != 0 {
        found.push(Offload::LargeReceive);
    }
    if generic && value(interface, ETHTOOL_GGRO, 0)? != 0 {
        found.push(Offload::GenericReceive);
    }
    Ok(found)
}

/// Switches an offload off, as `ethtool -K` does.
pub fn switch_off(interface: &str, offload: Offload) -> Result<(), Errno> {
    let flag = match offload {
        Offload::ReceiveVlan => ETH_FLAG_RXVLAN,
        Offload::LargeReceive => ETH_FLAG_LRO,
        Offload::GenericReceive => return value(interface, ETHTOOL_SGRO, 0).map(drop),
    };
    let flags = value(interface, ETHTOOL_GFLAGS, 0)?;
    value(interface, ETHTOOL_SFLAGS, flags & !flag).map(drop)
}

fn value(interface: &str, command: u32, data: u32) -> Result<u32, Errno> {
    let mut value = Value { command, data };
    ask(interface, &mut value)?;
    Ok(value.data)
}

/// `T` is the struct that goes with its first field, the command.
fn ask<T>(interface: &str, question: &mut T) -> Result<(), Errno> {
    if interface.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENODEV);
    }
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(question).cast::<c_void>().cast(),
        },
    };
    // SAFETY: the request names an interface and points at a struct of the command's own layout, which outlives the call;
    // none of the commands used here writes beyond it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    Errno::result(result).map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn says_that_an_interface_is_not_there() {
        assert_eq!(receive_queues("no-such-if0"), Err(Errno::ENODEV));
        assert_eq!(
            receive_queues("a-name-too-long-for-an-interface"),
            Err(Errno::ENODEV)
        );
        assert_eq!(harmful_offloads("no-such-if0", true), Err(Errno::ENODEV));
    }

    #[test]
    fn the_loopback_has_no_channels_to_speak_of() {
        assert_eq!(receive_queues("lo"), Ok(None));
    }
}
