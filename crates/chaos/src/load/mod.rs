//! The load: who sends what to whom, all of it drawn from the seed.

pub mod nature;
pub mod plan;
pub mod provider;
pub mod sender;
pub mod stage;
