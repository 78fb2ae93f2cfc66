//! The payloads of one message by kind, so that the absence of one is an error and not an assumption.

use crate::error::{Error, Result};
use crate::payload::Payload;
use crate::payload::auth::AuthPayload;
use crate::payload::cert::{CertPayload, CertRequestPayload};
use crate::payload::configuration::ConfigurationPayload;
use crate::payload::delete::DeletePayload;
use crate::payload::eap::EapPacket;
use crate::payload::id::Identity;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::{NotifyPayload, NotifyType};
use crate::payload::sa::{Proposal, SaPayload};
use crate::payload::traffic_selector::{TrafficSelector, TsPayload};

/// The payloads of a message. Of a kind that comes once, a second one makes the message malformed.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) sa: Option<SaPayload>,
    pub(crate) ke: Option<KePayload>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) id_i: Option<Identity>,
    pub(crate) id_r: Option<Identity>,
    pub(crate) certs: Vec<CertPayload>,
    pub(crate) cert_requests: Vec<CertRequestPayload>,
    pub(crate) auth: Option<AuthPayload>,
    pub(crate) notifies: Vec<NotifyPayload>,
    pub(crate) deletes: Vec<DeletePayload>,
    pub(crate) ts_i: Option<TsPayload>,
    pub(crate) ts_r: Option<TsPayload>,
    pub(crate) configuration: Option<ConfigurationPayload>,
    pub(crate) eap: Option<EapPacket>,
    pub(crate) vendors: Vec<Vec<u8>>,
}

impl Parts {
    pub(crate) fn sort(payloads: Vec<Payload>) -> Result<Self> {
        fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(Error::Malformed("payload appears twice")),
            }
        }
        let mut parts = Self::default();
        for payload in payloads {
            match payload {
                Payload::Sa(p) => once(&mut parts.sa, p)?,
                Payload::Ke(p) => once(&mut parts.ke, p)?,
                Payload::Nonce(p) => once(&mut parts.nonce, p)?,
                Payload::IdI(p) => once(&mut parts.id_i, p)?,
                Payload::IdR(p) => once(&mut parts.id_r, p)?,
                Payload::Cert(p) => parts.certs.push(p),
                Payload::CertRequest(p) => parts.cert_requests.push(p),
                Payload::Auth(p) => once(&mut parts.auth, p)?,
                Payload::Notify(p) => parts.notifies.push(p),
                Payload::Delete(p) => parts.deletes.push(p),
                Payload::VendorId(id) => parts.vendors.push(id),
                Payload::TsI(p) => once(&mut parts.ts_i, p)?,
                Payload::TsR(p) => once(&mut parts.ts_r, p)?,
                Payload::Configuration(p) => once(&mut parts.configuration, p)?,
                Payload::Eap(p) => once(&mut parts.eap, p)?,
            }
        }
        Ok(parts)
    }

    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&NotifyPayload> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    pub(crate) fn has(&self, kind: NotifyType) -> bool {
        self.notify(kind).is_some()
    }

    /// The first error notification.
    pub(crate) fn refusal(&self) -> Option<NotifyType> {
        self.notifies
            .iter()
            .map(|notify| notify.kind)
            .find(|kind| kind.is_error())
    }

    pub(crate) fn proposals(&self) -> Result<&[Proposal]> {
        self.sa
            .as_ref()
            .map(|sa| sa.proposals.as_slice())
            .ok_or(Error::MissingPayload("SA"))
    }

    pub(crate) fn ke(&self) -> Result<&KePayload> {
        self.ke.as_ref().ok_or(Error::MissingPayload("KE"))
    }

    pub(crate) fn nonce(&self) -> Result<&[u8]> {
        self.nonce.as_deref().ok_or(Error::MissingPayload("Nonce"))
    }

    pub(crate) fn ts_i(&self) -> Result<&[TrafficSelector]> {
        self.ts_i
            .as_ref()
            .map(|ts| ts.selectors.as_slice())
            .ok_or(Error::MissingPayload("TSi"))
    }

    pub(crate) fn ts_r(&self) -> Result<&[TrafficSelector]> {
        self.ts_r
            .as_ref()
            .map(|ts| ts.selectors.as_slice())
            .ok_or(Error::MissingPayload("TSr"))
    }
}

/// A status notification without an SPI.
pub(crate) fn status(kind: NotifyType, data: Vec<u8>) -> Payload {
    Payload::Notify(NotifyPayload::status(kind, data))
}

/// The notification that answers an error.
pub(crate) fn refuse(error: &Error) -> Option<Payload> {
    Some(status(error.notify()?, error.notify_data()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_02_missing_payloads_are_errors() {
        let parts = Parts::sort(vec![]).unwrap();
        assert_eq!(parts.proposals(), Err(Error::MissingPayload("SA")));
        assert_eq!(parts.nonce(), Err(Error::MissingPayload("Nonce")));
        assert!(parts.ke().is_err() && parts.ts_i().is_err() && parts.ts_r().is_err());
    }

    #[test]
    fn fault_02_doubled_payloads_are_errors() {
        let nonce = || Payload::Nonce(vec![0; 16]);
        assert!(Parts::sort(vec![nonce(), nonce()]).is_err());
    }
}
