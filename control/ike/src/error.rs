//! What can go wrong while a message is read or answered, whose fault it was, and the Notify that answers it.

use std::fmt;

use crate::payload::notify::NotifyType;

/// A reason why a message or negotiation was refused.
///
/// One table, [`Error::notify`], turns it into the answer on the wire; nothing else in the crate decides what an
/// error looks like to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes do not follow the format; the text names the field.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A payload marked critical has a type this implementation does not know (RFC 7296 section 2.5).
    #[error("unsupported critical payload {0}")]
    UnsupportedCriticalPayload(u8),
    /// The major version is above 2 (RFC 7296 section 2.5).
    #[error("IKE version {0} is not supported")]
    UnsupportedVersion(u8),
    /// A payload that the exchange requires is absent.
    #[error("missing payload: {0}")]
    MissingPayload(&'static str),
    /// The integrity check failed. Never answered.
    #[error("integrity check failed")]
    Integrity,
    /// No proposal of the peer matches the configuration; the text tells both.
    #[error("no proposal chosen: {0}")]
    NoProposalChosen(String),
    /// The peer guessed a key exchange method we do not want; the value is the one we want.
    #[error("key exchange method {0} wanted")]
    InvalidKe(u16),
    /// A public value failed its checks (RFC 6989).
    #[error("invalid public value of key exchange method {0}")]
    BadPublicValue(u16),
    /// The peer could not prove who it is; the text says what was expected.
    #[error("authentication failed: {0}")]
    AuthenticationFailed(String),
    /// The traffic selectors have nothing in common with the configuration.
    #[error("traffic selectors unacceptable: {0}")]
    TsUnacceptable(String),
    /// No address could be assigned from the pools.
    #[error("no address to assign")]
    InternalAddressFailure,
    /// The exchange collides with one in progress and may be tried again (RFC 7296 section 2.25).
    #[error("temporary failure: {0}")]
    TemporaryFailure(&'static str),
    /// The Child SA named by a rekey or delete does not exist.
    #[error("child SA not found")]
    ChildSaNotFound,
    /// No further Child SA is allowed on this IKE SA.
    #[error("no additional SAs")]
    NoAdditionalSas,
    /// No further Child SA for the same traffic is wanted (RFC 9611 section 3).
    #[error("no more Child SAs for this traffic")]
    TsMaxQueue,
    /// The peer answered with an error notification.
    #[error("peer answered {0}")]
    PeerRefused(NotifyType),
    /// The local configuration or credentials do not allow the operation.
    #[error("local: {0}")]
    Local(String),
    /// A primitive of the crypto library failed on valid input.
    #[error("crypto operation failed: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// The Notify type that answers this error, or `None` where no answer may be given.
    ///
    /// RFC 7296 section 2.21: an unauthenticated peer learns nothing beyond these.
    pub fn notify(&self) -> Option<NotifyType> {
        Some(match self {
            Error::Malformed(_) | Error::MissingPayload(_) => NotifyType::INVALID_SYNTAX,
            Error::UnsupportedCriticalPayload(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Error::UnsupportedVersion(_) => NotifyType::INVALID_MAJOR_VERSION,
            Error::NoProposalChosen(_) => NotifyType::NO_PROPOSAL_CHOSEN,
            Error::InvalidKe(_) => NotifyType::INVALID_KE_PAYLOAD,
            Error::BadPublicValue(_) => NotifyType::INVALID_SYNTAX,
            Error::AuthenticationFailed(_) => NotifyType::AUTHENTICATION_FAILED,
            Error::TsUnacceptable(_) => NotifyType::TS_UNACCEPTABLE,
            Error::InternalAddressFailure => NotifyType::INTERNAL_ADDRESS_FAILURE,
            Error::TemporaryFailure(_) => NotifyType::TEMPORARY_FAILURE,
            Error::ChildSaNotFound => NotifyType::CHILD_SA_NOT_FOUND,
            Error::NoAdditionalSas => NotifyType::NO_ADDITIONAL_SAS,
            Error::TsMaxQueue => NotifyType::TS_MAX_QUEUE,
            Error::Local(_) | Error::Crypto(_) => NotifyType::NO_PROPOSAL_CHOSEN,
            Error::Integrity | Error::PeerRefused(_) => return None,
        })
    }

    /// The data that the answering Notify carries.
    pub fn notify_data(&self) -> Vec<u8> {
        match self {
            Error::UnsupportedCriticalPayload(number) => vec![*number],
            Error::InvalidKe(method) => method.to_be_bytes().to_vec(),
            _ => Vec::new(),
        }
    }
}

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Prints bytes as hexadecimal without separators, for identifiers in logs (never for keys).
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
