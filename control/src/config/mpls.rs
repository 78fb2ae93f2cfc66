//! Labels, static routes, class maps and the FPM listener: what a PE or P router needs.

mod build;
mod section;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use southbound::{
    ClassMapId, IpPrefix, Label, LabelSpaceId, LabelStack, PopClass, PushClass, TtlModel, VrfId,
};
use toml::Spanned;

pub(super) use section::{ClassMapSection, FpmSection, HopSection, LabelSection, LeakSection, RouteSection};

use super::file::WordOrNumber;
use super::source::Source;

/// Most ways of one route or label.
const MAX_HOPS: usize = 16;

/// How long what zebra no longer tells stays, where nothing is said.
const DEFAULT_STALE_SECONDS: u64 = 120;

const DEFAULT_FPM_PORT: u16 = 2620;

/// The FPM listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fpm {
    /// Where zebra connects to.
    pub listen: SocketAddr,
    /// How long what no session confirms stays.
    pub stale: Duration,
    /// The TTL model of the labels that zebra tells.
    pub ttl: TtlModel,
}

/// Where a static way leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Through a port, by the name of its interface.
    Port {
        /// The interface.
        interface: String,
        /// The neighbour; absent where the destination itself is on the link.
        gateway: Option<IpAddr>,
    },
    /// Into a tunnel, by its name.
    Tunnel(String),
}

/// A static way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The way.
    pub via: Via,
    /// Labels to push, or in the place of the label.
    pub stack: LabelStack,
    /// Its share.
    pub weight: u8,
    /// The TTL of pushed labels.
    pub ttl: TtlModel,
    /// The traffic class of pushed labels.
    pub class: PushClass,
    /// Push an entropy label beneath so many labels.
    pub entropy_beneath: Option<u8>,
}

/// Where a static route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// By these ways.
    Hops(Vec<Hop>),
    /// Into another table: a leak.
    Vrf(VrfId),
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told.
    Unreachable,
}

/// A route of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Its table.
    pub vrf: VrfId,
    /// Its destinations.
    pub prefix: IpPrefix,
    /// Where it leads.
    pub target: RouteTarget,
}

/// What is done with a label of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelAction {
    /// The packet beneath is looked up in this table.
    Vrf(VrfId),
    /// The next label, or the packet beneath in the main table.
    Pop,
    /// One of these ways.
    Forward(Vec<Hop>),
    /// Handed to the host.
    Host,
    /// Dropped.
    Discard,
}

/// A label of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticLabel {
    /// Its space.
    pub space: LabelSpaceId,
    /// The label.
    pub label: Label,
    /// What is done with it.
    pub action: LabelAction,
    /// The TTL model where it is popped.
    pub ttl: TtlModel,
    /// The DSCP where it is the last one popped.
    pub class: PopClass,
}

/// A mapping of traffic classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    /// Its number.
    pub id: ClassMapId,
    /// The TC of each of the 64 DSCPs.
    pub dscp_to_tc: Vec<u8>,
    /// The DSCP of each TC; `None` leaves the packet's.
    pub tc_to_dscp: [Option<u8>; 8],
}

/// What names mean while a file is read.
pub(super) struct Names<'a> {
    pub(super) vrfs: &'a BTreeMap<String, VrfId>,
    pub(super) class_maps: &'a BTreeMap<String, ClassMapId>,
    pub(super) is_port: &'a dyn Fn(&str) -> bool,
    pub(super) is_tunnel: &'a dyn Fn(&str) -> bool,
}

impl Names<'_> {
    fn vrf(&self, source: &Source, name: &Spanned<String>) -> Option<VrfId> {
        if name.get_ref() == "main" {
            return Some(VrfId::MAIN);
        }
        let found = self.vrfs.get(name.get_ref()).copied();
        if found.is_none() {
            source.problem(
                name.span(),
                format!(
                    "found vrf {:?}: expected \"main\" or the name of a [[vrf]] table",
                    name.get_ref()
                ),
            );
        }
        found
    }

    fn class_map(&self, source: &Source, value: &Spanned<WordOrNumber>, name: &str) -> Option<ClassMapId> {
        let found = self.class_maps.get(name).copied();
        if found.is_none() {
            source.problem(
                value.span(),
                format!("found {name:?}: expected the name of a [[class_map]] table, a number or a keyword"),
            );
        }
        found
    }
}

impl Fpm {
    pub(super) fn new(source: &Source, section: &FpmSection) -> Option<Self> {
        let listen = match &section.listen {
            None => SocketAddr::from(([127, 0, 0, 1], DEFAULT_FPM_PORT)),
            Some(text) => source.value(text, "an address and port, such as 127.0.0.1:2620")?,
        };
        let stale_seconds = match &section.stale_seconds {
            None => DEFAULT_STALE_SECONDS,
            Some(seconds) => source.within(seconds, 1..=86_400)?,
        };
        Some(Self {
            listen,
            stale: Duration::from_secs(stale_seconds),
            ttl: ttl(source, section.ttl.as_ref()),
        })
    }
}

impl StaticRoute {
    pub(super) fn new(source: &Source, section: &RouteSection, names: &Names<'_>) -> Option<Self> {
        let vrf = match &section.vrf {
            Some(name) => names.vrf(source, name)?,
            None => VrfId::MAIN,
        };
        let prefix: IpPrefix = source.value(
            &section.prefix,
            "a prefix: an address, a slash and a length of at most 32 (IPv4) or 128 (IPv6) bits",
        )?;
        let target = match (&section.to_vrf, &section.action, section.next_hops.is_empty()) {
            (Some(name), None, true) => {
                let other = names.vrf(source, name)?;
                if other == vrf {
                    source.problem(
                        name.span(),
                        "found the route's own vrf: expected another".to_owned(),
                    );
                    return None;
                }
                RouteTarget::Vrf(other)
            }
            (None, Some(action), true) => match action.get_ref().as_str() {
                "blackhole" => RouteTarget::Blackhole,
                "unreachable" => RouteTarget::Unreachable,
                other => {
                    source.problem(
                        action.span(),
                        format!("found {other:?}: expected \"blackhole\" or \"unreachable\""),
                    );
                    return None;
                }
            },
            (None, None, false) => {
                let push = Push {
                    ttl: ttl(source, section.ttl.as_ref()),
                    class: push_class(source, section.tc.as_ref(), names),
                    entropy: section.entropy_label,
                };
                RouteTarget::Hops(hops(source, &section.next_hops, push, names, false)?)
            }
            _ => {
                source.problem(
                    section.prefix.span(),
                    "expected one of next_hops = [{ .. }], to_vrf = \"NAME\" and action = \"blackhole\" beside the prefix",
                );
                return None;
            }
        };
        Some(Self { vrf, prefix, target })
    }
}

impl StaticLabel {
    pub(super) fn new(source: &Source, section: &LabelSection, names: &Names<'_>) -> Option<Self> {
        let label = unreserved(source, &section.label)?;
        let space = match &section.space {
            None => LabelSpaceId::PLATFORM,
            Some(space) => LabelSpaceId(source.within(space, 0..=LabelSpaceId::MAX.0)?),
        };
        let model = ttl(source, section.ttl.as_ref());
        let action = match (&section.vrf, &section.action, section.next_hops.is_empty()) {
            (Some(name), None, true) => LabelAction::Vrf(names.vrf(source, name)?),
            (None, Some(action), true) => match action.get_ref().as_str() {
                "pop" => LabelAction::Pop,
                "host" => LabelAction::Host,
                "discard" => LabelAction::Discard,
                other => {
                    source.problem(
                        action.span(),
                        format!("found {other:?}: expected \"pop\", \"host\" or \"discard\""),
                    );
                    return None;
                }
            },
            (None, None, false) => {
                let push = Push {
                    ttl: model,
                    class: push_class(source, section.tc.as_ref(), names),
                    entropy: section.entropy_label,
                };
                LabelAction::Forward(hops(source, &section.next_hops, push, names, true)?)
            }
            _ => {
                source.problem(
                    section.label.span(),
                    "expected one of next_hops = [{ .. }], vrf = \"NAME\" and action = \"pop\" beside the label",
                );
                return None;
            }
        };
        Some(Self {
            space,
            label,
            action,
            ttl: model,
            class: pop_class(source, section.dscp.as_ref(), names),
        })
    }

    /// The label of a whole VRF.
    pub(super) fn of_vrf(source: &Source, vrf: VrfId, label: &Spanned<u32>) -> Option<Self> {
        Some(Self {
            space: LabelSpaceId::PLATFORM,
            label: unreserved(source, label)?,
            action: LabelAction::Vrf(vrf),
            ttl: TtlModel::Uniform,
            class: PopClass::Keep,
        })
    }
}

impl ClassMap {
    pub(super) fn new(source: &Source, section: &ClassMapSection, id: ClassMapId) -> Self {
        // What is not named keeps the class selector (RFC 2474 section 4.2.2).
        let mut map = Self {
            id,
            dscp_to_tc: (0..64).map(|dscp| dscp >> 3).collect(),
            tc_to_dscp: [None; 8],
        };
        for pair in &section.push {
            let (Some(dscp), Some(tc)) = (source.within(&pair.dscp, 0..=63), source.within(&pair.tc, 0..=7))
            else {
                continue;
            };
            if let Some(place) = map.dscp_to_tc.get_mut(usize::from(dscp)) {
                *place = tc;
            }
        }
        for pair in &section.pop {
            let (Some(dscp), Some(tc)) = (source.within(&pair.dscp, 0..=63), source.within(&pair.tc, 0..=7))
            else {
                continue;
            };
            if let Some(place) = map.tc_to_dscp.get_mut(usize::from(tc)) {
                *place = Some(dscp);
            }
        }
        map
    }
}

/// What is said once of all ways.
#[derive(Clone, Copy)]
struct Push {
    ttl: TtlModel,
    class: PushClass,
    entropy: bool,
}

fn hops(
    source: &Source,
    sections: &[Spanned<HopSection>],
    push: Push,
    names: &Names<'_>,
    is_label: bool,
) -> Option<Vec<Hop>> {
    if let Some(beyond) = sections.get(MAX_HOPS) {
        source.problem(
            beyond.span(),
            format!("found {} ways: expected at most {MAX_HOPS}", sections.len()),
        );
        return None;
    }
    sections
        .iter()
        .map(|section| hop(source, section, push, names, is_label))
        .collect()
}

fn hop(
    source: &Source,
    spanned: &Spanned<HopSection>,
    push: Push,
    names: &Names<'_>,
    is_label: bool,
) -> Option<Hop> {
    let section = spanned.get_ref();
    let mut labels = Vec::new();
    for label in &section.labels {
        let value = source.within(label, 0..=Label::MAX.value())?;
        let is_free = value >= Label::FIRST_UNRESERVED.value();
        match Label::new(value) {
            Ok(label)
                if is_free
                    || [
                        Label::IPV4_EXPLICIT_NULL,
                        Label::IPV6_EXPLICIT_NULL,
                        Label::IMPLICIT_NULL,
                    ]
                    .contains(&label) =>
            {
                labels.push(label);
            }
            _ => {
                source.problem(
                    label.span(),
                    format!("found label {value}: expected 16 or more, 0 or 2 (explicit null) or 3 (implicit null)"),
                );
                return None;
            }
        }
    }
    let Ok(stack) = LabelStack::new(&labels) else {
        source.problem(
            spanned.span(),
            format!(
                "found {} labels: expected at most {}",
                labels.len(),
                LabelStack::MAX
            ),
        );
        return None;
    };
    let gateway: Option<IpAddr> = match &section.gateway {
        Some(text) => Some(source.value(text, "an IPv4 or IPv6 address")?),
        None => None,
    };
    let via = match (&section.interface, &section.tunnel) {
        (Some(interface), None) => {
            if !(names.is_port)(interface.get_ref()) {
                source.problem(
                    interface.span(),
                    format!(
                        "found interface {:?}: expected that of a [[port]] table",
                        interface.get_ref()
                    ),
                );
                return None;
            }
            if gateway.is_none() && (is_label || !stack.labels().is_empty()) {
                source.problem(
                    interface.span(),
                    "expected gateway = \"ADDRESS\" beside it: labelled packets go to a neighbour",
                );
                return None;
            }
            Via::Port {
                interface: interface.get_ref().clone(),
                gateway,
            }
        }
        (None, Some(tunnel)) => {
            if !(names.is_tunnel)(tunnel.get_ref()) {
                source.problem(
                    tunnel.span(),
                    format!(
                        "found tunnel {:?}: expected the name of a [[tunnel]] table",
                        tunnel.get_ref()
                    ),
                );
                return None;
            }
            Via::Tunnel(tunnel.get_ref().clone())
        }
        _ => {
            source.problem(
                spanned.span(),
                "expected either interface = \"NAME\" (with gateway = \"ADDRESS\") or tunnel = \"NAME\"",
            );
            return None;
        }
    };
    let weight = match &section.weight {
        None => 1,
        Some(weight) => source.within(weight, 1..=u8::MAX)?,
    };
    // Beneath the tunnel label, above the label of the service (RFC 6790 section 4.2).
    let entropy_beneath = (push.entropy && !stack.labels().is_empty()).then_some(1);
    Some(Hop {
        via,
        stack,
        weight,
        ttl: push.ttl,
        class: push.class,
        entropy_beneath,
    })
}

fn unreserved(source: &Source, label: &Spanned<u32>) -> Option<Label> {
    let value = source.within(label, Label::FIRST_UNRESERVED.value()..=Label::MAX.value())?;
    Label::new(value).ok()
}

fn ttl(source: &Source, value: Option<&Spanned<WordOrNumber>>) -> TtlModel {
    let Some(value) = value else {
        return TtlModel::Uniform;
    };
    match value.get_ref() {
        WordOrNumber::Word(word) if word == "uniform" => return TtlModel::Uniform,
        WordOrNumber::Word(word) if word == "pipe" => return TtlModel::Pipe(u8::MAX),
        WordOrNumber::Number(number) => {
            if let Ok(number @ 1..) = u8::try_from(*number) {
                return TtlModel::Pipe(number);
            }
        }
        WordOrNumber::Word(_) => {}
    }
    source.problem(
        value.span(),
        "expected \"uniform\", \"pipe\" or 1 to 255, the TTL that pushed labels begin at",
    );
    TtlModel::Uniform
}

fn push_class(source: &Source, value: Option<&Spanned<WordOrNumber>>, names: &Names<'_>) -> PushClass {
    let Some(value) = value else {
        return PushClass::Copy;
    };
    match value.get_ref() {
        WordOrNumber::Word(word) if word == "copy" => PushClass::Copy,
        WordOrNumber::Word(word) => names
            .class_map(source, value, word)
            .map_or(PushClass::Copy, PushClass::Map),
        WordOrNumber::Number(number) => match u8::try_from(*number) {
            Ok(number @ 0..=7) => PushClass::Set(number),
            _ => {
                source.problem(
                    value.span(),
                    format!("found {number}: expected \"copy\", 0 to 7 or the name of a [[class_map]]"),
                );
                PushClass::Copy
            }
        },
    }
}

fn pop_class(source: &Source, value: Option<&Spanned<String>>, names: &Names<'_>) -> PopClass {
    let Some(value) = value else {
        return PopClass::Keep;
    };
    match value.get_ref().as_str() {
        "keep" => PopClass::Keep,
        "selector" => PopClass::Selector,
        name => match names.class_maps.get(name) {
            Some(map) => PopClass::Map(*map),
            None => {
                source.problem(
                    value.span(),
                    format!("found {name:?}: expected \"keep\", \"selector\" or the name of a [[class_map]]"),
                );
                PopClass::Keep
            }
        },
    }
}
