//! The EAP peer: answers the identity request and proves itself by MS-CHAPv2, checking the server's proof.

use southbound::KeyMaterial;

use crate::crypto::random::{Draw, Random};
use crate::error::{Error, Result};
use crate::payload::eap::{EapPacket, code, method};
use crate::reader::Reader;

use super::mschapv2::{Exchange, master_session_key, opcode};
use super::server::message;

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
    Failed,
}

/// One authentication of ours.
#[derive(Debug)]
pub(crate) struct EapClient {
    user: String,
    password: KeyMaterial,
    state: State,
}

impl EapClient {
    pub(crate) fn new(user: &str, password: Option<KeyMaterial>) -> Result<Self> {
        let password = password.ok_or_else(|| Error::Local(format!("no EAP secret for {user:?}")))?;
        Ok(Self {
            user: user.to_owned(),
            password,
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
            (code::REQUEST, Some(method::MSCHAPV2), State::Waiting) => {
                answer(method::MSCHAPV2, self.prove(packet, random)?)
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
                answer(method::NAK, vec![method::MSCHAPV2])
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
        let nt_response = exchange.nt_response(&self.password);
        self.state = State::Answered {
            expected: exchange.authenticator_response(&self.password, &nt_response),
            msk: master_session_key(&self.password, &nt_response),
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
