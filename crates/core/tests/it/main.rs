//! The core as its users call it: on vectors, and on whatever chance makes.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod garbage;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod imitations;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod world;
