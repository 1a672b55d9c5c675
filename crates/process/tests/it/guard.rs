use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthorn_core::egress::Egress;
use posthorn_core::endpoint::EndpointUrl;
use posthorn_core::outcome::Attempted;
use posthorn_process::sender::Sender;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::attempt::{attempt, code, settings, subscription};

/// Hosts, each of which stands for a place that no delivery may reach.
const HOSTS: [&str; 96] = [
    // As everybody writes them.
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    // One number.
    "2130706433",
    "2852039166",
    "167772161",
    "3232235521",
    "2886729729",
    "0",
    // Octal.
    "0177.0.0.1",
    "0177.0.0.01",
    "017700000001",
    "00000177.0.0.1",
    "0251.0376.0251.0376",
    "012.0.0.1",
    "0300.0250.0.1",
    // Hexadecimal.
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0x7F.0x0.0x0.0x1",
    "0X7F.1",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0x0a000001",
    "0x0",
    "0x",
    // Short.
    "127.1",
    "127.0.1",
    "10.1",
    "192.168.1",
    "169.254.43518",
    "127.65535",
    // Mixed, and with zeros in front.
    "0x7f.0.1",
    "0177.0x0.0.1",
    "127.000.000.001",
    "0xa9.254.0251.254",
    // With a dot at the end.
    "127.0.0.1.",
    "2130706433.",
    "0x7f.1.",
    "localhost.",
    // IPv6.
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[fe80::1%25lo]",
    "[::1%lo]",
    // IPv4 inside.
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:7f00:1:0:0:80ff:fffe]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    // Names of this machine and of the local network.
    "localhost",
    "LOCALHOST",
    "hooks.localhost",
    "printer.local",
    "metadata.google.internal",
    "router.home.arpa",
    // Escaped.
    "127.0.0.%31",
    "%31%32%37.0.0.1",
    "%6c%6f%63%61lhost",
    "127%2e0%2e0%2e1",
    // Other characters that are read as these.
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127｡0｡0｡1",
    "ｌｏｃａｌｈｏｓｔ",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u{ad}alhost",
];

/// Whole URLs in which one parser sees such a place, and another perhaps not; `PORT` is the listener's.
const URLS: [&str; 18] = [
    "http://user:password@127.0.0.1:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://example.com:80@127.0.0.1:PORT/",
    "http://@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT#@example.com/",
    "http://example.com#@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@example.com/",
    "http://example.com\\@127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0\t.1:PORT/",
    "http://127.0.0.1\n:PORT/",
    "HTTP://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/",
];

/// Public addresses only, by http as well.
fn public() -> Egress {
    Egress { allow_http: true, ..Egress::default() }
}

#[tokio::test]
async fn no_spelling_of_a_place_that_is_not_public_is_registered_or_reached() {
    let all = TcpListener::bind("[::]:0").await;
    let listener = if let Ok(listener) = all { listener } else { TcpListener::bind("0.0.0.0:0").await.unwrap() };
    let port = listener.local_addr().unwrap().port().to_string();
    let sender = Sender::new(&settings(), public()).unwrap();

    let hosts = HOSTS.iter().map(|host| format!("http://{host}:{port}/"));
    for url in hosts.chain(URLS.iter().map(|url| url.replace("PORT", &port))) {
        assert!(EndpointUrl::parse(&url, &public()).is_err(), "{url} is registered");
        // What is no endpoint anywhere is in no subscription either.
        if let Ok(endpoint) = EndpointUrl::known(&url) {
            assert!(endpoint.permit(&public()).is_err(), "{url} is permitted");
            assert_eq!(code(&attempt(&sender, &subscription(&url)).await), "address_not_permitted", "{url}");
        }
    }

    let nobody_came = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody_came.is_err());
}

/// Answers with one list of addresses after the other.
struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let answers = answers.iter().map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect());
        Arc::new(Self(Mutex::new(answers.collect())))
    }

    fn is_used_up(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Resolve for Script {
    fn resolve(&self, _: Name) -> Resolving {
        let answer = self.0.lock().unwrap().pop_front().unwrap();
        Box::pin(async move { Ok(Box::new(answer.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_is_refused_for_every_private_address_that_it_leads_to() {
    let addresses =
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"];
    for address in addresses {
        let script = Script::new(&[&[address]]);
        let sender = Sender::resolving_by(script.clone(), &settings(), public()).unwrap();
        let answered = attempt(&sender, &subscription("http://hooks.example.com/")).await;
        assert_eq!(code(&answered), "address_not_permitted", "{address}");
        assert!(script.is_used_up());
    }
}

/// Loopback has two addresses here of which the guard permits one, in the place of a public and a private one:
/// both can be listened at.
#[tokio::test]
async fn a_name_that_turns_private_after_the_check_never_leads_there() {
    let private = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = private.local_addr().unwrap().port();
    let public = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = public.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    let allow = "127.0.0.2".to_owned().try_into().unwrap();
    let script = Script::new(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1", "127.0.0.2"]]);
    let egress = Egress { allow_http: true, allow, ..Egress::default() };
    let sender = Sender::resolving_by(script.clone(), &settings(), egress).unwrap();
    let subscription = subscription(&format!("http://hooks.example.com:{port}/"));

    let first = attempt(&sender, &subscription).await;
    assert_eq!(first.attempted, Attempted::Accepted, "one answer is checked and dialled: {:?}", first.error);
    assert_eq!(code(&attempt(&sender, &subscription).await), "address_not_permitted");
    let both = attempt(&sender, &subscription).await;
    assert_eq!(both.attempted, Attempted::Accepted, "only what is permitted is dialled: {:?}", both.error);

    assert!(script.is_used_up());
    let nobody_came = tokio::time::timeout(Duration::from_millis(50), private.accept()).await;
    assert!(nobody_came.is_err());
}
