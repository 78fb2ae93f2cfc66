//! Network interfaces as the kernel has them.

use netlink_packet_route::link::{InfoData, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `IFF_UP`: routes through an interface that is not are taken away by the kernel.
    pub(super) is_up: bool,
    /// `IFF_RUNNING`: carrier.
    pub(super) is_running: bool,
    /// The interface that it is enslaved to.
    pub(super) master: Option<u32>,
    /// The routing table, where it is a VRF.
    pub(super) vrf_table: Option<u32>,
}

impl Link {
    pub(super) fn parse(message: &LinkMessage) -> Option<Self> {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_running: message.header.flags.contains(LinkFlags::Running),
            master: None,
            vrf_table: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(0) => {}
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::LinkInfo(infos) => link.vrf_table = vrf_table(infos),
                _ => {}
            }
        }
        (link.index != 0 && !link.name.is_empty()).then_some(link)
    }
}

fn vrf_table(infos: &[LinkInfo]) -> Option<u32> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vrf(attributes)) => {
            attributes.iter().find_map(|attribute| match attribute {
                InfoVrf::TableId(table) => Some(*table),
                _ => None,
            })
        }
        _ => None,
    })
}
