//! Whether a provider's request is genuine, and what it says happened.
