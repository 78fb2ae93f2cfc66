//! `penstock show`: lists.

use clap::{Args, ValueEnum};
use control::admin::{ExitCode, Noun, Request};

use crate::Session;
use crate::output;
use crate::table::{Column, number, text};

/// List what the gateway has.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock show tunnels\n  penstock show sa site-b --json")]
pub(crate) struct Show {
    /// What to list
    noun: Kind,
    /// Only what bears this name (a tunnel, interface, VRF, prefix or address)
    #[arg(add = clap_complete::ArgValueCompleter::new(crate::completions::names))]
    name: Option<String>,
    /// With drops: those that never happened too
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "sas")]
    Sa,
    /// IKE SAs, and connections that have none
    #[value(aliases = ["connection", "connections"])]
    Ike,
    #[value(alias = "tunnel")]
    Tunnels,
    #[value(alias = "port")]
    Ports,
    #[value(alias = "route")]
    Routes,
    #[value(alias = "drop")]
    Drops,
    #[value(alias = "worker")]
    Workers,
    #[value(aliases = ["neighbour", "neighbors", "neighbor"])]
    Neighbours,
    #[value(alias = "policy")]
    Policies,
    #[value(aliases = ["labels", "label"])]
    Mpls,
    #[value(alias = "vrfs")]
    Vrf,
    Fpm,
}

impl Kind {
    fn noun(self) -> Noun {
        match self {
            Self::Sa => Noun::Sas,
            Self::Ike => Noun::Ike,
            Self::Tunnels => Noun::Tunnels,
            Self::Ports => Noun::Ports,
            Self::Routes => Noun::Routes,
            Self::Drops => Noun::Drops,
            Self::Workers => Noun::Workers,
            Self::Neighbours => Noun::Neighbours,
            Self::Policies => Noun::Policies,
            Self::Mpls => Noun::Labels,
            Self::Vrf => Noun::Vrfs,
            Self::Fpm => Noun::Fpm,
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Sa => {
                const {
                    &[
                        text("TUNNEL", "tunnel"),
                        text("DIR", "direction"),
                        text("SPI", "spi"),
                        text("DESTINATION", "destination"),
                        text("ALGORITHM", "algorithm"),
                        text("STATE", "state"),
                        number("PACKETS", "packets"),
                        number("BYTES", "bytes"),
                        number("SEQUENCE", "sequence"),
                        number("REPLAY", "replay_drops"),
                        number("ICV", "integrity_failures"),
                        number("SELECTOR", "selector_drops"),
                        number("AGE", "age_seconds"),
                    ]
                }
            }
            Self::Ike => {
                const {
                    &[
                        text("CONNECTION", "connection"),
                        text("STATE", "state"),
                        text("LOCAL", "local"),
                        text("REMOTE", "remote"),
                        text("REMOTE-ID", "remote_id"),
                        text("SUITE", "suite"),
                        text("NAT", "nat"),
                        text("CHILDREN", "child_names"),
                        text("FAILURE", "failure"),
                    ]
                }
            }
            Self::Tunnels => {
                const {
                    &[
                        text("NAME", "name"),
                        text("STATE", "state"),
                        text("LOCAL", "local"),
                        text("REMOTE", "remote"),
                        text("SPI-OUT", "spi_out"),
                        number("OUTER-MTU", "outer_mtu_bytes"),
                        number("INNER-MTU", "inner_mtu_bytes"),
                        text("REASON", "reasons"),
                    ]
                }
            }
            Self::Ports => {
                const {
                    &[
                        text("INTERFACE", "interface"),
                        text("ROLE", "role"),
                        text("VRF", "vrf"),
                        text("STATE", "state"),
                        text("XDP", "xdp"),
                        text("QUEUES", "queues"),
                        number("VLAN", "vlan"),
                        number("MTU", "mtu_bytes"),
                        number("RX", "received_packets"),
                        number("TX", "transmitted_packets"),
                        number("REBINDS", "rebinds"),
                        text("ERROR", "error"),
                    ]
                }
            }
            Self::Routes => {
                const {
                    &[
                        text("VRF", "vrf"),
                        text("PREFIX", "prefix"),
                        text("NEXT-HOPS", "next_hops"),
                    ]
                }
            }
            Self::Drops => {
                const {
                    &[
                        text("STAGE", "stage"),
                        text("REASON", "reason"),
                        number("PACKETS", "packets"),
                        text("MEANING", "help"),
                    ]
                }
            }
            Self::Workers => {
                const {
                    &[
                        number("WORKER", "worker"),
                        number("CPU", "cpu"),
                        number("RECEIVED", "received_packets"),
                        number("TRANSMITTED", "transmitted_packets"),
                        number("DROPPED", "dropped_packets"),
                        number("ESP-IN", "esp_in_packets"),
                        number("ESP-OUT", "esp_out_packets"),
                        number("TO-HOST", "to_host_packets"),
                        number("HELD", "held_packets"),
                        number("FRAMES", "frames"),
                        number("FREE", "frames_free"),
                        text("HUGE-PAGES", "huge_pages"),
                    ]
                }
            }
            Self::Neighbours => {
                const {
                    &[
                        text("INTERFACE", "interface"),
                        text("ADDRESS", "address"),
                        text("LINK-ADDRESS", "link_address"),
                        text("STATE", "state"),
                    ]
                }
            }
            Self::Mpls => {
                const {
                    &[
                        number("LABEL", "label"),
                        number("SPACE", "space"),
                        text("OPERATION", "next_hops"),
                        text("SOURCE", "source"),
                        number("PACKETS", "packets"),
                        number("BYTES", "bytes"),
                    ]
                }
            }
            Self::Vrf => {
                const {
                    &[
                        text("VRF", "vrf"),
                        number("TABLE", "id"),
                        text("PORTS", "ports"),
                        number("IPV4", "routes_v4"),
                        number("IPV6", "routes_v6"),
                        number("PACKETS", "packets"),
                        number("BYTES", "bytes"),
                    ]
                }
            }
            Self::Fpm => {
                const {
                    &[
                        text("LISTEN", "listen"),
                        text("STATE", "state"),
                        text("PEER", "peer"),
                        number("SECONDS", "connected_seconds"),
                        number("SESSIONS", "sessions"),
                        number("ROUTES", "routes"),
                        number("LABELS", "labels"),
                        number("NEXT-HOPS", "next_hops"),
                        number("STALE", "stale"),
                        number("MESSAGES", "messages"),
                        number("MALFORMED", "malformed"),
                        text("LAST-FAULT", "last_fault"),
                    ]
                }
            }
            Self::Policies => {
                const {
                    &[
                        text("VRF", "vrf"),
                        number("PRIORITY", "priority"),
                        text("ACTION", "action"),
                        text("TUNNEL", "tunnel"),
                        text("LOCAL", "local"),
                        text("REMOTE", "remote"),
                        text("PROTOCOL", "protocol"),
                    ]
                }
            }
        }
    }
}

impl Show {
    pub(crate) fn run(&self, session: &mut Session) -> ExitCode {
        let noun = self.noun.noun();
        let request = Request::Show {
            noun,
            name: self.name.clone(),
        };
        let hides_zeros = self.noun == Kind::Drops && !self.all;
        output::print(session, &request, noun.name(), self.noun.columns(), hides_zeros)
    }
}
