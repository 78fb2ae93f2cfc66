//! What the service manager hears of the loop: that it runs, and that it comes round.

use std::time::Instant;

use service::ServiceManager;
use tracing::warn;

/// The service manager, and when it is told next.
pub(super) struct Pulse {
    service: ServiceManager,
    next: Instant,
}

impl Pulse {
    /// Says that the daemon is ready.
    pub(super) fn start() -> Self {
        let service = ServiceManager::from_environment().unwrap_or_else(|error| {
            warn!(%error, "the service manager cannot be told anything");
            ServiceManager::default()
        });
        service.ready();
        Self {
            service,
            next: Instant::now(),
        }
    }

    /// The loop came round.
    pub(super) fn beat(&mut self) {
        if let Some(interval) = self.service.alive_interval()
            && Instant::now() >= self.next
        {
            self.service.alive();
            self.next = Instant::now() + interval / 2;
        }
    }

    /// Around a reload that was asked for by a signal: what the file says is taken or refused when it is over, and the
    /// objects follow on their way.
    pub(super) fn reload(&self, reload: impl FnOnce()) {
        self.service.reloading();
        reload();
        self.service.ready();
    }

    /// The daemon ends.
    pub(super) fn stop(&self) {
        self.service.stopping();
    }
}
