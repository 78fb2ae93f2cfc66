//! The exchanges: for each, what either side builds and how it takes what the other built.

pub(crate) mod auth_initiator;
pub(crate) mod auth_responder;
pub(crate) mod child_responder;
pub(crate) mod create_child;
pub(crate) mod eap_responder;
pub(crate) mod followup;
pub(crate) mod ike_sa_init;
pub(crate) mod informational;
pub(crate) mod init_responder;
pub(crate) mod intermediate;
pub(crate) mod parts;
mod path;
pub(crate) mod peer_auth;
pub(crate) mod redirect;
pub(crate) mod rekey_ike;

use crate::crypto::key_exchange::Offer;
use crate::message::ExchangeType;

/// A request of ours in flight: what its answer will need.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// IKE_SA_INIT.
    Init(Box<ike_sa_init::InitExchange>),
    /// IKE_INTERMEDIATE with an additional key exchange.
    Intermediate(Box<Offer>),
    /// IKE_AUTH.
    Auth(Box<auth_initiator::AuthExchange>),
    /// CREATE_CHILD_SA for a Child SA, new or rekeyed.
    Child(Box<create_child::ChildExchange>),
    /// CREATE_CHILD_SA for the IKE SA.
    RekeyIke(Box<rekey_ike::RekeyExchange>),
    /// IKE_FOLLOWUP_KE after one of the two above.
    FollowUp(Box<followup::FollowUp>),
    /// INFORMATIONAL that deletes Child SAs by our inbound SPIs.
    DeleteChild(u32),
    /// INFORMATIONAL that deletes the IKE SA.
    DeleteIke,
    /// INFORMATIONAL without payloads.
    Liveness,
    /// INFORMATIONAL with a cookie to return (RFC 4555 section 3.7).
    Probe(Vec<u8>),
    /// INFORMATIONAL with UPDATE_SA_ADDRESSES (RFC 4555).
    UpdateAddresses,
}

impl Exchange {
    /// Its type on the wire.
    pub(crate) fn kind(&self) -> ExchangeType {
        match self {
            Self::Init(_) => ExchangeType::IKE_SA_INIT,
            Self::Intermediate(_) => ExchangeType::IKE_INTERMEDIATE,
            Self::Auth(_) => ExchangeType::IKE_AUTH,
            Self::Child(_) | Self::RekeyIke(_) => ExchangeType::CREATE_CHILD_SA,
            Self::FollowUp(_) => ExchangeType::IKE_FOLLOWUP_KE,
            Self::DeleteChild(_)
            | Self::DeleteIke
            | Self::Liveness
            | Self::Probe(_)
            | Self::UpdateAddresses => ExchangeType::INFORMATIONAL,
        }
    }

    /// Whether it makes, renews or closes a Child SA (RFC 7296 section 2.25.2).
    pub(crate) fn concerns_child(&self) -> bool {
        match self {
            Self::Child(_) | Self::DeleteChild(_) => true,
            Self::FollowUp(followup) => followup.is_child(),
            _ => false,
        }
    }

    /// Whether it asks for the pair of this number of a child (RFC 9611).
    pub(crate) fn asks_for(&self, name: &str, resource: u16) -> bool {
        match self {
            Self::Child(child) => child.config.name == name && child.resource == Some(resource),
            Self::FollowUp(followup) => followup.asks_for(name, resource),
            _ => false,
        }
    }

    pub(crate) fn renews_ike(&self) -> bool {
        match self {
            Self::RekeyIke(_) => true,
            Self::FollowUp(followup) => !followup.is_child(),
            _ => false,
        }
    }
}
