//! The kernel's tables as its messages told them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use southbound::IpPrefix;

use super::address::Address;
use super::link::Link;
use super::neighbour::Neighbour;
use super::route::Route;
use super::socket::{Frame, NLM_F_APPEND, NLM_F_REPLACE};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// A place in a routing table.
pub(super) type RouteKey = (u32, IpPrefix);

/// What the kernel has.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) links: BTreeMap<u32, Link>,
    /// The VRF devices among them, by routing table.
    pub(super) vrf_devices: BTreeMap<u32, u32>,
    pub(super) addresses: BTreeSet<Address>,
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// Entries of one prefix, in the order in which the kernel looks at them within one priority.
    pub(super) routes: BTreeMap<RouteKey, Vec<Route>>,
}

/// What a message changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that is looked at.
    None,
    /// An interface came, went, or took another name or master: everything may mean something else.
    Meaning,
    /// Routes may have gone without a word: the kernel drops IPv4 routes silently with their interface or
    /// their source address, and those of a next-hop object with it.
    SilentRoutes,
    /// Addresses came or went; `true` where one went, with which routes may have gone.
    Addresses(bool),
    /// One neighbour.
    Neighbour(u32, IpAddr),
    /// One prefix; `true` where the message did not say enough to know the rest.
    Route(RouteKey, bool),
    /// A message that could not be read.
    Undecodable,
}

impl Tables {
    /// Applies a message of the kernel, be it from a dump or an event.
    pub(super) fn apply(&mut self, frame: &Frame<'_>) -> Change {
        if matches!(frame.kind, RTM_NEWNEXTHOP | RTM_DELNEXTHOP) {
            return Change::SilentRoutes;
        }
        match frame.parse() {
            None => Change::Undecodable,
            // Bridges and IPv6 tell of the same interfaces in messages of their own families.
            Some(RouteNetlinkMessage::NewLink(message))
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                match Link::parse(&message) {
                    Some(link) => self.link(link),
                    None => Change::Undecodable,
                }
            }
            Some(RouteNetlinkMessage::DelLink(message))
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                self.link_gone(message.header.index)
            }
            Some(RouteNetlinkMessage::NewAddress(message)) => match Address::parse(&message) {
                Some((address, true)) if self.addresses.insert(address) => Change::Addresses(false),
                Some((address, false)) if self.addresses.remove(&address) => Change::Addresses(true),
                _ => Change::None,
            },
            Some(RouteNetlinkMessage::DelAddress(message)) => match Address::parse(&message) {
                Some((address, _)) if self.addresses.remove(&address) => Change::Addresses(true),
                _ => Change::None,
            },
            Some(RouteNetlinkMessage::NewNeighbour(message)) => {
                let Some(neighbour) = Neighbour::parse(&message) else {
                    return Change::None;
                };
                let key = (neighbour.index, neighbour.address);
                if self.neighbours.insert(key, neighbour) == Some(neighbour) {
                    return Change::None;
                }
                Change::Neighbour(key.0, key.1)
            }
            Some(RouteNetlinkMessage::DelNeighbour(message)) => match Neighbour::parse(&message) {
                Some(neighbour)
                    if self
                        .neighbours
                        .remove(&(neighbour.index, neighbour.address))
                        .is_some() =>
                {
                    Change::Neighbour(neighbour.index, neighbour.address)
                }
                _ => Change::None,
            },
            Some(RouteNetlinkMessage::NewRoute(message)) => match Route::parse(&message) {
                Some((table, prefix, route)) => self.route((table, prefix), route, frame.flags),
                None => Change::None,
            },
            Some(RouteNetlinkMessage::DelRoute(message)) => match Route::parse(&message) {
                Some((table, prefix, route)) => self.route_gone((table, prefix), &route),
                None => Change::None,
            },
            Some(_) => Change::None,
        }
    }

    fn link(&mut self, link: Link) -> Change {
        let old = self.links.insert(link.index, link.clone());
        self.forget_vrf_device(link.index);
        if let Some(table) = link.vrf_table {
            self.vrf_devices.insert(table, link.index);
        }
        match old {
            Some(old) if old == link => Change::None,
            Some(old)
                if old.name == link.name && old.master == link.master && old.vrf_table == link.vrf_table =>
            {
                Change::SilentRoutes
            }
            _ => Change::Meaning,
        }
    }

    fn forget_vrf_device(&mut self, index: u32) {
        self.vrf_devices.retain(|_, device| *device != index);
    }

    /// The routing table of the VRF device that an interface is enslaved to.
    pub(super) fn vrf_of(&self, link: &Link) -> Option<u32> {
        self.links.get(&link.master?)?.vrf_table
    }

    /// The VRF devices: table and name.
    pub(super) fn vrfs(&self) -> impl Iterator<Item = (u32, &str)> {
        self.vrf_devices
            .iter()
            .filter_map(|(table, index)| Some((*table, self.links.get(index)?.name.as_str())))
    }

    fn link_gone(&mut self, index: u32) -> Change {
        if self.links.remove(&index).is_none() {
            return Change::None;
        }
        self.forget_vrf_device(index);
        self.addresses.retain(|address| address.index != index);
        self.neighbours.retain(|(on, _), _| *on != index);
        for routes in self.routes.values_mut() {
            for route in routes.iter_mut() {
                route.hops.retain(|hop| hop.index != index);
            }
        }
        Change::Meaning
    }

    fn route(&mut self, key: RouteKey, route: Route, flags: u16) -> Change {
        let entries = self.routes.entry(key).or_default();
        let rivals = entries
            .iter()
            .filter(|entry| entry.priority == route.priority)
            .count();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.is_same_entry(&route)) {
            let changed = *entry != route;
            *entry = route;
            return if changed {
                Change::Route(key, false)
            } else {
                Change::None
            };
        }
        let is_replaced = flags & NLM_F_REPLACE != 0;
        match entries.iter_mut().find(|entry| entry.priority == route.priority) {
            // IPv6 tells of another way of a route by the whole route, as an append.
            Some(entry) if is_replaced || (flags & NLM_F_APPEND != 0 && key.1.network().is_ipv6()) => {
                *entry = route;
            }
            _ => {
                let at = entries.partition_point(|entry| entry.priority <= route.priority);
                entries.insert(at, route);
            }
        }
        Change::Route(key, rivals > usize::from(is_replaced))
    }

    fn route_gone(&mut self, key: RouteKey, route: &Route) -> Change {
        let Some(entries) = self.routes.get_mut(&key) else {
            return Change::None;
        };
        let same = entries.iter().position(|entry| entry.is_same_entry(route));
        let found = same.or_else(|| entries.iter().position(|entry| entry.priority == route.priority));
        if let Some(index) = found {
            entries.remove(index);
        }
        if entries.is_empty() {
            self.routes.remove(&key);
        }
        // One way of several of an IPv6 route goes by itself: what is left has to be asked for.
        Change::Route(key, same.is_none())
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState as KernelState};
    use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
    use southbound::NeighbourState;

    use super::super::route::{Hop, Kind};
    use super::super::socket::frames;
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|digit| char::from(digit).to_digit(16).unwrap() as u8)
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn apply(tables: &mut Tables, bytes: &[u8]) -> Vec<Change> {
        frames(bytes).map(|frame| tables.apply(&frame)).collect()
    }

    fn message(payload: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// `ip route add 203.0.113.0/24 nexthop via 192.0.2.2 dev va nexthop via 198.51.100.3 dev vb weight 2`,
    /// as Linux 6.18 told it (`va` is 3, `vb` is 5).
    const MULTIPATH: &str = "
        5000000018000006d290016bcd720000
        02180000fe030001 00000000
        08000f00fe000000 08000100cb007100
        24000900 10000000 03000000 08000500c0000202 10000001 05000000 08000500c6336403";

    #[test]
    fn a_captured_multipath_route_is_read_with_all_its_ways() {
        let bytes = unhex(MULTIPATH);
        let mut tables = Tables::default();
        let key = (254, "203.0.113.0/24".parse().unwrap());
        assert_eq!(apply(&mut tables, &bytes), [Change::Route(key, false)]);
        let hop = |index, gateway: &str| Hop {
            index,
            gateway: Some(gateway.parse().unwrap()),
        };
        assert_eq!(
            tables.routes[&key][0].hops,
            [hop(3, "192.0.2.2"), hop(5, "198.51.100.3")]
        );
        assert_eq!(apply(&mut tables, &bytes), [Change::None]);
    }

    /// `ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:aa dev va`, as Linux 6.18 told it.
    const NEIGHBOUR: &str = "
        4c0000001c00000000000000ce720000
        020000000300000080000001
        08000100c0000202 0a0002000200000000aa0000 0800040000000000
        1400030000000000000000000000000001000000";

    /// `ip neigh del 192.0.2.2 dev va`: the entry fails, and then it is gone.
    const NEIGHBOUR_GONE: &str = "
        400000001c00000000000000cf720000 020000000300000020000001
        08000100c0000202 0800040000000000 1400030000000000000000000000000001000000
        400000001d0000000000000000000000 020000000300000020000001
        08000100c0000202 0800040000000000 1400030000000000000000000000000000000000";

    #[test]
    fn a_captured_neighbour_is_read_and_forgotten() {
        let bytes = unhex(NEIGHBOUR);
        let mut tables = Tables::default();
        let address: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(apply(&mut tables, &bytes), [Change::Neighbour(3, address)]);
        assert_eq!(
            tables.neighbours[&(3, address)].state,
            Some(NeighbourState::Resolved([2, 0, 0, 0, 0, 0xaa]))
        );
        assert_eq!(apply(&mut tables, &bytes), [Change::None]);
        let gone = Change::Neighbour(3, address);
        assert_eq!(apply(&mut tables, &unhex(NEIGHBOUR_GONE)), [gone, gone]);
        assert!(tables.neighbours.is_empty());
    }

    #[test]
    fn a_neighbour_being_asked_for_has_no_state_and_a_failed_one_says_so() {
        for (kernel, expected) in [
            (KernelState::Incomplete, None),
            (KernelState::Failed, Some(NeighbourState::Failed)),
        ] {
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.family = AddressFamily::Inet;
            neighbour.header.ifindex = 4;
            neighbour.header.state = kernel;
            neighbour
                .attributes
                .push(netlink_packet_route::neighbour::NeighbourAttribute::Destination(
                    "192.0.2.9".parse::<IpAddr>().unwrap().into(),
                ));
            let mut tables = Tables::default();
            apply(
                &mut tables,
                &message(RouteNetlinkMessage::NewNeighbour(neighbour), 0),
            );
            let found: Vec<_> = tables.neighbours.values().map(|entry| entry.state).collect();
            assert_eq!(found, [expected]);
        }
    }

    fn route(priority: u32, index: u32) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 8;
        route.header.table = 254;
        route.header.kind = RouteType::Unicast;
        let destination: IpAddr = "10.0.0.0".parse().unwrap();
        route.attributes = vec![
            RouteAttribute::Destination(destination.into()),
            RouteAttribute::Priority(priority),
            RouteAttribute::Oif(index),
        ];
        route
    }

    fn order(tables: &Tables) -> Vec<(u32, u32)> {
        tables
            .routes
            .values()
            .flatten()
            .map(|route| (route.priority, route.hops[0].index))
            .collect()
    }

    #[test]
    fn the_lowest_priority_is_first_and_a_replacement_replaces() {
        let mut tables = Tables::default();
        for (priority, index) in [(100, 1), (50, 2), (200, 3)] {
            apply(
                &mut tables,
                &message(RouteNetlinkMessage::NewRoute(route(priority, index)), 0),
            );
        }
        assert_eq!(order(&tables), [(50, 2), (100, 1), (200, 3)]);
        let changes = apply(
            &mut tables,
            &message(RouteNetlinkMessage::NewRoute(route(50, 9)), NLM_F_REPLACE),
        );
        assert!(matches!(changes[..], [Change::Route(_, false)]));
        assert_eq!(order(&tables), [(50, 9), (100, 1), (200, 3)]);
        apply(
            &mut tables,
            &message(RouteNetlinkMessage::DelRoute(route(50, 9)), 0),
        );
        assert_eq!(order(&tables), [(100, 1), (200, 3)]);
    }

    #[test]
    fn a_removal_that_fits_no_entry_asks_for_more() {
        let mut tables = Tables::default();
        apply(
            &mut tables,
            &message(RouteNetlinkMessage::NewRoute(route(5, 1)), 0),
        );
        let changes = apply(
            &mut tables,
            &message(RouteNetlinkMessage::DelRoute(route(5, 2)), 0),
        );
        assert!(matches!(changes[..], [Change::Route(_, true)]));
    }

    #[test]
    fn kinds_without_a_way_are_read() {
        for (kernel, kind) in [
            (RouteType::BlackHole, Kind::Blackhole),
            (RouteType::Prohibit, Kind::Unreachable),
        ] {
            let mut refusing = route(0, 0);
            refusing.header.kind = kernel;
            let (_, _, parsed) = Route::parse(&refusing).unwrap();
            assert_eq!((parsed.kind, parsed.hops.len()), (kind, 0));
        }
        let mut thrown = route(0, 1);
        thrown.header.kind = RouteType::Throw;
        assert!(Route::parse(&thrown).is_none());
    }
}
