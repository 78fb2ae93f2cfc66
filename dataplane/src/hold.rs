//! [`Hold`]: packets that wait for a neighbour's address or for a tunnel's SA.
//!
//! A few packets for each, a few hundred in all, and each only for a while: what does not fit or waits too long is
//! dropped with its reason, so that a peer that never answers costs no memory. Nothing is allocated after the start.
//! What is released goes back onto the edge that it would have taken, and is looked up again: the way may have changed.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use southbound::DropReason;

use crate::batch::{Meta, Next};
use crate::sa::TunnelIndex;
use crate::tables::{AdjacencyIndex, VrfIndex};
use crate::xsk::Frame;

/// Packets that wait for one neighbour or tunnel (RFC 4861 section 7.2.2 asks for at least one).
pub const HELD_PER_KEY: usize = 16;
/// Packets that a worker lets wait in all.
pub const HELD_IN_ALL: usize = 256;
/// Neighbours and tunnels that are waited for at once.
pub const HELD_KEYS: usize = 64;
/// How long for a neighbour: the kernel asks three times, a second apart.
pub const NEIGHBOUR_TIMEOUT_NS: u64 = 3_500_000_000;
/// How long for an SA: an exchange of keys with one retransmission.
pub const SA_TIMEOUT_NS: u64 = 5_000_000_000;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A gateway: the adjacency that leads to it, and where that is a group of them, the flow.
    Gateway {
        /// What the route leads to.
        adjacency: AdjacencyIndex,
        /// Chooses in a group; 0 elsewhere.
        flow_hash: u32,
    },
    /// The destination itself, on a link of ours.
    OnLink {
        /// The table that it is routed in.
        vrf: VrfIndex,
        /// Whom to reach.
        destination: IpAddr,
    },
    /// The outbound SA of a tunnel.
    OutboundSa(TunnelIndex),
}

impl Awaited {
    const fn timeout_ns(self) -> u64 {
        match self {
            Self::Gateway { .. } | Self::OnLink { .. } => NEIGHBOUR_TIMEOUT_NS,
            Self::OutboundSa(_) => SA_TIMEOUT_NS,
        }
    }

    /// Why a packet is dropped for which there is no room.
    #[must_use]
    pub const fn full(self) -> DropReason {
        match self {
            Self::Gateway { .. } | Self::OnLink { .. } => DropReason::NeighbourQueueFull,
            Self::OutboundSa(_) => DropReason::NoOutboundSa,
        }
    }

    /// Why a packet is dropped that waited in vain.
    #[must_use]
    pub const fn timed_out(self) -> DropReason {
        match self {
            Self::Gateway { .. } | Self::OnLink { .. } => DropReason::NeighbourUnresolved,
            Self::OutboundSa(_) => DropReason::NoOutboundSa,
        }
    }
}

/// What is to become of those who wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not there yet.
    Wait,
    /// It is there, or the way has changed: try again.
    Release,
    /// It will not come.
    GiveUp,
}

/// A packet that waits.
#[derive(Debug)]
pub struct Held<'u> {
    /// The packet.
    pub frame: Frame<'u>,
    /// What was known of it.
    pub meta: Meta,
    /// The edge that it goes back onto.
    pub resume: Next,
    /// What it waits for.
    pub awaited: Awaited,
    /// Once it waits no longer: whether it is to be tried again, or dropped.
    pub released: bool,
    deadline_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    awaited: Awaited,
    count: usize,
    answer: Answer,
}

/// One worker's waiting packets.
#[derive(Debug)]
pub struct Hold<'u> {
    /// In order of arrival; never longer than [`HELD_IN_ALL`], which is reserved.
    waiting: Vec<Held<'u>>,
    queues: ArrayVec<Queue, HELD_KEYS>,
}

impl Default for Hold<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'u> Hold<'u> {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(HELD_IN_ALL),
            queues: ArrayVec::new(),
        }
    }

    /// Packets that wait.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a packet wait.
    ///
    /// # Errors
    /// There is no room: the frame comes back.
    pub fn push(
        &mut self,
        frame: Frame<'u>,
        meta: Meta,
        resume: Next,
        awaited: Awaited,
        now_ns: u64,
    ) -> Result<(), Frame<'u>> {
        if self.waiting.len() == HELD_IN_ALL {
            return Err(frame);
        }
        match self.queues.iter_mut().find(|queue| queue.awaited == awaited) {
            Some(queue) if queue.count == HELD_PER_KEY => return Err(frame),
            Some(queue) => queue.count += 1,
            None => {
                let fresh = Queue {
                    awaited,
                    count: 1,
                    answer: Answer::Wait,
                };
                if self.queues.try_push(fresh).is_err() {
                    return Err(frame);
                }
            }
        }
        let deadline_ns = now_ns.saturating_add(awaited.timeout_ns());
        self.waiting.push(Held {
            frame,
            meta,
            resume,
            awaited,
            released: false,
            deadline_ns,
        });
        Ok(())
    }

    /// Asks once for each thing awaited, then takes out, in order and at most `room`, the packets that wait no longer.
    pub fn sweep(
        &mut self,
        now_ns: u64,
        room: usize,
        mut ask: impl FnMut(Awaited) -> Answer,
        mut sink: impl FnMut(Held<'u>),
    ) {
        if self.waiting.is_empty() {
            return;
        }
        for queue in &mut self.queues {
            queue.answer = ask(queue.awaited);
        }
        let queues = &mut self.queues;
        let mut left = room;
        let done = self.waiting.extract_if(.., |held| {
            let Some(queue) = queues.iter_mut().find(|queue| queue.awaited == held.awaited) else {
                return false;
            };
            if (queue.answer == Answer::Wait && held.deadline_ns > now_ns) || left == 0 {
                return false;
            }
            held.released = queue.answer == Answer::Release;
            left -= 1;
            queue.count -= 1;
            true
        });
        for held in done {
            sink(held);
        }
        self.queues.retain(|queue| queue.count != 0);
    }

    /// Gives up everything, at the end.
    pub fn drain(&mut self, mut sink: impl FnMut(Held<'u>)) {
        self.queues.clear();
        for held in self.waiting.drain(..) {
            sink(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Ingress;
    use crate::xsk::{FramePool, Umem, UmemConfig};

    fn neighbour(host: u32) -> Awaited {
        Awaited::OnLink {
            vrf: VrfIndex::MAIN,
            destination: IpAddr::V4(host.into()),
        }
    }

    fn umem() -> Umem {
        Umem::new(&UmemConfig {
            frame_count: 600,
            ..UmemConfig::default()
        })
        .unwrap()
    }

    fn push<'u>(hold: &mut Hold<'u>, pool: &mut FramePool<'u>, awaited: Awaited, now_ns: u64) -> bool {
        let meta = Meta::new(Ingress::Host, VrfIndex::MAIN);
        match hold.push(pool.take().unwrap(), meta, Next::Forward, awaited, now_ns) {
            Ok(()) => true,
            Err(frame) => {
                pool.put(frame);
                false
            }
        }
    }

    #[test]
    fn each_queue_and_the_whole_are_bounded() {
        let umem = umem();
        let mut pool = umem.pool().unwrap();
        let mut hold = Hold::new();
        let mut taken = 0;
        for adjacency in 0..40 {
            for _ in 0..20 {
                taken += usize::from(push(&mut hold, &mut pool, neighbour(adjacency), 0));
            }
            assert_eq!(taken, ((adjacency as usize + 1) * HELD_PER_KEY).min(HELD_IN_ALL));
        }
        assert_eq!((hold.len(), pool.len()), (HELD_IN_ALL, 600 - HELD_IN_ALL));
        hold.drain(|held| pool.put(held.frame));
        assert_eq!((hold.len(), pool.len()), (0, 600));
        assert!(
            push(&mut hold, &mut pool, Awaited::OutboundSa(TunnelIndex(1)), 0),
            "there is room again"
        );
    }

    #[test]
    fn answers_release_or_end_and_time_ends_the_rest() {
        let umem = umem();
        let mut pool = umem.pool().unwrap();
        let mut hold = Hold::new();
        for awaited in [
            neighbour(1),
            neighbour(2),
            Awaited::OutboundSa(TunnelIndex(1)),
            neighbour(1),
        ] {
            assert!(push(&mut hold, &mut pool, awaited, 100));
        }
        let mut seen = Vec::new();
        let mut sweep = |hold: &mut Hold<'_>, now_ns, room, ask: &dyn Fn(Awaited) -> Answer| {
            seen.clear();
            let mut frames = Vec::new();
            hold.sweep(now_ns, room, ask, |held| {
                seen.push((held.awaited, held.released));
                frames.push(held.frame);
            });
            assert_eq!(frames.len(), seen.len());
            seen.clone()
        };
        assert_eq!(sweep(&mut hold, 200, 64, &|_| Answer::Wait), []);
        let first = |awaited| {
            if awaited == neighbour(1) {
                Answer::Release
            } else {
                Answer::Wait
            }
        };
        assert_eq!(
            sweep(&mut hold, 200, 1, &first),
            [(neighbour(1), true)],
            "no more than there is room"
        );
        assert_eq!(sweep(&mut hold, 200, 64, &first), [(neighbour(1), true)]);
        let late_ns = 100 + NEIGHBOUR_TIMEOUT_NS;
        assert_eq!(
            sweep(&mut hold, late_ns, 64, &|_| Answer::Wait),
            [(neighbour(2), false)]
        );
        assert_eq!(
            sweep(&mut hold, late_ns, 64, &|_| Answer::GiveUp),
            [(Awaited::OutboundSa(TunnelIndex(1)), false)]
        );
        assert!(hold.is_empty());
    }
}
