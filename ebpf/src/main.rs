//! The XDP program: the frame's pointers become a cursor, the maps become [`Steering`], and
//! [`classify`] decides.
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    reason = "packet pointers and map values are the kernel's; each block says why it holds"
)]

use core::cell::Cell;
use core::hint::{assert_unchecked, black_box};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ptr::NonNull;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, xdp_action};
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use ebpf::classify::{Steering, classify};
use ebpf::maps::{
    COUNTERS, Local, MAX_LOCAL_ADDRESSES, MAX_QUEUES, MAX_VLANS, NO_SOCKET, PortConfig, Role, VlanKey,
    counter_index,
};
use ebpf::verdict::{Redirect, Verdict};
use wire::MacAddr;
use wire::cursor::{Cursor, MAX_SKIP_BYTES};
use wire::ipv6::MAX_EXTENSIONS;

#[map]
static PORT: Array<PortConfig> = Array::with_max_entries(1, 0);
#[map]
static VLANS: HashMap<VlanKey, Role> = HashMap::with_max_entries(MAX_VLANS, BPF_F_NO_PREALLOC);
#[map]
static LOCAL_V4: HashMap<[u8; 4], Local> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static LOCAL_V6: HashMap<[u8; 16], Local> = HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_QUEUES * COUNTERS as u32, 0);

#[map]
static HEADERS: PerCpuArray<Header> = PerCpuArray::with_max_entries(MAX_HEADERS, 0);

/// Room for one header: the longest that is taken at once is IPv6's.
type Header = [u8; 40];

/// Headers that one decision takes at most: Ethernet, two tags, IPv6, its extensions and fragment header, ICMPv6, and
/// the quoted IPv6, fragment and UDP headers and marker.
const MAX_HEADERS: u32 = 1 + 2 + 1 + MAX_EXTENSIONS as u32 + 1 + 1 + 4;

/// Entry: one frame, seen up to the end of its first buffer.
#[xdp(frags)]
fn penstock_xdp(context: XdpContext) -> u32 {
    let Some(config) = lookup::<PortConfig, 1>(&raw const PORT, [0]) else {
        return xdp_action::XDP_PASS;
    };
    // SAFETY: the map gave a pointer to its one element, which stays for as long as the program runs. User space
    // may write it meanwhile: any mixture of old and new octets is a `PortConfig`.
    let config = unsafe { config.as_ref() };
    let steering = MapSteering { config };
    let had_to_skip = Cell::new(false);
    let mut verdict = classify(FrameCursor::new(&context, &had_to_skip), &steering);
    if had_to_skip.get() {
        // IPv4 options or long extension headers: rare enough to be copied.
        verdict = classify(CopyCursor::new(&context), &steering);
    }
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
    // One element a counter rather than one row a queue: an offset into a row that depends on the verdict is
    // pointer arithmetic, which the verifier forbids to processes that lack CAP_PERFMON.
    let key = [u64::from(counter_index(queue, index))];
    if let Some(counter) = lookup::<u64, 1>(&raw const VERDICTS, key) {
        let counter = counter.as_ptr();
        // SAFETY: the map gave a pointer to this CPU's own counter, which no other CPU writes, and the program
        // is not interrupted by itself on one CPU.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

/// Looks up a key that begins with the octets of `key`, in memory order.
///
/// Whole words: without CAP_PERFMON verifiers such as Linux 6.1's do not let a part of a word on the stack be written
/// where another part has been.
#[inline(always)]
fn lookup<V, const WORDS: usize>(map: *const impl Sized, key: [u64; WORDS]) -> Option<NonNull<V>> {
    // SAFETY: `map` is one of the maps above, and its keys are not longer than `key`; the values are `V`s.
    NonNull::new(unsafe { bpf_map_lookup_elem(map.cast_mut().cast(), (&raw const key).cast()) }.cast())
}

/// What an entry of the sets of local addresses says.
#[inline(always)]
fn local(entry: Option<NonNull<Local>>) -> Local {
    match entry {
        // SAFETY: entries are single octets that user space replaces; one that is removed meanwhile stays readable
        // until the program ends (RCU).
        Some(entry) => unsafe { *entry.as_ptr() },
        None => Local::NONE,
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
        // A `VlanKey` as it lies in memory.
        let key = u64::from(u32::from(vlan.outer) | u32::from(vlan.inner) << 16);
        match lookup::<Role, 1>(&raw const VLANS, [key]) {
            // SAFETY: entries are four aligned octets that user space replaces whole; one that is removed
            // meanwhile stays readable until the program ends (RCU).
            Some(role) => unsafe { *role.as_ptr() },
            None => Role::NONE,
        }
    }

    #[inline(always)]
    fn local_v4(&self, address: Ipv4Addr) -> Local {
        let key = u64::from(u32::from_ne_bytes(address.octets()));
        local(lookup(&raw const LOCAL_V4, [key]))
    }

    #[inline(always)]
    fn local_v6(&self, address: Ipv6Addr) -> Local {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
        // The black box keeps the compiler from copying octet by octet.
        let key = [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]]
            .map(|half| black_box(u64::from_ne_bytes(half)));
        local(lookup(&raw const LOCAL_V6, key))
    }
}

/// The frame where it lies, from `at` to `end`, as packet pointers that the verifier follows.
///
/// The verifier lets a process that lacks CAP_PERFMON move such a pointer by constants only. So this cursor
/// does not skip: it says that it had to, and the frame is looked at again through a [`CopyCursor`].
struct FrameCursor<'p> {
    at: usize,
    end: usize,
    position: usize,
    had_to_skip: &'p Cell<bool>,
}

impl<'p> FrameCursor<'p> {
    #[inline(always)]
    fn new(context: &'p XdpContext, had_to_skip: &'p Cell<bool>) -> Self {
        Self {
            at: context.data(),
            end: context.data_end(),
            position: 0,
            had_to_skip,
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
        // SAFETY: the kernel's packet pointers are never null. Without this the compiler compares the reference with
        // null for the sake of `Option`, which the verifier forbids to processes that lack CAP_PERFMON.
        unsafe { assert_unchecked(!taken.is_null()) };
        self.at = after;
        self.position += N;
        // SAFETY: the N bytes lie between the frame's start and end, as just compared; the frame lives and
        // is not written for as long as the context is borrowed; octets have no alignment.
        Some(unsafe { &*taken })
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        if bytes == 0 {
            return Some(());
        }
        self.had_to_skip.set(true);
        None
    }

    #[inline(always)]
    fn position(&self) -> usize {
        self.position
    }
}

/// Copies header after header out of the frame, each into a place of its own, so that a position may be any number.
struct CopyCursor<'p> {
    context: &'p XdpContext,
    position: usize,
    copied_headers: u32,
}

impl<'p> CopyCursor<'p> {
    #[inline(always)]
    fn new(context: &'p XdpContext) -> Self {
        Self {
            context,
            position: 0,
            copied_headers: 0,
        }
    }
}

impl<'p> Cursor<'p> for CopyCursor<'p> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<&'p [u8; N]> {
        const { assert!(N <= size_of::<Header>()) };
        let copy = lookup::<Header, 1>(&raw const HEADERS, [u64::from(self.copied_headers)])?.as_ptr();
        // SAFETY: the context is the one that the kernel gave; the map gave a pointer to this CPU's own element, which
        // has room for N octets. The kernel copies only what lies within the frame.
        let result =
            unsafe { bpf_xdp_load_bytes(self.context.ctx, self.position as u32, copy.cast(), N as u32) };
        if result != 0 {
            return None;
        }
        self.copied_headers += 1;
        self.position += N;
        // SAFETY: N octets were just copied there, and no other header of this frame will be.
        Some(unsafe { &*copy.cast() })
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: the context is the one that the kernel gave.
        let frame_bytes = unsafe { bpf_xdp_get_buff_len(self.context.ctx) };
        if bytes > MAX_SKIP_BYTES || (self.position + bytes) as u64 > frame_bytes {
            return None;
        }
        self.position += bytes;
        Some(())
    }

    #[inline(always)]
    fn position(&self) -> usize {
        self.position
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
