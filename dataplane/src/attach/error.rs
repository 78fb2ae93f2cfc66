//! What can go wrong between the XDP program and a port.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use ebpf::maps;
use nix::errno::Errno;
use thiserror::Error;

use crate::xsk::AttachMode;

/// Why a program is not loaded, told or attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel takes neither the object's maps nor its types.
    #[error("port {port}: the XDP object does not load: {source}")]
    Object {
        /// The port.
        port: String,
        /// What aya says.
        #[source]
        source: Box<EbpfError>,
    },
    /// The object is not the one that this was written for.
    #[error("port {port}: the XDP object has no {what}")]
    Missing {
        /// The port.
        port: String,
        /// The program or map.
        what: &'static str,
    },
    /// The kernel's verifier refuses the program, or the process may not load any.
    #[error("port {port}: the kernel refuses the XDP program: {source}")]
    Refused {
        /// The port.
        port: String,
        /// What aya says, with the verifier's last words.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map cannot be read or written.
    #[error("port {port}: map {map}: {what}: {source}")]
    Map {
        /// The port.
        port: String,
        /// The map.
        map: &'static str,
        /// What was tried.
        what: &'static str,
        /// What aya says.
        #[source]
        source: Box<MapError>,
    },
    /// More local addresses of one family than the program looks up.
    #[error(
        "port {port}: {count} local addresses of one family: at most {} are possible",
        maps::MAX_LOCAL_ADDRESSES
    )]
    TooManyAddresses {
        /// The port.
        port: String,
        /// How many there would be.
        count: usize,
    },
    /// A queue that the program was not loaded for.
    #[error("port {port}: no queue {queue}: the program was loaded for {queues}")]
    Queue {
        /// The port.
        port: String,
        /// The queue.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// The device is not there or cannot be asked.
    #[error("port {port}: device {index}: {source}")]
    Device {
        /// The port.
        port: String,
        /// The device's index.
        index: u32,
        /// What netlink says.
        #[source]
        source: io::Error,
    },
    /// Another program is attached.
    #[error(
        "port {port}: XDP program {program_id}{} is attached to it and is not replaced: detach it, or take the \
         interface out of the configuration",
        program_name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default()
    )]
    Foreign {
        /// The port.
        port: String,
        /// The other program's identifier, as `bpftool prog` lists it.
        program_id: u32,
        /// Its name, where this process may ask for it.
        program_name: Option<String>,
    },
    /// The device or its driver refuses this mode.
    #[error("port {port}: no XDP program in {} mode: {source}{}", mode_name(*mode), hint(source))]
    Mode {
        /// The port.
        port: String,
        /// The mode.
        mode: AttachMode,
        /// What the kernel says.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel attached the program otherwise than asked; it has been detached again.
    #[error("port {port}: the kernel attached the XDP program, but not by a link in {} mode", mode_name(*mode))]
    Unlike {
        /// The port.
        port: String,
        /// The mode asked for.
        mode: AttachMode,
    },
    /// It is attached already.
    #[error("port {port}: the XDP program is attached already")]
    Attached {
        /// The port.
        port: String,
    },
}

const fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Driver => "driver",
        AttachMode::Generic => "generic",
    }
}

/// What drivers mean by the errors that they have no words for.
fn hint(error: &ProgramError) -> &'static str {
    let ProgramError::SyscallError(error) = error else {
        return "";
    };
    match error.io_error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => " (a veth's peer has more transmit queues than this side has receive queues)",
        Some(Errno::ERANGE | Errno::EINVAL) => " (an MTU beyond what the driver does with XDP, or LRO is on)",
        Some(Errno::EOPNOTSUPP) => " (the driver has no XDP of its own)",
        _ => "",
    }
}
