//! AES-GCM packets as rows of lanes: see the drawing in [`super::gcm`].

/// A packet made ready for [`crypt`](super::gcm::crypt): where its lanes are and what surrounds them.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Where lane 0 would be: the packet's first byte less the padding lanes. Never dereferenced before
    /// the text.
    pub(super) base: *mut u8,
    /// Text bytes of the first vector.
    pub(super) first_mask: u64,
    /// Text bytes of the last vector.
    pub(super) last_mask: u64,
    /// Padding lanes.
    pub(super) pad: usize,
    /// Vectors.
    pub(crate) vectors: usize,
    /// The counter block, its last word zero.
    pub(super) nonce: [u64; 2],
    /// The additional data, byte-reversed: low half, high half.
    pub(super) aad: [u64; 2],
    /// The length block, byte-reversed: text bits, additional data bits.
    pub(super) lengths: [u64; 2],
}

/// Vectors that a text takes with header and length lanes.
#[inline]
pub(crate) fn vectors(text_bytes: usize) -> usize {
    (text_bytes.div_ceil(16) + 2).div_ceil(4)
}

/// With more vectors than these, counters pass 255.
pub(crate) const MAX_SHORT_VECTORS: usize = 63;

impl Row {
    /// No packet.
    pub(crate) const EMPTY: Self = Self {
        base: core::ptr::null_mut(),
        first_mask: 0,
        last_mask: 0,
        pad: 0,
        vectors: 0,
        nonce: [0; 2],
        aad: [0; 2],
        lengths: [0; 2],
    };

    /// A packet whose text, of `frame`'s length, begins at `packet + 16`.
    ///
    /// `iv` is the IV as it stands in the packet, in memory order; `aad` at most 16 bytes as a big-endian
    /// number left-aligned, `aad_bytes` of which count.
    #[inline]
    pub(crate) fn new(
        packet: *mut u8,
        frame: &Frame,
        salt: [u8; 4],
        iv: u64,
        aad: u128,
        aad_bytes: usize,
    ) -> Self {
        Self {
            base: packet.wrapping_sub(16 * frame.pad),
            first_mask: frame.first_mask,
            last_mask: frame.last_mask,
            pad: frame.pad,
            vectors: frame.vectors,
            nonce: [u64::from(u32::from_le_bytes(salt)) | iv << 32, iv >> 32],
            aad: [aad as u64, (aad >> 64) as u64],
            lengths: [8 * frame.text_bytes as u64, 8 * aad_bytes as u64],
        }
    }
}

/// What rows of one length have in common.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    text_bytes: usize,
    first_mask: u64,
    last_mask: u64,
    pad: usize,
    vectors: usize,
}

impl Frame {
    /// Of texts of this length.
    #[inline]
    pub(crate) fn of(text_bytes: usize) -> Self {
        let blocks = text_bytes.div_ceil(16);
        let vectors = vectors(text_bytes);
        let pad = 4 * vectors - (blocks + 2);
        let slack = 16 * blocks - text_bytes;
        Self {
            text_bytes,
            // In two steps: with three lanes of padding nothing of the first vector is text.
            first_mask: (!0 << (16 * pad)) << 16,
            last_mask: !0 >> (16 + slack),
            pad,
            vectors,
        }
    }

    /// The length.
    #[inline]
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes
    }
}
