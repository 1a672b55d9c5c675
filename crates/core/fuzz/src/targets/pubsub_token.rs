//! A bearer token, a line break, and the key set that it is held against; without one, the vectors'.

use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{Material, Verdict};

use super::vectors::{Genuine, of_provider};

pub fn run(data: &[u8]) {
    let (token, keys) = super::first_line(data);
    let keys = String::from_utf8_lossy(keys);
    for genuine in of_provider("google_pubsub_oidc") {
        let headers: Headers = [("authorization", token.as_str())].into_iter().collect();
        let request = RawRequest { headers, ..genuine.request.clone() };
        let url = genuine.verifier.key_set_url().expect("a key set");
        let fetched = Material::default().with_key_set(url, &keys);
        let material = if keys.is_empty() { &genuine.material } else { &fetched };
        let verdict = genuine.verifier.judge(&request, None, genuine.vector.now(), material);
        if matches!(verdict, Ok(Verdict::Events { .. })) {
            assert!(is_genuine(&token), "a token that Google has not signed");
        }
    }
}

fn is_genuine(sent: &str) -> bool {
    let token = |authorization: &str| authorization.split_once(' ').map(|(_, token)| token.trim().to_owned());
    let of = |genuine: &Genuine| genuine.request.headers.get("authorization").and_then(token);
    of_provider("google_pubsub_oidc").any(|genuine| of(genuine) == token(sent))
}
