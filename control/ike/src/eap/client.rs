//! The EAP peer: answers the identity request and proves itself by MS-CHAPv2 or EAP-TLS, checking the server's proof.

use southbound::KeyMaterial;

use crate::config::LocalAuth;
use crate::credential::Credentials;
use crate::crypto::random::{Draw, Random};
use crate::error::{Error, Result};
use crate::payload::eap::{EapPacket, code, method};
use crate::reader::Reader;

use super::mschapv2::{Exchange, master_session_key, opcode};
use super::server::message;
use super::tls::{Taken, TlsSession};

#[derive(Debug)]
enum State {
    Waiting,
    /// Our proof is out; the text is the server's proof to expect.
    Answered {
        expected: String,
        msk: KeyMaterial,
    },
    /// The server proved itself, too.
    Confirmed {
        msk: KeyMaterial,
    },
    Finished {
        msk: KeyMaterial,
    },
    Tls(Box<TlsSession>),
    Failed,
}

/// How we prove ourselves.
#[derive(Debug)]
enum Method {
    Mschapv2 { password: KeyMaterial },
    Tls { credential: String },
}

/// One authentication of ours.
#[derive(Debug)]
pub(crate) struct EapClient {
    user: String,
    method: Method,
    state: State,
}

impl EapClient {
    pub(crate) fn new(auth: &LocalAuth, credentials: &Credentials) -> Result<Self> {
        let (user, method) = match auth {
            LocalAuth::EapMschapv2 { user } => {
                let password = credentials.eap_password(user).cloned();
                let password = password.ok_or_else(|| Error::Local(format!("no EAP secret for {user:?}")))?;
                (user.clone(), Method::Mschapv2 { password })
            }
            LocalAuth::EapTls { credential } => {
                let own = credentials.own(credential);
                let own = own.ok_or_else(|| Error::Local(format!("no credential named {credential:?}")))?;
                let user = own.certificate.default_identity().to_string();
                (
                    user,
                    Method::Tls {
                        credential: credential.clone(),
                    },
                )
            }
            _ => return Err(Error::Local("this side does not authenticate by EAP".into())),
        };
        Ok(Self {
            user,
            method,
            state: State::Waiting,
        })
    }

    /// The key of the finished method.
    pub(crate) fn msk(&self) -> Result<KeyMaterial> {
        match &self.state {
            State::Finished { msk } => Ok(msk.clone()),
            _ => Err(Error::AuthenticationFailed("EAP is not finished".into())),
        }
    }

    /// Takes the server's packet; the answer, or `None` once it said success.
    pub(crate) fn receive(
        &mut self,
        packet: &EapPacket,
        credentials: &Credentials,
        unix_seconds: u64,
        random: &mut dyn Random,
    ) -> Result<Option<EapPacket>> {
        let answer = |method: u8, data: Vec<u8>| {
            let (code, identifier) = (code::RESPONSE, packet.identifier);
            Ok(Some(EapPacket {
                code,
                identifier,
                method: Some(method),
                data,
            }))
        };
        match (
            packet.code,
            packet.method,
            std::mem::replace(&mut self.state, State::Failed),
        ) {
            (code::REQUEST, Some(method::IDENTITY), State::Waiting) => {
                self.state = State::Waiting;
                answer(method::IDENTITY, self.user.clone().into_bytes())
            }
            (code::REQUEST, Some(method::MSCHAPV2), State::Waiting)
                if matches!(self.method, Method::Mschapv2 { .. }) =>
            {
                answer(method::MSCHAPV2, self.prove(packet, random)?)
            }
            (code::REQUEST, Some(method::TLS), State::Waiting)
                if matches!(self.method, Method::Tls { .. }) =>
            {
                if !TlsSession::is_start(&packet.data) {
                    return Err(Error::AuthenticationFailed("EAP-TLS packet out of order".into()));
                }
                let Method::Tls { credential } = &self.method else {
                    return Err(Error::AuthenticationFailed("EAP packet out of order".into()));
                };
                let mut session = TlsSession::client(credential, credentials, unix_seconds)?;
                let data = session.next_fragment().unwrap_or_else(|| vec![0]);
                self.state = State::Tls(Box::new(session));
                answer(method::TLS, data)
            }
            (code::REQUEST, Some(method::TLS), State::Tls(mut session)) => {
                let data = match session.take(&packet.data)? {
                    Taken::Partial => vec![0],
                    Taken::Acknowledgement | Taken::Flight => {
                        session.next_fragment().unwrap_or_else(|| vec![0])
                    }
                };
                self.state = State::Tls(session);
                answer(method::TLS, data)
            }
            (code::SUCCESS, _, State::Tls(session)) if session.is_committed() => {
                let msk = session.msk()?;
                self.state = State::Finished { msk };
                Ok(None)
            }
            (code::REQUEST, Some(method::MSCHAPV2), State::Answered { expected, msk }) => {
                let text = packet.data.get(4..).unwrap_or_default();
                if packet.data.first() == Some(&opcode::FAILURE) {
                    // Confirmed, so that the server may end it; what follows is EAP-Failure.
                    return answer(method::MSCHAPV2, vec![opcode::FAILURE]);
                }
                if packet.data.first() != Some(&opcode::SUCCESS) || !text.starts_with(expected.as_bytes()) {
                    return Err(Error::AuthenticationFailed(
                        "EAP: the server could not prove itself".into(),
                    ));
                }
                self.state = State::Confirmed { msk };
                answer(method::MSCHAPV2, vec![opcode::SUCCESS])
            }
            (code::REQUEST, Some(_), State::Waiting) => {
                self.state = State::Waiting;
                let known = match self.method {
                    Method::Mschapv2 { .. } => method::MSCHAPV2,
                    Method::Tls { .. } => method::TLS,
                };
                answer(method::NAK, vec![known])
            }
            (code::SUCCESS, _, State::Confirmed { msk }) => {
                self.state = State::Finished { msk };
                Ok(None)
            }
            (code::FAILURE, ..) => Err(Error::AuthenticationFailed(
                "EAP: user name or password was refused".into(),
            )),
            _ => Err(Error::AuthenticationFailed("EAP packet out of order".into())),
        }
    }

    fn prove(&mut self, packet: &EapPacket, random: &mut dyn Random) -> Result<Vec<u8>> {
        let Method::Mschapv2 { password } = &self.method else {
            return Err(Error::AuthenticationFailed("EAP packet out of order".into()));
        };
        let mut reader = Reader::new(&packet.data);
        if reader.u8("MS-CHAPv2 code")? != opcode::CHALLENGE {
            return Err(Error::Malformed("MS-CHAPv2 code"));
        }
        let identifier = reader.u8("MS-CHAPv2 identifier")?;
        reader.u16("MS-CHAPv2 length")?;
        if reader.u8("MS-CHAPv2 value size")? != 16 {
            return Err(Error::Malformed("MS-CHAPv2 value size"));
        }
        let authenticator_challenge = reader.array::<16>("MS-CHAPv2 challenge")?;
        let exchange = Exchange {
            authenticator_challenge,
            peer_challenge: random.bytes(),
            user: self.user.clone(),
        };
        let nt_response = exchange.nt_response(password);
        self.state = State::Answered {
            expected: exchange.authenticator_response(password, &nt_response),
            msk: master_session_key(password, &nt_response),
        };
        let mut value = vec![49];
        value.extend_from_slice(&exchange.peer_challenge);
        value.extend_from_slice(&[0; 8]);
        value.extend_from_slice(&nt_response);
        value.push(0);
        value.extend_from_slice(self.user.as_bytes());
        Ok(message(opcode::RESPONSE, identifier, &value))
    }
}
