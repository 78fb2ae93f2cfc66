//! The SPD: the first rule for a packet (RFC 4301 section 4.4.1), among ten thousand.
//!
//! Rules are parted by the peer's addresses, then by ours, then by the ports and the protocol: a part is a
//! sorted list of boundaries, each stretch between two of them knows the few rules that touch it, and a table
//! by the leading bits finds the stretch in a step or two. A rule that touches many stretches is kept beside
//! them and parted by the next field instead. Compiled whole by the writer, and swapped.

use std::net::IpAddr;

use southbound::{ProtocolMatch, SelectorPair};

use crate::sa::TunnelIndex;

/// What the rules say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// No rule matches: routes decide.
    NoRule,
    /// No rule matches, and what no rule matches may not cross between the protected side and the rest.
    NoMatch,
    /// Into this tunnel; inbound, it must have come out of it.
    Protect(TunnelIndex),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) id: u32,
    pub(crate) selector: SelectorPair,
    pub(crate) decision: Decision,
}

/// The rules of one table, in order.
#[derive(Debug)]
pub(crate) struct Classifier {
    v4: Family<u32>,
    v6: Family<u128>,
    /// For what no rule matches.
    default: Decision,
}

impl Classifier {
    /// Of `rules` in any order, and `default` for what none of them matches.
    pub(crate) fn new(mut rules: Vec<Rule>, default: Decision) -> Self {
        rules.sort_unstable_by_key(|rule| (rule.priority, rule.id));
        let v4 = rules.iter().filter_map(|rule| {
            let (local, remote) = (&rule.selector.local.addresses, &rule.selector.remote.addresses);
            match (local.first, local.last, remote.first, remote.last) {
                (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(c), IpAddr::V4(d)) => Some(Match::new(
                    rule,
                    [(a.to_bits(), b.to_bits()), (c.to_bits(), d.to_bits())],
                )),
                _ => None,
            }
        });
        let v6 = rules.iter().filter_map(|rule| {
            let (local, remote) = (&rule.selector.local.addresses, &rule.selector.remote.addresses);
            match (local.first, local.last, remote.first, remote.last) {
                (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(c), IpAddr::V6(d)) => Some(Match::new(
                    rule,
                    [(a.to_bits(), b.to_bits()), (c.to_bits(), d.to_bits())],
                )),
                _ => None,
            }
        });
        Self {
            v4: Family::new(v4.collect()),
            v6: Family::new(v6.collect()),
            default,
        }
    }

    /// The first rule for a packet from our side to the peer's.
    #[inline]
    pub(crate) fn decide(
        &self,
        local: IpAddr,
        remote: IpAddr,
        protocol: u8,
        ports: Option<(u16, u16)>,
    ) -> Decision {
        let found = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                self.v4
                    .decide([local.to_bits(), remote.to_bits()], protocol, ports)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                self.v6
                    .decide([local.to_bits(), remote.to_bits()], protocol, ports)
            }
            _ => None,
        };
        found.unwrap_or(self.default)
    }
}

/// An address, a port or a protocol as a number.
trait Key: Copy + Ord + From<u16> {
    /// The address behind this one, where there is one.
    fn after(self) -> Option<Self>;
    /// How many `1 << shift` lie between.
    fn steps_from(self, start: Self, shift: u32) -> usize;
}

impl Key for u32 {
    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline]
    fn steps_from(self, start: Self, shift: u32) -> usize {
        ((self - start) >> shift) as usize
    }
}

impl Key for u128 {
    fn after(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline]
    fn steps_from(self, start: Self, shift: u32) -> usize {
        usize::try_from((self - start) >> shift).unwrap_or(usize::MAX)
    }
}

const LOCAL: usize = 0;
const REMOTE: usize = 1;
const ANY_PROTOCOL: u16 = 256;

/// What rules are parted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Address(usize),
    Port(usize),
    Protocol,
}

/// In this order: where all rules are alike in a field, it parts nothing and the next one is tried.
const FIELDS: [Field; 5] = [
    Field::Address(REMOTE),
    Field::Address(LOCAL),
    Field::Port(REMOTE),
    Field::Port(LOCAL),
    Field::Protocol,
];

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
struct Match<K> {
    // Ours, the peer's.
    addresses: [(K, K); 2],
    ports: [(u16, u16); 2],
    protocol: u16,
    any_port: bool,
    decision: Decision,
}

impl<K: Key> Match<K> {
    fn new(rule: &Rule, addresses: [(K, K); 2]) -> Self {
        let (local, remote) = (&rule.selector.local, &rule.selector.remote);
        Self {
            addresses,
            ports: [
                (local.ports.first, local.ports.last),
                (remote.ports.first, remote.ports.last),
            ],
            protocol: match rule.selector.protocol {
                ProtocolMatch::Any => ANY_PROTOCOL,
                ProtocolMatch::Only(only) => u16::from(only),
            },
            any_port: local.matches_any_port() && remote.matches_any_port(),
            decision: rule.decision,
        }
    }

    /// The values of a field that the rule matches.
    fn range(&self, field: Field) -> (K, K) {
        match field {
            Field::Address(side) => self.addresses[side],
            Field::Port(side) => (K::from(self.ports[side].0), K::from(self.ports[side].1)),
            Field::Protocol if self.protocol == ANY_PROTOCOL => (K::from(0), K::from(u16::from(u8::MAX))),
            Field::Protocol => (K::from(self.protocol), K::from(self.protocol)),
        }
    }

    #[inline]
    fn covers(&self, packet: &Packet<K>) -> bool {
        let within = |(first, last): (K, K), value: K| first <= value && value <= last;
        within(self.addresses[LOCAL], packet.addresses[LOCAL])
            && within(self.addresses[REMOTE], packet.addresses[REMOTE])
            && (self.protocol == ANY_PROTOCOL || self.protocol == u16::from(packet.protocol))
            && (self.any_port
                || packet.ports.is_some_and(|(local, remote)| {
                    let [first, second] = self.ports;
                    first.0 <= local && local <= first.1 && second.0 <= remote && remote <= second.1
                }))
    }
}

struct Packet<K> {
    addresses: [K; 2],
    protocol: u8,
    ports: Option<(u16, u16)>,
}

impl<K: Key> Packet<K> {
    /// Its value of a field. Without ports only rules for all ports match, which are among those for port zero.
    #[inline]
    fn value(&self, field: Field) -> K {
        match field {
            Field::Address(side) => self.addresses[side],
            Field::Port(LOCAL) => K::from(self.ports.map_or(0, |(local, _)| local)),
            Field::Port(_) => K::from(self.ports.map_or(0, |(_, remote)| remote)),
            Field::Protocol => K::from(u16::from(self.protocol)),
        }
    }
}

/// The rules of one family.
#[derive(Debug)]
struct Family<K> {
    rules: Box<[Match<K>]>,
    top: Part<K>,
}

/// Up to this many rules are looked at one by one.
const FEW: usize = 6;
/// A rule that touches the beginnings of more others than this is kept beside the stretches.
const WIDE: usize = 24;

/// Rules by their places in order, parted by addresses where they are many.
#[derive(Debug)]
enum Part<K> {
    List(Box<[u32]>),
    Parted(Box<Parted<K>>),
}

#[derive(Debug)]
struct Parted<K> {
    field: Field,
    // The first value of each stretch; what lies before the first stretch touches no rule.
    starts: Box<[K]>,
    stretches: Box<[Part<K>]>,
    // The first stretch of each equal step from the first start.
    steps: Box<[u32]>,
    shift: u32,
    wide: Part<K>,
}

impl<K: Key> Family<K> {
    fn new(rules: Vec<Match<K>>) -> Self {
        let all: Vec<u32> = (0..rules.len() as u32).collect();
        let top = Part::new(&rules, all, &FIELDS);
        Self {
            rules: rules.into_boxed_slice(),
            top,
        }
    }

    #[inline]
    fn decide(&self, addresses: [K; 2], protocol: u8, ports: Option<(u16, u16)>) -> Option<Decision> {
        let packet = Packet {
            addresses,
            protocol,
            ports,
        };
        match self.top.first(&self.rules, &packet, u32::MAX) {
            u32::MAX => None,
            place => Some(self.rules[place as usize].decision),
        }
    }
}

impl<K: Key> Part<K> {
    fn new(rules: &[Match<K>], places: Vec<u32>, fields: &[Field]) -> Self {
        let Some((&field, other_fields)) = fields.split_first() else {
            return Self::List(places.into_boxed_slice());
        };
        if places.len() <= FEW {
            return Self::List(places.into_boxed_slice());
        }
        let range = |place: &u32| rules[*place as usize].range(field);
        let mut firsts: Vec<K> = places.iter().map(|place| range(place).0).collect();
        firsts.sort_unstable();
        let (narrow, wide): (Vec<u32>, Vec<u32>) = places.iter().copied().partition(|place| {
            let (first, last) = range(place);
            let touched = firsts.partition_point(|other| *other <= last)
                - firsts.partition_point(|other| *other < first);
            touched <= WIDE
        });
        if narrow.is_empty() {
            return Self::new(rules, places, other_fields);
        }
        let mut starts: Vec<K> = Vec::with_capacity(2 * narrow.len());
        for place in &narrow {
            let (first, last) = range(place);
            starts.push(first);
            starts.extend(last.after());
        }
        starts.sort_unstable();
        starts.dedup();
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); starts.len()];
        // In order of place, so that each list is in order too.
        for place in &narrow {
            let (first, last) = range(place);
            let from = starts.partition_point(|start| *start < first);
            let to = starts.partition_point(|start| *start <= last);
            for list in &mut members[from..to] {
                list.push(*place);
            }
        }
        let stretches = members
            .into_iter()
            .map(|list| Self::new(rules, list, other_fields))
            .collect();
        let (steps, shift) = steps(&starts);
        Self::Parted(Box::new(Parted {
            field,
            starts: starts.into_boxed_slice(),
            stretches,
            steps,
            shift,
            wide: Self::new(rules, wide, other_fields),
        }))
    }

    /// The first matching rule before `bound`, or `bound`.
    #[inline]
    fn first(&self, rules: &[Match<K>], packet: &Packet<K>, bound: u32) -> u32 {
        match self {
            Self::List(places) => places
                .iter()
                .copied()
                .take_while(|place| *place < bound)
                .find(|place| rules[*place as usize].covers(packet))
                .unwrap_or(bound),
            Self::Parted(parted) => {
                let found = match parted.stretch(packet.value(parted.field)) {
                    Some(stretch) => stretch.first(rules, packet, bound),
                    None => bound,
                };
                parted.wide.first(rules, packet, found)
            }
        }
    }
}

impl<K: Key> Parted<K> {
    #[inline]
    fn stretch(&self, value: K) -> Option<&Part<K>> {
        let start = *self.starts.first()?;
        if value < start {
            return None;
        }
        let step = value
            .steps_from(start, self.shift)
            .min(self.steps.len().saturating_sub(2));
        let from = *self.steps.get(step)? as usize;
        let to = *self.steps.get(step + 1)? as usize;
        // The stretch may have begun in an earlier step.
        let within = self
            .starts
            .get(from..to)?
            .partition_point(|start| *start <= value);
        self.stretches.get((from + within).checked_sub(1)?)
    }
}

/// The first start of each step, with as many steps as there are starts, more or less, and one beyond.
fn steps<K: Key>(starts: &[K]) -> (Box<[u32]>, u32) {
    let (Some(first), Some(last)) = (starts.first(), starts.last()) else {
        return (Box::default(), 0);
    };
    let mut shift = 0;
    while last.steps_from(*first, shift) > 2 * starts.len() {
        shift += 1;
    }
    let count = last.steps_from(*first, shift) + 1;
    let mut steps = Vec::with_capacity(count + 1);
    let mut place = 0;
    for step in 0..count {
        while place < starts.len() && starts[place].steps_from(*first, shift) < step {
            place += 1;
        }
        steps.push(place as u32);
    }
    steps.push(starts.len() as u32);
    (steps.into_boxed_slice(), shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use southbound::{Endpoint, ValueRange};

    use super::*;

    fn endpoint(v6: bool, (first, last): (u32, u32), ports: (u16, u16)) -> Endpoint {
        let address = |bits: u32| {
            if v6 {
                IpAddr::V6((0x2001_0db8u128 << 96 | u128::from(bits) << 40).into())
            } else {
                IpAddr::V4(bits.into())
            }
        };
        Endpoint {
            addresses: ValueRange {
                first: address(first.min(last)),
                last: address(first.max(last)),
            },
            ports: ValueRange {
                first: ports.0.min(ports.1),
                last: ports.0.max(ports.1),
            },
        }
    }

    fn range() -> impl Strategy<Value = (u32, u32)> {
        prop_oneof![
            4 => (0u32..400, 0u32..3).prop_map(|(net, wide)| (0x0a00_0000 + (net << 8), 0x0a00_0000 + ((net + wide) << 8) + 255)),
            1 => (0u32..400).prop_map(|host| (0x0a00_0000 + host * 77, 0x0a00_0000 + host * 77)),
            1 => Just((0, u32::MAX)),
            1 => (any::<u32>(), any::<u32>()),
        ]
    }

    fn ports() -> impl Strategy<Value = (u16, u16)> {
        prop_oneof![
            3 => Just((0, u16::MAX)),
            3 => (50u16..90).prop_map(|port| (port, port)),
            1 => (0u16..90, 50u16..60)
        ]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        (
            0u32..50,
            any::<bool>(),
            range(),
            range(),
            ports(),
            ports(),
            prop_oneof![Just(None), (16u8..19).prop_map(Some)],
        )
            .prop_map(
                |(priority, v6, local, remote, local_ports, remote_ports, protocol)| Rule {
                    priority,
                    id: 0,
                    selector: SelectorPair {
                        local: endpoint(v6, local, local_ports),
                        remote: endpoint(v6, remote, remote_ports),
                        protocol: protocol.map_or(ProtocolMatch::Any, ProtocolMatch::Only),
                    },
                    decision: Decision::NoRule,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn the_rule_found_is_the_first_of_the_list(
            mut rules in proptest::collection::vec(rule(), 0..300),
            packets in proptest::collection::vec((any::<bool>(), range(), range(), proptest::option::of((45u16..95, 45u16..95)), 16u8..19), 40),
        ) {
            for (number, rule) in rules.iter_mut().enumerate() {
                rule.id = number as u32;
                rule.decision = Decision::Protect(TunnelIndex(number as u32));
            }
            let compiled = Classifier::new(rules.clone(), Decision::NoMatch);
            rules.sort_by_key(|rule| (rule.priority, rule.id));
            for (v6, local, remote, ports, protocol) in packets {
                let local = endpoint(v6, local, (0, 0)).addresses.last;
                let remote = endpoint(v6, remote, (0, 0)).addresses.first;
                let expected = rules
                    .iter()
                    .find(|rule| rule.selector.covers(local, remote, protocol, ports))
                    .map_or(Decision::NoMatch, |rule| rule.decision);
                prop_assert_eq!(compiled.decide(local, remote, protocol, ports), expected);
            }
        }
    }

    #[test]
    fn ten_thousand_rules_are_parted_into_short_lists() {
        let rules = (0..10_000u32)
            .map(|number| Rule {
                priority: number % 7,
                id: number,
                selector: SelectorPair {
                    local: endpoint(false, (0, u32::MAX), (0, u16::MAX)),
                    remote: endpoint(
                        false,
                        (0x0a00_0000 + (number << 8), 0x0a00_00ff + (number << 8)),
                        (0, u16::MAX),
                    ),
                    protocol: ProtocolMatch::Any,
                },
                decision: Decision::Protect(TunnelIndex(number)),
            })
            .collect();
        let compiled = Classifier::new(rules, Decision::NoRule);
        let Part::Parted(parted) = &compiled.v4.top else {
            panic!("not parted");
        };
        assert!(
            parted
                .stretches
                .iter()
                .all(|part| matches!(part, Part::List(list) if list.len() <= 1))
        );
        assert!(
            parted.steps.windows(2).all(|step| step[1] - step[0] <= 4),
            "found in a step or two"
        );
        let decided = compiled.decide("192.0.2.1".parse().unwrap(), "10.3.7.9".parse().unwrap(), 6, None);
        assert_eq!(decided, Decision::Protect(TunnelIndex(3 << 8 | 7)));
    }

    /// The longest list that a packet may have to be compared with, whatever it is.
    fn longest<K: Key>(part: &Part<K>) -> usize {
        match part {
            Part::List(list) => list.len(),
            Part::Parted(parted) => {
                parted.stretches.iter().map(longest).max().unwrap_or(0) + longest(&parted.wide)
            }
        }
    }

    #[test]
    fn rules_that_differ_only_by_port_or_protocol_are_parted_as_well() {
        let any = (0, u16::MAX);
        let rule = |number: u32, local_ports, remote_ports, protocol| Rule {
            priority: 1,
            id: number,
            selector: SelectorPair {
                local: endpoint(false, (0, u32::MAX), local_ports),
                remote: endpoint(false, (0, u32::MAX), remote_ports),
                protocol,
            },
            decision: Decision::Protect(TunnelIndex(number)),
        };
        let at = |port: u32| (port as u16, port as u16);
        let tcp = ProtocolMatch::Only(6);
        let by_remote = (0..2000).map(|port| rule(port, any, at(port), tcp)).collect();
        let by_local = (0..2000).map(|port| rule(port, at(port), any, tcp)).collect();
        let by_protocol = (0..250)
            .map(|number| rule(number, any, any, ProtocolMatch::Only(number as u8)))
            .collect();
        let decide = |classifier: &Classifier, protocol, ports| {
            let address = "192.0.2.1".parse().unwrap();
            classifier.decide(address, address, protocol, Some(ports))
        };
        for (rules, protocol, ports) in [
            (by_remote, 6, (9, 200)),
            (by_local, 6, (200, 9)),
            (by_protocol, 200, (1, 1)),
        ] {
            let compiled = Classifier::new(rules, Decision::NoMatch);
            assert!(longest(&compiled.v4.top) <= FEW, "{}", longest(&compiled.v4.top));
            assert_eq!(
                decide(&compiled, protocol, ports),
                Decision::Protect(TunnelIndex(200))
            );
            assert_eq!(decide(&compiled, 253, (60_000, 60_000)), Decision::NoMatch);
        }
    }
}
