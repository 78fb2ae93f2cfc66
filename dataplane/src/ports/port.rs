//! One port in the main thread: what is wanted, what is there, and in which phase it is.

use std::os::fd::OwnedFd;

use ebpf::maps::Role;
use southbound::{
    CopyMode as ReportedCopyMode, PortPhase, PortRole, PortSpec, PortStatus, VlanStatus, XdpMode,
};

use crate::{
    attach::PortProgram,
    link_watch::Link,
    tables::{PortSlot, VlanLink},
    xsk::{AttachMode, CopyMode, Granted, PortQueue, Umem},
};

/// The shortest and the longest wait before a bind is tried again that failed for a passing reason.
const FIRST_WAIT_MS: u64 = 50;
const LONGEST_WAIT_MS: u64 = 2_000;
/// How long after a refusal it is tried again: somebody may have taken the foreign program away.
const REFUSED_WAIT_MS: u64 = 10_000;
/// Characters of an error that are shown, of its beginning and of its end: answers to the control process are bounded.
const ERROR_HEAD_CHARACTERS: usize = 200;
const ERROR_TAIL_CHARACTERS: usize = 600;
/// Ethernet header and one VLAN tag, which the MTU does not count.
const LINK_HEADER_BYTES: usize = 14 + 4;

/// What others need to know of a port to send by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Its number.
    pub port: u32,
    /// The interface's index now, zero when there is none.
    pub ifindex: u32,
    /// The interface's MAC address.
    pub mac: [u8; 6],
    /// Longest IP packet that can be sent.
    pub mtu_bytes: u32,
    /// Whether packets can be sent: bound, and the link is up.
    pub is_up: bool,
    /// Queues bound, whose number a packet's worker has to be below to have one of its own.
    pub queues: u32,
    /// Which VLAN of which port, where it is one.
    pub vlan: Option<VlanLink>,
}

/// A queue that is bound.
pub(super) struct BoundQueue {
    pub(super) worker: usize,
    pub(super) copy: CopyMode,
    /// Another descriptor of its socket, for the XSKMAP; gone once it is in there, lest it keep the socket open.
    pub(super) socket: Option<OwnedFd>,
}

pub(super) enum Phase<'u> {
    Absent,
    LinkDown,
    /// A passing failure: to be tried again.
    Waiting {
        until_ms: u64,
        wait_ms: u64,
    },
    /// Refused, and told so; tried again now and then.
    Refused {
        until_ms: u64,
    },
    Binding {
        ifindex: u32,
        bound: Vec<BoundQueue>,
        unfilled: usize,
    },
    Up {
        ifindex: u32,
        bound: Vec<BoundQueue>,
    },
    Draining {
        outstanding: usize,
        returned: Vec<(usize, PortQueue<'u>)>,
    },
    /// A VLAN of a port.
    Vlan {
        of: VlanLink,
        /// Whether the port that carries it is up.
        is_carried: bool,
    },
    /// A VLAN that cannot be carried.
    Stray,
}

pub(super) struct Port<'u> {
    pub(super) spec: PortSpec,
    pub(super) slot: PortSlot,
    pub(super) link: Option<Link>,
    pub(super) phase: Phase<'u>,
    /// Loaded when the port is first bound, attached from before binding until after draining.
    pub(super) program: Option<PortProgram>,
    pub(super) is_removed: bool,
    /// The device takes tags off received frames, and would not stop.
    pub(super) hides_tags: bool,
    pub(super) rebinds: u64,
    pub(super) error: Option<String>,
}

impl<'u> Port<'u> {
    pub(super) fn new(spec: PortSpec, slot: PortSlot) -> Self {
        Self {
            spec,
            slot,
            link: None,
            phase: Phase::Absent,
            program: None,
            is_removed: false,
            hides_tags: false,
            rebinds: 0,
            error: None,
        }
    }

    /// What the program takes from the kernel here.
    pub(super) fn role(&self) -> Role {
        // Tunnels are taken where they end, which the program is told by address.
        let role = match self.spec.role {
            PortRole::Protected => Role::PROTECTED.with(Role::INTERNET).with(Role::TUNNELS),
            PortRole::Internet => Role::INTERNET.with(Role::TUNNELS),
            PortRole::Trunk => Role::NONE,
        };
        if self.spec.mpls.is_some() {
            role.with(Role::MPLS)
        } else {
            role
        }
    }

    pub(super) fn attach_mode(&self) -> Option<AttachMode> {
        self.program
            .as_ref()
            .and_then(PortProgram::attached)
            .map(|(_, mode)| mode)
    }

    /// Queues bound.
    fn bound(&self) -> &[BoundQueue] {
        match &self.phase {
            Phase::Binding { bound, .. } | Phase::Up { bound, .. } => bound,
            _ => &[],
        }
    }

    pub(super) fn bound_ifindex(&self) -> Option<u32> {
        match self.phase {
            Phase::Binding { ifindex, .. } | Phase::Up { ifindex, .. } => Some(ifindex),
            _ => None,
        }
    }

    /// Waits for the next try after a passing failure, twice as long as after the one before.
    pub(super) fn wait(&mut self, error: String, now_ms: u64) {
        let wait_ms = match self.phase {
            Phase::Waiting { wait_ms, .. } => (wait_ms * 2).min(LONGEST_WAIT_MS),
            _ => FIRST_WAIT_MS,
        };
        self.error = Some(error);
        self.phase = Phase::Waiting {
            until_ms: now_ms + wait_ms,
            wait_ms,
        };
    }

    pub(super) fn refuse(&mut self, error: String, now_ms: u64) {
        let error = shortened(&error);
        if self.error.as_ref() != Some(&error) {
            tracing::error!(interface = self.spec.interface, "port refused: {error}");
        }
        self.error = Some(error);
        self.program = None;
        self.phase = Phase::Refused {
            until_ms: now_ms + REFUSED_WAIT_MS,
        };
    }

    /// When time alone can change something.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { until_ms, .. } | Phase::Refused { until_ms } => Some(until_ms),
            _ => None,
        }
    }

    /// Why packets of the interface's MTU do not fit a chunk, if so.
    pub(super) fn mtu_problem(&self, umem: &Umem) -> Option<String> {
        let mtu = self.link.as_ref()?.mtu_bytes as usize;
        let most = umem.packet_capacity_bytes() - LINK_HEADER_BYTES;
        (mtu > most).then(|| {
            format!(
                "MTU {mtu} of {} is too large: at most {most} fits a frame; longer packets are lost",
                self.spec.interface
            )
        })
    }

    pub(super) fn view(&self) -> PortView {
        let link = self.link.as_ref();
        let is_bound = match self.phase {
            Phase::Up { .. } => true,
            Phase::Vlan { is_carried, .. } => is_carried,
            _ => false,
        };
        PortView {
            port: self.spec.id.0,
            ifindex: link.map_or(0, |link| link.index),
            mac: link.map_or([0; 6], |link| link.mac),
            mtu_bytes: link.map_or(0, |link| link.mtu_bytes),
            is_up: is_bound && link.is_some_and(|l| l.is_up && l.has_carrier),
            queues: self.bound().len() as u32,
            vlan: match self.phase {
                Phase::Vlan { of, .. } => Some(of),
                _ => None,
            },
        }
    }

    pub(super) fn status(&self) -> PortStatus {
        let attach = self.attach_mode();
        let phase = match self.phase {
            Phase::Absent => PortPhase::Absent,
            Phase::LinkDown => PortPhase::LinkDown,
            Phase::Waiting { .. } | Phase::Binding { .. } => PortPhase::Binding,
            Phase::Refused { .. } | Phase::Stray => PortPhase::Refused,
            Phase::Up { .. } | Phase::Vlan { .. } if self.view().is_up => PortPhase::Up,
            Phase::Up { .. } | Phase::Vlan { .. } => PortPhase::LinkDown,
            Phase::Draining { .. } => PortPhase::Draining,
        };
        let reported = |queue: &BoundQueue| {
            let granted = Granted {
                attach: attach.unwrap_or(AttachMode::Generic),
                copy: queue.copy,
            };
            if granted.is_zero_copy() {
                ReportedCopyMode::ZeroCopy
            } else {
                ReportedCopyMode::Copy
            }
        };
        PortStatus {
            port: self.spec.id,
            slot: self.slot.get() as u16,
            interface: self.spec.interface.clone(),
            vlan: self.view().vlan.map(|vlan| VlanStatus {
                parent: vlan.parent,
                id: vlan.id,
            }),
            phase,
            xdp: attach.map(|mode| match mode {
                AttachMode::Driver => XdpMode::Driver,
                AttachMode::Generic => XdpMode::Generic,
            }),
            queues: self.bound().iter().map(reported).collect(),
            mtu_bytes: u16::try_from(self.view().mtu_bytes).unwrap_or(u16::MAX),
            rebinds: self.rebinds,
            error: self.error.clone(),
        }
    }
}

/// What was tried is said first, and the reason last: between them the verifier tells what it looked at, at length.
fn shortened(error: &str) -> String {
    let length = error.chars().count();
    if length <= ERROR_HEAD_CHARACTERS + ERROR_TAIL_CHARACTERS {
        return error.to_owned();
    }
    let head: String = error.chars().take(ERROR_HEAD_CHARACTERS).collect();
    let tail: String = error.chars().skip(length - ERROR_TAIL_CHARACTERS).collect();
    format!("{head} [...] {tail}")
}

#[cfg(test)]
mod tests {
    use southbound::{PortId, VrfId, XdpPreference};

    use super::*;
    use crate::xsk::UmemConfig;

    fn port() -> Port<'static> {
        let spec = PortSpec {
            id: PortId(7),
            interface: "p7".into(),
            role: PortRole::Internet,
            vrf: VrfId::MAIN,
            xdp: XdpPreference::Auto,
            require_zero_copy: false,
            mpls: Some(southbound::LabelSpaceId::PLATFORM),
        };
        Port::new(spec, PortSlot::FIRST)
    }

    fn link(mtu_bytes: u32) -> Link {
        Link {
            index: 3,
            name: "p7".into(),
            mac: [2, 0, 0, 0, 0, 7],
            mtu_bytes,
            is_up: true,
            has_carrier: true,
            receive_queues: 1,
            vlan: None,
        }
    }

    #[test]
    fn waits_longer_each_time_up_to_a_limit_and_starts_anew_after_success() {
        let mut port = port();
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                port.wait("busy".into(), 1000);
                port.deadline_ms().map_or(0, |at| at - 1000)
            })
            .collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        port.phase = Phase::Up {
            ifindex: 3,
            bound: Vec::new(),
        };
        port.wait("busy".into(), 1000);
        assert_eq!(port.deadline_ms(), Some(1050));
    }

    #[test]
    fn a_port_is_up_when_it_is_bound_and_has_carrier() {
        let mut port = port();
        port.link = Some(link(1500));
        assert!(!port.view().is_up);
        port.phase = Phase::Up {
            ifindex: 3,
            bound: Vec::new(),
        };
        assert!(port.view().is_up);
        assert_eq!(port.status().phase, PortPhase::Up);
        port.link = Some(Link {
            has_carrier: false,
            ..link(1500)
        });
        assert!(!port.view().is_up);
        assert_eq!(port.status().phase, PortPhase::LinkDown);
        assert_eq!(port.role(), Role::INTERNET.with(Role::TUNNELS).with(Role::MPLS));
    }

    #[test]
    fn a_long_error_keeps_what_was_tried_and_why_it_failed() {
        let verifier = "0: (bf) r6 = r1\n".repeat(1000);
        let mut port = port();
        port.refuse(
            format!("port p7: refused: {verifier}R2 invalid mem access\u{e9}"),
            1000,
        );
        let error = port.status().error.unwrap();
        assert!(error.starts_with("port p7: refused: 0: (bf)"), "{error}");
        assert!(error.ends_with("R2 invalid mem access\u{e9}"), "{error}");
        assert!(error.chars().count() < 820);
        port.refuse("short".into(), 1000);
        assert_eq!(port.status().error.as_deref(), Some("short"));
    }

    #[test]
    fn says_when_an_mtu_does_not_fit_a_frame() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 1,
            ..UmemConfig::default()
        })
        .unwrap();
        let most = 4096 - 256 - 128 - 18;
        let mut port = port();
        port.link = Some(link(most));
        assert_eq!(port.mtu_problem(&umem), None);
        port.link = Some(link(most + 1));
        assert!(port.mtu_problem(&umem).unwrap().contains("at most 3694"));
    }
}
