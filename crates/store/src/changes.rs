//! Which rows of configuration changed, as the database tells it.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{Result, Store};

/// News for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Source(Uuid),
    Subscription(Uuid),
    EventType(Uuid),
    /// Anything may have changed: at the start, after a lost connection, and every so often.
    Everything,
}

/// Longest wait between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends changes until `stop`. `Everything` comes first, again whenever the connection was lost, and
/// every `reload`, since a notification that nobody was connected for is gone.
pub async fn watch(store: Store, reload: Duration, news: mpsc::Sender<Change>, stop: CancellationToken) {
    let watching = async {
        loop {
            if let Err(error) = listen(&store, reload, &news).await {
                warn!(error = &error as &dyn std::error::Error, "lost sight of configuration changes");
            }
            if news.is_closed() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(watching).await;
}

async fn listen(store: &Store, reload: Duration, news: &mpsc::Sender<Change>) -> Result<()> {
    let (config, tls) = store.raw();
    let (client, mut connection) = config.connect(tls).await?;
    let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    let (tell, mut told) = mpsc::channel(1024);
    let reader = tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message
                && tell.send(parse(notification.payload())).await.is_err()
            {
                return;
            }
        }
    });
    // Ends the reader when this future is dropped.
    let _reader = AbortOnDrop(reader);
    let schema: String = client.query_one("SELECT current_schema()::text", &[]).await?.get(0);
    client.batch_execute(&format!("LISTEN \"posthorn_{schema}\"")).await?;
    // Whatever changed before LISTEN took effect is covered by this.
    let mut everything = tokio::time::interval(reload);
    loop {
        let change = tokio::select! {
            _ = everything.tick() => Some(Change::Everything),
            change = told.recv() => match change {
                Some(change) => change,
                None => return Ok(()),
            },
        };
        if let Some(change) = change
            && news.send(change).await.is_err()
        {
            return Ok(());
        }
    }
}

fn parse(payload: &str) -> Option<Change> {
    let (kind, id) = payload.split_once(':')?;
    let id = Uuid::try_parse(id).ok()?;
    match kind {
        "source" => Some(Change::Source(id)),
        "subscription" => Some(Change::Subscription(id)),
        "event_type" => Some(Change::EventType(id)),
        _ => {
            debug!(kind, "a change of a kind that this version does not know");
            None
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
