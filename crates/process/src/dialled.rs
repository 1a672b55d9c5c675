//! Requests that no endpoint has processed.
//!
//! A connection that is kept may be given up by the other side at any moment, which shows only when it is used again: it
//! ends without a byte of an answer. An HTTP/2 server may refuse a stream, or say goodbye before it has read it. None of
//! that says anything of the endpoint, so such a request is made once more, on a connection of its own.
//!
//! On a new connection the same end may mean that the endpoint broke down over the request. So it has to be known which
//! kind of connection a request went out on, which the client does not tell: a connector notes when the request's own task
//! dials.

use std::error::Error;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// Whether the request of this task has got a connection that it dialled itself.
    static DIALLED: Arc<AtomicBool>;
}

/// Makes a request, and tells whether it went out on a new connection. The client has to have [`Noted`] as a layer.
pub async fn noted<T>(request: impl Future<Output = T>) -> (T, bool) {
    let dialled = Arc::new(AtomicBool::new(false));
    let answer = DIALLED.scope(Arc::clone(&dialled), request).await;
    (answer, dialled.load(Ordering::Relaxed))
}

/// The layer of a client's connector that notes what was dialled.
#[derive(Clone, Copy, Debug)]
pub struct Noted;

impl<S> Layer<S> for Noted {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

/// A connector that notes what it dials.
#[derive(Clone, Debug)]
pub struct Connector<S>(S);

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let dialling = self.0.call(request);
        Box::pin(async move {
            let connection = dialling.await?;
            // Where a kept connection was given back meanwhile, the request has that one, and this goes on elsewhere.
            let _ = DIALLED.try_with(|dialled| dialled.store(true, Ordering::Relaxed));
            Ok(connection)
        })
    }
}

/// Whether a request that failed with `error` is to be sent again at once, without using up an attempt: the server said
/// that it has not processed it (RFC 9113, 6.8 and 8.7), or it closed a kept connection, without a reset, before any of
/// the answer came, which nearly always means that it had closed it while it was idle (RFC 9112, 9.3.1). In the second
/// case a server that ends while it processes the request gets it twice, as it may with any retry. `is_new`: whether
/// the connection was opened for this request.
pub fn is_unprocessed(error: &reqwest::Error, is_new: bool) -> bool {
    if error.is_timeout() || error.is_connect() || error.is_body() {
        return false;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>()
            && error.is_remote()
            // A server that says goodbye tells which streams it has read; this error is for the others.
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        {
            return true;
        }
        if !is_new && is_gone(inner) {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn is_gone(error: &(dyn Error + 'static)) -> bool {
    // A reset is not among them: a server that resets a connection which it had not closed may have read the request.
    const GONE: [ErrorKind; 2] = [ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    let by_client = error.downcast_ref::<hyper::Error>();
    let by_system = error.downcast_ref::<std::io::Error>();
    by_client.is_some_and(|error| error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        || by_system.is_some_and(|error| GONE.contains(&error.kind()))
}
