//! The life of an event and its deliveries as a model: record, broker, dispatcher, workers, receiver and clock are values, and a
//! step is a function from one [`World`] to the next.
//!
//! Who plays: [`row`] is the record, statement by statement; [`message`] what the broker carries; [`worker`] what is in hand;
//! [`step`] everything that can happen, faults and people included; [`act`] what it does, with the decisions of
//! `posthorn_core`; [`broken`] what must hold. [`explore`] follows every order of events within bounds, or walks at random by seed
//! and shrinks what it finds to a [`story`].
//!
//! What holds: from every world that can come about, the delivery comes to its end if nothing more fails; a receiver that has
//! accepted hears no more of that generation unless the worker that knew of it died; see [`broken::Broken`].
//!
//! What it does not do: batches, ordered subscriptions, breakers, rate limits, chunks of a wide event, clocks that differ. And it
//! is no proof of the code: that it speaks of the real statements is shown by the testkit's `machine`, which gives both the same
//! steps, and that the processes keep to the protocol by the live run.

pub mod act;
mod bag;
pub mod broken;
pub mod explore;
mod fingerprint;
pub mod message;
pub mod moment;
mod possible;
pub mod row;
pub mod sabotage;
pub mod step;
pub mod story;
pub mod worker;
pub mod world;

pub use explore::{Bounds, Explored, Failure, Scene, Walks, deepening, exhaustive, random};
pub use sabotage::Sabotage;
pub use world::{Left, World};
