//! An IKE SA: what it knows of itself and its peer, and how it sends.

mod children;
mod receive;
mod tasks;

pub(crate) use children::{DRAIN, NewChild, child_down};
pub(crate) use tasks::{QueuedTask, Task};

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use southbound::SaRef;

use crate::auth::IntermediateAuth;
use crate::child_sa::{ChildSa, ChildState};
use crate::config::{Connection, EndpointConfig, Fragmentation};
use crate::credential::Credentials;
use crate::crypto::cipher::Protector;
use crate::crypto::key_exchange::KeMethod;
use crate::crypto::random::{Draw, Random};
use crate::endpoint::Directory;
use crate::error::{Error, Hex, Result};
use crate::event::{Counters, Event, SaId, Transmit};
use crate::exchange::Exchange;
use crate::exchange::eap_responder::EapProgress;
use crate::fragment::{Reassembly, protect};
use crate::keymat::{IkeKeys, Seed};
use crate::message::{ExchangeType, Header};
use crate::nat::Nat;
use crate::payload::Payload;
use crate::payload::id::Identity;
use crate::proposal::IkeSuite;
use crate::registry::Registry;
use crate::window::{Datagrams, Inbox, Outbox};

/// How often an IKE SA looks for children that should be up and are not.
pub(crate) const CENSUS: std::time::Duration = std::time::Duration::from_secs(10);

/// What an IKE SA may use while it handles something.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) unix_seconds: u64,
    pub(crate) random: &'a mut dyn Random,
    pub(crate) config: &'a EndpointConfig,
    pub(crate) credentials: &'a Credentials,
    pub(crate) connections: &'a Directory,
    pub(crate) registry: &'a mut Registry,
    pub(crate) transmits: &'a mut VecDeque<Transmit>,
    pub(crate) events: &'a mut VecDeque<Event>,
    pub(crate) counters: &'a mut Counters,
    /// Bytes of fragments that may still be held.
    pub(crate) fragment_budget_bytes: usize,
    /// What the endpoint has to do afterwards, when the SA is back in its table.
    pub(crate) effects: Vec<Effect>,
}

/// Something that touches more than one IKE SA.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A rekeyed IKE SA is born.
    Spawn(Box<IkeSa>),
    /// Another IKE SA takes over Child SAs and what was still to do.
    HandOver { to: SaId, estate: Estate },
    /// The IKE SA ended with these pairs of this connection.
    Bury {
        connection: Arc<Connection>,
        children: Vec<ChildSa>,
    },
    /// An IKE SA was authenticated; `initial_contact` says the peer knows of no other.
    Established { sa: SaId, initial_contact: bool },
    /// An IKE SA that lost a collision waits to be deleted by the peer.
    Abandon { sa: SaId },
    /// An IKE SA that was to take over from one that ended without it.
    Close { sa: SaId },
    /// Its time to authenticate from the start has come.
    Reauthenticate { sa: SaId },
    /// The peer sends us to another gateway (RFC 5685).
    Redirected { connection: String, to: IpAddr },
}

/// What passes from an IKE SA to its successor.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    pub(crate) children: Vec<ChildSa>,
    pub(crate) draining: Vec<(Instant, SaRef)>,
    pub(crate) tasks: VecDeque<QueuedTask>,
    pub(crate) virtual_addresses: Vec<IpAddr>,
    pub(crate) own_addresses: Vec<IpAddr>,
}

/// What the peer said it can do.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerSupport {
    pub(crate) fragmentation: bool,
    pub(crate) mobike: bool,
    pub(crate) childless: bool,
    pub(crate) ppk: bool,
    pub(crate) signature_hashes: Vec<u16>,
    /// It follows redirects (RFC 5685).
    pub(crate) redirect: bool,
    /// Where else it is (RFC 4555 section 3.6).
    pub(crate) additional_addresses: Vec<IpAddr>,
    /// It is Windows, which refuses to have Child SAs renewed by a gateway while it is behind a NAT.
    pub(crate) windows: bool,
}

/// Keys in use.
pub(crate) struct Keyed {
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) send: Protector,
    pub(crate) receive: Protector,
    /// What the peer sent with before an additional key exchange: a repeated request of then still has to be known.
    pub(crate) previous_receive: Option<Protector>,
}

impl Keyed {
    pub(crate) fn new(suite: IkeSuite, keys: IkeKeys, initiator: bool) -> Result<Self> {
        let (forth, back) = keys.protectors(&suite)?;
        let (send, receive) = if initiator { (forth, back) } else { (back, forth) };
        Ok(Self {
            suite,
            keys,
            send,
            receive,
            previous_receive: None,
        })
    }
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyed({}, [redacted])", self.suite)
    }
}

/// What is remembered between IKE_SA_INIT and the end of IKE_AUTH.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    /// The messages that AUTH covers.
    pub(crate) init_request: Vec<u8>,
    pub(crate) init_response: Vec<u8>,
    pub(crate) seed: Seed,
    pub(crate) intermediate: IntermediateAuth,
    /// Additional key exchanges still to be done in IKE_INTERMEDIATE.
    pub(crate) additional: VecDeque<KeMethod>,
    /// An EAP authentication of the peer under way.
    pub(crate) eap: Option<Box<EapProgress>>,
    /// Message ID of the first IKE_AUTH.
    pub(crate) auth_message_id: u32,
    /// A shared secret to take into the keys once the answer of its exchange is out.
    pub(crate) next_shared: Option<southbound::KeyMaterial>,
}

/// Where an IKE SA stands. Only `Established` knows CREATE_CHILD_SA, so that nothing can be rekeyed that was not
/// authenticated.
#[derive(Debug)]
pub(crate) enum Phase {
    /// From our IKE_SA_INIT to the end of IKE_AUTH, and on the responder's side likewise.
    Handshake(Box<Handshake>),
    /// Both ends are authenticated.
    Established,
    /// Another IKE SA took over; this one waits to be deleted.
    Replaced,
    /// Our request to delete it is out.
    Deleting,
    /// Nothing more will happen.
    Closed,
}

/// The peer rekeyed the IKE SA while we did (RFC 7296 section 2.8.2).
#[derive(Debug)]
pub(crate) struct IkeCollision {
    /// The IKE SA that the peer's exchange made.
    pub(crate) successor: SaId,
    pub(crate) lowest_nonce: Vec<u8>,
}

/// An IKE SA.
#[derive(Debug)]
pub(crate) struct IkeSa {
    pub(crate) id: SaId,
    pub(crate) connection: Arc<Connection>,
    /// We are the original initiator.
    pub(crate) initiator: bool,
    pub(crate) local_spi: u64,
    pub(crate) remote_spi: u64,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) local_id: Option<Identity>,
    pub(crate) remote_id: Option<Identity>,
    pub(crate) nat: Nat,
    pub(crate) support: PeerSupport,
    pub(crate) phase: Phase,
    pub(crate) keyed: Option<Keyed>,
    pub(crate) outbox: Outbox<Exchange>,
    pub(crate) inbox: Inbox,
    pub(crate) requests: Reassembly,
    pub(crate) responses: Reassembly,
    pub(crate) children: Vec<ChildSa>,
    /// Inbound SAs kept a little after their end for packets still under way.
    pub(crate) draining: Vec<(Instant, SaRef)>,
    pub(crate) tasks: VecDeque<QueuedTask>,
    pub(crate) collision: Option<IkeCollision>,
    /// Made by the peer's rekey while ours is undecided: it takes no requests about Child SAs yet.
    pub(crate) dormant: bool,
    /// Additional key exchanges that the peer owes after a CREATE_CHILD_SA (RFC 9370).
    pub(crate) followup: Option<crate::exchange::followup::PendingFollowUp>,
    /// Outbound SPIs that the peer deleted while our exchange that makes them is out.
    pub(crate) deleted_early: Vec<u32>,
    /// Pairs, by inbound SPI, that the peer deleted after it renewed them while our own renewal was out: ours lost.
    pub(crate) lost_rekeys: Vec<u32>,
    /// Nonces of IKE_SA_INIT until the first Child SA took its keys from them.
    pub(crate) auth_nonces: (Vec<u8>, Vec<u8>),
    /// Addresses leased to the peer.
    pub(crate) virtual_addresses: Vec<IpAddr>,
    /// Addresses that the peer assigned to us.
    pub(crate) own_addresses: Vec<IpAddr>,
    /// Why it is to be closed once the present answer is out.
    pub(crate) close_reason: Option<String>,
    /// Why our request to delete it is out.
    pub(crate) delete_reason: Option<String>,
    /// A successor carries its name on: its end is nothing to report.
    pub(crate) superseded: bool,
    /// As far as we know the peer has no other IKE SA with us.
    pub(crate) initial_contact: bool,
    /// When its first message was sent or received.
    pub(crate) created_at: Instant,
    /// When both ends were authenticated; `None` for what renewed another.
    pub(crate) established_at: Option<Instant>,
    pub(crate) last_heard: Instant,
    pub(crate) last_sent: Instant,
    /// When an unprotected message last made us doubt that the peer still has this SA.
    pub(crate) hinted: Option<Instant>,
    /// A half-open or replaced SA is closed then.
    pub(crate) expires: Option<Instant>,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) reauthenticate_at: Option<Instant>,
    /// When to look whether a child that should be up is missing.
    pub(crate) census_at: Option<Instant>,
    /// Where the request being answered came in: our address, the peer's.
    pub(crate) request_path: Option<(SocketAddr, SocketAddr)>,
    /// Pairs of addresses that failed since the peer was last heard (RFC 4555).
    pub(crate) paths_tried: Vec<(IpAddr, IpAddr)>,
    /// The gateway that sent us to this one.
    pub(crate) redirected_from: Option<IpAddr>,
    /// Virtual addresses to ask for: those of the SA that this one replaces.
    pub(crate) wished_addresses: Vec<IpAddr>,
    /// Children, by name, of which the peer takes no more (RFC 9611).
    pub(crate) full_children: Vec<String>,
    /// An operator closed children of it: they do not come back by themselves.
    pub(crate) held_down: bool,
}

impl IkeSa {
    /// An IKE SA before any message.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a plain part of the identity of an SA"
    )]
    pub(crate) fn new(
        id: SaId,
        connection: Arc<Connection>,
        initiator: bool,
        local_spi: u64,
        remote_spi: u64,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Self {
        // The responder took IKE_SA_INIT already, statelessly; a rekeyed SA starts both windows at 0.
        let inbox = Inbox::new(connection.window, 0);
        Self {
            id,
            connection,
            initiator,
            local_spi,
            remote_spi,
            local,
            remote,
            local_id: None,
            remote_id: None,
            nat: Nat::default(),
            support: PeerSupport::default(),
            phase: Phase::Handshake(Box::default()),
            keyed: None,
            outbox: Outbox::new(),
            inbox,
            requests: Reassembly::default(),
            responses: Reassembly::default(),
            children: Vec::new(),
            draining: Vec::new(),
            tasks: VecDeque::new(),
            collision: None,
            dormant: false,
            followup: None,
            deleted_early: Vec::new(),
            lost_rekeys: Vec::new(),
            auth_nonces: Default::default(),
            virtual_addresses: Vec::new(),
            own_addresses: Vec::new(),
            close_reason: None,
            delete_reason: None,
            superseded: false,
            initial_contact: false,
            created_at: now,
            established_at: None,
            last_heard: now,
            last_sent: now,
            hinted: None,
            expires: None,
            rekey_at: None,
            give_up_at: None,
            reauthenticate_at: None,
            census_at: None,
            request_path: None,
            paths_tried: Vec::new(),
            redirected_from: None,
            wished_addresses: Vec::new(),
            full_children: Vec::new(),
            held_down: false,
        }
    }

    /// SPIs in the order of the header.
    pub(crate) fn spis(&self) -> (u64, u64) {
        if self.initiator {
            (self.local_spi, self.remote_spi)
        } else {
            (self.remote_spi, self.local_spi)
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Handshake(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub(crate) fn handshake(&mut self) -> Result<&mut Handshake> {
        match &mut self.phase {
            Phase::Handshake(handshake) => Ok(handshake),
            _ => Err(Error::Malformed("exchange out of order")),
        }
    }

    pub(crate) fn keyed(&self) -> Result<&Keyed> {
        self.keyed
            .as_ref()
            .ok_or(Error::Malformed("exchange out of order"))
    }

    /// Bytes held in unfinished fragments.
    pub(crate) fn fragment_bytes(&self) -> usize {
        self.requests.held_bytes() + self.responses.held_bytes()
    }

    pub(crate) fn header(&self, exchange: ExchangeType, message_id: u32, is_response: bool) -> Header {
        let (initiator_spi, responder_spi) = self.spis();
        Header {
            initiator_spi,
            responder_spi,
            next_payload: 0,
            exchange,
            from_initiator: self.initiator,
            is_response,
            message_id,
        }
    }

    /// Sends datagrams on the present path, with the marker where the port asks for it.
    pub(crate) fn transmit(&mut self, ctx: &mut Context<'_>, datagrams: &Datagrams) {
        self.transmit_on(ctx, (self.local, self.remote), datagrams);
    }

    /// Sends an answer where its request came from (RFC 7296 section 2.11).
    pub(crate) fn transmit_answer(&mut self, ctx: &mut Context<'_>, datagrams: &Datagrams) {
        self.transmit_on(
            ctx,
            self.request_path.unwrap_or((self.local, self.remote)),
            datagrams,
        );
    }

    fn transmit_on(&mut self, ctx: &mut Context<'_>, path: (SocketAddr, SocketAddr), datagrams: &Datagrams) {
        self.last_sent = ctx.now;
        let (local, remote) = path;
        for datagram in datagrams {
            ctx.transmits.push_back(Transmit {
                local,
                remote,
                bytes: with_marker(ctx.config, local, datagram),
            });
        }
    }

    fn fragment_limit_bytes(&self) -> Option<usize> {
        match self.connection.fragmentation {
            Fragmentation::Above { packet_bytes } if self.support.fragmentation => {
                let ip = if self.remote.is_ipv4() { 20 } else { 40 };
                // IP, UDP, non-ESP marker.
                Some(usize::from(packet_bytes).saturating_sub(ip + 8 + 4).max(256))
            }
            _ => None,
        }
    }

    /// Protects, remembers and sends a request.
    pub(crate) fn request(
        &mut self,
        ctx: &mut Context<'_>,
        kind: ExchangeType,
        payloads: &[Payload],
        exchange: Exchange,
    ) -> Result<()> {
        let header = self.header(kind, self.outbox.next_id(), false);
        let limit = self.fragment_limit_bytes();
        let keyed = self
            .keyed
            .as_mut()
            .ok_or(Error::Malformed("exchange out of order"))?;
        if let (ExchangeType::IKE_INTERMEDIATE, Phase::Handshake(handshake)) = (kind, &mut self.phase) {
            handshake.cover(&header, payloads, true, keyed);
        }
        let datagrams = protect(&mut keyed.send, &header, payloads, limit, ctx.random)?;
        if datagrams.len() > 1 {
            ctx.counters.fragments_sent += datagrams.len() as u64;
        }
        self.transmit(ctx, &datagrams);
        let policy = self.connection.retransmission;
        self.outbox
            .send(ctx.now, datagrams, exchange, &policy, ctx.random);
        Ok(())
    }

    /// Protects, remembers and sends an answer.
    pub(crate) fn respond(
        &mut self,
        ctx: &mut Context<'_>,
        kind: ExchangeType,
        message_id: u32,
        payloads: &[Payload],
    ) -> Result<()> {
        let header = self.header(kind, message_id, true);
        let limit = self.fragment_limit_bytes();
        let keyed = self
            .keyed
            .as_mut()
            .ok_or(Error::Malformed("exchange out of order"))?;
        if let (ExchangeType::IKE_INTERMEDIATE, Phase::Handshake(handshake)) = (kind, &mut self.phase) {
            handshake.cover(&header, payloads, false, keyed);
        }
        let datagrams = protect(&mut keyed.send, &header, payloads, limit, ctx.random)?;
        if datagrams.len() > 1 {
            ctx.counters.fragments_sent += datagrams.len() as u64;
        }
        self.transmit_answer(ctx, &datagrams);
        self.inbox.answered(message_id, datagrams);
        Ok(())
    }

    /// Starts the timers of an SA that has just become usable.
    pub(crate) fn start_lifetime(&mut self, ctx: &mut Context<'_>) {
        let rekey = self.connection.rekey;
        let fuzz_ms = u64::try_from(rekey.fuzz.as_millis()).unwrap_or(u64::MAX);
        let early = std::time::Duration::from_millis(ctx.random.below(fuzz_ms));
        self.rekey_at = Some(ctx.now + rekey.renew_after.saturating_sub(early));
        self.give_up_at = Some(ctx.now + rekey.give_up_after);
        self.census_at = Some(ctx.now + CENSUS);
        self.expires = None;
        self.last_heard = ctx.now;
    }

    /// Tells the driver the keys, where it asked for them.
    pub(crate) fn log_keys(&self, ctx: &mut Context<'_>) {
        let Some(keyed) = self.keyed.as_ref().filter(|_| ctx.config.key_log) else {
            return;
        };
        let (spi_i, spi_r) = self.spis();
        let keys = &keyed.keys;
        let (cipher, integrity) = keyed.suite.wireshark_names();
        ctx.events.push_back(Event::KeyLog(format!(
            "{spi_i:016x},{spi_r:016x},{},{},\"{cipher}\",{},{},\"{integrity}\"",
            Hex(keys.sk_ei.expose()),
            Hex(keys.sk_er.expose()),
            Hex(keys.sk_ai.expose()),
            Hex(keys.sk_ar.expose()),
        )));
    }

    /// Ends the SA here and now: its Child SAs are removed from the dataplane and its addresses given back.
    pub(crate) fn close(&mut self, ctx: &mut Context<'_>, reason: &str) {
        if self.is_closed() {
            return;
        }
        let known = !self.is_half_open() && !self.superseded && !self.dormant;
        if let Some(collision) = self.collision.take() {
            ctx.effects.push(Effect::Close {
                sa: collision.successor,
            });
        }
        self.remove_all_children(ctx);
        for address in std::mem::take(&mut self.virtual_addresses) {
            ctx.registry.release_lease(address);
        }
        if known {
            ctx.events.push_back(Event::IkeDown {
                sa: self.id,
                connection: self.connection.name.clone(),
                reason: reason.to_owned(),
            });
        } else if self.is_half_open() {
            ctx.events.push_back(Event::Failed {
                connection: Some(self.connection.name.clone()),
                remote: self.remote,
                reason: reason.to_owned(),
            });
        }
        self.phase = Phase::Closed;
        self.keyed = None;
    }

    /// Everything that a successor takes over.
    pub(crate) fn take_estate(&mut self) -> Estate {
        Estate {
            children: std::mem::take(&mut self.children),
            draining: std::mem::take(&mut self.draining),
            tasks: std::mem::take(&mut self.tasks),
            virtual_addresses: std::mem::take(&mut self.virtual_addresses),
            own_addresses: std::mem::take(&mut self.own_addresses),
        }
    }

    pub(crate) fn inherit(&mut self, ctx: &mut Context<'_>, estate: Estate) {
        for child in &estate.children {
            ctx.registry.settle(self.id, child.spi_in(), child.spi_out());
        }
        for mut child in estate.children {
            if child.state == ChildState::Deleting {
                // The answer to our request may go to the SA that is no more: it is asked again here.
                child.state = ChildState::Active;
                self.enqueue(
                    ctx.now,
                    Task::DeleteChild {
                        spi_in: child.spi_in(),
                    },
                );
            }
            self.children.push(child);
        }
        self.draining.extend(estate.draining);
        self.tasks.extend(
            estate
                .tasks
                .into_iter()
                .filter(|queued| !matches!(queued.task, Task::RekeyIke)),
        );
        self.virtual_addresses.extend(estate.virtual_addresses);
        self.own_addresses.extend(estate.own_addresses);
        self.dormant = false;
    }
}

/// A datagram as it goes on the wire from this port.
pub(crate) fn with_marker(config: &EndpointConfig, local: SocketAddr, message: &[u8]) -> Vec<u8> {
    if local.port() != config.nat_t_port {
        return message.to_vec();
    }
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(message);
    bytes
}
