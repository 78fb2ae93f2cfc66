//! Reloading: what differs is applied, all of it or nothing.
//!
//! What is new comes first, and what is no longer wanted goes only after the dataplane has taken all that
//! is new: until then the old configuration is whole and can be gone back to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};

use super::routing::{rules, settings};
use super::supervisor::Daemon;
use crate::admin::{ExitCode, Replies};
use crate::config::Gateway;
use crate::plane::Object;

/// How long the dataplane may take to acknowledge.
const LIMIT: Duration = Duration::from_secs(10);

/// A reload that the dataplane has not acknowledged yet.
#[derive(Debug)]
pub(super) struct PendingReload {
    previous: Gateway,
    stale: Vec<Object>,
    /// What the dataplane has not acknowledged yet.
    pub(super) awaited: BTreeSet<Object>,
    pub(super) failures: Vec<String>,
    replies: Option<Replies>,
    deadline: Instant,
    /// A signal came since.
    is_asked_again: bool,
}

impl Daemon {
    /// Reads the configuration and begins to apply it.
    pub(super) fn begin_reload(&mut self, replies: Option<Replies>, dry_run: bool) {
        match self.prepare_reload(dry_run) {
            Ok(Some(message)) => finish(replies.as_ref(), ExitCode::Done, message),
            Ok(None) => {
                if let Some(reload) = &mut self.reload {
                    reload.replies = replies;
                }
            }
            Err((code, message)) => {
                error!("reload refused: {message}");
                if !dry_run {
                    self.last_reload = Some(Err(message.clone()));
                }
                finish(replies.as_ref(), code, message);
            }
        }
    }

    /// A signal asks for a reload: where one is under way, for another when that is over.
    pub(super) fn hang_up(&mut self) {
        match &mut self.reload {
            Some(reload) => reload.is_asked_again = true,
            None => self.begin_reload(None, false),
        }
    }

    /// `Some` where nothing is left to wait for.
    fn prepare_reload(&mut self, dry_run: bool) -> Result<Option<String>, (ExitCode, String)> {
        if self.reload.is_some() {
            return Err((ExitCode::Refused, "another reload is under way".into()));
        }
        let gateway = self
            .options
            .load()
            .map_err(|problems| (ExitCode::Usage, problems.to_string()))?;
        for (changed, what) in [
            (
                gateway.dataplane_socket != self.gateway.dataplane_socket,
                "the dataplane's socket",
            ),
            (
                gateway.state_directory != self.gateway.state_directory,
                "the state folder",
            ),
            (gateway.admin != self.gateway.admin, "[admin]"),
            (settings(&gateway) != settings(&self.gateway), "[fpm]"),
            (gateway.ike != self.gateway.ike, "[ike]"),
        ] {
            if changed {
                warn!("{what} changed: that takes effect at the next start");
            }
        }
        if !self.installer.has_learned() {
            if !dry_run {
                self.move_endpoint(&gateway)?;
                self.gateway = gateway;
                self.mirror.set_scope(self.installer.scope(&self.gateway));
                self.fpm.set_rules(rules(&self.gateway));
                self.last_reload = Some(Ok(()));
                self.config_taken = SystemTime::now();
            }
            return Ok(Some("taken; the dataplane is away and will be told".into()));
        }
        let plan = self.installer.plan(&gateway);
        let fresh: Vec<_> = plan
            .refusals
            .iter()
            .flat_map(|(tunnel, reasons)| reasons.iter().map(move |reason| (tunnel, reason)))
            .filter(|(tunnel, reason)| {
                !self
                    .installer
                    .refusals()
                    .get(*tunnel)
                    .is_some_and(|known| known.contains(reason))
            })
            .map(|(tunnel, reason)| format!("tunnel {tunnel:?}: {reason}"))
            .collect();
        if !fresh.is_empty() {
            return Err((ExitCode::Refused, fresh.join("\n")));
        }
        if dry_run {
            return Ok(Some("it would be taken".into()));
        }
        self.move_endpoint(&gateway)?;
        let committed = match self.installer.commit(plan, &mut self.desired) {
            Ok(committed) => committed,
            Err(fault) => {
                self.move_endpoint_back();
                return Err((ExitCode::Refused, fault.to_string()));
            }
        };
        let previous = std::mem::replace(&mut self.gateway, gateway);
        self.mirror.set_scope(self.installer.scope(&self.gateway));
        self.fpm.set_rules(rules(&self.gateway));
        self.reload = Some(PendingReload {
            previous,
            stale: committed.stale,
            awaited: committed.changed,
            failures: Vec::new(),
            replies: None,
            deadline: Instant::now() + LIMIT,
            is_asked_again: false,
        });
        Ok(None)
    }

    /// Ends a reload that was acknowledged or refused, or whose dataplane went away.
    pub(super) fn settle_reload(&mut self) {
        let is_failed = self
            .reload
            .as_ref()
            .is_some_and(|reload| !reload.failures.is_empty());
        // The kernel's changes go on meanwhile: only the reload's own objects are waited for.
        let is_taken = self
            .reload
            .as_ref()
            .is_some_and(|reload| reload.awaited.is_empty());
        if self.reload.is_none() || !(is_failed || is_taken || self.link.is_none()) {
            return;
        }
        let Some(reload) = self.reload.take() else { return };
        if is_failed {
            self.roll_back(reload, ExitCode::Refused);
            return;
        }
        for object in reload.stale {
            if !self.installer.wants(&object) {
                self.desired.remove(object);
            }
        }
        // The kernel's own routes come back where the configuration no longer decides.
        self.ports
            .retain(|interface, _| self.gateway.ports.iter().any(|port| port.interface == *interface));
        self.mirror.set_scope(self.installer.scope(&self.gateway));
        self.fpm.set_rules(rules(&self.gateway));
        self.configure_ike();
        self.last_reload = Some(Ok(()));
        self.config_taken = SystemTime::now();
        info!(
            ports = self.gateway.ports.len(),
            tunnels = self.gateway.tunnels.len(),
            "reloaded"
        );
        finish(reload.replies.as_ref(), ExitCode::Done, "reloaded".into());
        if reload.is_asked_again {
            self.begin_reload(None, false);
        }
    }

    pub(super) fn reload_deadline(&mut self) {
        if self
            .reload
            .as_ref()
            .is_some_and(|reload| reload.deadline <= Instant::now())
            && let Some(mut reload) = self.reload.take()
        {
            reload
                .failures
                .push(format!("the dataplane did not acknowledge within {LIMIT:?}"));
            self.roll_back(reload, ExitCode::TimedOut);
        }
    }

    /// Serves metrics as `gateway` says.
    fn move_endpoint(&mut self, gateway: &Gateway) -> Result<(), (ExitCode, String)> {
        self.endpoint
            .set(gateway.metrics.as_ref())
            .map_err(|fault| (ExitCode::Refused, format!("the metrics endpoint: {fault}")))
    }

    /// Serves metrics as before a reload that failed.
    fn move_endpoint_back(&mut self) {
        if let Err(fault) = self.endpoint.set(self.gateway.metrics.as_ref()) {
            error!(error = %fault, "the metrics endpoint cannot go back to its old settings");
        }
    }

    fn roll_back(&mut self, reload: PendingReload, code: ExitCode) {
        self.gateway = reload.previous;
        self.move_endpoint_back();
        let plan = self.installer.plan(&self.gateway);
        match self.installer.commit(plan, &mut self.desired) {
            Ok(committed) => {
                for object in committed.stale {
                    self.desired.remove(object);
                }
            }
            Err(fault) => error!(error = %fault, "going back to the old configuration failed"),
        }
        self.mirror.set_scope(self.installer.scope(&self.gateway));
        self.fpm.set_rules(rules(&self.gateway));
        let message = format!(
            "the dataplane refused it, and the old configuration stands:\n{}",
            reload.failures.join("\n")
        );
        error!("reload failed: {message}");
        self.last_reload = Some(Err(message.clone()));
        finish(reload.replies.as_ref(), code, message);
    }
}

fn finish(replies: Option<&Replies>, code: ExitCode, message: String) {
    if let Some(replies) = replies {
        replies.end(code, Some(message));
    }
}
