//! The packets were built by scapy 2.5, an implementation that shares nothing with this one; above
//! each stands the expression that made it, with these abbreviations:
//!
//! ```python
//! ETHER = Ether(dst='02:00:00:00:00:01', src='02:00:00:00:00:02')
//! A4 = src='192.0.2.1', dst='198.51.100.1'
//! A6 = src='2001:db8::1', dst='2001:db8::2'
//! ```

// ETHER/Dot1Q(vlan=100, prio=5)/IP(A4, id=7, flags='DF', tos=0xb8)/UDP(sport=40000, dport=53)/b'query'
pub(crate) const VLAN_UDP: &str = "\
    0200000000010200000000028100a064080045b800210007400040114dd7c0000201c63364019c400035000d27407175\
    657279";

// ETHER/Dot1AD(vlan=200)/Dot1Q(vlan=300)/IPv6(A6, fl=0x12345, tc=0x2e, hlim=63)
// /TCP(sport=40001, dport=443, flags='S', seq=1, options=[('MSS', 1440), ('SAckOK', b''), ('Timestamp', (1, 0)), ('NOP', None), ('WScale', 7)])
pub(crate) const QINQ_IPV6_TCP: &str = "\
    02000000000102000000000288a800c88100012c86dd62e123450028063f20010db80000000000000000000000012001\
    0db80000000000000000000000029c4101bb0000000100000000a00220002ea10000020405a00402080a000000010000\
    000001030307";

// ETHER/IP(A4, id=8, options=[IPOption_RR(routers=['0.0.0.0']), IPOption_NOP()])
// /ICMP(type=8, id=1, seq=2)/b'ping'
pub(crate) const IPV4_OPTIONS_ICMP: &str = "\
    020000000001020000000002080047000028000800004001818fc0000201c633640107070400000000010800192c0001\
    000270696e67";

// ETHER/IPv6(A6)/IPv6ExtHdrHopByHop(options=[RouterAlert()])
// /IPv6ExtHdrRouting(addresses=['2001:db8::3'])/IPv6ExtHdrDestOpt(options=[PadN(optdata=b'\0' * 12)])
// /ESP(spi=0xc0ffee01, seq=9, data=b'\xaa' * 32)
pub(crate) const IPV6_EXTENSIONS_ESP: &str = "\
    02000000000102000000000286dd600000000058004020010db800000000000000000000000120010db8000000000000\
    0000000000022b000502000001003c0200010000000020010db80000000000000000000000033201010c000000000000\
    000000000000c0ffee0100000009aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

// IP(A4, id=0x4242, flags='MF', proto=17)
// /(bytes(UDP(sport=4500, dport=4500, len=40, chksum=0)) + b'\x11' * 16)
pub(crate) const IPV4_FIRST_FRAGMENT: &str =
    "4500002c4242200040112c49c0000201c6336401119411940028000011111111111111111111111111111111";

// IP(A4, id=0x4242, frag=3, proto=17)/(b'\x22' * 16)
pub(crate) const IPV4_LAST_FRAGMENT: &str =
    "450000244242000340114c4ec0000201c633640122222222222222222222222222222222";

// IPv6(A6)/IPv6ExtHdrFragment(nh=50, offset=180, m=0, id=0xdeadbeef)/(b'\x33' * 24)
pub(crate) const IPV6_LAST_FRAGMENT: &str = "\
    6000000000202c4020010db800000000000000000000000120010db8000000000000000000000002320005a0deadbeef\
    333333333333333333333333333333333333333333333333";

// ETHER/IP(A4, id=1)/ESP(spi=0x1001, seq=0xfffffffe, data=b'\xbb' * 40)
pub(crate) const IPV4_ESP: &str = "\
    0200000000010200000000020800450000440001000040328e51c0000201c633640100001001fffffffebbbbbbbbbbbb\
    bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

// ETHER/IP(A4, id=1)/UDP(sport=61000, dport=4500, chksum=0)/ESP(spi=0x1002, seq=3, data=b'\xcc' * 40)
pub(crate) const IPV4_UDP_ESP: &str = "\
    02000000000102000000000208004500004c0001000040118e6ac0000201c6336401ee48119400380000000010020000\
    0003cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

// ETHER/IPv6(A6)/UDP(sport=4500, dport=4500)/(b'\0\0\0\0' + b'\x5a' * 28)
pub(crate) const IPV6_UDP_IKE: &str = "\
    02000000000102000000000286dd600000000028114020010db800000000000000000000000120010db8000000000000\
    0000000000021194119400289010000000005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

// ETHER/MPLS(label=100, ttl=62, s=0)/MPLS(label=200, cos=5, ttl=61, s=1)
// /IP(src='192.168.101.1', dst='192.168.101.2', id=2)/UDP(sport=1, dport=2)/b'x'
pub(crate) const MPLS_L3VPN: &str = "\
    02000000000102000000000288470006403e000c8b3d4500001d0002000040112f7ac0a86501c0a86502000100020009\
    3c8478";

// ETHER/MPLS(label=100, ttl=62, s=0)/MPLS(label=7, ttl=0, s=0)/MPLS(label=654321, ttl=0, s=0)
// /MPLS(label=2, ttl=61, s=1)/IPv6(A6)/UDP(sport=1, dport=2)/b'y'
pub(crate) const MPLS_ENTROPY: &str = "\
    02000000000102000000000288470006403e000070009fbf10000000213d600000000009114020010db8000000000000\
    00000000000120010db80000000000000000000000020001000200092b6479";

// IP(A4, id=3)
// /GRE(chksum_present=1, key_present=1, seqnum_present=1, key=42, seqence_number=43, proto=0x8847)
// /MPLS(label=1000, s=1, ttl=3)/IP(src='10.0.0.1', dst='10.0.0.2', proto=59)
pub(crate) const GRE_MPLS: &str = "\
    4500003c00030000402f8e5ac0000201c6336401b0008847462100000000002a0000002b003e81034500001400010000\
    403b66ac0a0000010a000002";

// IP(src='203.0.113.1', dst='192.0.2.1', id=4)/ICMP(type=3, code=4, nexthopmtu=1400)
// /IP(A4, id=1, len=1500, flags='DF')/ESP(spi=0x1001, seq=17, data=b'')
pub(crate) const ICMP_FRAGMENTATION_NEEDED: &str = "\
    450000380004000040017cbecb007101c00002010304e77100000578450005dc00014000403248b9c0000201c6336401\
    0000100100000011";

// IPv6(src='2001:db8::ff', dst='2001:db8::1')/ICMPv6PacketTooBig(mtu=1280)/IPv6(A6, plen=1400)
// /ESP(spi=0x1003, seq=17, data=b'')
pub(crate) const ICMPV6_TOO_BIG: &str = "\
    6000000000383a4020010db80000000000000000000000ff20010db8000000000000000000000001020098d900000500\
    600000000578324020010db800000000000000000000000120010db80000000000000000000000020000100300000011";

/// Every vector, and whether it begins with an Ethernet header.
pub(crate) const ALL: [(&str, bool); 15] = [
    (VLAN_UDP, true),
    (QINQ_IPV6_TCP, true),
    (IPV4_OPTIONS_ICMP, true),
    (IPV6_EXTENSIONS_ESP, true),
    (IPV4_FIRST_FRAGMENT, false),
    (IPV4_LAST_FRAGMENT, false),
    (IPV6_LAST_FRAGMENT, false),
    (IPV4_ESP, true),
    (IPV4_UDP_ESP, true),
    (IPV6_UDP_IKE, true),
    (MPLS_L3VPN, true),
    (MPLS_ENTROPY, true),
    (GRE_MPLS, false),
    (ICMP_FRAGMENTATION_NEEDED, false),
    (ICMPV6_TOO_BIG, false),
];

/// Reads hexadecimal digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}
