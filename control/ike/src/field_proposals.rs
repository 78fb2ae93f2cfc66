//! What peers in the field send by default (FIELD B.1) played against the choice of proposals, and what we send against what
//! they take. Where our defaults are stronger than a peer, the connection has to name what it can.

use crate::payload::sa::{Proposal, Transform, TransformType};
use crate::proposal::{EspProposal, IkeProposal, choose_esp, choose_ike};
use crate::proposal_text::{default_esp_proposals, default_ike_proposals};

/// A peer's lists for IKE and ESP, what the connection must name for each (`None`: nothing), and what is chosen.
struct Peer<'a> {
    name: &'a str,
    ike: (&'a [&'a str], Option<&'a str>, &'a str),
    esp: (&'a [&'a str], Option<&'a str>, &'a str),
}

const PEERS: &[Peer<'_>] = &[
    Peer {
        name: "strongSwan 5.9 and 6.0",
        ike: (
            &[
                "aes128-aes192-aes256-aes128ctr-aes192ctr-aes256ctr-3des-sha256-sha384-sha512-aesxcbc-aescmac-sha1\
                 -prfaesxcbc-prfaescmac-prfsha256-prfsha384-prfsha512-prfsha1-ecp256-ecp384-ecp521-x25519-modp3072\
                 -modp4096-modp6144-modp8192-modp2048",
                "aes128gcm16-aes192gcm16-aes256gcm16-chacha20poly1305-aes128gcm12-aes192gcm12-aes256gcm12-aes128gcm8\
                 -aes192gcm8-aes256gcm8-prfaesxcbc-prfaescmac-prfsha256-prfsha384-prfsha512-prfsha1-ecp256-ecp384\
                 -ecp521-x25519-modp3072-modp4096-modp6144-modp8192-modp2048",
            ],
            None,
            "aes256gcm16-prfsha384-x25519",
        ),
        esp: (
            &[
                "aes128gcm16-aes192gcm16-aes256gcm16-noesn",
                "aes128-aes192-aes256-sha256-sha384-sha512-sha1-aesxcbc-noesn",
            ],
            None,
            "aes256gcm16-noesn",
        ),
    },
    Peer {
        name: "libreswan 4 and 5",
        ike: (
            &[
                "aes256gcm16-prfsha512-prfsha256-modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519",
                "chacha20poly1305-prfsha512-prfsha256-modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519",
                "aes256-sha512-sha256-modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519",
                "aes128gcm16-prfsha512-prfsha256-modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519",
                "aes128-sha512-sha256-modp2048-modp3072-modp4096-modp8192-ecp256-ecp384-ecp521-x25519",
            ],
            None,
            "aes256gcm16-prfsha256-x25519",
        ),
        esp: (
            &[
                "aes256gcm16-esn-noesn",
                "chacha20poly1305-esn-noesn",
                "aes256-sha512-sha256-esn-noesn",
                "aes128gcm16-esn-noesn",
                "aes128-sha512-sha256-esn-noesn",
            ],
            None,
            "aes256gcm16-esn",
        ),
    },
    Peer {
        name: "Windows 7 to 10",
        ike: (
            &[
                "3des-sha1-modp1024",
                "aes128-sha1-modp1024",
                "aes192-sha1-modp1024",
                "aes256-sha1-modp1024",
                "3des-sha256-modp1024",
                "aes128-sha256-modp1024",
                "aes192-sha256-modp1024",
                "aes256-sha256-modp1024",
                "3des-sha384-modp1024",
                "aes128-sha384-modp1024",
                "aes192-sha384-modp1024",
                "aes256-sha384-modp1024",
            ],
            Some("aes256-sha256-modp1024"),
            "aes256-sha256-prfsha256-modp1024",
        ),
        esp: (
            &[
                "aes256-sha1-noesn",
                "aes128-sha1-noesn",
                "3des-sha1-noesn",
                "des-sha1-noesn",
                "null-sha1-noesn",
            ],
            Some("aes256-sha1"),
            "aes256-sha1-noesn",
        ),
    },
    Peer {
        name: "Windows 11",
        ike: (
            &[
                "aes256-sha256-modp1024",
                "aes128gcm16-prfsha256-modp1024",
                "aes256gcm16-prfsha384-modp1024",
            ],
            Some("aes256gcm16-prfsha384-modp1024"),
            "aes256gcm16-prfsha384-modp1024",
        ),
        esp: (
            &["aes256-sha1-noesn", "aes128-sha1-noesn", "3des-sha1-noesn"],
            Some("aes256-sha1"),
            "aes256-sha1-noesn",
        ),
    },
    Peer {
        name: "Windows with NegotiateDH2048_AES256",
        ike: (
            &[
                "aes256-sha1-modp2048",
                "aes256-sha256-modp2048",
                "aes256-sha384-modp2048",
            ],
            None,
            "aes256-sha256-prfsha256-modp2048",
        ),
        esp: (
            &["aes256-sha1-noesn", "aes128-sha1-noesn"],
            Some("aes256-sha1"),
            "aes256-sha1-noesn",
        ),
    },
    Peer {
        name: "iOS 16.5",
        ike: (
            &[
                "aes256-sha256-modp2048",
                "aes256-sha256-ecp256",
                "aes256-sha256-modp1536",
                "aes128-sha1-modp1024",
                "3des-sha1-modp1024",
            ],
            None,
            "aes256-sha256-prfsha256-modp2048",
        ),
        esp: (
            &[
                "aes256-sha256-modp2048-none-noesn",
                "aes256-sha256-none-noesn",
                "aes256-sha256-none-noesn",
                "aes128-sha1-none-noesn",
                "3des-sha1-none-noesn",
            ],
            None,
            "aes256-sha256-modp2048-noesn",
        ),
    },
    Peer {
        name: "iOS 17",
        ike: (
            &[
                "aes256gcm16-prfsha256-ecp256",
                "aes256gcm16-prfsha256-modp2048",
                "aes256-sha256-ecp256",
                "aes256-sha256-modp2048",
            ],
            None,
            "aes256gcm16-prfsha256-ecp256",
        ),
        esp: (
            &["aes256gcm16-noesn", "aes256-sha256-noesn"],
            None,
            "aes256gcm16-noesn",
        ),
    },
    Peer {
        name: "macOS 13.4",
        ike: (
            &["aes256-sha256-modp2048"],
            None,
            "aes256-sha256-prfsha256-modp2048",
        ),
        esp: (&["aes256-sha256-noesn"], None, "aes256-sha256-noesn"),
    },
    Peer {
        name: "Android 11",
        ike: (
            &[
                "aes256ctr-aes256-aes192ctr-aes192-aes128ctr-aes128-sha512-sha384-sha256-aesxcbc-aescmac-prfsha512\
                 -prfsha384-prfsha256-prfaesxcbc-prfaescmac-prfsha1-modp4096-x25519-modp3072-modp2048",
                "chacha20poly1305-aes256gcm16-aes256gcm12-aes256gcm8-aes192gcm16-aes192gcm12-aes192gcm8-aes128gcm16\
                 -aes128gcm12-aes128gcm8-prfsha512-prfsha384-prfsha256-prfaesxcbc-prfaescmac-prfsha1-modp4096-x25519\
                 -modp3072-modp2048",
            ],
            None,
            "aes256gcm16-prfsha384-x25519",
        ),
        esp: (
            &[
                "aes256ctr-aes256-aes192ctr-aes192-aes128ctr-aes128-sha512-sha384-sha256-aesxcbc-aescmac-noesn",
                "chacha20poly1305-aes256gcm16-aes256gcm12-aes256gcm8-aes192gcm16-aes192gcm12-aes192gcm8-aes128gcm16\
                 -aes128gcm12-aes128gcm8-noesn",
            ],
            None,
            "aes256gcm16-noesn",
        ),
    },
    Peer {
        name: "AWS",
        ike: (
            &[
                "aes128-aes256-sha1-sha256-sha384-sha512-modp1024-modp2048-modp3072-modp4096-modp6144-modp8192-ecp256\
                 -ecp384-ecp521",
                "aes128gcm16-aes256gcm16-prfsha1-prfsha256-prfsha384-prfsha512-modp1024-modp2048-modp3072-modp4096\
                 -modp6144-modp8192-ecp256-ecp384-ecp521",
            ],
            None,
            "aes256gcm16-prfsha384-ecp384",
        ),
        esp: (
            &[
                "aes128-aes256-sha1-sha256-sha384-sha512-modp1024-modp1536-modp2048-ecp256-ecp384-noesn",
                "aes128gcm16-aes256gcm16-modp1024-modp1536-modp2048-ecp256-ecp384-noesn",
            ],
            None,
            "aes256gcm16-ecp384-noesn",
        ),
    },
    Peer {
        name: "Azure VPN gateway",
        ike: (
            &[
                "aes256-sha1-modp1024",
                "aes256-sha256-modp1024",
                "aes128-sha1-modp1024",
                "aes128-sha256-modp1024",
                "3des-sha1-modp1024",
                "3des-sha256-modp1024",
            ],
            Some("aes256-sha256-modp1024"),
            "aes256-sha256-prfsha256-modp1024",
        ),
        esp: (
            &[
                "aes256gcm16-noesn",
                "aes256-sha1-noesn",
                "3des-sha1-noesn",
                "aes256-sha256-noesn",
                "aes128-sha1-noesn",
                "3des-sha256-noesn",
            ],
            None,
            "aes256gcm16-noesn",
        ),
    },
    Peer {
        name: "Azure virtual WAN",
        ike: (
            &[
                "aes256-sha256-modp1024",
                "aes256-sha1-modp1024",
                "aes128-sha256-modp1024",
                "aes128-sha1-modp1024",
            ],
            Some("aes256-sha256-modp1024"),
            "aes256-sha256-prfsha256-modp1024",
        ),
        esp: (
            &[
                "aes256gcm16-noesn",
                "aes256-sha256-none-noesn",
                "aes256-sha1-none-noesn",
            ],
            None,
            "aes256gcm16-noesn",
        ),
    },
    Peer {
        name: "GCP",
        ike: (
            &[
                "aes256gcm16-aes192gcm16-aes128gcm16-prfsha256-prfsha384-prfsha512-modp2048-modp4096-ecp256-ecp384\
                 -x25519",
                "aes256-sha256-sha384-sha512-modp2048-ecp256",
            ],
            None,
            "aes256gcm16-prfsha384-x25519",
        ),
        esp: (
            &[
                "aes256gcm16-aes192gcm16-aes128gcm16-modp2048-modp4096-ecp256-x25519-noesn",
                "aes256-sha256-sha512-modp2048-noesn",
            ],
            None,
            "aes256gcm16-x25519-noesn",
        ),
    },
    Peer {
        name: "Cisco IOS-XE",
        ike: (
            &["aes256-sha512-sha384-ecp256-modp2048-ecp521"],
            None,
            "aes256-sha384-prfsha384-ecp256",
        ),
        esp: (&["aes128-sha1-noesn"], Some("aes128-sha1"), "aes128-sha1-noesn"),
    },
    Peer {
        name: "Fortinet",
        ike: (
            &[
                "aes128gcm16-aes256gcm16-prfsha256-prfsha384-x25519-modp3072-modp2048",
                "aes256-sha256-modp2048",
            ],
            None,
            "aes256gcm16-prfsha384-x25519",
        ),
        esp: (
            &[
                "aes128gcm16-aes256gcm16-modp2048-noesn",
                "aes256-sha256-modp2048-noesn",
            ],
            None,
            "aes256gcm16-modp2048-noesn",
        ),
    },
];

fn ike_list(list: &[&str]) -> Vec<IkeProposal> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn ike_offer(list: &[IkeProposal]) -> Vec<Proposal> {
    (1..)
        .zip(list)
        .map(|(number, proposal)| proposal.to_wire(number, vec![]))
        .collect()
}

/// ESP transforms that we do not have and peers offer.
fn foreign(word: &str) -> Option<Transform> {
    let (kind, id, key_bits) = match word {
        "des" => (TransformType::ENCR, 2, None),
        "3des" => (TransformType::ENCR, 3, None),
        "aesxcbc" => (TransformType::INTEG, 5, None),
        "aescmac" => (TransformType::INTEG, 8, None),
        _ => {
            let (bits, icv) = word.strip_prefix("aes")?.split_once("gcm")?;
            let id = match icv {
                "8" => 18,
                "12" => 19,
                _ => return None,
            };
            (TransformType::ENCR, id, Some(bits.parse().ok()?))
        }
    };
    Some(Transform {
        key_bits,
        ..Transform::new(kind, id)
    })
}

/// What of a peer's proposal we know, unless that is nothing of a kind.
fn known(text: &str) -> Option<EspProposal> {
    let words: Vec<_> = text.split('-').filter(|word| foreign(word).is_none()).collect();
    words.join("-").parse().ok()
}

fn esp_offer(list: &[&str]) -> Vec<Proposal> {
    let wire = |(number, text): (u8, &&str)| {
        let words: Vec<_> = text.split('-').collect();
        // A proposal of which we know no cipher still has to go over the wire: one stands in, and goes.
        let parsed = known(text).unwrap_or_else(|| known(&format!("aes128-{text}")).unwrap());
        let mut proposal = parsed.to_wire(number, 0x1000, true);
        if known(text).is_none() {
            proposal.transforms.retain(|t| t.kind != TransformType::ENCR);
        }
        let foreign: Vec<_> = words.iter().filter_map(|word| foreign(word)).collect();
        proposal.transforms.extend(foreign);
        proposal
    };
    (1..).zip(list).map(wire).collect()
}

#[test]
fn every_peer_gets_in() {
    for peer in PEERS {
        let name = peer.name;
        let (offered, named, wanted) = peer.ike;
        let offer = ike_offer(&ike_list(offered));
        let by_default = choose_ike(&default_ike_proposals(), &offer);
        assert_eq!(by_default.is_ok(), named.is_none(), "{name}");
        let ours = named.map_or_else(default_ike_proposals, |text| ike_list(&[text]));
        let (suite, _) = choose_ike(&ours, &offer).unwrap();
        assert_eq!(suite.to_string(), wanted, "{name}");

        let (offered, named, wanted) = peer.esp;
        let offer = esp_offer(offered);
        for with_exchange in [false, true] {
            let by_default = choose_esp(&default_esp_proposals(), &offer, with_exchange);
            assert_eq!(by_default.is_ok(), named.is_none(), "{name}");
        }
        let ours = named.map_or_else(default_esp_proposals, |text| vec![text.parse().unwrap()]);
        let suite = choose_esp(&ours, &offer, true).unwrap().0;
        assert_eq!(suite.to_string(), wanted, "{name}");
    }
}

#[test]
fn we_get_in_at_every_peer() {
    for peer in PEERS {
        let name = peer.name;
        let (theirs, named, _) = peer.ike;
        let ours = named.map_or_else(default_ike_proposals, |text| ike_list(&[text]));
        // They know nothing of ML-KEM: the proposal with it is skipped.
        let (suite, offer) = {
            let offer = ike_offer(&ours);
            let (suite, chosen) =
                choose_ike(&ike_list(theirs), &offer).unwrap_or_else(|error| panic!("{name}: {error}"));
            (suite, chosen.number)
        };
        assert_eq!(suite.additional_methods().count(), 0, "{name}");
        assert!(named.is_some() || offer > 1, "{name}");

        let (theirs, named, _) = peer.esp;
        let theirs: Vec<_> = theirs.iter().filter_map(|text| known(text)).collect();
        let ours = named.map_or_else(default_esp_proposals, |text| vec![text.parse().unwrap()]);
        for with_exchange in [false, true] {
            let offer: Vec<_> = (1..)
                .zip(&ours)
                .map(|(number, proposal)| proposal.to_wire(number, 0x1000, with_exchange))
                .collect();
            let chosen = choose_esp(&theirs, &offer, with_exchange);
            chosen.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn a_list_of_nothing_but_what_we_lack_is_refused() {
    for text in ["3des-sha1-noesn", "des-sha1-noesn"] {
        assert!(
            choose_esp(&default_esp_proposals(), &esp_offer(&[text]), true).is_err(),
            "{text}"
        );
    }
}

#[test]
fn macos_14_proposal_numbers_are_repeated() {
    let offers: Vec<_> = ike_offer(&ike_list(&["aes256-sha256-modp2048"]))
        .into_iter()
        .map(|p| Proposal { number: 3, ..p })
        .collect();
    assert_eq!(choose_ike(&default_ike_proposals(), &offers).unwrap().1.number, 3);
}
