use std::sync::{Arc, Mutex};

use posthorn_core::egress::Egress;
use posthorn_core::outcome::Attempted;
use posthorn_process::sender::Sender;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::attempt::{attempt, code, settings, subscription};

/// A proxy on loopback that answers for plain `http` itself and opens no tunnel.
struct Proxy {
    port: u16,
    /// The heads of requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&asked)));
            }
        });
        Self { port, heads }
    }

    /// A sender to public addresses only, that goes out through it.
    fn sender(&self, host: &str) -> Sender {
        let proxy_url = format!("http://posthorn:s3cret@{host}:{}", self.port).try_into().unwrap();
        let settings = posthorn_process::sender::Settings { proxy_url, ..settings() };
        Sender::new(&settings, Egress { allow_http: true, ..Egress::default() }).unwrap()
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(connection: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut connection = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        connection.read_line(&mut head).await.unwrap();
    }
    let answer = if head.starts_with("CONNECT ") { "502 Bad Gateway" } else { "200 OK" };
    heads.lock().unwrap().push(head);
    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
    connection.write_all(answer.as_bytes()).await.unwrap();
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn deliveries_go_through_the_proxy_which_resolves_names() {
    let proxy = Proxy::start().await;

    for host in ["127.0.0.1", "localhost"] {
        let answered = attempt(&proxy.sender(host), &subscription("http://hooks.invalid/in?team=1")).await;
        assert_eq!(answered.attempted, Attempted::Accepted, "{:?}", answered.error);
    }

    for head in proxy.heads() {
        assert!(head.starts_with("POST http://hooks.invalid/in?team=1 HTTP/1.1\r\n"), "{head}");
        // posthorn:s3cret
        assert!(head.to_lowercase().contains("proxy-authorization: basic cg9zdghvcm46cznjcmv0"), "{head}");
    }
}

#[tokio::test]
async fn a_tunnel_is_asked_for_where_the_endpoint_has_tls() {
    let proxy = Proxy::start().await;

    let answered = attempt(&proxy.sender("127.0.0.1"), &subscription("https://hooks.invalid/in?team=1")).await;

    assert_eq!(code(&answered), "connection_failed");
    assert!(proxy.heads()[0].starts_with("CONNECT hooks.invalid:443 HTTP/1.1\r\n"), "{:?}", proxy.heads());
    assert!(!proxy.heads()[0].contains("team"), "what is in the URL is between us and the endpoint");
}

#[tokio::test]
async fn an_address_in_the_url_is_judged_before_the_proxy_hears_of_it() {
    let proxy = Proxy::start().await;

    for url in ["http://127.0.0.1/", "https://10.0.0.1/", "https://[::ffff:169.254.169.254]/", "http://localhost/"] {
        let answered = attempt(&proxy.sender("127.0.0.1"), &subscription(url)).await;
        assert_eq!(code(&answered), "address_not_permitted", "{url}");
    }

    assert_eq!(proxy.heads(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_is_down_is_not_told_as_an_endpoint_that_refuses() {
    let proxy = Proxy {
        port: TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port(),
        heads: Arc::default(),
    };

    let answered = attempt(&proxy.sender("127.0.0.1"), &subscription("https://hooks.invalid/")).await;

    assert_eq!(code(&answered), "connection_failed");
}
