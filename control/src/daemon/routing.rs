//! What the configuration says about routes and labels from FRR.

use super::supervisor::Daemon;
use crate::admin::{ExitCode, Frame, Replies};
use crate::config::Gateway;
use crate::fpm::{Rules, Settings};

/// Where FRR is listened to.
pub(super) fn settings(gateway: &Gateway) -> Option<Settings> {
    gateway.fpm.map(|fpm| Settings {
        listen: fpm.listen,
        stale: fpm.stale,
    })
}

/// What is taken over of what it says.
pub(super) fn rules(gateway: &Gateway) -> Rules {
    Rules {
        leaks: gateway.imports.clone(),
        labels: gateway
            .labels
            .iter()
            .filter(|label| label.space == southbound::LabelSpaceId::PLATFORM)
            .map(|label| label.label)
            .collect(),
        routes: gateway
            .routes
            .iter()
            .map(|route| (route.vrf, route.prefix))
            .chain(
                gateway
                    .tunnels
                    .iter()
                    .flat_map(|tunnel| tunnel.routes.iter().map(|prefix| (tunnel.inner_vrf, *prefix))),
            )
            .collect(),
        ttl: gateway.fpm.map(|fpm| fpm.ttl).unwrap_or_default(),
    }
}

impl Daemon {
    pub(super) fn show_fpm(&self, replies: &Replies) {
        match self.fpm.record() {
            Some(record) => {
                if replies.send(Frame::Records(vec![record])) {
                    replies.end(ExitCode::Done, None);
                }
            }
            None => replies.end(
                ExitCode::NotFound,
                Some("FRR is not listened to: the configuration has no [fpm]".into()),
            ),
        }
    }
}
