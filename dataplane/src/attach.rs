//! The XDP program of a port: loaded from the committed object, told what to steer, attached, detached.
//!
//! Each port has an instance of its own, with maps of its own (`ebpf::maps`). The order of calls is the
//! caller's to choose, for drivers differ in what they need (zero-copy transmission works only while a program is
//! attached): an instance that is loaded but not attached sees no frame, and one without sockets takes none
//! but frames in transit, which it drops rather than let the kernel forward them in clear.
//!
//! Attachment is by `bpf_link` alone. The kernel then neither lets this program replace another nor another
//! replace it, and takes it away when the link's descriptor is closed, however the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fmt, io};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use ebpf::maps::{self, Counters, Local, PortConfig, Role, VlanKey};
use wire::MacAddr;

pub use crate::xsk::AttachMode;
pub use error::AttachError;

pub mod device;
mod error;

/// The committed object; `make ebpf` rebuilds it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/penstock-xdp.o");

/// One instance of the XDP program.
///
/// Dropping it detaches it and forgets its maps; sockets are the caller's and stay open.
pub struct PortProgram {
    port: String,
    queues: u32,
    vlans: BTreeMap<VlanKey, Role>,
    local: BTreeSet<IpAddr>,
    // Those of them that are ends of GRE, IP or UDP tunnels, and maybe others.
    tunnel_ends: BTreeSet<IpAddr>,
    port_map: Array<MapData, [u8; size_of::<PortConfig>()]>,
    vlan_map: HashMap<MapData, [u16; 2], u32>,
    local_v4_map: HashMap<MapData, [u8; 4], u8>,
    local_v6_map: HashMap<MapData, [u8; 16], u8>,
    socket_map: XskMap<MapData>,
    verdict_map: PerCpuArray<MapData, u64>,
    attachment: Option<Attachment>,
    // Last: what the link refers to goes after the link.
    object: Ebpf,
}

#[derive(Debug)]
struct Attachment {
    // The program stays attached for as long as this is open.
    _link: FdLink,
    index: u32,
    mode: AttachMode,
}

impl PortProgram {
    /// Loads an instance for a port with so many receive queues. It has no role yet and passes every frame.
    ///
    /// # Errors
    /// [`AttachError::Object`] or [`AttachError::Refused`] where the kernel is too old or the process lacks
    /// CAP_BPF and CAP_NET_ADMIN.
    pub fn load(port: &str, queues: u32) -> Result<Self, AttachError> {
        let queues = queues.max(1);
        let mut object = EbpfLoader::new()
            // Nothing in the program depends on the kernel's own types.
            .btf(None)
            .map_max_entries(maps::SOCKETS, queues)
            .map_max_entries(maps::VERDICTS, queues.saturating_mul(maps::COUNTERS as u32))
            .load(OBJECT)
            .map_err(|source| AttachError::Object {
                port: port.to_owned(),
                source: Box::new(source),
            })?;
        let mut program = Self {
            port: port.to_owned(),
            queues,
            vlans: BTreeMap::new(),
            local: BTreeSet::new(),
            tunnel_ends: BTreeSet::new(),
            port_map: take_map(&mut object, port, maps::PORT)?,
            vlan_map: take_map(&mut object, port, maps::VLANS)?,
            local_v4_map: take_map(&mut object, port, maps::LOCAL_V4)?,
            local_v6_map: take_map(&mut object, port, maps::LOCAL_V6)?,
            socket_map: take_map(&mut object, port, maps::SOCKETS)?,
            verdict_map: take_map(&mut object, port, maps::VERDICTS)?,
            attachment: None,
            object,
        };
        program.set_steering(Role::NONE, MacAddr::default())?;
        program.xdp()?.load().map_err(|source| AttachError::Refused {
            port: port.to_owned(),
            source: Box::new(source),
        })?;
        Ok(program)
    }

    /// Sets what untagged frames are taken for, and the address that they must be sent to.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn set_steering(&mut self, role: Role, mac: MacAddr) -> Result<(), AttachError> {
        let steering = PortConfig {
            role,
            mac: mac.0,
            reserved: [0; 2],
        };
        self.port_map
            .set(0, steering.to_bytes(), 0)
            .map_err(map_error(&self.port, maps::PORT, "set"))
    }

    /// Sets what the frames of a VLAN are taken for; [`Role::NONE`] leaves them to the kernel.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn set_vlan_role(&mut self, vlan: VlanKey, role: Role) -> Result<(), AttachError> {
        let key = [vlan.outer, vlan.inner];
        if role == Role::NONE {
            if self.vlans.contains_key(&vlan) {
                absent_is_fine(self.vlan_map.remove(&key)).map_err(map_error(
                    &self.port,
                    maps::VLANS,
                    "remove",
                ))?;
                self.vlans.remove(&vlan);
            }
        } else {
            self.vlan_map
                .insert(key, role.0, 0)
                .map_err(map_error(&self.port, maps::VLANS, "insert"))?;
            self.vlans.insert(vlan, role);
        }
        Ok(())
    }

    /// Makes exactly these VLANs ones whose frames are taken.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn set_vlans(&mut self, vlans: &BTreeMap<VlanKey, Role>) -> Result<(), AttachError> {
        if self.vlans == *vlans {
            return Ok(());
        }
        let gone: Vec<VlanKey> = self
            .vlans
            .keys()
            .filter(|vlan| !vlans.contains_key(vlan))
            .copied()
            .collect();
        for vlan in gone {
            self.set_vlan_role(vlan, Role::NONE)?;
        }
        vlans
            .iter()
            .try_for_each(|(vlan, role)| self.set_vlan_role(*vlan, *role))
    }

    /// Makes an address one of the gateway's own, as seen by this port. Broadcast addresses of its links
    /// belong here as well. Twice is once.
    ///
    /// # Errors
    /// [`AttachError::TooManyAddresses`], [`AttachError::Map`].
    pub fn add_local(&mut self, address: IpAddr) -> Result<(), AttachError> {
        if self.local.contains(&address) {
            return Ok(());
        }
        let count = 1 + self
            .local
            .iter()
            .filter(|other| other.is_ipv4() == address.is_ipv4())
            .count();
        if count > maps::MAX_LOCAL_ADDRESSES as usize {
            return Err(AttachError::TooManyAddresses {
                port: self.port.clone(),
                count,
            });
        }
        self.insert_local(address)
    }

    fn insert_local(&mut self, address: IpAddr) -> Result<(), AttachError> {
        let Local(local) = if self.tunnel_ends.contains(&address) {
            Local::TUNNEL_END
        } else {
            Local::OWN
        };
        match address {
            IpAddr::V4(address) => self
                .local_v4_map
                .insert(address.octets(), local, 0)
                .map_err(map_error(&self.port, maps::LOCAL_V4, "insert"))?,
            IpAddr::V6(address) => self
                .local_v6_map
                .insert(address.octets(), local, 0)
                .map_err(map_error(&self.port, maps::LOCAL_V6, "insert"))?,
        }
        self.local.insert(address);
        Ok(())
    }

    /// Takes an address away. One that is not there stays away.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn remove_local(&mut self, address: IpAddr) -> Result<(), AttachError> {
        if !self.local.contains(&address) {
            return Ok(());
        }
        match address {
            IpAddr::V4(address) => absent_is_fine(self.local_v4_map.remove(&address.octets()))
                .map_err(map_error(&self.port, maps::LOCAL_V4, "remove"))?,
            IpAddr::V6(address) => absent_is_fine(self.local_v6_map.remove(&address.octets()))
                .map_err(map_error(&self.port, maps::LOCAL_V6, "remove"))?,
        }
        self.local.remove(&address);
        Ok(())
    }

    /// Makes exactly these addresses the gateway's own: adds first, then removes, so that an address that
    /// stays is never missing.
    ///
    /// # Errors
    /// [`AttachError::TooManyAddresses`] before anything is changed, [`AttachError::Map`].
    pub fn set_local(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), AttachError> {
        let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        let count = of_v4.max(addresses.len() - of_v4);
        if count > maps::MAX_LOCAL_ADDRESSES as usize {
            return Err(AttachError::TooManyAddresses {
                port: self.port.clone(),
                count,
            });
        }
        let gone: Vec<IpAddr> = self.local.difference(addresses).copied().collect();
        let new: Vec<IpAddr> = addresses.difference(&self.local).copied().collect();
        // In a full map there is no room for the new beside the old.
        let crowded = self.local.len() + new.len() > maps::MAX_LOCAL_ADDRESSES as usize;
        if crowded {
            gone.iter().try_for_each(|address| self.remove_local(*address))?;
        }
        new.iter().try_for_each(|address| self.insert_local(*address))?;
        gone.iter().try_for_each(|address| self.remove_local(*address))
    }

    /// Makes exactly these addresses ends of GRE, IP or UDP tunnels; such packets to them are taken where they are the
    /// gateway's own.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn set_tunnel_ends(&mut self, ends: &BTreeSet<IpAddr>) -> Result<(), AttachError> {
        let before = std::mem::replace(&mut self.tunnel_ends, ends.clone());
        let changed: Vec<IpAddr> = before
            .symmetric_difference(ends)
            .filter(|address| self.local.contains(address))
            .copied()
            .collect();
        changed.iter().try_for_each(|address| self.insert_local(*address))
    }

    /// Gives a queue its socket; frames that are taken go there from now on. A socket that is closed leaves
    /// by itself.
    ///
    /// # Errors
    /// [`AttachError::Queue`], [`AttachError::Map`].
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), AttachError> {
        self.check_queue(queue)?;
        self.socket_map
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(map_error(&self.port, maps::SOCKETS, "set"))
    }

    /// Takes a queue's socket away.
    ///
    /// # Errors
    /// [`AttachError::Queue`], [`AttachError::Map`].
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), AttachError> {
        self.check_queue(queue)?;
        absent_is_fine(self.socket_map.unset(queue)).map_err(map_error(&self.port, maps::SOCKETS, "unset"))
    }

    fn check_queue(&self, queue: u32) -> Result<(), AttachError> {
        if queue < self.queues {
            return Ok(());
        }
        Err(AttachError::Queue {
            port: self.port.clone(),
            queue,
            queues: self.queues,
        })
    }

    /// Attaches to the device of this index, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`AttachError::Foreign`] where any program is attached already, in whichever mode;
    /// [`AttachError::Mode`] where the device does not do this mode; [`AttachError::Device`].
    pub fn attach(&mut self, index: u32, mode: AttachMode) -> Result<(), AttachError> {
        if self.attachment.is_some() {
            return Err(AttachError::Attached {
                port: self.port.clone(),
            });
        }
        self.refuse_foreign(index)?;
        let wanted = match mode {
            AttachMode::Driver => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        let xdp = self.xdp()?;
        let link = match xdp
            .attach_to_if_index(index, wanted)
            .and_then(|id| xdp.take_link(id))
        {
            Ok(link) => link,
            Err(source) => {
                // Someone may have been quicker.
                self.refuse_foreign(index)?;
                let source = Box::new(source);
                return Err(AttachError::Mode {
                    port: self.port.clone(),
                    mode,
                    source,
                });
            }
        };
        // Where the kernel knows no such link aya falls back to netlink, whose attachment would outlive us.
        let Ok(link) = FdLink::try_from(link) else {
            return Err(AttachError::Unlike {
                port: self.port.clone(),
                mode,
            });
        };
        let id = self.program_id()?;
        let there = self.device(index)?.xdp;
        let granted = match mode {
            AttachMode::Driver => there.driver,
            AttachMode::Generic => there.generic,
        };
        if granted != Some(id) {
            return Err(AttachError::Unlike {
                port: self.port.clone(),
                mode,
            });
        }
        self.attachment = Some(Attachment {
            _link: link,
            index,
            mode,
        });
        Ok(())
    }

    /// Detaches, if attached. What is loaded stays: it can be attached again, to another device too.
    pub fn detach(&mut self) {
        self.attachment = None;
    }

    /// How the program is attached, and to the device of which index.
    #[must_use]
    pub fn attached(&self) -> Option<(u32, AttachMode)> {
        self.attachment
            .as_ref()
            .map(|attachment| (attachment.index, attachment.mode))
    }

    /// Sums over all CPUs of what each queue's frames came to, since the program was loaded: one row a queue,
    /// indexed by `Verdict::index` and `NO_SOCKET`.
    ///
    /// # Errors
    /// [`AttachError::Map`].
    pub fn verdicts(&self) -> Result<Vec<Counters>, AttachError> {
        let sum_of = |queue: u32, index: usize| -> Result<u64, MapError> {
            let per_cpu = self.verdict_map.get(&maps::counter_index(queue, index), 0)?;
            Ok(per_cpu.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)))
        };
        let mut rows = Vec::new();
        for queue in 0..self.queues {
            let mut row = Counters::default();
            for (index, sum) in row.iter_mut().enumerate() {
                *sum = sum_of(queue, index).map_err(map_error(&self.port, maps::VERDICTS, "get"))?;
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// The kernel's identifier of this instance, as `bpftool prog` lists it.
    ///
    /// # Errors
    /// [`AttachError::Refused`].
    pub fn program_id(&mut self) -> Result<u32, AttachError> {
        let info = self.xdp()?.info();
        info.map(|info| info.id()).map_err(|source| AttachError::Refused {
            port: self.port.clone(),
            source: Box::new(source),
        })
    }

    /// The program itself, for what only the kernel's test run does with it.
    ///
    /// # Errors
    /// [`AttachError::Missing`].
    #[cfg(feature = "testing")]
    pub fn program(&mut self) -> Result<&mut Xdp, AttachError> {
        self.xdp()
    }

    fn xdp(&mut self) -> Result<&mut Xdp, AttachError> {
        self.object
            .program_mut(maps::PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| AttachError::Missing {
                port: self.port.clone(),
                what: maps::PROGRAM,
            })
    }

    fn device(&self, index: u32) -> Result<device::Device, AttachError> {
        device::by_index(index).map_err(|source| AttachError::Device {
            port: self.port.clone(),
            index,
            source,
        })
    }

    fn refuse_foreign(&self, index: u32) -> Result<(), AttachError> {
        match self.device(index)?.xdp.any() {
            None => Ok(()),
            Some(program_id) => Err(AttachError::Foreign {
                port: self.port.clone(),
                program_id,
                program_name: name_of(program_id),
            }),
        }
    }
}

impl fmt::Debug for PortProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortProgram")
            .field("port", &self.port)
            .field("queues", &self.queues)
            .field("attachment", &self.attachment)
            .finish_non_exhaustive()
    }
}

/// The name of a program, where the process may list programs.
fn name_of(program_id: u32) -> Option<String> {
    let info = loaded_programs()
        .map_while(Result::ok)
        .find(|info| info.id() == program_id)?;
    info.name_as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn take_map<M>(object: &mut Ebpf, port: &str, name: &'static str) -> Result<M, AttachError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or_else(|| AttachError::Missing {
        port: port.to_owned(),
        what: name,
    })?;
    M::try_from(map).map_err(map_error(port, name, "open"))
}

fn map_error(port: &str, map: &'static str, what: &'static str) -> impl FnOnce(MapError) -> AttachError {
    let port = port.to_owned();
    move |source| AttachError::Map {
        port,
        map,
        what,
        source: Box::new(source),
    }
}

/// Removing what is not there has succeeded: a socket's entry leaves when the socket is closed.
fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
