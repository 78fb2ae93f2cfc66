//! EAP peers whom an authentication server judges.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ike::{EapAnswer, SaId};
use southbound::KeyMaterial;
use tokio::sync::mpsc;

use super::driver::Driver;
use super::radius::{Question, State, ask};
use crate::config::RadiusServer;

/// Most requests on their way to the servers.
const MAX_OPEN: usize = 1024;

/// Most conversations whose state is remembered: those of peers that never finish are among them.
const MAX_STATES: usize = 4 * MAX_OPEN;

/// What a server said of a peer.
#[derive(Debug)]
pub(crate) struct Verdict {
    sa: SaId,
    answer: EapAnswer,
    state: Option<State>,
}

/// The servers, and the conversations with them.
#[derive(Debug)]
pub(super) struct Radius {
    gateway: String,
    servers: Arc<Vec<RadiusServer>>,
    states: HashMap<SaId, State>,
    open: usize,
    channel: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
}

impl Default for Radius {
    fn default() -> Self {
        Self {
            gateway: String::new(),
            servers: Arc::default(),
            states: HashMap::new(),
            open: 0,
            channel: mpsc::channel(MAX_OPEN),
        }
    }
}

impl Radius {
    pub(super) fn configure(&mut self, gateway: &str, servers: &[RadiusServer]) {
        gateway.clone_into(&mut self.gateway);
        self.servers = Arc::new(servers.to_vec());
    }

    /// The next verdict; safe to cancel.
    pub(super) async fn verdicts(&mut self) -> Option<Verdict> {
        self.channel.1.recv().await
    }

    /// A peer needs no judgement any more.
    pub(super) fn forget(&mut self, sa: SaId) {
        self.states.remove(&sa);
    }
}

impl Driver {
    pub(super) fn ask_radius(
        &mut self,
        now: Instant,
        sa: SaId,
        (local, remote): (IpAddr, IpAddr),
        user: String,
        packet: KeyMaterial,
    ) {
        let radius = &mut self.radius;
        if radius.open >= MAX_OPEN {
            let reason = "too many peers wait for the RADIUS servers".to_owned();
            self.endpoint
                .answer_eap(now, sa, EapAnswer::Failure { packet: None, reason });
            return;
        }
        radius.open += 1;
        let question = Question {
            gateway: radius.gateway.clone(),
            local,
            remote,
            user,
            packet,
            state: radius.states.remove(&sa),
        };
        let (servers, sender) = (Arc::clone(&radius.servers), radius.channel.0.clone());
        tokio::spawn(async move {
            let (answer, state) = ask(&servers, question).await;
            // A daemon that stops needs no verdict.
            let _ = sender.send(Verdict { sa, answer, state }).await;
        });
    }

    pub(super) fn authenticated(&mut self, verdict: Verdict) {
        let Verdict { sa, answer, state } = verdict;
        self.radius.open = self.radius.open.saturating_sub(1);
        if let Some(state) = state {
            if self.radius.states.len() >= MAX_STATES {
                self.radius.states.clear();
            }
            self.radius.states.insert(sa, state);
        }
        self.endpoint.answer_eap(Instant::now(), sa, answer);
    }
}
