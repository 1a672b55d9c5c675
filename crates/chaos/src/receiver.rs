//! The tenants' endpoints: one port, a path for each subscription.
//!
//! It speaks just as much HTTP/1.1 as it needs to have the socket in its own hands: only so can it reset a
//! connection or leave it without an answer. What a request is answered follows from the seed, the event and how
//! often it has come, so that the same seed fails the same deliveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::Result;
use crate::journal::{Answer, Arrival, Journal, number_in};
use crate::load::nature::{Nature, Temper};
use crate::peer::Peers;

/// Longer than every subscription's timeout.
const HANG: Duration = Duration::from_secs(12);

/// What the receiver knows of a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    pub nature: Nature,
    /// Whether it gets bodies as they were sent.
    pub raw: bool,
}

pub struct Receiver {
    pub endpoints: Vec<Endpoint>,
    pub temper: Temper,
    pub peers: Peers,
    pub journal: Arc<Journal>,
    pub clock: Clock,
}

struct Request {
    path: String,
    webhook_id: Option<Uuid>,
    body: Vec<u8>,
}

/// Binds; the port is needed before the subscriptions that name it can be made.
pub async fn bind() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Receiver {
    /// Answers for as long as it is polled.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            if let Ok((stream, peer)) = listener.accept().await {
                let receiver = Arc::clone(&self);
                tokio::spawn(async move {
                    // A worker that was killed in the middle of a request is what this is about.
                    let _ = receiver.serve(stream, peer.port()).await;
                });
            }
        }
    }

    async fn serve(&self, stream: TcpStream, port: u16) -> std::io::Result<()> {
        let worker = self.peers.at(port).await;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream).await? {
            let at = self.clock.now();
            let subscription: Option<u16> = request.path.trim_start_matches('/').parse().ok();
            let (Some(subscription), Some(number)) = (subscription, number_in(&request.body)) else {
                self.journal.stray(format!("a request to {} that is none of ours", request.path));
                return Ok(());
            };
            let Some(endpoint) = self.endpoints.get(usize::from(subscription)) else { return Ok(()) };
            if endpoint.raw {
                self.compare(number, subscription, &request.body);
            }
            let (fate, times) = self.journal.history(number, subscription).unwrap_or_default();
            let answer = endpoint.nature.answer(self.temper, subscription, fate, times);
            let arrival = Arrival { subscription, worker, answer, at, answered: at };
            let place = self.journal.arrived(number, request.webhook_id, arrival);
            let go_on = respond(&mut stream, answer).await;
            if let Some(place) = place {
                self.journal.answered(number, place, self.clock.now());
            }
            if !go_on? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn compare(&self, number: u32, subscription: u16, body: &[u8]) {
        if self.journal.digest_of(number).is_some_and(|sent| sent != short_digest(body)) {
            self.journal.stray(format!("event {number} came to subscription {subscription} with another body"));
        }
    }
}

/// The first bytes of the SHA-256.
pub fn short_digest(body: &[u8]) -> [u8; 4] {
    let digest = digest(&SHA256, body);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The next request; `None` when the client is done.
async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut webhook_id) = (0, None);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or_default(),
            "webhook-id" => webhook_id = crate::api::id(value),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { path, webhook_id, body }))
}

/// Whether another request may follow on the connection.
async fn respond(stream: &mut BufReader<TcpStream>, answer: Answer) -> std::io::Result<bool> {
    match answer {
        Answer::Status(status) => {
            let text = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n");
            stream.get_mut().write_all(text.as_bytes()).await?;
            Ok(true)
        }
        Answer::Hang => {
            // Until the worker has had enough.
            let _ = tokio::time::timeout(HANG, stream.read_u8()).await;
            Ok(false)
        }
        Answer::Reset => {
            // Closing without lingering resets.
            stream.get_mut().set_zero_linger()?;
            Ok(false)
        }
    }
}
