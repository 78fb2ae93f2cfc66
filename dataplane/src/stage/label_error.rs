//! Errors about labelled packets: what they show of the labels, and by which way they reach the sender.

use southbound::DropReason;
use wire::mpls::{LSE_BYTES, Stack};
use wire::{Label, Lse, SliceCursor, ipv4, ipv6};

use super::{Context, mpls_forward};
use crate::batch::{Flags, Ingress, Meta, Next};
use crate::tables::{AdjacencyIndex, LabelAction, VrfIndex};
use crate::xsk::Frame;

/// TTL of the labels of what we send.
const LABEL_TTL: u8 = 255;

/// The labels of a packet that an error is about.
pub(super) enum Labels {
    /// It came without, or the labels are our own.
    None,
    /// It came under these, which were popped.
    Popped(Stack),
    /// It came under these, and would have gone on under others.
    Beneath(Stack),
}

impl Labels {
    /// The entries as they came, top first (RFC 4950 section 3).
    pub(super) fn entries(&self) -> &[Lse] {
        match self {
            Self::None => &[],
            Self::Popped(stack) | Self::Beneath(stack) => stack.entries(),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// Leaves the IP packet alone in the frame and tells its labels.
pub(super) fn open(frame: &mut Frame<'_>, meta: &mut Meta) -> Labels {
    let parse = |bytes: &[u8]| Stack::parse(&mut SliceCursor::new(bytes)).ok();
    if !meta.flags.has(Flags::LABELLED) {
        let bytes = usize::from(std::mem::take(&mut meta.labels_bytes));
        if bytes == 0 || frame.grow_front(bytes).is_none() {
            return Labels::None;
        }
        let stack = parse(frame.bytes());
        let _ = frame.shrink_front(bytes);
        return stack.map_or(Labels::None, Labels::Popped);
    }
    let stack = parse(frame.bytes());
    if let Ok(bytes) = mpls_forward::stack_bytes(frame.bytes()) {
        let _ = frame.shrink_front(bytes);
    }
    meta.flags.clear(Flags::LABELLED);
    meta.flags.clear(Flags::IPV6);
    if frame.bytes().first().is_some_and(|first| first >> 4 == 6) {
        meta.flags.set(Flags::IPV6);
    }
    if meta.flags.has(Flags::IMPOSED) {
        return Labels::None;
    }
    stack.map_or(Labels::None, Labels::Beneath)
}

/// Sends an error about a packet under `stack` on its way: by the table that the labels lead to where that is here, or
/// where the sender is known to this router; else along the LSP, whose end knows the way back (RFC 3032 section 2.3.2).
pub(super) fn turn_back(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    stack: &Stack,
    context: &Context<'_, '_>,
) -> Result<Next, DropReason> {
    let (space, vrf, is_ipv6) = (meta.space, meta.vrf, meta.flags.has(Flags::IPV6));
    let mut table = ends_here(meta, stack, context);
    if table.is_none() && stack.entries().len() == 1 && is_reachable(frame.bytes(), vrf, is_ipv6, context) {
        table = Some(vrf);
    }
    *meta = Meta::new(Ingress::Own, table.unwrap_or(vrf));
    meta.flags.set(Flags::HOP_TAKEN);
    if is_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    if table.is_some() {
        return Ok(Next::PolicyOut);
    }
    meta.space = space;
    meta.flags.set(Flags::LABELLED);
    let front = frame
        .grow_front(stack.stack_bytes())
        .ok_or(DropReason::NoHeadroom)?;
    for (place, entry) in front
        .as_chunks_mut::<LSE_BYTES>()
        .0
        .iter_mut()
        .zip(stack.entries())
    {
        let entry = Lse {
            ttl: LABEL_TTL,
            ..*entry
        };
        *place = entry.to_bytes();
    }
    Ok(Next::Labels)
}

/// The table that the packet would have been routed in here; none where it was on its way to another router.
fn ends_here(meta: &Meta, stack: &Stack, context: &Context<'_, '_>) -> Option<VrfIndex> {
    let mut skip = false;
    for entry in stack.entries() {
        if std::mem::take(&mut skip) {
            continue;
        }
        match entry.label {
            Label::IPV4_EXPLICIT_NULL | Label::IPV6_EXPLICIT_NULL => continue,
            Label::ENTROPY_INDICATOR => {
                skip = true;
                continue;
            }
            label => match context.view.label(meta.space, label).action() {
                Some(LabelAction::Lookup(vrf)) => return Some(vrf),
                Some(LabelAction::Pop) => {}
                _ => return None,
            },
        }
    }
    Some(meta.vrf)
}

/// Whether the error, which is addressed to the packet's sender, has a route here.
fn is_reachable(error: &[u8], vrf: VrfIndex, is_ipv6: bool, context: &Context<'_, '_>) -> bool {
    let mut cursor = SliceCursor::new(error);
    let route = if is_ipv6 {
        ipv6::Header::parse(&mut cursor)
            .ok()
            .map(|header| context.view.route_v6(vrf, header.destination()))
    } else {
        ipv4::Header::parse(&mut cursor)
            .ok()
            .map(|header| context.view.route_v4(vrf, header.destination()))
    };
    !matches!(
        route,
        None | Some(AdjacencyIndex::NO_ROUTE | AdjacencyIndex::UNREACHABLE | AdjacencyIndex::BLACKHOLE)
    )
}
