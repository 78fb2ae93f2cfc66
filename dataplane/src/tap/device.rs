//! The three calls to the kernel that make a TUN device and bring it up.

// An ioctl takes an untyped pointer: this is the one place outside the packet memory where that cannot be avoided.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

nix::ioctl_write_int!(set_interface, b'T', 202);
nix::ioctl_readwrite_bad!(interface_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_interface_mtu, libc::SIOCSIFMTU, libc::ifreq);

/// Opens the TUN device `name`, without packet information, not blocking.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives across the call; its name ends in a zero byte.
    unsafe {
        set_interface(
            device.as_raw_fd(),
            (&raw mut request).expose_provenance() as libc::c_ulong,
        )
    }?;
    Ok(device.into())
}

/// Sets the MTU and raises the interface's flag UP.
pub(super) fn bring_up(name: &str, mtu_bytes: u16) -> io::Result<()> {
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu_bytes);
    // SAFETY: SIOCSIFMTU reads one ifreq, which lives across the call.
    unsafe { set_interface_mtu(control.as_raw_fd(), &raw const request) }?;
    let mut request = request_for(name)?;
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of one ifreq, which lives across the call.
    unsafe { interface_flags(control.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the call above wrote this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    unsafe { set_interface_flags(control.as_raw_fd(), &raw const request) }?;
    Ok(())
}

fn request_for(name: &str) -> io::Result<libc::ifreq> {
    let mut ifr_name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // One byte less than there is room for, so that a zero ends it.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: an ifreq is a name and a union of numbers and pointers, for all of which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = ifr_name;
    Ok(request)
}
