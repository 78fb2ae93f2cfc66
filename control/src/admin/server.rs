//! The daemon's end of the admin socket.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, geteuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use super::protocol::{ExitCode, Frame, MAX_REQUEST_BYTES, Request};
use crate::config::Admin;

/// Most clients at once; more wait in the socket's backlog.
const MAX_CLIENTS: usize = 16;

/// Most frames that wait for one client.
const MAX_WAITING_FRAMES: usize = 1024;

const REQUEST_LIMIT: Duration = Duration::from_secs(5);
const FRAME_LIMIT: Duration = Duration::from_secs(5);

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Look.
    Read,
    /// Look and change.
    Admin,
}

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub request: Request,
    /// By whom.
    pub role: Role,
    /// Where the answer goes.
    pub replies: Replies,
}

/// The way of an answer to its client; never blocks.
#[derive(Clone, Debug)]
pub struct Replies(mpsc::Sender<Frame>);

impl Replies {
    /// Hands a frame over. `false`: the client is gone, or too slow and hence dropped.
    #[must_use]
    pub fn send(&self, frame: Frame) -> bool {
        self.0.try_send(frame).is_ok()
    }

    /// Whether the client is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Hands the last frame over.
    pub fn end(&self, code: ExitCode, message: Option<String>) {
        // A client that is gone needs no end.
        let _ = self.send(Frame::End { code, message });
    }
}

/// The listening socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    admins: Arc<Vec<Uid>>,
    path: std::path::PathBuf,
}

impl Server {
    /// Listens at the configured path with mode 0660. A socket that nobody answers at is replaced.
    ///
    /// # Errors
    /// Where somebody answers there, the group or a user is unknown, or the kernel says no.
    pub fn open(configuration: &Admin) -> io::Result<Self> {
        let path = &configuration.socket;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another daemon answers at {}", path.display()),
            ));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut admins = vec![Uid::from_raw(0), geteuid()];
        for name in &configuration.users {
            admins.push(
                User::from_name(name)?
                    .ok_or_else(|| io::Error::other(format!("[admin] users: no user {name:?}")))?
                    .uid,
            );
        }
        let group = match &configuration.group {
            None => None,
            Some(name) => Some(
                Group::from_name(name)?
                    .ok_or_else(|| io::Error::other(format!("[admin] group: no group {name:?}")))?
                    .gid,
            ),
        };
        // Closed to everybody until it is as it should be.
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        nix::sys::stat::umask(mask);
        let listener = listener?;
        if let Some(group) = group.map(Gid::as_raw) {
            chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            listener,
            admins: Arc::new(admins),
            path: path.clone(),
        })
    }

    /// Serves clients for ever; their requests go to `commands`.
    pub async fn serve(self, commands: mpsc::Sender<Command>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let commands = commands.clone();
                    let admins = Arc::clone(&self.admins);
                    tokio::spawn(async move {
                        if let Err(error) = client(stream, &admins, commands).await {
                            debug!(%error, "an admin client was dropped");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "the admin socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The next daemon replaces what is left here.
        let _ = fs::remove_file(&self.path);
    }
}

async fn client(mut stream: UnixStream, admins: &[Uid], commands: mpsc::Sender<Command>) -> io::Result<()> {
    let peer = Uid::from_raw(stream.peer_cred()?.uid());
    let role = if admins.contains(&peer) {
        Role::Admin
    } else {
        Role::Read
    };
    let request = tokio::time::timeout(REQUEST_LIMIT, read_request(&mut stream)).await??;
    let (sender, mut frames) = mpsc::channel(MAX_WAITING_FRAMES);
    match request {
        Ok(request) => {
            let command = Command {
                request,
                role,
                replies: Replies(sender),
            };
            if commands.send(command).await.is_err() {
                return Ok(());
            }
        }
        Err(message) => Replies(sender).end(ExitCode::Usage, Some(message)),
    }
    let (mut reader, mut stream) = stream.into_split();
    let mut unwanted = [0; 64];
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            // One request a connection: what ends, or says more, is left.
            _ = reader.read(&mut unwanted) => break,
        };
        let Some(frame) = frame else { break };
        let is_last = matches!(frame, Frame::End { .. });
        let body = serde_json::to_vec(&frame)?;
        tokio::time::timeout(FRAME_LIMIT, async {
            stream
                .write_all(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes())
                .await?;
            stream.write_all(&body).await
        })
        .await??;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The inner error is the client's to read.
async fn read_request(stream: &mut UnixStream) -> io::Result<Result<Request, String>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length_bytes = u32::from_be_bytes(length) as usize;
    if length_bytes > MAX_REQUEST_BYTES {
        return Ok(Err(format!(
            "a request of {length_bytes} bytes exceeds the limit of {MAX_REQUEST_BYTES}"
        )));
    }
    let mut body = vec![0; length_bytes];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body).map_err(|error| format!("no request: {error}")))
}
