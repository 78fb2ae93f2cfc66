//! What exchanges came to: how many there were, how long their answers took, why they failed.

use std::time::Duration;

use crate::error::Error;
use crate::message::ExchangeType;
use crate::payload::notify::NotifyType;

/// Upper bounds of the classes of durations in milliseconds; a last class has no bound.
pub const DURATION_BOUNDS_MS: [u64; DURATION_CLASSES - 1] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
];

const DURATION_CLASSES: usize = 14;

/// The exchanges that are told apart, in the order of their places in [`ExchangeTallies`].
const EXCHANGES: [(ExchangeType, &str); 6] = [
    (ExchangeType::IKE_SA_INIT, "ike_sa_init"),
    (ExchangeType::IKE_INTERMEDIATE, "ike_intermediate"),
    (ExchangeType::IKE_AUTH, "ike_auth"),
    (ExchangeType::CREATE_CHILD_SA, "create_child_sa"),
    (ExchangeType::IKE_FOLLOWUP_KE, "ike_followup_ke"),
    (ExchangeType::INFORMATIONAL, "informational"),
];

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeRole {
    /// We did.
    Initiator,
    /// The peer did.
    Responder,
}

impl ExchangeRole {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Initiator, Self::Responder];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

macro_rules! failures {
    ($( $(#[$doc:meta])+ $variant:ident = $name:literal, )+) => {
        /// Why an exchange failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ExchangeFailure {
            $( $(#[$doc])+ $variant, )+
        }

        impl ExchangeFailure {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

failures! {
    /// No answer to any transmission.
    Timeout = "timeout",
    /// A message does not follow the format, or lacks a payload.
    Malformed = "malformed",
    /// A payload marked critical is of an unknown type.
    UnsupportedCriticalPayload = "unsupported_critical_payload",
    /// No proposal in common.
    NoProposalChosen = "no_proposal_chosen",
    /// Another key exchange method is wanted: the exchange is repeated with it.
    InvalidKe = "invalid_ke",
    /// One side could not prove who it is.
    AuthenticationFailed = "authentication_failed",
    /// No traffic selectors in common.
    TsUnacceptable = "ts_unacceptable",
    /// No address to assign.
    NoAddress = "no_address",
    /// It collides with another and is tried again.
    Temporary = "temporary",
    /// The Child SA does not exist.
    ChildSaNotFound = "child_sa_not_found",
    /// No further Child SA.
    NoAdditionalSas = "no_additional_sas",
    /// The peer's error notification is none of these.
    Refused = "refused",
    /// The configuration here does not allow it.
    Local = "local",
}

impl From<&Error> for ExchangeFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::UnsupportedCriticalPayload(_) => Self::UnsupportedCriticalPayload,
            Error::NoProposalChosen(_) => Self::NoProposalChosen,
            Error::InvalidKe(_) => Self::InvalidKe,
            Error::AuthenticationFailed(_) => Self::AuthenticationFailed,
            Error::TsUnacceptable(_) => Self::TsUnacceptable,
            Error::InternalAddressFailure => Self::NoAddress,
            Error::TemporaryFailure(_) => Self::Temporary,
            Error::ChildSaNotFound => Self::ChildSaNotFound,
            Error::NoAdditionalSas | Error::TsMaxQueue => Self::NoAdditionalSas,
            Error::PeerRefused(notify) => (*notify).into(),
            Error::Local(_) | Error::Crypto(_) => Self::Local,
            Error::Malformed(_)
            | Error::MissingPayload(_)
            | Error::UnsupportedVersion(_)
            | Error::BadPublicValue(_)
            | Error::Integrity => Self::Malformed,
        }
    }
}

impl From<NotifyType> for ExchangeFailure {
    fn from(notify: NotifyType) -> Self {
        match notify {
            NotifyType::INVALID_SYNTAX => Self::Malformed,
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => Self::UnsupportedCriticalPayload,
            NotifyType::NO_PROPOSAL_CHOSEN => Self::NoProposalChosen,
            NotifyType::INVALID_KE_PAYLOAD => Self::InvalidKe,
            NotifyType::AUTHENTICATION_FAILED => Self::AuthenticationFailed,
            NotifyType::TS_UNACCEPTABLE => Self::TsUnacceptable,
            NotifyType::INTERNAL_ADDRESS_FAILURE => Self::NoAddress,
            NotifyType::TEMPORARY_FAILURE => Self::Temporary,
            NotifyType::CHILD_SA_NOT_FOUND => Self::ChildSaNotFound,
            NotifyType::NO_ADDITIONAL_SAS | NotifyType::TS_MAX_QUEUE => Self::NoAdditionalSas,
            _ => Self::Refused,
        }
    }
}

/// Exchanges of one type and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeTally {
    /// Those that came to an end, failed or not.
    pub ended: u64,
    failures: [u64; ExchangeFailure::ALL.len()],
    /// From our request to its answer, by [`DURATION_BOUNDS_MS`]; of those that the peer asked for nothing is known.
    pub durations: [u64; DURATION_CLASSES],
    /// Their sum in milliseconds.
    pub duration_sum_ms: u64,
}

impl ExchangeTally {
    /// Those that failed for a reason.
    pub fn failed(&self, reason: ExchangeFailure) -> u64 {
        self.failures.get(reason as usize).copied().unwrap_or_default()
    }
}

/// Every exchange since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeTallies([[ExchangeTally; 2]; EXCHANGES.len()]);

impl ExchangeTallies {
    /// Each with the name of its exchange and its role.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, ExchangeRole, &ExchangeTally)> {
        EXCHANGES.iter().zip(&self.0).flat_map(|((_, name), roles)| {
            ExchangeRole::ALL
                .iter()
                .zip(roles)
                .map(|(role, tally)| (*name, *role, tally))
        })
    }

    /// An exchange has come to an end; one of a type that is unknown is left out.
    pub(crate) fn end(
        &mut self,
        exchange: ExchangeType,
        role: ExchangeRole,
        failure: Option<ExchangeFailure>,
        duration: Option<Duration>,
    ) {
        let place = EXCHANGES.iter().position(|(known, _)| *known == exchange);
        let tally = place
            .and_then(|place| self.0.get_mut(place))
            .and_then(|roles| roles.get_mut(role as usize));
        let Some(tally) = tally else { return };
        tally.ended += 1;
        if let Some(count) = failure.and_then(|reason| tally.failures.get_mut(reason as usize)) {
            *count += 1;
        }
        if let Some(duration) = duration {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let class = DURATION_BOUNDS_MS.partition_point(|bound| *bound < ms);
            if let Some(count) = tally.durations.get_mut(class) {
                *count += 1;
            }
            tally.duration_sum_ms = tally.duration_sum_ms.saturating_add(ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_counted_under_its_type_role_reason_and_duration() {
        let mut tallies = ExchangeTallies::default();
        let (auth, role) = (ExchangeType::IKE_AUTH, ExchangeRole::Initiator);
        let refused = ExchangeFailure::from(NotifyType::TS_UNACCEPTABLE);
        tallies.end(auth, role, Some(refused), Some(Duration::from_millis(250)));
        tallies.end(auth, role, None, Some(Duration::from_secs(600)));
        tallies.end(ExchangeType(200), role, None, None);
        let counted: Vec<_> = tallies.iter().filter(|(_, _, tally)| tally.ended > 0).collect();
        let [(name, ExchangeRole::Initiator, tally)] = counted[..] else {
            panic!("{counted:?}")
        };
        assert_eq!((name, tally.ended), ("ike_auth", 2));
        assert_eq!(tally.failed(ExchangeFailure::TsUnacceptable), 1);
        assert_eq!((tally.durations[5], tally.durations[13]), (1, 1));
        assert_eq!(tally.duration_sum_ms, 600_250);
    }
}
