//! The metrics endpoint, which a reload may open, change and close.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::Metrics;
use crate::exporter::{self, Credentials, Endpoint, Scrapes};

/// What serves, where anything does.
#[derive(Debug)]
pub(super) struct MetricsEndpoint {
    settings: Option<Metrics>,
    listener: Option<Arc<TcpListener>>,
    task: Option<JoinHandle<()>>,
    scrapes: Scrapes,
}

impl MetricsEndpoint {
    /// Serves as `settings` says; within the runtime.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub(super) fn open(settings: Option<&Metrics>, scrapes: Scrapes) -> io::Result<Self> {
        let mut endpoint = Self {
            settings: None,
            listener: None,
            task: None,
            scrapes,
        };
        endpoint.set(settings)?;
        Ok(endpoint)
    }

    /// Serves as `settings` says from now on; requests under way are answered as before.
    ///
    /// # Errors
    /// Where the address, a certificate or the password cannot be had: then all stays as it was.
    pub(super) fn set(&mut self, settings: Option<&Metrics>) -> io::Result<()> {
        if settings == self.settings.as_ref() {
            return Ok(());
        }
        let (mut listener, mut task) = (None, None);
        if let Some(metrics) = settings {
            let is_same_place = self
                .settings
                .as_ref()
                .is_some_and(|before| before.listen == metrics.listen);
            let place = match &self.listener {
                Some(listener) if is_same_place => Arc::clone(listener),
                _ => Arc::new(exporter::listen(metrics.listen)?),
            };
            let endpoint = Endpoint {
                listener: Arc::clone(&place),
                tls: metrics.tls.as_ref().map(exporter::acceptor).transpose()?,
                credentials: metrics
                    .user
                    .as_ref()
                    .map(|user| Credentials::read(&user.user, &user.password_file))
                    .transpose()?,
                max_tunnel_series: metrics.max_tunnel_series,
                scrapes: self.scrapes.clone(),
            };
            listener = Some(place);
            task = Some(tokio::spawn(endpoint.serve()));
        }
        if let Some(before) = std::mem::replace(&mut self.task, task) {
            before.abort();
        }
        self.listener = listener;
        self.settings = settings.cloned();
        Ok(())
    }
}
