//! Bodies of requests, looked into. Their bytes are never rewritten.

pub mod document;
pub mod form;
pub(crate) mod path;
pub(crate) mod text;
