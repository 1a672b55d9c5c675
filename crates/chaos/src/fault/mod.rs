//! What is done to the world: kinds of faults, how each is brought about and lifted, and how long recovery takes.

pub mod acts;
pub mod drill;
pub mod kind;
pub mod strike;
