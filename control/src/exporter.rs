//! The metrics endpoint: Prometheus text over HTTP, made anew at each scrape.
//!
//! Only `GET` and `HEAD` of `/metrics` are answered. Clients are few and have little time, so that a slow
//! one keeps nobody from anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder};
use southbound::{CopyMode, DropReason, PortPhase, PortStatus, WorkerCounter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

use crate::netlink::Statistics;
use crate::plane::WorkerBlock;

/// Most scrapes at once.
const MAX_CLIENTS: usize = 8;

/// Longest request head in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;

const LIMIT: Duration = Duration::from_secs(5);

/// What a scrape shows.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The workers' counters; empty without a dataplane.
    pub blocks: Vec<WorkerBlock>,
    /// The ports as last reported.
    pub ports: Vec<PortStatus>,
    /// Whether the dataplane is there and told everything.
    pub is_dataplane_up: bool,
    /// The generation that the dataplane is told.
    pub generation: u64,
    /// Tunnels of the configuration.
    pub tunnels: u64,
    /// Those with SAs that are refused.
    pub refused_tunnels: u64,
    /// SAs of the dataplane, inbound and outbound.
    pub sas: [u64; 2],
    /// Routes of IPv4 and IPv6.
    pub routes: [u64; 2],
    /// Neighbours.
    pub neighbours: u64,
    /// What the netlink mirror went through.
    pub netlink: Statistics,
    /// Whether the last reload, or the start, succeeded.
    pub is_reload_good: bool,
    /// When the configuration was last taken, in seconds of the epoch.
    pub reload_seconds: f64,
}

/// The way of a scrape to the daemon.
pub type Scrapes = mpsc::Sender<oneshot::Sender<Snapshot>>;

/// Listens; within the runtime.
///
/// # Errors
/// Where the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves scrapes for ever.
pub async fn serve(listener: TcpListener, scrapes: Scrapes) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let scrapes = scrapes.clone();
                tokio::spawn(async move {
                    match tokio::time::timeout(LIMIT, client(stream, &scrapes)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "a scrape was broken off"),
                        Err(_) => debug!("a scrape took too long"),
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

async fn client(mut stream: TcpStream, scrapes: &Scrapes) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if head.len() > MAX_HEAD_BYTES {
            return answer(&mut stream, "431 Request Header Fields Too Large", "", b"", true).await;
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if method != b"GET" && method != b"HEAD" {
        return answer(
            &mut stream,
            "405 Method Not Allowed",
            "Allow: GET, HEAD\r\n",
            b"",
            true,
        )
        .await;
    }
    if path != b"/metrics" {
        return answer(&mut stream, "404 Not Found", "", b"", true).await;
    }
    let (sender, snapshot) = oneshot::channel();
    let asked = scrapes.send(sender).await;
    let (Ok(()), Ok(snapshot)) = (asked, snapshot.await) else {
        return answer(&mut stream, "503 Service Unavailable", "", b"", true).await;
    };
    let body = render(&snapshot).map_err(io::Error::other)?;
    let kind = format!("Content-Type: {TEXT_FORMAT}\r\n");
    answer(&mut stream, "200 OK", &kind, &body, method == b"GET").await
}

async fn answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &str,
    body: &[u8],
    with_body: bool,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body).await?;
    }
    stream.shutdown().await
}

/// A registry of one scrape.
struct Families(Registry);

impl Families {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(format!("penstock_{name}"), help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Opts::new(format!("penstock_{name}"), help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.gauges(name, help, &[])?
            .with_label_values::<&str>(&[])
            .set(value);
        Ok(())
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        self.counters(name, help, &[])?
            .with_label_values::<&str>(&[])
            .inc_by(value);
        Ok(())
    }

    fn seconds(&self, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
        let family = GaugeVec::new(Opts::new(format!("penstock_{name}"), help), &[])?;
        family.with_label_values::<&str>(&[]).set(value);
        self.0.register(Box::new(family))
    }
}

/// The text of a scrape.
fn render(snapshot: &Snapshot) -> Result<Vec<u8>, prometheus::Error> {
    let families = Families(Registry::new());
    gateway(&families, snapshot)?;
    traffic(&families, &snapshot.blocks)?;
    workers(&families, &snapshot.blocks)?;
    ports(&families, &snapshot.ports)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.0.gather(), &mut text)?;
    Ok(text)
}

fn gateway(families: &Families, snapshot: &Snapshot) -> Result<(), prometheus::Error> {
    families
        .gauges("build_info", "Always 1; the labels tell what runs.", &["version"])?
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    families.gauge(
        "dataplane_up",
        "Whether the dataplane is connected and holds what it should.",
        snapshot.is_dataplane_up.into(),
    )?;
    families.gauge(
        "dataplane_generation",
        "The generation that the dataplane is told.",
        snapshot.generation,
    )?;
    families.gauge(
        "tunnels_configured",
        "Tunnels of the configuration.",
        snapshot.tunnels,
    )?;
    families.gauge(
        "tunnels_refused",
        "Tunnels with SAs that are not installed.",
        snapshot.refused_tunnels,
    )?;
    let sas = families.gauges("sad_entries", "SAs of the dataplane.", &["direction"])?;
    for (direction, count) in ["in", "out"].iter().zip(snapshot.sas) {
        sas.with_label_values(&[direction])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let routes = families.gauges("fib_routes", "Routes of the dataplane.", &["family"])?;
    for (family, count) in ["4", "6"].iter().zip(snapshot.routes) {
        routes
            .with_label_values(&[family])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    families.gauge("neighbours", "Neighbours of the dataplane.", snapshot.neighbours)?;
    let netlink = &snapshot.netlink;
    families.counter(
        "netlink_overruns_total",
        "Times the kernel could not queue a netlink event.",
        netlink.overruns,
    )?;
    families.counter(
        "netlink_resyncs_total",
        "Complete dumps of the kernel's tables.",
        netlink.resyncs,
    )?;
    families.counter(
        "netlink_route_resyncs_total",
        "Dumps of the kernel's routes only.",
        netlink.route_resyncs,
    )?;
    families.seconds(
        "netlink_resync_duration_seconds",
        "How long the last complete dump took.",
        netlink.last_resync_ms as f64 / 1000.0,
    )?;
    families.gauge(
        "config_last_reload_successful",
        "Whether the last reload was taken.",
        snapshot.is_reload_good.into(),
    )?;
    families.seconds(
        "config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken.",
        snapshot.reload_seconds,
    )
}

fn traffic(families: &Families, blocks: &[WorkerBlock]) -> Result<(), prometheus::Error> {
    let sum = |counter| blocks.iter().map(|block| block.worker(counter)).sum::<u64>();
    let packets = families.counters("esp_packets_total", "ESP packets.", &["direction"])?;
    let bytes = families.counters(
        "esp_bytes_total",
        "Bytes of the packets inside ESP packets.",
        &["direction"],
    )?;
    for (direction, of_packets, of_bytes) in [
        ("in", WorkerCounter::EspInPackets, WorkerCounter::EspInBytes),
        ("out", WorkerCounter::EspOutPackets, WorkerCounter::EspOutBytes),
    ] {
        packets.with_label_values(&[direction]).inc_by(sum(of_packets));
        bytes.with_label_values(&[direction]).inc_by(sum(of_bytes));
    }
    let drops = families.counters("drop_packets_total", "Packets dropped.", &["stage", "reason"])?;
    for reason in DropReason::ALL {
        drops
            .with_label_values(&[reason.stage().name(), reason.name()])
            .inc_by(blocks.iter().map(|block| block.drops(*reason)).sum());
    }
    families.counter(
        "policy_bypass_packets_total",
        "Packets that a rule let pass in clear.",
        sum(WorkerCounter::PolicyBypass),
    )?;
    let mpls = families.counters("mpls_packets_total", "Label operations.", &["operation"])?;
    for (operation, counter) in [
        ("push", WorkerCounter::MplsPush),
        ("swap", WorkerCounter::MplsSwap),
        ("pop", WorkerCounter::MplsPop),
    ] {
        mpls.with_label_values(&[operation]).inc_by(sum(counter));
    }
    Ok(())
}

fn workers(families: &Families, blocks: &[WorkerBlock]) -> Result<(), prometheus::Error> {
    let busy = prometheus::CounterVec::new(
        Opts::new(
            "penstock_worker_busy_seconds_total",
            "Time in rounds that found work.",
        ),
        &["worker"],
    )?;
    families.0.register(Box::new(busy.clone()))?;
    let polls = families.counters("worker_polls_total", "Rounds of the loop.", &["worker", "result"])?;
    let packets = families.counters(
        "worker_packets_total",
        "Packets by where they came from or went.",
        &["worker", "way"],
    )?;
    let frames = families.gauges("umem_frames", "Frames by where they are.", &["worker", "state"])?;
    for (number, block) in blocks.iter().enumerate() {
        let worker = number.to_string();
        busy.with_label_values(&[&worker])
            .inc_by(block.worker(WorkerCounter::BusyNanoseconds) as f64 / 1e9);
        let empty = block.worker(WorkerCounter::PollsEmpty);
        polls.with_label_values(&[worker.as_str(), "empty"]).inc_by(empty);
        polls
            .with_label_values(&[worker.as_str(), "full"])
            .inc_by(block.worker(WorkerCounter::Polls).saturating_sub(empty));
        for (way, counter) in [
            ("received", WorkerCounter::Received),
            ("transmitted", WorkerCounter::Transmitted),
            ("from_host", WorkerCounter::FromHost),
            ("to_host", WorkerCounter::ToHost),
            ("generated", WorkerCounter::Generated),
            ("absorbed", WorkerCounter::Absorbed),
        ] {
            packets
                .with_label_values(&[worker.as_str(), way])
                .inc_by(block.worker(counter));
        }
        for (state, counter) in [
            ("free", WorkerCounter::FramesFree),
            ("fill", WorkerCounter::FramesFill),
            ("transmit", WorkerCounter::FramesTransmit),
            ("held", WorkerCounter::FramesHeld),
        ] {
            frames
                .with_label_values(&[worker.as_str(), state])
                .set(i64::try_from(block.worker(counter)).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}

fn ports(families: &Families, ports: &[PortStatus]) -> Result<(), prometheus::Error> {
    let up = families.gauges("device_link_up", "Whether the port carries traffic.", &["device"])?;
    let rebinds = families.counters(
        "device_rebinds_total",
        "Times the port was bound anew.",
        &["device"],
    )?;
    let zero_copy = families.gauges(
        "xsk_zero_copy",
        "Whether the queue was granted zero-copy.",
        &["device", "queue"],
    )?;
    for port in ports {
        let device = port.interface.as_str();
        up.with_label_values(&[device])
            .set((port.phase == PortPhase::Up).into());
        rebinds.with_label_values(&[device]).inc_by(port.rebinds);
        for (queue, mode) in port.queues.iter().enumerate() {
            zero_copy
                .with_label_values(&[device, &queue.to_string()])
                .set((*mode == CopyMode::ZeroCopy).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_is_exported_before_it_ever_happens() {
        let text = String::from_utf8(render(&Snapshot::default()).unwrap()).unwrap();
        for reason in DropReason::ALL {
            let line = format!(
                "penstock_drop_packets_total{{reason=\"{}\",stage=\"{}\"}} 0",
                reason.name(),
                reason.stage().name()
            );
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("penstock_dataplane_up 0"));
        assert!(
            text.lines()
                .all(|line| line.starts_with('#') || line.starts_with("penstock_"))
        );
    }
}
