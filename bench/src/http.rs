//! Requests to a gateway's HTTP endpoint, from within its namespace.

use crate::namespace::{CommandError, Namespace};

/// What `path` answers, without its headers; the endpoint listens at its default address.
///
/// # Errors
/// [`CommandError`] where curl says so, or the answer is not 200.
pub fn get(namespace: &Namespace, path: &str) -> Result<String, CommandError> {
    namespace.run(&format!(
        "curl --silent --show-error --fail --max-time 10 http://127.0.0.1:9185{path}"
    ))
}

/// The value of one series in Prometheus text.
#[must_use]
pub fn series(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
