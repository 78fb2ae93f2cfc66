//! The slots, found by what names a datagram.

use std::net::IpAddr;

use wire::{IpProtocol, ipv4, ipv6};

use super::slot::{Error, MAX_PAYLOAD_BYTES, Piece, Slot};

const NS_PER_S: u64 = 1_000_000_000;

/// How long a spoiled IPv4 datagram is remembered: its 16-bit identification comes back soon on a fast link (RFC 4963).
const SPOILED_V4_NS: u64 = NS_PER_S;

/// What reassembly may use, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams that may be in progress.
    pub slots: usize,
    /// The longest packet that comes out, at most 65535; every slot has room for it from the start.
    pub datagram_bytes: usize,
    /// Payload that may wait in all slots together.
    pub held_bytes: usize,
    /// How long after its first arrival an IPv4 datagram is given up (RFC 1122 section 3.3.2: 60 to 120 s is asked of
    /// hosts; gateways of ESP see the rest within a round trip or never).
    pub timeout_v4_ns: u64,
    /// The same for IPv6 (RFC 8200 section 4.5: 60 s).
    pub timeout_v6_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: 64,
            datagram_bytes: MAX_PAYLOAD_BYTES,
            held_bytes: 2 << 20,
            timeout_v4_ns: 30 * NS_PER_S,
            timeout_v6_ns: 60 * NS_PER_S,
        }
    }
}

/// A datagram that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    /// The IP packet, as if it had never been cut.
    pub packet: &'a [u8],
    /// Fragments that went into it, the last one included.
    pub fragments_packets: u32,
}

/// Fragments that had been held and went to nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// The rest did not come in time.
    pub timed_out_packets: u64,
    /// A newer datagram needed the room.
    pub evicted_packets: u64,
    /// A later fragment spoiled the datagram.
    pub spoiled_packets: u64,
}

/// RFC 791 section 3.2 and RFC 8200 section 4.5: what fragments of one datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    /// `None` in IPv6, where the fragments' next headers may differ.
    protocol: Option<IpProtocol>,
    identification: u32,
}

struct Entry {
    /// `None`: free.
    key: Option<Key>,
    since_ns: u64,
    deadline_ns: u64,
    spoiled: bool,
    slot: Slot,
}

/// Datagrams of one worker in progress.
///
/// Every fragment pushed is held, ends a datagram, or is refused; every fragment held leaves in a [`Whole`] or is
/// counted in [`Discarded`]. So packets in equal packets out plus [`Self::held_packets`].
pub struct Reassembly {
    limits: Limits,
    entries: Box<[Entry]>,
    /// For an IPv6 datagram in a single fragment (RFC 6946), which waits for nobody.
    atomic: Slot,
    held_bytes: usize,
    held_packets: u64,
    /// No entry is due before this.
    next_deadline_ns: u64,
    discarded: Discarded,
}

impl Reassembly {
    /// Allocates everything that will ever be needed. At least one slot.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            slots: limits.slots.max(1),
            datagram_bytes: limits.datagram_bytes.min(MAX_PAYLOAD_BYTES),
            ..limits
        };
        let entry = || Entry {
            key: None,
            since_ns: 0,
            deadline_ns: 0,
            spoiled: false,
            slot: Slot::new(limits.datagram_bytes),
        };
        Self {
            limits,
            entries: std::iter::repeat_with(entry).take(limits.slots).collect(),
            atomic: Slot::new(limits.datagram_bytes),
            held_bytes: 0,
            held_packets: 0,
            next_deadline_ns: u64::MAX,
            discarded: Discarded::default(),
        }
    }

    /// Takes the IP fragment at the front of `packet`. `Ok(None)`: it was copied and waits for others; what is whole
    /// is copied out by the caller. An error concerns this fragment; what it takes with it is in
    /// [`Self::take_discarded`]. `now_ns` never goes back.
    pub fn push(&mut self, packet: &[u8], now_ns: u64) -> Result<Option<Whole<'_>>, Error> {
        self.expire(now_ns);
        let (key, piece) = parse(packet)?;
        if piece.fragment.is_atomic() {
            return self.pass_atomic(&piece).map(Some);
        }
        let index = match self.entries.iter().position(|entry| entry.key == Some(key)) {
            Some(index) => index,
            None => self.begin(key, now_ns),
        };
        let result = self
            .make_room(index, piece.payload.len())
            .and_then(|()| self.add(index, &piece, now_ns));
        match result {
            Ok(None) => Ok(None),
            Ok(Some(length)) => {
                let fragments_packets = self.release(index);
                let entry = self.entries.get(index).ok_or(Error::Full)?;
                Ok(Some(Whole {
                    packet: entry.slot.packet(length),
                    fragments_packets,
                }))
            }
            Err(error) => {
                // A fragment that was refused does not keep a slot for itself.
                if self
                    .entries
                    .get(index)
                    .is_some_and(|entry| entry.slot.held_packets == 0 && !entry.spoiled)
                {
                    self.release(index);
                }
                Err(error)
            }
        }
    }

    /// Gives up what is overdue. [`Self::push`] does it too; a worker without fragments calls this now and then.
    pub fn expire(&mut self, now_ns: u64) {
        if now_ns < self.next_deadline_ns {
            return;
        }
        self.next_deadline_ns = u64::MAX;
        for index in 0..self.entries.len() {
            let Some(Entry {
                key: Some(_),
                deadline_ns,
                ..
            }) = self.entries.get(index)
            else {
                continue;
            };
            if *deadline_ns <= now_ns {
                self.discarded.timed_out_packets += u64::from(self.release(index));
            } else {
                self.next_deadline_ns = self.next_deadline_ns.min(*deadline_ns);
            }
        }
    }

    /// What was discarded since the last call.
    pub fn take_discarded(&mut self) -> Discarded {
        std::mem::take(&mut self.discarded)
    }

    /// Fragments that wait.
    pub const fn held_packets(&self) -> u64 {
        self.held_packets
    }

    /// Payload that waits.
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn pass_atomic(&mut self, piece: &Piece<'_>) -> Result<Whole<'_>, Error> {
        self.atomic.clear();
        self.atomic.add(piece)?;
        let length = self.atomic.finish(self.limits.datagram_bytes)?;
        Ok(Whole {
            packet: self.atomic.packet(length),
            fragments_packets: 1,
        })
    }

    /// A slot for a new datagram: a free one, or a spoiled one's, or the oldest's.
    fn begin(&mut self, key: Key, now_ns: u64) -> usize {
        let index = (0..self.entries.len())
            .min_by_key(|&index| {
                self.entries
                    .get(index)
                    .map(|entry| (entry.key.is_some(), !entry.spoiled, entry.since_ns))
            })
            .unwrap_or(0);
        self.discarded.evicted_packets += u64::from(self.release(index));
        let timeout_ns = if key.source.is_ipv4() {
            self.limits.timeout_v4_ns
        } else {
            self.limits.timeout_v6_ns
        };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.slot.clear();
            entry.key = Some(key);
            entry.since_ns = now_ns;
            entry.deadline_ns = now_ns.saturating_add(timeout_ns);
            entry.spoiled = false;
            self.next_deadline_ns = self.next_deadline_ns.min(entry.deadline_ns);
        }
        index
    }

    /// Evicts the oldest other datagrams until `bytes` more may be held.
    fn make_room(&mut self, index: usize, bytes: usize) -> Result<(), Error> {
        while self.held_bytes + bytes > self.limits.held_bytes {
            let oldest = (0..self.entries.len())
                .filter(|&other| other != index)
                .filter_map(|other| self.entries.get(other).map(|entry| (other, entry)))
                .filter(|(_, entry)| entry.key.is_some() && entry.slot.held_packets != 0)
                .min_by_key(|(_, entry)| entry.since_ns)
                .map(|(other, _)| other);
            match oldest {
                Some(other) => self.discarded.evicted_packets += u64::from(self.release(other)),
                None => {
                    self.discarded.evicted_packets += u64::from(self.release(index));
                    return Err(Error::Full);
                }
            }
        }
        Ok(())
    }

    /// The packet's length, if this fragment completes it.
    fn add(&mut self, index: usize, piece: &Piece<'_>, now_ns: u64) -> Result<Option<usize>, Error> {
        let entry = self.entries.get_mut(index).ok_or(Error::Full)?;
        if entry.spoiled {
            return Err(Error::Spoiled);
        }
        match entry.slot.add(piece) {
            Ok(()) => {}
            Err(error @ (Error::Overlap | Error::TooLong)) => {
                self.discarded.spoiled_packets += u64::from(self.spoil(index, now_ns));
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        self.held_bytes += piece.payload.len();
        self.held_packets += 1;
        if !entry.slot.is_whole() {
            return Ok(None);
        }
        entry
            .slot
            .finish(self.limits.datagram_bytes)
            .map(Some)
            .inspect_err(|_| {
                // This fragment is answered for by the error.
                let before = self.release(index).saturating_sub(1);
                self.discarded.spoiled_packets += u64::from(before);
            })
    }

    /// Drops what is there of a datagram and remembers to refuse the rest of it.
    fn spoil(&mut self, index: usize, now_ns: u64) -> u32 {
        let dropped = self.drop_held(index);
        if let Some(entry) = self.entries.get_mut(index) {
            entry.spoiled = true;
            if entry.key.is_some_and(|key| key.source.is_ipv4()) {
                entry.deadline_ns = entry.deadline_ns.min(now_ns.saturating_add(SPOILED_V4_NS));
                self.next_deadline_ns = self.next_deadline_ns.min(entry.deadline_ns);
            }
        }
        dropped
    }

    /// Frees a slot and says how many fragments were in it. What [`Slot::packet`] gives stays until it is begun anew.
    fn release(&mut self, index: usize) -> u32 {
        let dropped = self.drop_held(index);
        if let Some(entry) = self.entries.get_mut(index) {
            entry.key = None;
            entry.spoiled = false;
        }
        dropped
    }

    fn drop_held(&mut self, index: usize) -> u32 {
        let Some(Entry {
            key: Some(_), slot, ..
        }) = self.entries.get_mut(index)
        else {
            return 0;
        };
        self.held_bytes -= std::mem::take(&mut slot.held_bytes);
        let dropped = std::mem::take(&mut slot.held_packets);
        self.held_packets -= u64::from(dropped);
        dropped
    }
}

fn parse(packet: &[u8]) -> Result<(Key, Piece<'_>), Error> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::parse(packet).map_err(|_| Error::BadHeader)?;
            let piece = Piece::parse_v4(&packet)?;
            let key = Key {
                source: packet.header.source().into(),
                destination: packet.header.destination().into(),
                protocol: Some(piece.protocol),
                identification: piece.fragment.identification,
            };
            Ok((key, piece))
        }
        Some(6) => {
            let packet = ipv6::Packet::parse(packet).map_err(|_| Error::BadHeader)?;
            let piece = Piece::parse_v6(&packet)?;
            let key = Key {
                source: packet.header.source().into(),
                destination: packet.header.destination().into(),
                protocol: None,
                identification: piece.fragment.identification,
            };
            Ok((key, piece))
        }
        _ => Err(Error::BadHeader),
    }
}

#[cfg(test)]
mod tests;
