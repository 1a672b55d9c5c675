//! The vectors of core: genuine requests, which nobody here can sign anew.

use std::path::Path;
use std::sync::LazyLock;

use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Material, Verdict, Verifier};

use crate::world::{Vector, files};

/// A genuine request, and the source that accepts it.
pub(super) struct Genuine {
    pub(super) vector: Vector,
    pub(super) verifier: Verifier,
    pub(super) material: Material,
    pub(super) request: RawRequest,
    pub(super) verdict: Verdict,
}

impl Genuine {
    /// `provider/vector`
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.vector.provider, self.vector.name)
    }
}

/// Every vector that is accepted.
pub(super) static GENUINE: LazyLock<Vec<Genuine>> = LazyLock::new(|| {
    // The manifest's directory is core's own in its tests, and one below it when fuzzed.
    let places = ["tests/vectors", "../tests/vectors"].map(|place| Path::new(env!("CARGO_MANIFEST_DIR")).join(place));
    let directory = places.into_iter().find(|place| place.exists()).expect("the vectors");
    let vectors = files(&directory).into_iter().flat_map(|(_, vectors)| vectors);
    vectors.filter(|vector| vector.expect == "ok").filter_map(genuine).collect()
});

pub(super) fn of_provider(name: &str) -> impl Iterator<Item = &'static Genuine> {
    GENUINE.iter().filter(move |genuine| genuine.vector.provider == name)
}

fn genuine(vector: Vector) -> Option<Genuine> {
    let verifier = vector.verifier().ok()?;
    let (material, request) = (vector.material(&verifier), vector.request());
    let verdict = verifier.judge(&request, vector.path_event(), vector.now(), &material).ok()?;
    Some(Genuine { verifier, material, request, verdict, vector })
}
