//! What an IKE SA still has to do of its own accord, and its timers.

use std::time::{Duration, Instant};

use crate::child_sa::ChildState;
use crate::config::StartAction;
use crate::crypto::random::Draw;
use crate::event::Event;
use crate::exchange::Exchange;
use crate::exchange_tally::{ExchangeFailure, ExchangeRole};
use crate::window::DeadPeer;

use super::{Context, Effect, IkeSa, Phase};

/// Something to start as soon as the window has room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Negotiate a child of the configuration.
    CreateChild { name: String },
    /// Negotiate a further pair of a child, for one worker (RFC 9611).
    CreateForResource { name: String, resource: u16 },
    /// Renew a pair, named by its inbound SPI.
    RekeyChild { spi_in: u32 },
    /// Delete a pair.
    DeleteChild { spi_in: u32 },
    /// Renew the IKE SA.
    RekeyIke,
    /// Delete the IKE SA.
    DeleteIke { reason: String },
    /// Ask for a sign of life.
    Liveness,
    /// Tell the peer our new address.
    UpdateAddresses,
    /// Tell the peer where else we are.
    AnnounceAddresses,
    /// Find out whether the peer is where it says.
    ProbePath,
    /// Send the peer to another gateway.
    Redirect { to: std::net::IpAddr },
}

/// A task and when to start it.
#[derive(Debug, Clone)]
pub(crate) struct QueuedTask {
    pub(crate) not_before: Instant,
    pub(crate) task: Task,
}

/// More tasks than this never wait: they come from timers and commands, of which each waits once.
const MAX_TASKS: usize = 1024;

impl IkeSa {
    pub(crate) fn enqueue(&mut self, now: Instant, task: Task) {
        self.enqueue_at(now, task);
    }

    /// Queues a task unless the same one waits already.
    pub(crate) fn enqueue_at(&mut self, not_before: Instant, task: Task) {
        if self.tasks.len() < MAX_TASKS && !self.tasks.iter().any(|queued| queued.task == task) {
            self.tasks.push_back(QueuedTask { not_before, task });
        }
    }

    /// Queues a task again after a refusal that will pass: some seconds, drawn so that both ends do not repeat their
    /// collision (RFC 7296 section 2.25).
    pub(crate) fn retry_later(&mut self, ctx: &mut Context<'_>, task: Task) {
        let wait = Duration::from_millis(500 + ctx.random.below(4000));
        self.enqueue_at(ctx.now + wait, task);
    }

    /// Starts what may start now.
    pub(crate) fn run_tasks(&mut self, ctx: &mut Context<'_>) {
        loop {
            let ready = match self.phase {
                Phase::Established if !self.dormant => self
                    .tasks
                    .iter()
                    .position(|queued| queued.not_before <= ctx.now && self.may_start(&queued.task)),
                Phase::Established | Phase::Replaced => self.tasks.iter().position(|queued| {
                    queued.not_before <= ctx.now && matches!(queued.task, Task::DeleteIke { .. })
                }),
                _ => None,
            };
            let Some(index) = ready.filter(|_| self.outbox.has_room()) else {
                return;
            };
            let Some(queued) = self.tasks.remove(index) else {
                return;
            };
            let outcome = match queued.task {
                Task::CreateChild { name } => self.start_child(ctx, &name),
                Task::CreateForResource { name, resource } => {
                    self.start_child_for_resource(ctx, &name, resource)
                }
                Task::RekeyChild { spi_in } => self.start_child_rekey(ctx, spi_in),
                Task::DeleteChild { spi_in } => self.start_child_delete(ctx, spi_in),
                Task::RekeyIke => self.start_ike_rekey(ctx),
                Task::DeleteIke { reason } => self.start_ike_delete(ctx, reason),
                Task::Liveness => self.start_liveness(ctx),
                Task::UpdateAddresses => self.start_address_update(ctx),
                Task::AnnounceAddresses => self.start_announcement(ctx),
                Task::ProbePath => self.start_probe(ctx),
                Task::Redirect { to } => self.start_redirect(ctx, to),
            };
            if let Err(error) = outcome {
                let (connection, remote) = (Some(self.connection.name.clone()), self.remote);
                ctx.events.push_back(Event::Failed {
                    connection,
                    remote,
                    reason: error.to_string(),
                });
            }
            if self.is_closed() {
                return;
            }
        }
    }

    /// Child SAs are not touched while the IKE SA is renewed, nor is it renewed while they are (RFC 7296 section 2.25).
    fn may_start(&self, task: &Task) -> bool {
        match task {
            // What takes over must go as well: the task goes over to it.
            Task::DeleteIke { .. } => !self.outbox.exchanges().any(Exchange::renews_ike),
            _ if self.collision.is_some() => false,
            Task::CreateChild { .. }
            | Task::CreateForResource { .. }
            | Task::RekeyChild { .. }
            | Task::DeleteChild { .. } => !self.outbox.exchanges().any(Exchange::renews_ike),
            Task::RekeyIke => self.outbox.is_idle(),
            _ => true,
        }
    }

    /// When `handle_timeout` has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let mut deadlines = vec![self.outbox.deadline(), self.expires];
        if matches!(self.phase, Phase::Established | Phase::Replaced) && self.outbox.has_room() {
            let startable = self.tasks.iter().filter(|queued| {
                if matches!(self.phase, Phase::Established) && !self.dormant {
                    self.may_start(&queued.task)
                } else {
                    matches!(queued.task, Task::DeleteIke { .. })
                }
            });
            deadlines.push(startable.map(|queued| queued.not_before).min());
        }
        if self.is_established() && !self.dormant {
            deadlines.extend([
                self.rekey_at,
                self.give_up_at,
                self.reauthenticate_at,
                self.census_at,
            ]);
            deadlines.extend([self.child_deadline(), self.liveness_at(), self.keepalive_at()]);
        }
        deadlines.into_iter().flatten().min()
    }

    fn liveness_at(&self) -> Option<Instant> {
        // An outstanding request is a check by itself.
        let delay = self.connection.dpd_delay.filter(|_| self.outbox.is_idle())?;
        Some(self.last_heard + delay)
    }

    fn keepalive_at(&self) -> Option<Instant> {
        self.nat
            .here
            .then(|| self.last_sent + self.connection.nat_keepalive)
    }

    /// Does everything that is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        if self.expires.is_some_and(|when| when <= now) {
            let reason = match self.phase {
                Phase::Handshake(_) => "the peer did not finish authentication in time",
                _ => "closed",
            };
            self.close(ctx, reason);
            return;
        }
        self.try_another_path(ctx);
        let policy = self.connection.retransmission;
        match self.outbox.due(now, &policy, ctx.random) {
            Ok(requests) => {
                for datagrams in requests {
                    ctx.counters.retransmits_sent += 1;
                    self.transmit(ctx, &datagrams);
                }
            }
            Err(DeadPeer) => {
                self.peer_is_dead(ctx);
                return;
            }
        }
        if self.is_established() && !self.dormant {
            self.due_established(ctx);
        }
        if self.is_closed() {
            return;
        }
        self.run_tasks(ctx);
    }

    /// No answer to any retransmission. If the peer's own rekey succeeded meanwhile, its SA carries on.
    fn peer_is_dead(&mut self, ctx: &mut Context<'_>) {
        for exchange in self.outbox.exchanges() {
            let (role, failure) = (ExchangeRole::Initiator, Some(ExchangeFailure::Timeout));
            ctx.counters.exchanges.end(exchange.kind(), role, failure, None);
        }
        ctx.counters.dpd_timeouts += u64::from(self.is_established());
        if let Some(collision) = self.collision.take() {
            let estate = self.take_estate();
            ctx.effects.push(Effect::HandOver {
                to: collision.successor,
                estate,
            });
            self.phase = Phase::Replaced;
        }
        self.close(ctx, "the peer does not answer");
    }

    fn due_established(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        if self.give_up_at.is_some_and(|when| when <= now) {
            self.give_up_at = None;
            self.rekey_at = None;
            self.enqueue(
                now,
                Task::DeleteIke {
                    reason: "lifetime ended before it could be renewed".into(),
                },
            );
        }
        if self.reauthenticate_at.is_some_and(|when| when <= now) {
            self.reauthenticate_at = None;
            // Make before break: a second IKE SA is set up; it closes this one when it is up.
            ctx.effects.push(Effect::Reauthenticate { sa: self.id });
        }
        if self.rekey_at.is_some_and(|when| when <= now) {
            self.rekey_at = None;
            self.enqueue(now, Task::RekeyIke);
        }
        if self.liveness_at().is_some_and(|when| when <= now) {
            self.enqueue(now, Task::Liveness);
        }
        if self.keepalive_at().is_some_and(|when| when <= now) {
            self.last_sent = now;
            let (local, remote) = (self.local, self.remote);
            // RFC 3948 section 2.3: one byte, without a marker.
            ctx.transmits.push_back(crate::event::Transmit {
                local,
                remote,
                bytes: vec![0xff],
            });
        }
        if self.census_at.is_some_and(|when| when <= now) {
            self.census_at = Some(now + super::CENSUS);
            let quiet = !self.outbox.exchanges().any(Exchange::concerns_child) && self.tasks.is_empty();
            if quiet && !self.held_down && !self.superseded && !self.connection.remote_addresses.is_empty() {
                self.enqueue_missing_children(now);
            }
        }
        self.finish_draining(ctx);
        let mut select = Vec::new();
        for child in &mut self.children {
            if child.select_at.take_if(|when| *when <= now).is_some() && child.successor.is_none() {
                select.push(child.spi_in());
            }
        }
        select
            .into_iter()
            .for_each(|spi_in| self.select_outbound(ctx, spi_in));
        let mut due = Vec::new();
        for child in &mut self.children {
            if child.expire_at <= now {
                child.expire_at = now + Duration::from_secs(3600);
                due.push(Task::DeleteChild {
                    spi_in: child.spi_in(),
                });
            } else if child.rekey_at <= now && child.state == ChildState::Active && child.successor.is_none()
            {
                child.rekey_at = now + Duration::from_secs(3600);
                due.push(Task::RekeyChild {
                    spi_in: child.spi_in(),
                });
            }
        }
        due.into_iter().for_each(|task| self.enqueue(now, task));
    }

    /// Children that should be up and are neither there nor under way.
    pub(crate) fn enqueue_missing_children(&mut self, now: Instant) {
        let connection = self.connection.clone();
        for config in connection
            .children
            .iter()
            .filter(|child| child.start == StartAction::Start)
        {
            let have = self
                .children
                .iter()
                .filter(|child| child.name == config.name && child.successor.is_none());
            let full = self.full_children.contains(&config.name);
            if have.count() < config.pairs_at_once(full) {
                self.enqueue(
                    now,
                    Task::CreateChild {
                        name: config.name.clone(),
                    },
                );
            }
        }
    }
}
