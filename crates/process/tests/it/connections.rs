//! Connections that end, and answers of servers of the old kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use posthorn_core::outcome::Attempted;
use posthorn_process::sender::{Answered, Sender};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::attempt::{attempt, code, sender, subscription};
use crate::tls::{Authority, with_tls};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Serves each connection with `serve`, which is told how many came before it, and counts requests.
async fn server<F>(serve: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, Arc::clone(&counted)));
        }
    });
    (url, requests)
}

/// Reads one request; false when the connection ended.
async fn read_request(connection: &mut TcpStream, requests: &AtomicUsize) -> bool {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
        // The body is `{"type":…,"data":{}}`.
        if read.ends_with(b"{}}") {
            requests.fetch_add(1, Ordering::SeqCst);
            return true;
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_gone_costs_no_attempt() {
    // Keeps a connection as HTTP/1.1 does, and closes it without a byte when it is used again.
    let (url, requests) = server(|mut connection, requests| async move {
        if read_request(&mut connection, &requests).await {
            connection.write_all(OK.as_bytes()).await.unwrap();
            read_request(&mut connection, &requests).await;
        }
    })
    .await;
    let (sender, subscription) = (sender(), subscription(&url));
    for number in 1..=4 {
        let answered = attempt(&sender, &subscription).await;
        assert_eq!(answered.attempted, Attempted::Accepted, "attempt {number}: {:?}", answered.error);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 6, "the second and the fourth found a connection that was gone");
}

#[tokio::test]
async fn many_attempts_at_once_lose_none_to_kept_connections() {
    let (url, _) = server(|mut connection, requests| async move {
        if read_request(&mut connection, &requests).await {
            connection.write_all(OK.as_bytes()).await.unwrap();
            read_request(&mut connection, &requests).await;
        }
    })
    .await;
    let mut settings = crate::attempt::settings();
    settings.idle_connections = 100;
    let sender = Sender::new(&settings, crate::attempt::local()).unwrap();
    let one_after_another = |_| {
        let (sender, subscription) = (sender.clone(), subscription(&url));
        tokio::spawn(async move {
            for _ in 0..20 {
                let answered = attempt(&sender, &subscription).await;
                assert_eq!(answered.attempted, Attempted::Accepted, "{:?}", answered.error);
            }
        })
    };
    for attempts in (0..16).map(one_after_another).collect::<Vec<_>>() {
        attempts.await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_down_over_a_request_is_asked_once() {
    let (url, requests) = server(|mut connection, requests| async move {
        read_request(&mut connection, &requests).await;
    })
    .await;
    let answered = attempt(&sender(), &subscription(&url)).await;
    assert_eq!(code(&answered), "protocol_error");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_that_resets_a_kept_connection_over_a_request_is_asked_once() {
    let (url, requests) = server(|mut connection, requests| async move {
        if read_request(&mut connection, &requests).await {
            connection.write_all(OK.as_bytes()).await.unwrap();
            read_request(&mut connection, &requests).await;
            // Closing without lingering resets.
            connection.set_zero_linger().unwrap();
        }
    })
    .await;
    let (sender, subscription) = (sender(), subscription(&url));
    assert_eq!(attempt(&sender, &subscription).await.attempted, Attempted::Accepted);
    let answered = attempt(&sender, &subscription).await;
    assert_ne!(answered.attempted, Attempted::Accepted, "each request at an endpoint is an attempt on record");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn answers_of_servers_of_the_old_kind_are_read() {
    let many: String = (0..200).map(|number| format!("X-{number}: v\r\n")).collect();
    for lines in ["X-Long: a\r\n b\r\n", "X-Old : a\r\n", &many] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
        let (url, _) = server(move |mut connection, requests| {
            let answer = answer.clone();
            async move {
                read_request(&mut connection, &requests).await;
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let answered = attempt(&sender(), &subscription(&url)).await;
        assert_eq!(answered.attempted, Attempted::Accepted, "{:.20}: {:?}", lines, answered.error);
    }
}

/// One attempt at an HTTP/2 server that treats the first request as `refuse` does.
async fn after_a_refusal(refuse: fn(h2::server::SendResponse<Bytes>, &mut Connection)) -> (Answered, usize) {
    let authority = Authority::new();
    let mut config = authority.server(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (url, requests) = server(move |connection, requests| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = h2::server::handshake(acceptor.accept(connection).await.unwrap()).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                if requests.fetch_add(1, Ordering::SeqCst) == 0 {
                    refuse(respond, &mut connection);
                } else {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            }
        }
    })
    .await;
    let subscription = with_tls(&url.replace("http:", "https:"), Some(authority.pem()), None);
    let answered = attempt(&sender(), &subscription).await;
    (answered, requests.load(Ordering::SeqCst))
}

type Connection = h2::server::Connection<tokio_rustls::server::TlsStream<TcpStream>, Bytes>;

#[tokio::test]
async fn a_stream_that_an_http2_server_refuses_costs_no_attempt() {
    let (answered, requests) = after_a_refusal(|mut respond, _| respond.send_reset(h2::Reason::REFUSED_STREAM)).await;
    assert_eq!(answered.attempted, Attempted::Accepted, "{:?}", answered.error);
    assert_eq!(requests, 2);
}

#[tokio::test]
async fn a_stream_that_an_http2_server_breaks_off_is_a_failed_attempt() {
    let (answered, requests) = after_a_refusal(|mut respond, _| respond.send_reset(h2::Reason::INTERNAL_ERROR)).await;
    assert_eq!(code(&answered), "protocol_error");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_stream_that_an_http2_server_says_goodbye_to_costs_no_attempt() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The last stream that was read is 0, so none was.
    const GOODBYES: [[u8; 17]; 2] =
        [[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]];
    for goodbye in GOODBYES {
        let authority = Authority::new();
        let mut config = authority.server(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (url, connections) = server(move |connection, connections| {
            let acceptor = acceptor.clone();
            async move {
                let mut connection = acceptor.accept(connection).await.unwrap();
                if connections.fetch_add(1, Ordering::SeqCst) == 0 {
                    connection.write_all(&SETTINGS).await.unwrap();
                    let mut read = vec![0; 4096];
                    // The preface, settings and the request's headers.
                    while connection.read(&mut read).await.unwrap() < 100 {}
                    connection.write_all(&goodbye).await.unwrap();
                    let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
                    return;
                }
                let mut connection = h2::server::handshake(connection).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            }
        })
        .await;
        let subscription = with_tls(&url.replace("http:", "https:"), Some(authority.pem()), None);
        let answered = attempt(&sender(), &subscription).await;
        assert_eq!(answered.attempted, Attempted::Accepted, "{:?}", answered.error);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}
