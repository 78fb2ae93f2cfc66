//! DSCP and ECN across a tunnel (RFC 2983, RFC 6040).

use southbound::{DropReason, DscpPolicy, EcnPolicy};
use wire::{Ecn, TrafficClass};

/// The outer header's traffic class for an inner one (RFC 6040 section 4.1).
#[inline]
#[must_use]
pub fn encapsulate(inner: TrafficClass, dscp: DscpPolicy, ecn: EcnPolicy) -> TrafficClass {
    let class = match dscp {
        DscpPolicy::Copy => inner,
        DscpPolicy::Set(value) => inner.with_dscp(value),
    };
    match ecn {
        EcnPolicy::Normal => class,
        EcnPolicy::Compatibility => class.with_ecn(Ecn::NotEct),
    }
}

/// The inner packet's ECN after decapsulation (RFC 6040 section 4.2, figure 4), whatever the mode: the peer's packets
/// follow the peer's mode, which this end does not know.
///
/// # Errors
/// The outer header says congestion to a packet that cannot carry it on, so the packet itself has to tell: by its loss.
#[inline]
pub fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, DropReason> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(DropReason::EcnIllegal),
        (_, Ecn::Ce) => Ok(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 figure 4, row by row: outer Not-ECT, ECT(0), ECT(1), CE; `None` is a drop.
    #[test]
    fn decapsulation_is_the_rfcs_table() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer).ok(), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn encapsulation_copies_or_sets() {
        let inner = TrafficClass(0xb8 | 0b10);
        assert_eq!(encapsulate(inner, DscpPolicy::Copy, EcnPolicy::Normal), inner);
        assert_eq!(
            encapsulate(inner, DscpPolicy::Set(0), EcnPolicy::Normal),
            TrafficClass(0b10)
        );
        assert_eq!(
            encapsulate(inner, DscpPolicy::Copy, EcnPolicy::Compatibility),
            TrafficClass(0xb8)
        );
        assert_eq!(
            encapsulate(inner, DscpPolicy::Set(10), EcnPolicy::Compatibility),
            TrafficClass(10 << 2)
        );
    }
}
