//! What it costs to judge one genuine request, per scheme: `cargo bench -p posthorn-core`.
//!
//! The requests are the vectors of the tests; for HMAC schemes a body of 64 KiB is timed as well.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is not as expected")]

#[path = "../tests/it/world.rs"]
#[expect(dead_code, clippy::panic, reason = "shared with the tests, which use all of it and may panic")]
mod world;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use posthorn_core::provider::Provider;
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{Material, Verifier};
use serde_json::json;

fn each_scheme(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    for (_, vectors) in world::files(&world::own_directory()) {
        let genuine = vectors.into_iter().filter(|vector| vector.expect == "ok" && vector.event.is_some());
        let mut seen = vec![];
        for vector in genuine {
            let name = if vector.provider == "generic" { vector.name.clone() } else { vector.provider.clone() };
            if seen.contains(&name) {
                continue;
            }
            let verifier = vector.verifier().unwrap();
            let (request, now, material) = (vector.request(), vector.now(), vector.material(&verifier));
            assert!(verifier.judge(&request, None, now, &material).is_ok(), "{name}");
            group.bench_function(&name, |b| b.iter(|| verifier.judge(black_box(&request), None, now, &material)));
            seen.push(name);
        }
    }
    group.finish();
}

fn a_large_body(criterion: &mut Criterion) {
    let now = Timestamp::from_second(1_782_864_000).unwrap();
    let body = json!({ "id": "evt_1", "type": "invoice.paid", "data": "x".repeat(64 * 1024) }).to_string();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let tag = ring::hmac::sign(&key, format!("{}.{body}", now.as_second()).as_bytes());
    let signature = format!("t={},v1={}", now.as_second(), hex::encode(tag));
    let request = RawRequest {
        method: "POST".to_owned(),
        target: "/webhooks/stripe".to_owned(),
        headers: [("Stripe-Signature", signature)].into_iter().collect::<Headers>(),
        body: body.into(),
    };
    let verifier = Verifier::new(Provider::Stripe, &json!({}), vec!["secret".into()]).unwrap();
    let mut group = criterion.benchmark_group("verify_64_KiB");
    group.throughput(Throughput::Bytes(request.body.len() as u64));
    let material = Material::default();
    group.bench_function("stripe", |b| b.iter(|| verifier.judge(black_box(&request), None, now, &material)));
    group.finish();
}

criterion_group!(benches, each_scheme, a_large_body);
criterion_main!(benches);
