//! [`LinkWatch`]: what the kernel says of the network interfaces, by rtnetlink.
//!
//! The dataplane watches links itself, so that a port comes back while the control process is away. It reads only the
//! few attributes it needs, and takes any others, known or not, as none of its business.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
        socket, sockopt,
    },
};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index; an interface that is made anew gets another.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; zero for what has none.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu_bytes: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it has carrier.
    pub has_carrier: bool,
    /// Receive queues that it was made with; there may be fewer in use.
    pub receive_queues: u32,
    /// Which VLAN of which interface, where it is one.
    pub vlan: Option<VlanOf>,
}

/// A VLAN link of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanOf {
    /// The index of the interface below it; zero where that is in another network namespace.
    pub lower: u32,
    /// 1 to 4094.
    pub id: u16,
    /// Whether its tag is a service tag (IEEE 802.1ad) instead of a customer's (802.1Q).
    pub is_service: bool,
}

/// What happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is new, or something of it changed.
    Changed(Link),
    /// It is gone: deleted, unplugged, or moved to another namespace.
    Gone(Link),
}

/// The interfaces of this network namespace, kept up to date.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
    links: BTreeMap<u32, Link>,
    /// The indices seen in the dump that is under way.
    dump: Option<BTreeSet<u32>>,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The kernel writes dumps in blocks of at most 32 kB.
const BUFFER_BYTES: usize = 64 << 10;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
const NLMSG_HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;

impl LinkWatch {
    /// Opens the socket in this thread's network namespace and asks for all links; they come with the first
    /// [`LinkWatch::read`].
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        // Without the capability to go beyond the limit the smaller buffer only means an earlier dump.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
        let mut watch = Self {
            socket,
            links: BTreeMap::new(),
            dump: None,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        };
        watch.ask()?;
        Ok(watch)
    }

    /// To be waited on for reading.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The interface of this name, as last heard.
    pub fn find(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Reads what has come, without waiting, and tells `on_event` each change in order. When the kernel had to drop
    /// messages, everything is asked for again, so that no change is missed in the end.
    pub fn read(&mut self, mut on_event: impl FnMut(LinkEvent)) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => {
                    if let Err(error) = self.take_messages(&buffer[..len], &mut on_event) {
                        break Err(error);
                    }
                }
                Err(Errno::EAGAIN) => break Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => {
                    tracing::warn!("link messages were lost: asking for all links again");
                    if let Err(error) = self.ask() {
                        break Err(error);
                    }
                }
                Err(errno) => break Err(errno.into()),
            }
        };
        self.buffer = buffer;
        result
    }

    /// Asks for a dump of all links. A dump already under way is forgotten: its messages have another number.
    fn ask(&mut self) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.dump = Some(BTreeSet::new());
        let mut request = Vec::with_capacity(NLMSG_HEADER_BYTES + IFINFOMSG_BYTES);
        request.extend(((NLMSG_HEADER_BYTES + IFINFOMSG_BYTES) as u32).to_ne_bytes());
        request.extend(libc::RTM_GETLINK.to_ne_bytes());
        request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4 + IFINFOMSG_BYTES]);
        match send(self.socket.as_raw_fd(), &request, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            // A dump is still running; its end asks again, for its messages do not have our number.
            Err(Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_messages(&mut self, mut bytes: &[u8], on_event: &mut impl FnMut(LinkEvent)) -> io::Result<()> {
        while let Some(message) = Message::first(bytes) {
            bytes = &bytes[message.aligned_len.min(bytes.len())..];
            let of_dump = message.sequence == self.sequence;
            match message.kind {
                libc::RTM_NEWLINK => {
                    if let Some(link) = parse_link(message.body) {
                        if of_dump && let Some(seen) = &mut self.dump {
                            seen.insert(link.index);
                        }
                        self.put(link, on_event);
                    }
                }
                libc::RTM_DELLINK if !is_of_other_family(message.body) => {
                    if let Some(index) = u32_at(message.body, 4)
                        && let Some(link) = self.links.remove(&index)
                    {
                        on_event(LinkEvent::Gone(link));
                    }
                }
                NLMSG_DONE if of_dump => {
                    // An interrupted dump may have missed some: then nothing is concluded from absence.
                    if message.flags & libc::NLM_F_DUMP_INTR as u16 != 0 {
                        self.ask()?;
                    } else if let Some(seen) = self.dump.take() {
                        let gone: Vec<u32> = self
                            .links
                            .keys()
                            .copied()
                            .filter(|index| !seen.contains(index))
                            .collect();
                        for link in gone
                            .iter()
                            .filter_map(|index| self.links.remove(index))
                            .collect::<Vec<_>>()
                        {
                            on_event(LinkEvent::Gone(link));
                        }
                    }
                }
                NLMSG_DONE if self.dump.is_some() => self.ask()?,
                NLMSG_ERROR if of_dump => self.ask()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, link: Link, on_event: &mut impl FnMut(LinkEvent)) {
        if self.links.get(&link.index) == Some(&link) {
            return;
        }
        self.links.insert(link.index, link.clone());
        on_event(LinkEvent::Changed(link));
    }
}

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
    aligned_len: usize,
}

impl<'a> Message<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let len = u32_at(bytes, 0)? as usize;
        Some(Self {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(NLMSG_HEADER_BYTES..len)?,
            aligned_len: len.next_multiple_of(4),
        })
    }
}

/// `struct ifinfomsg` and attributes. Messages of other families are about an interface's place in a bridge.
fn parse_link(body: &[u8]) -> Option<Link> {
    if is_of_other_family(body) {
        return None;
    }
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index,
        name: String::new(),
        mac: [0; 6],
        mtu_bytes: 0,
        is_up: flags & libc::IFF_UP as u32 != 0,
        has_carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        receive_queues: 1,
        vlan: None,
    };
    let (mut lower, mut is_lower_away) = (0, false);
    for attribute in Attributes(body.get(IFINFOMSG_BYTES..)?) {
        let (kind, value) = attribute?;
        match kind {
            libc::IFLA_IFNAME => {
                let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_MTU => link.mtu_bytes = u32_at(value, 0)?,
            libc::IFLA_NUM_RX_QUEUES => link.receive_queues = u32_at(value, 0)?,
            libc::IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            libc::IFLA_LINK => lower = u32_at(value, 0)?,
            libc::IFLA_LINK_NETNSID => is_lower_away = true,
            libc::IFLA_LINKINFO => link.vlan = parse_vlan(value),
            _ => {}
        }
    }
    if let Some(vlan) = &mut link.vlan {
        vlan.lower = if is_lower_away { 0 } else { lower };
    }
    (!link.name.is_empty()).then_some(link)
}

fn is_of_other_family(body: &[u8]) -> bool {
    body.first()
        .is_some_and(|family| i32::from(*family) != libc::AF_UNSPEC)
}

// linux/if_link.h
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;

/// `IFLA_LINKINFO` of a VLAN.
fn parse_vlan(info: &[u8]) -> Option<VlanOf> {
    let (mut is_vlan, mut data) = (false, None);
    for attribute in Attributes(info) {
        match attribute? {
            (libc::IFLA_INFO_KIND, kind) => is_vlan = kind.strip_suffix(&[0]).unwrap_or(kind) == b"vlan",
            (libc::IFLA_INFO_DATA, value) => data = Some(value),
            _ => {}
        }
    }
    let mut vlan = VlanOf {
        lower: 0,
        id: 0,
        is_service: false,
    };
    for attribute in Attributes(data.filter(|_| is_vlan)?) {
        match attribute? {
            (IFLA_VLAN_ID, value) => vlan.id = u16_at(value, 0)?,
            (IFLA_VLAN_PROTOCOL, value) => {
                vlan.is_service = value != wire::EtherType::VLAN.0.to_be_bytes();
            }
            _ => {}
        }
    }
    (1..=4094).contains(&vlan.id).then_some(vlan)
}

/// Attributes, each its number and value; `None` for one that is longer than what is left.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let parsed = match (u16_at(self.0, 2), self.0.get(4..len)) {
            // The upper bits say how the value is written, not what it is.
            (Some(kind), Some(value)) => Some((kind & 0x3fff, value)),
            _ => None,
        };
        self.0 = self.0.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
        Some(parsed)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((NLMSG_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link_body(index: u32, name: &str, flags: i32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend((flags as u32).to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute(libc::IFLA_IFNAME, format!("{name}\0").as_bytes()));
        body.extend(attribute(libc::IFLA_MTU, &1400u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]));
        body.extend(attribute(libc::IFLA_NUM_RX_QUEUES, &4u32.to_ne_bytes()));
        body.extend(attribute(60_000 & 0x3fff, b"of a later kernel"));
        body
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn knows_a_vlan_by_its_parent_and_identifier() {
        let info = |protocol: u16| {
            let mut data = attribute(IFLA_VLAN_ID, &100u16.to_ne_bytes());
            data.extend(attribute(IFLA_VLAN_PROTOCOL, &protocol.to_be_bytes()));
            let mut info = attribute(libc::IFLA_INFO_KIND, b"vlan\0");
            info.extend(attribute(libc::IFLA_INFO_DATA | 0x8000, &data));
            info
        };
        let body = |protocol: u16, rest: &[u8]| {
            let mut body = link_body(70_000, "p0.100", libc::IFF_UP);
            body.extend(attribute(libc::IFLA_LINK, &7u32.to_ne_bytes()));
            body.extend(attribute(libc::IFLA_LINKINFO, &info(protocol)));
            body.extend(rest);
            parse_link(&body).unwrap().vlan.unwrap()
        };
        let vlan = VlanOf {
            lower: 7,
            id: 100,
            is_service: false,
        };
        assert_eq!(body(0x8100, &[]), vlan);
        assert!(body(0x88a8, &[]).is_service);
        let away = attribute(libc::IFLA_LINK_NETNSID, &1u32.to_ne_bytes());
        assert_eq!(body(0x8100, &away).lower, 0, "the index is another namespace's");
        let veth = attribute(libc::IFLA_INFO_KIND, b"veth\0");
        assert_eq!(parse_vlan(&veth), None);
    }

    #[test]
    fn what_a_bridge_says_of_its_port_is_not_said_of_the_interface() {
        let mut watch = LinkWatch::open().unwrap();
        let body = link_body(70_000, "p0", libc::IFF_UP);
        assert_eq!(
            events(&mut watch, &message(libc::RTM_NEWLINK, 0, 0, &body)).len(),
            1
        );
        let mut of_bridge = body;
        of_bridge[0] = libc::AF_BRIDGE as u8;
        for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK] {
            assert_eq!(events(&mut watch, &message(kind, 0, 0, &of_bridge)), []);
        }
        assert!(watch.find("p0").is_some());
    }

    fn events(watch: &mut LinkWatch, bytes: &[u8]) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        watch
            .take_messages(bytes, &mut |event| events.push(event))
            .expect("messages are taken");
        events
    }

    #[test]
    fn knows_the_loopback_of_this_machine() {
        let mut watch = LinkWatch::open().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while watch.dump.is_some() && std::time::Instant::now() < deadline {
            watch.read(|_| {}).unwrap();
        }
        assert!(
            watch
                .find("lo")
                .is_some_and(|link| link.index == 1 && link.mtu_bytes > 1500)
        );
    }

    #[test]
    fn tells_changes_once() {
        let mut watch = LinkWatch::open().unwrap();
        let up = libc::IFF_UP | libc::IFF_LOWER_UP;
        let news = message(libc::RTM_NEWLINK, 0, 0, &link_body(70_000, "p0", up));
        let link = Link {
            index: 70_000,
            name: "p0".into(),
            mac: [2, 0, 0, 0, 0, 9],
            mtu_bytes: 1400,
            is_up: true,
            has_carrier: true,
            receive_queues: 4,
            vlan: None,
        };
        assert_eq!(events(&mut watch, &news), [LinkEvent::Changed(link.clone())]);
        assert_eq!(events(&mut watch, &news), []);
        let down = message(libc::RTM_NEWLINK, 0, 0, &link_body(70_000, "p0", 0));
        let down_link = Link {
            is_up: false,
            has_carrier: false,
            ..link
        };
        assert_eq!(events(&mut watch, &down), [LinkEvent::Changed(down_link.clone())]);
        let gone = message(libc::RTM_DELLINK, 0, 0, &link_body(70_000, "p0", 0));
        assert_eq!(events(&mut watch, &gone), [LinkEvent::Gone(down_link)]);
        assert_eq!(events(&mut watch, &gone), []);
    }

    #[test]
    fn what_a_whole_dump_does_not_name_is_gone_but_not_what_an_interrupted_one_misses() {
        let mut watch = LinkWatch::open().unwrap();
        for index in [70_000, 70_001] {
            let body = link_body(index, &format!("p{index}"), 0);
            assert_eq!(
                events(&mut watch, &message(libc::RTM_NEWLINK, 0, 0, &body)).len(),
                1
            );
        }
        watch.ask().unwrap();
        let mut dump = message(
            libc::RTM_NEWLINK,
            2,
            watch.sequence,
            &link_body(70_000, "p70000", 0),
        );
        let interrupted = libc::NLM_F_DUMP_INTR as u16;
        dump.extend(message(NLMSG_DONE, interrupted, watch.sequence, &[0; 4]));
        assert_eq!(events(&mut watch, &dump), []);
        let mut dump = message(
            libc::RTM_NEWLINK,
            2,
            watch.sequence,
            &link_body(70_000, "p70000", 0),
        );
        dump.extend(message(NLMSG_DONE, 0, watch.sequence, &[0; 4]));
        assert!(matches!(&events(&mut watch, &dump)[..], [LinkEvent::Gone(link)] if link.index == 70_001));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..120) {
            let _ = parse_link(&bytes);
            if let Some(message) = Message::first(&bytes) {
                let _ = parse_link(message.body);
            }
            let whole = link_body(3, "p3", 0);
            let _ = parse_link(&whole[..cut.min(whole.len())]);
        }
    }
}
