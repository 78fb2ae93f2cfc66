//! What is measured.

use southbound::{Encryption, Integrity};

/// The work of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain packet into a tunnel.
    Encap,
    /// A tunnel's packet out of it.
    Decap,
    /// A plain packet to a neighbour.
    Forward,
    /// What every packet costs: its frame read, and another Ethernet header written, with nothing decided between.
    Ends,
    /// A labelled packet under another label.
    LabelSwap,
    /// A plain packet under two labels.
    LabelPush,
    /// A labelled packet out of its label and by its table to a neighbour.
    LabelPop,
}

impl Kind {
    /// The name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::Forward => "forward",
            Self::Ends => "ends",
            Self::LabelSwap => "mpls-swap",
            Self::LabelPush => "mpls-push",
            Self::LabelPop => "mpls-pop",
        }
    }
}

/// A transform and its name in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// The name in records.
    pub report_name: &'static str,
    /// The cipher.
    pub encryption: Encryption,
    /// Its HMAC, where it is no AEAD.
    pub integrity: Option<Integrity>,
}

/// The transforms that are measured.
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm {
        report_name: "aes-128-gcm",
        encryption: Encryption::AesGcm128,
        integrity: None,
    },
    Algorithm {
        report_name: "aes-256-gcm",
        encryption: Encryption::AesGcm256,
        integrity: None,
    },
    Algorithm {
        report_name: "aes-128-cbc-hmac-sha1",
        encryption: Encryption::AesCbc128,
        integrity: Some(Integrity::HmacSha1),
    },
    Algorithm {
        report_name: "aes-128-cbc-hmac-sha256",
        encryption: Encryption::AesCbc128,
        integrity: Some(Integrity::HmacSha256),
    },
    Algorithm {
        report_name: "chacha20-poly1305",
        encryption: Encryption::ChaCha20Poly1305,
        integrity: None,
    },
];

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The work.
    pub kind: Kind,
    /// The transform; none for plain forwarding.
    pub algorithm: Option<Algorithm>,
    /// The inner IPv4 packet.
    pub size_bytes: usize,
    /// SAs in rotation, each packet of a batch of the next; of a label case labels.
    pub sas: u32,
}

impl Case {
    /// What it is called on the command line.
    #[must_use]
    pub fn name(&self) -> String {
        let algorithm = self.algorithm.map_or("-", |algorithm| algorithm.report_name);
        format!(
            "{} {algorithm} {} B {} SAs",
            self.kind.name(),
            self.size_bytes,
            self.sas
        )
    }

    /// The cases of a whole run: every transform at three sizes both ways, the first one over many SAs, and plain
    /// forwarding.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for algorithm in ALGORITHMS {
            for kind in [Kind::Encap, Kind::Decap] {
                for size_bytes in [64, 256, 1420] {
                    cases.push(Self {
                        kind,
                        algorithm: Some(algorithm),
                        size_bytes,
                        sas: 1,
                    });
                }
            }
        }
        for sas in [10_000, 1_000_000] {
            for kind in [Kind::Encap, Kind::Decap] {
                for size_bytes in [64, 1420] {
                    cases.push(Self {
                        kind,
                        algorithm: ALGORITHMS.first().copied(),
                        size_bytes,
                        sas,
                    });
                }
            }
        }
        for kind in [Kind::Ends, Kind::Forward] {
            cases.push(Self {
                kind,
                algorithm: None,
                size_bytes: 64,
                sas: 0,
            });
        }
        cases.extend(super::labels::cases());
        cases
    }
}
