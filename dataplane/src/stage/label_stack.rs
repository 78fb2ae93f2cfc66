//! Label stacks as bytes: what is beneath them, and other labels in the place of one.

use southbound::{DropReason, PushClass, TtlModel};
use wire::flow::Tuple;
use wire::mpls::LSE_BYTES;
use wire::{Label, Lse};

use crate::tables::{LabelHop, MAX_PUSHED};
use crate::xsk::Frame;

/// Where the stack goes on behind an entropy label with its indicator at `at`, or `at` where there is none.
#[inline]
pub(super) fn past_entropy(bytes: &[u8], at: usize, end: usize) -> usize {
    let is_indicator = |at: usize| label_at(bytes, at) == Some(Label::ENTROPY_INDICATOR);
    if at + 2 * LSE_BYTES <= end && is_indicator(at) {
        at + 2 * LSE_BYTES
    } else {
        at
    }
}

#[inline]
fn label_at(bytes: &[u8], at: usize) -> Option<Label> {
    let entry = bytes.get(at..)?.first_chunk::<LSE_BYTES>()?;
    Some(Lse::from_bytes(*entry).label)
}

/// The entropy label of a stack that ends at `end`.
#[inline]
fn entropy_label(bytes: &[u8], end: usize) -> Option<Label> {
    let at = (0..end)
        .step_by(LSE_BYTES)
        .find(|at| label_at(bytes, *at) == Some(Label::ENTROPY_INDICATOR))?;
    (at + 2 * LSE_BYTES <= end).then(|| label_at(bytes, at + LSE_BYTES))?
}

/// A hash of the flow: of the entropy label where there is one, else of the packet beneath the stack, else of the
/// labels (RFC 6790 section 4.3).
#[inline]
#[must_use]
pub fn flow_hash(bytes: &[u8], end: usize) -> u32 {
    if let Some(label) = entropy_label(bytes, end) {
        return spread(label.value());
    }
    match Tuple::parse(bytes.get(end..).unwrap_or_default()) {
        Ok(tuple) => tuple.hash(),
        Err(_) => (0..end)
            .step_by(LSE_BYTES)
            .filter_map(|at| label_at(bytes, at))
            .fold(0, |hash, label| spread(hash ^ label.value())),
    }
}

/// All bits of the result depend on all of `value`; groups are chosen among by the high ones.
#[inline]
fn spread(value: u32) -> u32 {
    let mixed = u64::from(value ^ 0x9e37_79b9).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) as u32 ^ mixed as u32
}

/// An entropy label for a flow: never a reserved one (RFC 6790 section 4.2).
#[inline]
fn entropy_of(flow_hash: u32) -> Label {
    let span = Label::MAX.value() - Label::FIRST_UNRESERVED.value() + 1;
    let value = Label::FIRST_UNRESERVED.value() + ((u64::from(flow_hash) * u64::from(span)) >> 32) as u32;
    Label::new(value).unwrap_or(Label::MAX)
}

/// The entries of a hop, outermost first, as they go before a packet.
struct Entries {
    entries: [[u8; LSE_BYTES]; MAX_PUSHED],
    count: usize,
}

impl Entries {
    /// `innermost` is the TTL and TC of the hop's last label, `outer` of those above; `flow_hash` makes the entropy
    /// label, where one is wanted.
    #[inline]
    fn new(
        hop: &LabelHop,
        innermost: (u8, u8),
        outer: (u8, u8),
        is_bottom: bool,
        flow_hash: Option<u32>,
    ) -> Self {
        let mut entries = Self {
            entries: [[0; LSE_BYTES]; MAX_PUSHED],
            count: 0,
        };
        let labels = hop.labels();
        let beneath = flow_hash.and(hop.entropy_beneath).map(usize::from);
        for (place, label) in labels.iter().enumerate() {
            let is_last = place + 1 == labels.len();
            let (ttl, class) = if is_last { innermost } else { outer };
            entries.push(
                *label,
                class,
                is_last && is_bottom && beneath != Some(labels.len()),
                ttl,
            );
            if let (Some(hash), true) = (flow_hash, beneath == Some(place + 1)) {
                entries.push(Label::ENTROPY_INDICATOR, class, false, ttl);
                entries.push(entropy_of(hash), 0, is_last && is_bottom, 0);
            }
        }
        entries
    }

    #[inline]
    fn push(&mut self, label: Label, traffic_class: u8, bottom: bool, ttl: u8) {
        let entry = Lse {
            label,
            traffic_class,
            bottom,
            ttl,
        };
        if let Some(place) = self.entries.get_mut(self.count) {
            *place = entry.to_bytes();
            self.count += 1;
        }
    }

    #[inline]
    fn write(&self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let front = frame
            .grow_front(self.count * LSE_BYTES)
            .ok_or(DropReason::NoHeadroom)?;
        for (place, entry) in front.as_chunks_mut::<LSE_BYTES>().0.iter_mut().zip(&self.entries) {
            *place = *entry;
        }
        Ok(())
    }
}

/// The labels of a hop in the place of the one that a packet came with.
pub(super) struct Replacement<'h> {
    /// The hop, with one label at least.
    pub(super) hop: &'h LabelHop,
    /// Where the stack goes on beneath the label.
    pub(super) beneath: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// The TTL that is left.
    pub(super) left: u8,
    /// The TC of the label.
    pub(super) traffic_class: u8,
}

impl Replacement<'_> {
    /// Whether an entropy label is pushed: not a second one.
    fn has_entropy(&self, bytes: &[u8]) -> bool {
        self.hop.entropy_beneath.is_some() && entropy_label(bytes, self.end).is_none()
    }

    /// Bytes that will stand before what is beneath.
    pub(super) fn pushed_bytes(&self, bytes: &[u8]) -> usize {
        let entropy = if self.has_entropy(bytes) { 2 } else { 0 };
        (self.hop.labels().len() + entropy) * LSE_BYTES
    }

    /// Writes them.
    pub(super) fn write(&self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let hash = self
            .has_entropy(frame.bytes())
            .then(|| flow_hash(frame.bytes(), self.end));
        // RFC 3443 section 3.5: a swapped label goes on with what is left, in either model.
        let ttl = match self.hop.ttl {
            TtlModel::Uniform => self.left,
            TtlModel::Pipe(ttl) => ttl,
        };
        let class = match self.hop.class {
            PushClass::Set(class) => class,
            PushClass::Copy | PushClass::Map(_) => self.traffic_class,
        };
        let entries = Entries::new(
            self.hop,
            (self.left, self.traffic_class),
            (ttl, class),
            self.beneath == self.end,
            hash,
        );
        if !frame.shrink_front(self.beneath) {
            return Err(DropReason::LabelStackTruncated);
        }
        entries.write(frame)
    }
}

/// Puts the labels of a hop before an IP packet, whose TTL was taken and whose class has become a TC.
#[inline(always)]
pub(super) fn push(frame: &mut Frame<'_>, hop: &LabelHop, ttl: u8, class: u8) -> Result<(), DropReason> {
    let ttl = match hop.ttl {
        TtlModel::Uniform => ttl,
        TtlModel::Pipe(ttl) => ttl,
    };
    if hop.entropy_beneath.is_some() {
        return push_with_entropy(frame, hop, ttl, class);
    }
    let entry = |label: &Label, bottom| {
        let entry = Lse {
            label: *label,
            traffic_class: class,
            bottom,
            ttl,
        };
        entry.to_bytes()
    };
    // A tunnel label and a VPN's are the usual stack.
    if let [outer, inner] = hop.labels() {
        let front = frame
            .grow_front_by::<{ 2 * LSE_BYTES }>()
            .ok_or(DropReason::NoHeadroom)?;
        let (above, below) = front.split_at_mut(LSE_BYTES);
        above.copy_from_slice(&entry(outer, false));
        below.copy_from_slice(&entry(inner, true));
        return Ok(());
    }
    let labels = hop.labels();
    let front = frame
        .grow_front(labels.len() * LSE_BYTES)
        .ok_or(DropReason::NoHeadroom)?;
    for (place, label) in front.as_chunks_mut::<LSE_BYTES>().0.iter_mut().zip(labels) {
        *place = entry(label, false);
    }
    if let Some([_, _, bottom, _]) = front.last_chunk_mut::<LSE_BYTES>() {
        *bottom |= 1;
    }
    Ok(())
}

#[inline(never)]
fn push_with_entropy(frame: &mut Frame<'_>, hop: &LabelHop, ttl: u8, class: u8) -> Result<(), DropReason> {
    let hash = Tuple::parse(frame.bytes()).map_or(0, |tuple| tuple.hash());
    Entries::new(hop, (ttl, class), (ttl, class), true, Some(hash)).write(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(labels: &[u32]) -> Vec<u8> {
        let entry = |(place, label): (usize, &u32)| {
            Lse {
                label: Label::new(*label).unwrap(),
                traffic_class: 0,
                bottom: place + 1 == labels.len(),
                ttl: 64,
            }
            .to_bytes()
        };
        labels.iter().enumerate().flat_map(entry).collect()
    }

    #[test]
    fn an_entropy_label_alone_decides_the_flow() {
        let (left, right) = (stack(&[100, 7, 4711, 200]), stack(&[300, 7, 4711, 400]));
        assert_eq!(flow_hash(&left, 16), flow_hash(&right, 16));
        assert_ne!(flow_hash(&left, 16), flow_hash(&stack(&[100, 7, 4712, 200]), 16));
        let paths: std::collections::BTreeSet<_> = (16..80)
            .map(|label| flow_hash(&stack(&[100, 7, label]), 12) >> 30)
            .collect();
        assert_eq!(paths.len(), 4, "neighbouring entropy labels take different ways");
    }

    #[test]
    fn what_is_no_ip_goes_by_its_labels() {
        let mut bytes = stack(&[100, 200]);
        bytes.extend([0; 60]);
        assert_eq!(flow_hash(&bytes, 8), flow_hash(&bytes, 8));
        let mut other = stack(&[100, 201]);
        other.extend([0; 60]);
        assert_ne!(flow_hash(&bytes, 8), flow_hash(&other, 8));
    }

    #[test]
    fn entropy_labels_are_never_reserved() {
        assert_eq!(entropy_of(0), Label::FIRST_UNRESERVED);
        assert_eq!(entropy_of(u32::MAX), Label::MAX);
    }
}
