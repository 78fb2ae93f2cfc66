//! The XDP program: the frame's pointers become a cursor, the maps become [`Steering`], and
//! [`classify`] decides.
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    reason = "packet pointers and map values are the kernel's; each block says why it holds"
)]

use core::hint::black_box;
use core::marker::PhantomData;
use core::net::{Ipv4Addr, Ipv6Addr};

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, xdp_action};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use ebpf::classify::{Steering, classify};
use ebpf::maps::{
    Counters, MAX_LOCAL_ADDRESSES, MAX_QUEUES, MAX_VLANS, NO_SOCKET, PortConfig, Role, VlanKey,
};
use ebpf::verdict::{Redirect, Verdict};
use wire::MacAddr;
use wire::cursor::{Cursor, MAX_SKIP_BYTES};

#[map]
static PORT: Array<PortConfig> = Array::with_max_entries(1, 0);
#[map]
static VLANS: HashMap<VlanKey, Role> = HashMap::with_max_entries(MAX_VLANS, BPF_F_NO_PREALLOC);
#[map]
static LOCAL_V4: HashMap<[u8; 4], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static LOCAL_V6: HashMap<[u8; 16], u8> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);
#[map]
static VERDICTS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_QUEUES, 0);

/// Entry: one frame, seen up to the end of its first buffer.
#[xdp(frags)]
fn penstock_xdp(context: XdpContext) -> u32 {
    let Some(config) = PORT.get(0) else {
        return xdp_action::XDP_PASS;
    };
    let verdict = classify(FrameCursor::new(&context), &MapSteering { config });
    let queue = context.rx_queue_index();
    count(queue, verdict.index());
    match verdict {
        Verdict::Pass(_) => xdp_action::XDP_PASS,
        Verdict::Drop(_) => xdp_action::XDP_DROP,
        Verdict::Redirect(why) => redirect(queue, why),
    }
}

/// Gives the frame to its queue's socket.
///
/// Where there is none, the kernel may have the frame as if no program were there, but not one in transit:
/// it might forward in clear what a policy protects.
#[inline(always)]
fn redirect(queue: u32, why: Redirect) -> u32 {
    let otherwise = if matches!(why, Redirect::Transit) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    };
    match SOCKETS.redirect(queue, u64::from(otherwise)) {
        Ok(action) => action,
        Err(action) => {
            count(queue, NO_SOCKET);
            action
        }
    }
}

#[inline(always)]
fn count(queue: u32, index: usize) {
    if let Some(counters) = VERDICTS.get_ptr_mut(queue) {
        // SAFETY: the map gave a pointer to this CPU's own `Counters`, which no other CPU writes, and the
        // program is not interrupted by itself on one CPU. `index` is below `COUNTERS`: verdicts and
        // `NO_SOCKET` are asserted to be.
        unsafe {
            let counter = counters.cast::<u64>().add(index);
            *counter = (*counter).wrapping_add(1);
        }
    }
}

struct MapSteering<'a> {
    config: &'a PortConfig,
}

impl Steering for MapSteering<'_> {
    #[inline(always)]
    fn mac(&self) -> MacAddr {
        MacAddr(self.config.mac)
    }

    #[inline(always)]
    fn role(&self) -> Role {
        self.config.role
    }

    #[inline(always)]
    fn vlan_role(&self, vlan: VlanKey) -> Role {
        match VLANS.get_ptr(&vlan) {
            // SAFETY: entries are four aligned octets that user space replaces whole; one that is removed
            // meanwhile stays readable until the program ends (RCU).
            Some(role) => unsafe { *role },
            None => Role::NONE,
        }
    }

    #[inline(always)]
    fn is_local_v4(&self, address: Ipv4Addr) -> bool {
        LOCAL_V4.get_ptr(&address.octets()).is_some()
    }

    #[inline(always)]
    fn is_local_v6(&self, address: Ipv6Addr) -> bool {
        LOCAL_V6.get_ptr(&address.octets()).is_some()
    }
}

/// The frame from `at` to `end`, as packet pointers that the verifier follows.
struct FrameCursor<'p> {
    start: usize,
    at: usize,
    end: usize,
    frame: PhantomData<&'p [u8]>,
}

impl<'p> FrameCursor<'p> {
    #[inline(always)]
    fn new(context: &'p XdpContext) -> Self {
        Self {
            start: context.data(),
            at: context.data(),
            end: context.data_end(),
            frame: PhantomData,
        }
    }
}

impl<'p> Cursor<'p> for FrameCursor<'p> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<&'p [u8; N]> {
        let after = self.at + N;
        if after > self.end {
            return None;
        }
        let taken = self.at as *const [u8; N];
        self.at = after;
        // SAFETY: the N bytes lie between the frame's start and end, as just compared; the frame lives and
        // is not written for as long as the context is borrowed; octets have no alignment.
        Some(unsafe { &*taken })
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        // The compiler may know the bound from how `bytes` was made and leave the comparison out, or make it on
        // another register; the verifier knows only what is compared here.
        let bytes = black_box(bytes);
        if bytes > MAX_SKIP_BYTES {
            return None;
        }
        let after = self.at + bytes;
        if after > self.end {
            return None;
        }
        self.at = after;
        Some(())
    }

    #[inline(always)]
    fn position(&self) -> usize {
        self.at - self.start
    }
}

/// Nothing in the program panics; the compiler wants to be told all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that the program calls do not ask for a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
