//! Ports: the interfaces that the dataplane takes over.

use southbound::{LabelSpaceId, PortId, PortRole, PortSpec, VrfId, XdpPreference};

use toml::Spanned;

use super::file::{PortSection, Role, Xdp};
use super::source::Source;

/// An interface under the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The interface's name, which is also the port's.
    pub interface: String,
    /// Its side.
    pub role: PortRole,
    /// The routing table of its packets.
    pub vrf: VrfId,
    /// The XDP attachment to try.
    pub xdp: XdpPreference,
    /// Refuse the port without zero-copy.
    pub require_zero_copy: bool,
    /// Take labelled packets over, in this space.
    pub mpls: Option<LabelSpaceId>,
}

/// Longest interface name in bytes (`IFNAMSIZ` less the terminator).
const MAX_INTERFACE_BYTES: usize = 15;

/// Whether the kernel accepts `name` for an interface.
pub(super) fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_INTERFACE_BYTES
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}

/// The label space of `mpls = true`, that of the platform where none is named.
pub(super) fn label_space(
    source: &Source,
    is_wanted: bool,
    space: Option<&Spanned<u32>>,
) -> Option<LabelSpaceId> {
    match space {
        Some(space) if !is_wanted => {
            source.problem(
                space.span(),
                "found a label space: expected mpls = true beside it",
            );
            None
        }
        Some(space) => source.within(space, 0..=LabelSpaceId::MAX.0).map(LabelSpaceId),
        None => is_wanted.then_some(LabelSpaceId::PLATFORM),
    }
}

impl Port {
    pub(super) fn new(source: &Source, section: &PortSection, vrf: Option<VrfId>) -> Option<Self> {
        let interface = section.interface.get_ref();
        if !is_interface_name(interface) {
            source.problem(
                section.interface.span(),
                format!("found {interface:?}: expected an interface name of 1 to {MAX_INTERFACE_BYTES} characters, without white space, '/' or ':'"),
            );
            return None;
        }
        Some(Self {
            interface: interface.clone(),
            role: match section.role {
                Role::Protected => PortRole::Protected,
                Role::Internet => PortRole::Internet,
                Role::Trunk => PortRole::Trunk,
            },
            vrf: vrf?,
            xdp: match section.xdp {
                Xdp::Auto => XdpPreference::Auto,
                Xdp::Driver => XdpPreference::Driver,
                Xdp::Generic => XdpPreference::Generic,
            },
            require_zero_copy: section.require_zero_copy,
            mpls: label_space(source, section.mpls, section.label_space.as_ref()),
        })
    }

    /// The port as the dataplane takes it.
    #[must_use]
    pub fn spec(&self, id: PortId) -> PortSpec {
        PortSpec {
            id,
            interface: self.interface.clone(),
            role: self.role,
            vrf: self.vrf,
            xdp: self.xdp,
            require_zero_copy: self.require_zero_copy,
            mpls: self.mpls,
        }
    }
}
