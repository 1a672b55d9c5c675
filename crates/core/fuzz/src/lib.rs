//! What the fuzz targets run. The tests of core run the same on the kept corpus.

pub mod targets;
#[path = "../../tests/it/world.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod world;
