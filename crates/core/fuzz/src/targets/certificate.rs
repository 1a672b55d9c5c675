//! Certificates and public keys: the bytes as they are, and as DER in their armour.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Material, Verdict, Verifier};
use serde_json::json;

use super::vectors::of_provider;

pub fn run(data: &[u8]) {
    let encoded = STANDARD.encode(data);
    let armoured = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
    let text = String::from_utf8_lossy(data);
    let genuine = of_provider("ses_sns").next().expect("a vector of SES");
    for pem in [armoured.as_str(), &text] {
        let material = Material::default().with_certificate(certificate_url(&genuine.request), pem);
        match genuine.verifier.judge(&genuine.request, None, genuine.vector.now(), &material) {
            // Nothing but the key is read, so what stands around it may differ.
            Ok(Verdict::Needs(_)) | Err(_) => {}
            Ok(verdict) => assert_eq!(verdict, genuine.verdict),
        }
    }
    for algorithm in ["rsa_pkcs1_sha256", "ecdsa_p256_sha256", "ed25519"] {
        judge_with_key(algorithm, &encoded);
        judge_with_key(algorithm, &text);
    }
}

fn certificate_url(request: &RawRequest) -> String {
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("a message of SNS");
    body["SigningCertURL"].as_str().expect("the URL of a certificate").to_owned()
}

/// Whatever the key, a signature of zeros is not its own.
fn judge_with_key(algorithm: &str, key: &str) {
    let config = json!({ "public_keys": [key], "scheme": {
        "algorithm": algorithm, "key_encoding": "spki_base64", "signature": { "header": "x-sig" }, "signed": "{body}",
    } });
    let Ok(verifier) = Verifier::new(Provider::Generic, &config, vec![]) else { return };
    for len in [64, 70, 256] {
        let headers = [("x-sig", "00".repeat(len))].into_iter().collect();
        let request = RawRequest { method: "POST".into(), target: "/".into(), headers, body: "{}".into() };
        assert!(verifier.judge(&request, None, super::now(), &Material::default()).is_err());
    }
}
