//! What the kernel says of a network device: enough to attach to it, and what is attached already.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendmsg, socket,
};
use wire::MacAddr;

/// A network device, as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index: another one if the device goes and returns.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: MacAddr,
    /// Queues that it can receive by, used or not.
    pub receive_queues: u32,
    /// Programs attached to its XDP hooks, each by its identifier.
    pub xdp: XdpPrograms,
}

/// The identifiers of the programs at the hooks of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpPrograms {
    /// In the driver.
    pub driver: Option<u32>,
    /// In the kernel's generic hook.
    pub generic: Option<u32>,
    /// In the device itself.
    pub hardware: Option<u32>,
}

impl XdpPrograms {
    /// Any of them: the driver's first.
    #[must_use]
    pub fn any(&self) -> Option<u32> {
        self.driver.or(self.generic).or(self.hardware)
    }
}

/// Asks for the device of this name, in the network namespace of the calling thread.
///
/// # Errors
/// `ENODEV` where there is none; whatever netlink says else.
pub fn by_name(name: &str) -> io::Result<Device> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    ask(request)
}

/// Asks for the device of this index, in the network namespace of the calling thread.
///
/// # Errors
/// `ENODEV` where there is none; whatever netlink says else.
pub fn by_index(index: u32) -> io::Result<Device> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    ask(request)
}

fn ask(request: LinkMessage) -> io::Result<Device> {
    let link = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let kernel = NetlinkAddr::new(0, 0);
    sendmsg(
        link.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &[],
        MsgFlags::empty(),
        Some(&kernel),
    )?;

    // The kernel answers within sendmsg, with one message: the device or an error.
    let mut answer = vec![0; 64 * 1024];
    let length = {
        let mut parts = [IoSliceMut::new(&mut answer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<NetlinkAddr>(link.as_raw_fd(), &mut parts, None, flags)?;
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(unreadable("the answer is longer than 64 KiB"));
        }
        received.bytes
    };
    let answer = answer.get(..length).unwrap_or_default();
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(unreadable)?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(device(&link)),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(unreadable("neither a device nor an error")),
    }
}

fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn device(link: &LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        mac: MacAddr::default(),
        receive_queues: 1,
        xdp: XdpPrograms::default(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::NumRxQueues(queues) => device.receive_queues = *queues,
            LinkAttribute::Address(address) => {
                if let Ok(address) = address.as_slice().try_into() {
                    device.mac = MacAddr(address);
                }
            }
            LinkAttribute::Xdp(xdp) => {
                for attribute in xdp {
                    match attribute {
                        LinkXdp::DrvProgId(id) => device.xdp.driver = Some(*id),
                        LinkXdp::SkbProgId(id) => device.xdp.generic = Some(*id),
                        LinkXdp::HwProgId(id) => device.xdp.hardware = Some(*id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    device
}
