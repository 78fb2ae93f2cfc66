//! One hop less to live (RFC 1812 section 5.3.1, RFC 8200 section 3).

use wire::{ipv4, ipv6};

use crate::batch::{Flags, Meta};

/// Takes one from TTL or hop limit, once in a packet's way; false where that would be the last.
#[inline(always)]
#[must_use]
pub fn take(bytes: &mut [u8], meta: &mut Meta) -> bool {
    if meta.flags.has(Flags::HOP_TAKEN) {
        return true;
    }
    meta.flags.set(Flags::HOP_TAKEN);
    if meta.flags.has(Flags::IPV6) {
        bytes
            .first_chunk_mut()
            .is_some_and(|header| ipv6::decrement_hop_limit(header).is_ok())
    } else {
        bytes
            .first_chunk_mut()
            .is_some_and(|header| ipv4::decrement_ttl(header).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Ingress;
    use crate::tables::VrfIndex;

    const HEADER: [u8; 20] = [
        0x45, 0, 0, 20, 0, 0, 0, 0, 2, 17, 0xa4, 0xd5, 10, 1, 0, 1, 10, 2, 0, 1,
    ];

    #[test]
    fn fault_59_the_ttl_is_taken_once_and_the_checksum_mended() {
        let mut bytes = HEADER;
        let sum = wire::checksum::Sum::new().bytes(&bytes);
        assert!(sum.is_valid(), "{:04x}", sum.checksum());
        let mut meta = Meta::new(Ingress::Host, VrfIndex::MAIN);
        assert!(take(&mut bytes, &mut meta));
        assert_eq!(bytes[8], 1);
        assert!(wire::checksum::Sum::new().bytes(&bytes).is_valid());
        assert!(take(&mut bytes, &mut meta), "only once on one way");
        assert_eq!(bytes[8], 1);
        let mut again = Meta::new(Ingress::Host, VrfIndex::MAIN);
        assert!(!take(&mut bytes, &mut again));
        assert_eq!(
            (bytes[8], bytes[9]),
            (1, 17),
            "what expired is left as it was, for the quote"
        );
    }
}
