//! The endpoint's sockets and routes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::auth::Credentials;
use super::exposition::Form;
use super::http::{self, Request, Response};
use super::snapshot::{Scrape, Snapshot, Wanted};
use super::{metrics, page, tunnels};

/// Most clients at once.
const MAX_CLIENTS: usize = 32;

/// How long a client may take altogether.
const LIMIT: Duration = Duration::from_secs(10);

/// The way of a request to the daemon.
pub type Scrapes = mpsc::Sender<Scrape>;

/// Listens; within the runtime.
///
/// # Errors
/// Where the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// What the endpoint is made of.
pub struct Endpoint {
    /// Where it listens.
    pub listener: Arc<TcpListener>,
    /// TLS, where wanted.
    pub tls: Option<TlsAcceptor>,
    /// Who may ask, where not everybody may.
    pub credentials: Option<Credentials>,
    /// Most samples of `/metrics/tunnels`.
    pub max_tunnel_series: usize,
    /// The daemon.
    pub scrapes: Scrapes,
}

struct Site {
    credentials: Option<Credentials>,
    max_tunnel_series: usize,
    scrapes: Scrapes,
}

impl Endpoint {
    /// Serves requests for ever.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let site = Arc::new(Site {
            credentials: self.credentials,
            max_tunnel_series: self.max_tunnel_series,
            scrapes: self.scrapes,
        });
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (site, tls) = (Arc::clone(&site), self.tls.clone());
                    tokio::spawn(async move {
                        let serve = async {
                            match tls {
                                None => site.client(stream).await,
                                Some(tls) => site.client(tls.accept(stream).await?).await,
                            }
                        };
                        match tokio::time::timeout(LIMIT, serve).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => debug!(%error, "a request was broken off"),
                            Err(_) => debug!("a request took too long"),
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!(%error, "the metrics endpoint cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Site {
    async fn client(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (response, with_body) = match http::read(&mut stream).await? {
            None => return Ok(()),
            Some(Err(refusal)) => (refusal, true),
            Some(Ok(request)) => {
                let with_body = !request.is_head;
                (self.answer(request).await, with_body)
            }
        };
        response.send(&mut stream, with_body).await
    }

    async fn answer(&self, request: Request) -> Response {
        if let Some(credentials) = &self.credentials
            && !credentials.accept(&request.authorization)
        {
            return Response::line("401 Unauthorized", "a user and password are needed")
                .with_header("WWW-Authenticate: Basic realm=\"penstock\", charset=\"UTF-8\"");
        }
        let wanted = match request.path.as_str() {
            "/" => return page::document(),
            "/healthz" | "/readyz" => Wanted::Health,
            "/metrics" => Wanted::Metrics,
            "/metrics/tunnels" => Wanted::Tunnels,
            "/status.json" => Wanted::Page,
            _ => {
                return Response::line(
                    "404 Not Found",
                    "/, /metrics, /metrics/tunnels, /healthz, /readyz",
                );
            }
        };
        let (reply, snapshot) = oneshot::channel();
        let asked = self.scrapes.send(Scrape { wanted, reply }).await;
        let (Ok(()), Ok(snapshot)) = (asked, snapshot.await) else {
            return Response::line("503 Service Unavailable", "the daemon does not answer");
        };
        let max_tunnel_series = self.max_tunnel_series;
        // Ten thousand tunnels are some megabytes of text: IKE must not wait for them.
        let rendered =
            tokio::task::spawn_blocking(move || render(&request, &snapshot, max_tunnel_series)).await;
        rendered
            .unwrap_or_else(|_| Response::line("500 Internal Server Error", "the answer could not be made"))
    }
}

fn render(request: &Request, snapshot: &Snapshot, max_tunnel_series: usize) -> Response {
    let form = Form::negotiate(&request.accept);
    let body = match request.path.as_str() {
        "/healthz" => return Response::line("200 OK", "ok"),
        "/readyz" if snapshot.is_dataplane_up => return Response::line("200 OK", "ready"),
        "/readyz" => return Response::line("503 Service Unavailable", "the dataplane is not up"),
        "/status.json" => return page::data(snapshot),
        "/metrics/tunnels" => match request.connection.as_deref().map(tunnels::filter).transpose() {
            Ok(filter) => tunnels::detail(&snapshot.tunnels, filter.as_ref(), max_tunnel_series, form),
            Err(error) => return Response::line("400 Bad Request", &format!("connection: {error}")),
        },
        _ => metrics(snapshot, form),
    };
    match body {
        Ok(body) => Response::new("200 OK", form.content_type(), body),
        Err(error) => Response::line("500 Internal Server Error", &error.to_string()),
    }
}
