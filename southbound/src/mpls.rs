//! Labels: what becomes of a labelled packet, and which labels a packet gets (RFC 3031, RFC 3032).
//!
//! ```text
//!  FTN   a route (RouteSpec) whose next hop is NextHop::Labelled(Nhlfe)     IP -> labels
//!  ILM   IlmSpec: a label of a space -> what to do with it                  labels -> labels, or IP
//!  NHLFE what stands in the place of the label that was taken off (or of none), and where it is sent
//! ```

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{PortId, TunnelId, VrfId};

/// A label, 20 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Label(u32);

/// A value that no label has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a label is 0 to 1048575")]
pub struct LabelError;

impl Label {
    /// IPv4 explicit null (RFC 3032 section 2.1).
    pub const IPV4_EXPLICIT_NULL: Self = Self(0);
    /// IPv6 explicit null (RFC 3032 section 2.1).
    pub const IPV6_EXPLICIT_NULL: Self = Self(2);
    /// Implicit null: never sent, it asks the router before the last to pop (RFC 3032 section 2.1).
    pub const IMPLICIT_NULL: Self = Self(3);
    /// The least label that may be given out.
    pub const FIRST_UNRESERVED: Self = Self(16);
    /// The greatest.
    pub const MAX: Self = Self((1 << 20) - 1);

    /// The label of this value.
    ///
    /// # Errors
    /// [`LabelError`] for more than 20 bits.
    pub const fn new(value: u32) -> Result<Self, LabelError> {
        if value <= Self::MAX.0 {
            Ok(Self(value))
        } else {
            Err(LabelError)
        }
    }

    /// The value.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Whether it has a meaning of its own (RFC 7274 section 3: 0 to 15).
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_UNRESERVED.0
    }
}

impl TryFrom<u32> for Label {
    type Error = LabelError;

    fn try_from(value: u32) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Label> for u32 {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The labels of an NHLFE, outermost first: at most [`LabelStack::MAX`].
///
/// Implicit nulls are no labels: [`LabelStack::new`] leaves them out, so that a binding of 3 becomes a pop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Label>", into = "Vec<Label>")]
pub struct LabelStack {
    labels: [Label; Self::MAX],
    depth: u8,
}

/// More labels than an NHLFE has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at most {} labels are pushed", LabelStack::MAX)]
pub struct LabelStackError;

impl LabelStack {
    /// Most labels of one NHLFE.
    pub const MAX: usize = 8;

    /// No label.
    pub const EMPTY: Self = Self {
        labels: [Label(0); Self::MAX],
        depth: 0,
    };

    /// These labels, outermost first.
    ///
    /// # Errors
    /// [`LabelStackError`] for more than [`Self::MAX`].
    pub fn new(labels: &[Label]) -> Result<Self, LabelStackError> {
        let mut stack = Self::EMPTY;
        for label in labels.iter().filter(|label| **label != Label::IMPLICIT_NULL) {
            *stack
                .labels
                .get_mut(usize::from(stack.depth))
                .ok_or(LabelStackError)? = *label;
            stack.depth += 1;
        }
        Ok(stack)
    }

    /// The labels, outermost first.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        self.labels.get(..usize::from(self.depth)).unwrap_or(&self.labels)
    }
}

impl TryFrom<Vec<Label>> for LabelStack {
    type Error = LabelStackError;

    fn try_from(labels: Vec<Label>) -> Result<Self, Self::Error> {
        Self::new(&labels)
    }
}

impl From<LabelStack> for Vec<Label> {
    fn from(stack: LabelStack) -> Self {
        stack.labels().to_vec()
    }
}

/// A label space (RFC 3031 section 3.14). Ports and tunnels take labelled packets in one space or not at all, so that
/// a neighbour can use the labels that it was given and no others. At most [`LabelSpaceId::MAX`] besides 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelSpaceId(pub u32);

impl LabelSpaceId {
    /// The platform's own space, in which LDP and BGP give labels out.
    pub const PLATFORM: Self = Self(0);
    /// The greatest number of a space.
    pub const MAX: Self = Self(31);
}

/// How TTLs pass between a label and what it carries (RFC 3443).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TtlModel {
    /// Copied into labels that are pushed, and back where one is popped: traceroute shows the LSP (section 3.1).
    #[default]
    Uniform,
    /// Pushed labels begin at this value, 1 to 255, and what comes out at the end keeps its own (sections 3.2, 3.3).
    /// An ILM only looks at which model it is.
    Pipe(u8),
}

/// The traffic class of pushed labels (RFC 3270).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PushClass {
    /// The three high bits of the DSCP; of a labelled packet the TC of the label that was on top.
    #[default]
    Copy,
    /// This value, 0 to 7.
    Set(u8),
    /// By the map's `dscp_to_tc`; of a labelled packet the TC of the label that was on top.
    Map(ClassMapId),
}

/// The DSCP of what comes out where the last label is popped (RFC 3270 section 2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PopClass {
    /// Left as it is (pipe).
    #[default]
    Keep,
    /// The class selector of the TC: TC in the three high bits (uniform).
    Selector,
    /// By the map's `tc_to_dscp`.
    Map(ClassMapId),
}

/// Names a [`ClassMapSpec`]: 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassMapId(pub u8);

impl ClassMapId {
    /// The greatest.
    pub const MAX: Self = Self(15);
}

/// A mapping between traffic classes and DSCPs (RFC 3270 sections 2.5 and 2.6). An NHLFE or ILM that names a map which
/// is not there takes the default of its direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassMapSpec {
    /// Its name.
    pub id: ClassMapId,
    /// The TC, 0 to 7, of each of the 64 DSCPs.
    pub dscp_to_tc: Vec<u8>,
    /// The DSCP, 0 to 63, of each of the 8 TCs; `None` leaves the packet's.
    pub tc_to_dscp: [Option<u8>; 8],
}

/// The way to the next router of an LSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LabelVia {
    /// Through a port to a neighbour.
    Port {
        /// The egress port.
        port: PortId,
        /// Whose Ethernet address it goes to.
        gateway: IpAddr,
    },
    /// Into a tunnel that carries labels: GRE, IP or UDP.
    Tunnel(TunnelId),
}

/// Next hop label forwarding entry: labels and the way on (RFC 3031 section 3.10).
///
/// Of an ILM the stack stands in the place of the label that is taken off: none is a pop (penultimate hop), one a swap,
/// more a swap and pushes. Of a route it is pushed onto the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nhlfe {
    /// The labels, outermost first.
    pub stack: LabelStack,
    /// The way on.
    pub via: LabelVia,
    /// The TTL of labels that are pushed on an IP packet, or above the innermost in the place of a label, which goes on
    /// with the TTL that is left (RFC 3443 section 3.5).
    pub ttl: TtlModel,
    /// The TC of the same.
    pub class: PushClass,
    /// Push an entropy label with its indicator beneath that many labels of the stack, 1 at least (RFC 6790 section
    /// 4.2), made of the flow's hash; the packet gets two more entries. Where labels are swapped only, one that is
    /// there already stays and no other is pushed.
    pub entropy_beneath: Option<u8>,
}

impl Nhlfe {
    /// These labels by that way, everything else by default.
    #[must_use]
    pub fn new(stack: LabelStack, via: LabelVia) -> Self {
        Self {
            stack,
            via,
            ttl: TtlModel::default(),
            class: PushClass::default(),
            entropy_beneath: None,
        }
    }
}

/// What is done with a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperation {
    /// Taken off, and the IP packet beneath routed in this table (the VPN label of RFC 4364 section 4.3.2, per VRF).
    /// It must be the last label: what has another beneath is dropped, or a customer could choose it.
    PopAndLookup(VrfId),
    /// Taken off, and the next label looked up in the same space, or the IP packet routed in the table of the port or
    /// tunnel that it came by: the egress of a transport LSP without penultimate-hop popping.
    Pop,
    /// Taken off, and one of these in its place, by flow; 1 to 16. With an empty stack the packet goes to that next
    /// hop as it is beneath (penultimate-hop popping; the VPN label per next hop).
    Forward {
        /// The next hops.
        next_hops: Vec<Nhlfe>,
        /// As in [`crate::RouteSpec::weights`].
        weights: Vec<u8>,
    },
    /// Taken off where it is the last, and the packet handed to the host.
    Host,
    /// Dropped.
    Discard,
}

/// An entry of the incoming label map (RFC 3031 section 3.11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IlmSpec {
    /// The space.
    pub space: LabelSpaceId,
    /// The label, 16 or more: the reserved ones do what their RFCs say and have no entries.
    pub label: Label,
    /// What is done.
    pub operation: LabelOperation,
    /// The TTL model where the label is popped.
    pub ttl: TtlModel,
    /// The DSCP where the last label is popped.
    pub class: PopClass,
}

/// A routing table of a customer. Tables that something else names are there without this; it gives them a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfSpec {
    /// Its name in updates; ports ([`crate::PortSpec::vrf`]) and tunnels ([`crate::TunnelSpec::inner_vrf`]) name it.
    pub id: VrfId,
    /// Its name for people.
    pub name: String,
}

/// A label and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelStatus {
    /// The entry.
    pub ilm: IlmSpec,
    /// Packets that came with the label on top.
    pub packets: u64,
    /// Their bytes from that label on.
    pub bytes: u64,
}

/// A routing table and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfStatus {
    /// Its name in updates.
    pub vrf: VrfId,
    /// Its name for people, where it was given one.
    pub name: String,
    /// IPv4 routes.
    pub routes_v4: u64,
    /// IPv6 routes.
    pub routes_v6: u64,
    /// Packets routed in it.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};
    use proptest::prelude::*;

    fn label(value: u32) -> Label {
        Label::new(value).unwrap()
    }

    #[test]
    fn labels_are_20_bits() {
        assert_eq!(Label::new(1 << 20), Err(LabelError));
        assert_eq!(label((1 << 20) - 1), Label::MAX);
        assert!(label(15).is_reserved() && !label(16).is_reserved());
        assert!(decode::<Label>(&encode(&(1u32 << 20)).unwrap()).is_err());
    }

    #[test]
    fn a_stack_holds_eight_and_no_implicit_null() {
        let stack = LabelStack::new(&[label(100), Label::IMPLICIT_NULL, label(200)]).unwrap();
        assert_eq!(stack.labels(), [label(100), label(200)]);
        assert_eq!(
            LabelStack::new(&[Label::IMPLICIT_NULL]).unwrap(),
            LabelStack::EMPTY
        );
        assert_eq!(LabelStack::new(&[label(16); 8]).unwrap().labels().len(), 8);
        assert_eq!(LabelStack::new(&[label(16); 9]), Err(LabelStackError));
        assert!(decode::<LabelStack>(&encode(&vec![label(16); 9]).unwrap()).is_err());
    }

    fn via() -> impl Strategy<Value = LabelVia> {
        prop_oneof![
            (any::<u32>(), any::<IpAddr>()).prop_map(|(port, gateway)| LabelVia::Port {
                port: PortId(port),
                gateway,
            }),
            any::<u32>().prop_map(|tunnel| LabelVia::Tunnel(TunnelId(tunnel))),
        ]
    }

    prop_compose! {
        fn nhlfe()(
            labels in proptest::collection::vec(0u32..1 << 20, 0..9), via in via(), pipe in any::<Option<u8>>(),
            class in prop_oneof![
                Just(PushClass::Copy), any::<u8>().prop_map(PushClass::Set),
                any::<u8>().prop_map(|map| PushClass::Map(ClassMapId(map))),
            ],
            entropy_beneath in any::<Option<u8>>(),
        ) -> Nhlfe {
            let labels: Vec<_> = labels.into_iter().map(label).collect();
            Nhlfe {
                stack: LabelStack::new(&labels).unwrap(),
                via,
                ttl: pipe.map_or(TtlModel::Uniform, TtlModel::Pipe),
                class,
                entropy_beneath,
            }
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_itself_after_the_socket(
            value in 0u32..1 << 20, space in any::<u32>(), hops in proptest::collection::vec(nhlfe(), 0..17),
            weights in proptest::collection::vec(any::<u8>(), 0..17), vrf in any::<u32>(), kind in 0..5,
        ) {
            let operation = match kind {
                0 => LabelOperation::PopAndLookup(VrfId(vrf)),
                1 => LabelOperation::Pop,
                2 => LabelOperation::Forward { next_hops: hops, weights },
                3 => LabelOperation::Host,
                _ => LabelOperation::Discard,
            };
            let update = crate::Update::PutIlm(IlmSpec {
                space: LabelSpaceId(space), label: label(value), operation,
                ttl: TtlModel::Pipe(255), class: PopClass::Map(ClassMapId(1)),
            });
            let bytes = encode(&update).unwrap();
            prop_assert_eq!(decode::<crate::Update>(&bytes).unwrap(), update);
            for length in 0..bytes.len() {
                prop_assert!(decode::<crate::Update>(&bytes[..length]).is_err());
            }
        }
    }
}
