use std::time::Duration;

use posthorn_core::egress::Egress;
use posthorn_process::sender::Sender;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::attempt::{attempt, code, local, sender, settings, subscription};

#[tokio::test]
async fn each_reason_for_which_there_is_no_answer_has_its_own_code() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let plain_address = plain.local_addr().unwrap();
    // What no TLS client takes for the beginning of a handshake, nor any HTTP client for an answer.
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = plain.accept().await {
            let _ = connection.write_all(b"220 mail.example.com ESMTP\r\n").await;
            // To be closed with something unread would be a reset.
            let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
        }
    });

    let sender = sender();
    let told = async |url: String| {
        let mut subscription = subscription(&url);
        subscription.timeout = Duration::from_secs(1);
        code(&attempt(&sender, &subscription).await)
    };
    assert_eq!(told(format!("http://{closed}/")).await, "connection_refused");
    assert_eq!(told(format!("https://localhost:{}/", closed.port())).await, "connection_refused");
    assert_eq!(told("http://nowhere.invalid/".to_owned()).await, "dns_failed");
    assert_eq!(told(format!("https://{plain_address}/")).await, "tls_failed");
    assert_eq!(told(format!("http://{silent_address}/")).await, "timeout");
    assert_eq!(told(format!("https://{silent_address}/")).await, "timeout");
    assert_eq!(told(format!("http://{plain_address}/")).await, "protocol_error");
    assert_eq!(told("http://169.254.169.254/".to_owned()).await, "address_not_permitted");
}

#[tokio::test]
async fn what_the_deployment_closes_is_closed_at_each_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = [
        Egress { ports: "443".to_owned().try_into().unwrap(), ..local() },
        Egress { deny: "127.0.0.0/8,::1".to_owned().try_into().unwrap(), ..local() },
        Egress { allow_http: true, allow: "10.0.0.0/8".to_owned().try_into().unwrap(), ..Egress::default() },
    ];
    for egress in closed {
        let sender = Sender::new(&settings(), egress.clone()).unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let attempted = attempt(&sender, &subscription(&format!("http://{host}:{port}/"))).await;
            assert_eq!(code(&attempted), "address_not_permitted", "{host}, {egress:?}");
        }
    }
    let nobody_came = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody_came.is_err());
}
