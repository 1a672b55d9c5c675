//! The wire between the services and a server: bytes pass, come late, stop, or everything is cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Whatever goes to the server comes so much later: about once for each statement.
    Late(Duration),
    /// Nothing passes, and nobody is told.
    Silent,
}

/// A listener that passes on to a server on this machine.
pub struct Wire {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    /// Counts how often everything was cut.
    cuts: Arc<watch::Sender<u64>>,
}

impl Wire {
    pub async fn lay(server: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let cuts = Arc::new(watch::Sender::new(0));
        let wire = Self { port, mode: Arc::clone(&mode), cuts: Arc::clone(&cuts) };
        tokio::spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    let (mode, mut cuts) = (mode.subscribe(), cuts.subscribe());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = cuts.changed() => {}
                            _ = join(client, server, mode) => {}
                        }
                    });
                }
            }
        });
        Ok(wire)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    pub fn delay(&self, by: Duration) {
        self.mode.send_replace(Mode::Late(by));
    }

    pub fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Ends every connection there is.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }
}

/// Until either side is done.
async fn join(client: TcpStream, server: u16, mut mode: watch::Receiver<Mode>) -> std::io::Result<()> {
    let _ = mode.wait_for(|mode| *mode != Mode::Silent).await;
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = carry(from_client, to_server, mode.clone(), true) => ended,
        ended = carry(from_server, to_client, mode, false) => ended,
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    is_request: bool,
) -> std::io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let now = *mode.borrow();
        match now {
            Mode::Late(by) if is_request => tokio::time::sleep(by).await,
            Mode::Silent => drop(mode.wait_for(|mode| *mode != Mode::Silent).await),
            Mode::Late(_) | Mode::Pass => {}
        }
        to.write_all(&chunk[..length]).await?;
    }
}
