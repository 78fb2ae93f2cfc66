//! VLANs: ports that the rings of another port carry.

use std::collections::BTreeMap;

use ebpf::maps::{Role, VlanKey};
use southbound::PortId;

use super::manager::PortManager;
use super::port::{Phase, Port};
use crate::link_watch::{Link, VlanOf};
use crate::tables::VlanLink;

/// What a VLAN needs to know of the port below it.
struct Device {
    id: u32,
    mac: [u8; 6],
    is_up: bool,
    hides_tags: bool,
}

impl PortManager<'_> {
    /// Brings VLANs in step with the ports that carry them, and tells the programs of these which VLANs to take.
    pub(super) fn follow_devices(&mut self) {
        let devices: BTreeMap<u32, Device> = self
            .ports
            .values()
            .filter_map(|port| {
                let link = port.link.as_ref().filter(|link| link.vlan.is_none())?;
                let device = Device {
                    id: port.spec.id.0,
                    mac: link.mac,
                    is_up: port.view().is_up,
                    hides_tags: port.hides_tags,
                };
                Some((link.index, device))
            })
            .collect();
        let mut taken: BTreeMap<u32, BTreeMap<VlanKey, Role>> = BTreeMap::new();
        for (id, port) in &mut self.ports {
            if port.is_removed || matches!(port.phase, Phase::Draining { .. }) {
                continue;
            }
            let Some((link, vlan)) = port
                .link
                .clone()
                .and_then(|link| Some((link.clone(), link.vlan?)))
            else {
                continue;
            };
            let before = (port.view(), port.error.clone());
            settle(port, &link, vlan, devices.get(&vlan.lower));
            if before != (port.view(), port.error.clone()) {
                self.changed.insert(*id);
            }
            if let Phase::Vlan { of, .. } = port.phase
                && link.is_up
            {
                let key = VlanKey {
                    outer: of.id,
                    inner: 0,
                };
                taken.entry(of.parent.0).or_default().insert(key, port.role());
            }
        }
        for (id, port) in &mut self.ports {
            let is_steering = matches!(port.phase, Phase::Up { .. });
            let vlans = taken.remove(id).filter(|_| is_steering).unwrap_or_default();
            if let Some(program) = &mut port.program
                && let Err(error) = program.set_vlans(&vlans)
            {
                tracing::error!("{error}");
            }
        }
    }
}

fn settle(port: &mut Port<'_>, link: &Link, vlan: VlanOf, device: Option<&Device>) {
    match carrier(link, vlan, device) {
        Ok(device) => {
            let of = VlanLink {
                parent: PortId(device.id),
                id: vlan.id,
            };
            if !matches!(port.phase, Phase::Vlan { of: known, .. } if known == of) {
                tracing::info!(interface = link.name, vlan = vlan.id, "port is a VLAN of another");
            }
            port.error = None;
            port.phase = Phase::Vlan {
                of,
                is_carried: device.is_up,
            };
        }
        Err(error) => {
            if port.error.as_ref() != Some(&error) {
                tracing::error!(interface = link.name, "port refused: {error}");
            }
            port.error = Some(error);
            port.phase = Phase::Stray;
        }
    }
}

/// The port that carries this VLAN, or why none can.
fn carrier<'d>(link: &Link, vlan: VlanOf, device: Option<&'d Device>) -> Result<&'d Device, String> {
    let name = &link.name;
    if vlan.is_service {
        return Err(format!(
            "{name} has service tags (IEEE 802.1ad): expected a VLAN of IEEE 802.1Q"
        ));
    }
    let Some(device) = device else {
        return Err(format!(
            "{name} is VLAN {} of an interface that is no port, or a VLAN itself: expected a [[port]] for its \
             parent, with role \"trunk\" where only its VLANs are to be used",
            vlan.id
        ));
    };
    if device.hides_tags {
        return Err(format!(
            "the device below {name} takes VLAN tags off before its frames are seen, and refuses not to: expected \
             ethtool -K DEVICE rxvlan off to work"
        ));
    }
    if device.mac != link.mac {
        return Err(format!(
            "{name} has another Ethernet address than its parent: expected the same, for only packets to the \
             parent's are taken"
        ));
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_needs_a_port_below_that_shows_its_tags_and_has_its_address() {
        let link = Link {
            index: 9,
            name: "p0.100".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
            is_up: true,
            has_carrier: true,
            receive_queues: 1,
            vlan: None,
        };
        let vlan = VlanOf {
            lower: 3,
            id: 100,
            is_service: false,
        };
        let device = |mac, hides_tags| Device {
            id: 7,
            mac,
            is_up: false,
            hides_tags,
        };
        let refused = |vlan, device: Option<&Device>| carrier(&link, vlan, device).err();
        assert_eq!(refused(vlan, Some(&device(link.mac, false))), None, "up or not");
        for (vlan, device, expected) in [
            (vlan, None, "\"trunk\""),
            (vlan, Some(device([2; 6], false)), "another Ethernet address"),
            (vlan, Some(device(link.mac, true)), "rxvlan off"),
            (
                VlanOf {
                    is_service: true,
                    ..vlan
                },
                Some(device(link.mac, false)),
                "802.1ad",
            ),
        ] {
            let error = refused(vlan, device.as_ref()).unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
